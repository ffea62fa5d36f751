"""How full the listener's queues are, from what the wire shows.

The SYN queue is counted.  A SYN counts as taken once its SYN-ACK has been seen; until then (for
:data:`SILENCE` at most) the model's own prediction stands, so no SYN is judged by its own answer.
The accept queue empties unseen, so it is bounded: connections leave it in order, and data or a FIN
from the application proves that its connection, and every one queued before it, has left.  An
accepted connection while the count says "full" proves that more had left than were seen to.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from analyzer.kernel import rules
from analyzer.kernel.profiles import Profile
from analyzer.kernel.settings import Settings
from analyzer.replay.backlog import AcceptQueue, Requests
from analyzer.replay.memory import SILENCE
from analyzer.replay.reach import NO_ANSWERS, Reach

if TYPE_CHECKING:
    from analyzer.replay.judge import Ruling

BACKLOG_UNKNOWN = "the listener's backlog is not known (--backlog)"
HALF_OPEN = "depends on how many half-open requests the listener held"
LAST_QUARTER = "the SYN queue is in its last quarter, kept for proven peers"
REFUSED_LATELY = "the SYNs just before it should have been taken and were not answered: settings may differ"
FEW_REQUESTS = 8
"""An unknown backlog makes at least this much room for half-open requests."""
SMALLEST_BACKLOG = 1
"""What an unknown backlog may be at the least: above this fill a verdict is no longer certain."""
FEW_MISSES = 2
"""Unanswered SYNs in a row from so many peers, with a queue to blame, outweigh the settings that were given."""


class Speakers(Protocol):
    """Who speaks on a chain."""

    def originator(self, chain: int) -> int:
        """Host id of the client."""

    def listener(self, chain: int) -> object:
        """Key of the listener."""


class Queues:
    """SYN queue and accept queue of one listener.

    Args:
        profile: Kernel rules.
        settings: Sysctls; ``backlog`` None means that the listener's backlog is not known.
        peer_of: Address of a chain's originator, for the peers that the last quarter is kept for.
        reach: What is known of the server's way back.
        at_server: False if third ACKs may have reached the server in another order than they were seen.
    """

    def __init__(
        self,
        profile: Profile,
        settings: Settings,
        peer_of: Callable[[int], int],
        reach: Reach,
        at_server: bool = True,
    ) -> None:
        self.profile = profile
        self.reach = reach
        self.settings = settings
        self.peer_of = peer_of
        self.at_server = at_server
        self.backlog = settings.backlog
        self.assumed = self.backlog if self.backlog is not None else (settings.somaxconn or 128)
        self.most_syns = settings.max_syn_backlog or 512
        limit = rules.syn_queue_limit(profile, self.assumed, self.most_syns)
        self.requests = Requests(limit, settings.synack_retries or 5)
        self.accepts = AcceptQueue()
        self.known_peers: set[int] = set()
        self._missed_peers: set[int] = set()  # whose SYNs should have been taken, since the last that was
        self._open: dict[int, tuple[int, str]] = {}  # SYNs whose answer is still to come: (time, verdict)
        self._asked: deque[tuple[int, int]] = deque()
        self._turned_away: set[int] = set()  # third ACKs that a full accept queue probably left half-open

    # ---- what packets tell --------------------------------------------------------------------

    def syn(self, chain: int, now: int, ruling: Ruling) -> None:
        """A SYN was judged."""
        if not ruling.by_listener or ruling.repeats:
            return
        self._open[chain] = (now, ruling.verdict)
        self._asked.append((now, chain))
        if ruling.verdict == "accept":
            self.requests.add(chain, now)

    def answered(self, chain: int, born: int) -> None:
        """The SYN-ACK to the SYN that came at *born* was seen."""
        asked = self._open.get(chain)
        if asked is None or asked[0] != born:
            return
        del self._open[chain]
        self._missed_peers.clear()
        if asked[1] == "drop" and not self.settings.syncookies and self.backlog is not None:
            self.requests.had_room(self._most_not_full)
        if asked[1] != "cookie":
            self.requests.confirm(chain, born)

    def _settle(self, now: int) -> None:
        """SYNs that got no SYN-ACK in time were not taken."""
        asked = self._asked
        while asked and asked[0][0] < now - SILENCE:
            born, chain = asked.popleft()
            left = self._open.get(chain)
            if left is not None and left[0] == born:
                del self._open[chain]
                self.requests.deny(chain, born)
                if left[1] != "drop":
                    self._missed(chain, born)

    def _missed(self, chain: int, born: int) -> None:
        """A SYN that should have been taken was not."""
        peer = self.peer_of(chain)
        if not self.reach.shown(peer, born + SILENCE):
            self.reach.missed(peer)
            return
        self._missed_peers.add(peer)
        waiting = len(self.accepts) + len(self._turned_away)
        if self.backlog is not None and rules.accept_queue_full(waiting, self.backlog):
            return  # the accept queue may be the reason
        if self._crowded(self.requests.most) and not self._crowded(len(self.requests)):
            self.requests.none_given_up()

    @property
    def _refuses_lately(self) -> bool:
        """Whether the last SYNs that should have been taken were not: the peers' clocks cannot be the reason."""
        return len(self._missed_peers) >= FEW_MISSES

    @property
    def _most_not_full(self) -> int:
        """Longest SYN queue that still takes a request."""
        limit = self.requests.limit
        return limit - rules.syn_queue_full(self.profile, limit, limit)

    def _crowded(self, length: int) -> bool:
        """Whether a SYN may be refused at this length of the SYN queue."""
        quarter = rules.last_quarter(length, self.most_syns, self.settings.syncookies or 0)
        return quarter or rules.syn_queue_full(self.profile, length, self.requests.limit)

    def third_ack(self, chain: int) -> None:
        """The originator completed the handshake: request → accept queue, if that has room (kernel model A4)."""
        self._open.pop(chain, None)
        full = self.backlog is not None and self.at_server
        if full and rules.accept_queue_full(len(self.accepts) - self.accepts.hidden_accepts, self.assumed):
            reset = bool(self.settings.abort_on_overflow)  # a RST ends the request; else it stays half-open
            if self.requests.remove(chain) if reset else self.requests.doubt(chain):
                self._turned_away.add(chain)
        elif self.requests.remove(chain):
            self.accepts.add(chain)

    def alive(self, chain: int, application: bool) -> None:
        """The responder spoke on an established connection: its kernel had room, or its application works."""
        if chain in self._turned_away:
            self._turned_away.discard(chain)
            self.requests.remove(chain)
            self.accepts.add(chain)
        if application:
            self.known_peers.add(self.peer_of(chain))
            self.accepts.taken(chain)
        else:
            self.accepts.had_room(chain, self.assumed)

    def cookies_likely(self) -> bool:
        """Whether SYNs may be answered by cookies, which pass every test unseen."""
        if not self.settings.syncookies:
            return False
        length = self.requests.most
        return 2 * length >= self.requests.limit or (self.backlog is None and length > FEW_REQUESTS)

    def gone(self, chain: int) -> None:
        """A request was reset."""
        self._open.pop(chain, None)
        self._turned_away.discard(chain)
        self.requests.remove(chain)

    # ---- what follows for a SYN ------------------------------------------------------------------

    def judge_syn(self, chain: int, now: int, ruling: Ruling, has_ts: bool) -> str:
        """Steps L5, L6, L9 for a SYN at the listener; changes *ruling*, returns what is in doubt."""
        self._settle(now)
        self.requests.run_timers(now)
        if self.reach.refuses(self.peer_of(chain), now):
            ruling.verdict, ruling.rule, ruling.certain, ruling.reason = "drop", "no_route", False, NO_ANSWERS
            return ""
        length, limit = len(self.requests), self.requests.limit
        if rules.syn_queue_full(self.profile, length, limit):
            sure = self.backlog is not None and rules.syn_queue_full(self.profile, self.requests.least(now), limit)
            cookies = bool(self.settings.syncookies)
            ruling.verdict, ruling.rule = ("cookie", "syn_cookie") if cookies else ("drop", "syn_queue_full")
            ruling.certain, ruling.reason = sure, "" if sure else HALF_OPEN
            return ""
        doubt = self.judge_accept_queue(ruling)
        if ruling.verdict != "accept":
            return ""
        if rules.last_quarter(length, self.most_syns, self.settings.syncookies or 0):
            lately = self._refuses_lately and self.profile.proven != "RTT"
            if lately or self._unproven(chain, has_ts):
                ruling.verdict, ruling.rule, ruling.certain = "drop", "last_quarter", False
                ruling.reason = REFUSED_LATELY if lately else HALF_OPEN
                return ""
            return LAST_QUARTER
        if self.backlog is None and length > FEW_REQUESTS:
            if self._refuses_lately:
                ruling.verdict, ruling.rule, ruling.certain = "drop", "syn_queue_full", False
                ruling.reason = REFUSED_LATELY
            return BACKLOG_UNKNOWN
        return doubt or (HALF_OPEN if self._crowded(self.requests.most + 2) else "")

    def _unproven(self, chain: int, has_ts: bool) -> bool:
        """Whether step L9 is reached and the peer is not proven (2.6.3)."""
        recycles = bool(self.settings.tw_recycle)
        if self.profile.proven == "RTT":
            return self.peer_of(chain) not in self.known_peers
        if self.profile.tw_recycle and recycles:
            return self.profile.proven != "never" and not has_ts
        return True

    def judge_accept_queue(self, ruling: Ruling) -> str:
        """Step L6; changes *ruling* if the queue is likely full, returns what is in doubt."""
        most = len(self.accepts) + (len(self._turned_away) if self.at_server else len(self.requests))
        if self.backlog is None and most <= SMALLEST_BACKLOG:
            return ""
        if self.backlog is None:
            if self._refuses_lately:
                ruling.verdict, ruling.rule, ruling.certain = "drop", "accept_queue_full", False
                ruling.reason = REFUSED_LATELY
            return BACKLOG_UNKNOWN
        if not rules.accept_queue_full(most, self.backlog):
            return ""
        likely = most - len(self._turned_away) - self.accepts.hidden_accepts
        if rules.accept_queue_drops(self.profile, likely, self.assumed, self.requests.young):
            ruling.verdict, ruling.rule, ruling.certain = "drop", "accept_queue_full", False
            ruling.reason = f"{most} completed connections were not seen to be accepted by the application"
            return ""
        ruling.alternative = ruling.alternative or "accept_queue_full"
        return "the application may not have accepted its queue"


class Listeners:
    """The queues of every listener, made as their SYNs come.

    Args:
        profile, settings, at_server: As for :class:`Queues`; one backlog is taken for all.
        chains: Who speaks on each chain: ``originator(chain)`` and ``listener(chain)``.
        reach: What is known of the server's way back.
    """

    def __init__(self, profile: Profile, settings: Settings, chains: Speakers, reach: Reach, at_server: bool) -> None:
        self._make = lambda: Queues(profile, settings, chains.originator, reach, at_server)
        self._chains = chains
        self._queues: dict[object, Queues] = {}

    def of(self, chain: int) -> Queues:
        """The queues of the listener that *chain* speaks to."""
        key = self._chains.listener(chain)
        found = self._queues.get(key)
        if found is None:
            found = self._queues[key] = self._make()
        return found
