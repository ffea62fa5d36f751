"""How full the listener's queues can be, from what the wire shows.

The SYN queue is counted: every SYN taken and not yet completed.  The accept queue empties unseen,
so it is bounded: connections leave it in order, and data or a FIN from the application proves that
its connection, and every one queued before it, has left.  An accepted connection while the count
says "full" proves that more had left than were seen to.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from analyzer.kernel import rules
from analyzer.kernel.profiles import Profile
from analyzer.kernel.settings import Settings
from analyzer.units import NS

if TYPE_CHECKING:
    from analyzer.replay.judge import Ruling

BACKLOG_UNKNOWN = "the listener's backlog is not known (--backlog)"
HALF_OPEN = "depends on how many half-open requests the listener held"
SURE_LIFE = 7 * NS
"""No request is given up sooner: three timeouts, even in a crowded queue."""

LONGEST_LIFE = 63 * NS


class Speakers(Protocol):
    """Who speaks on a chain."""

    def originator(self, chain: int) -> int:
        """Host id of the client."""

    def listener(self, chain: int) -> object:
        """Key of the listener."""


FEW_REQUESTS = 8
"""An unknown backlog makes at least this much room for half-open requests."""
SMALLEST_BACKLOG = 1
"""What an unknown backlog may be at the least: above this fill a verdict is no longer certain."""


@dataclass
class Request:
    """A half-open request: when it came, whether that is sure, and its SYN-ACK timer."""

    born: int
    sure: bool
    timeouts: int
    due: int


class Queues:
    """SYN queue and accept queue of one listener.

    Args:
        profile: Kernel rules.
        settings: Sysctls; ``backlog`` None means that the listener's backlog is not known.
        peer_of: Address of a chain's originator, for the peers that the last quarter is kept for.
        at_server: False if third ACKs may have reached the server in another order than they were seen.
    """

    def __init__(
        self, profile: Profile, settings: Settings, peer_of: Callable[[int], int], at_server: bool = True
    ) -> None:
        self.profile = profile
        self.settings = settings
        self.peer_of = peer_of
        self.at_server = at_server
        self.backlog = settings.backlog
        self.assumed = self.backlog if self.backlog is not None else (settings.somaxconn or 128)
        self.most_syns = settings.max_syn_backlog or 512
        self.syn_limit = rules.syn_queue_limit(profile, self.assumed, self.most_syns)
        self.requests: dict[int, Request] = {}
        self.given_up: dict[int, int] = {}  # requests that a crowded queue probably dropped early
        self.waiting: list[int] = []  # chains whose third ACK came, in order, not known to be accepted
        self.hidden_accepts = 0
        self.known_peers: set[int] = set()

    # ---- what packets tell --------------------------------------------------------------------

    def syn(self, chain: int, now: int, ruling: Ruling) -> None:
        """A SYN was judged."""
        if ruling.verdict == "accept" and not ruling.repeats:
            self.requests[chain] = Request(now, ruling.certain, 0, now + NS)

    def third_ack(self, chain: int) -> None:
        """The originator completed the handshake: request → accept queue."""
        if self.requests.pop(chain, None) is not None:
            self.waiting.append(chain)

    def alive(self, chain: int, application: bool) -> None:
        """The responder spoke on an established connection: its kernel had room, or its application works."""
        if application:
            self.known_peers.add(self.peer_of(chain))
        if chain not in self.waiting:
            return
        index = self.waiting.index(chain)
        if application:
            del self.waiting[: index + 1]
            self.hidden_accepts = min(self.hidden_accepts, len(self.waiting))
        else:
            self.hidden_accepts = max(self.hidden_accepts, index - self.assumed)

    def cookies_likely(self) -> bool:
        """Whether SYNs may be answered by cookies, which pass every test unseen."""
        length = len(self.requests) + len(self.given_up)
        crowded = 2 * length >= self.syn_limit or (self.backlog is None and length > FEW_REQUESTS)
        return bool(self.settings.syncookies) and crowded

    def gone(self, chain: int) -> None:
        """A request was reset."""
        self.requests.pop(chain, None)

    # ---- what follows for a SYN ------------------------------------------------------------------

    def _run_timers(self, now: int) -> None:
        """Fire SYN-ACK timers; a queue more than half full gives its old requests up early.

        net/ipv4/inet_connection_sock.c ``reqsk_timer_handler``, up to 4.3 ``inet_csk_reqsk_queue_prune``.
        """
        while True:
            due = [(r.due, chain) for chain, r in self.requests.items() if r.due <= now]
            if not due:
                return
            for when, chain in sorted(due):
                request = self.requests[chain]
                if request.timeouts >= self._allowed():
                    del self.requests[chain]
                    if request.timeouts < (self.settings.synack_retries or 5):
                        self.given_up[chain] = request.born
                else:
                    request.timeouts += 1
                    request.due = when + (NS << request.timeouts)

    def _allowed(self) -> int:
        """SYN-ACK timeouts that a request may have: fewer while young requests are few in a half-full queue."""
        allowed, length = self.settings.synack_retries or 5, len(self.requests)
        if length * 2 > max(8, self.syn_limit):
            young = 2 * self._young()
            while allowed > 2 and length >= young:
                allowed -= 1
                young *= 2
        return allowed

    def _young(self) -> int:
        return sum(not r.timeouts for r in self.requests.values())

    def judge_syn(self, chain: int, now: int, ruling: Ruling, has_ts: bool) -> str:
        """Steps L5, L6, L9 for a SYN at the listener; changes *ruling*, returns what is in doubt."""
        self._run_timers(now)
        length = len(self.requests)
        for gone in [c for c, born in self.given_up.items() if now - born > LONGEST_LIFE]:
            del self.given_up[gone]
        most = length + len(self.given_up)
        least = sum(r.sure and now - r.born < SURE_LIFE for r in self.requests.values())
        if rules.syn_queue_full(self.profile, length, self.syn_limit):
            sure = self.backlog is not None and rules.syn_queue_full(self.profile, least, self.syn_limit)
            cookies = bool(self.settings.syncookies)
            ruling.verdict, ruling.rule = ("cookie", "syn_cookie") if cookies else ("drop", "syn_queue_full")
            ruling.certain, ruling.reason = sure, "" if sure else HALF_OPEN
            return ""
        doubt = self.judge_accept_queue(ruling)
        if ruling.verdict != "accept":
            return ""
        if rules.last_quarter(length, self.most_syns, self.settings.syncookies or 0):
            if self._unproven(chain, has_ts):
                ruling.verdict, ruling.rule, ruling.certain, ruling.reason = "drop", "last_quarter", False, HALF_OPEN
                return ""
            return "the SYN queue is in its last quarter, kept for proven peers"
        if self.backlog is None and length > FEW_REQUESTS:
            return BACKLOG_UNKNOWN
        near = rules.syn_queue_full(self.profile, most + 2, self.syn_limit) or rules.last_quarter(
            most + 2, self.most_syns, self.settings.syncookies or 0
        )
        return doubt or (HALF_OPEN if near else "")

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
        most = len(self.waiting) + (0 if self.at_server else len(self.requests))
        if self.backlog is None and most <= SMALLEST_BACKLOG:
            return ""
        if self.backlog is None:
            return BACKLOG_UNKNOWN
        if not rules.accept_queue_full(most, self.backlog):
            return ""
        likely = most - self.hidden_accepts
        if rules.accept_queue_drops(self.profile, likely, self.assumed, self._young()):
            ruling.verdict, ruling.rule, ruling.certain = "drop", "accept_queue_full", False
            ruling.reason = f"{most} completed connections were not seen to be accepted by the application"
            return ""
        return "the application may not have accepted its queue"


class Listeners:
    """The queues of every listener, made as their SYNs come.

    Args:
        profile, settings, at_server: As for :class:`Queues`; one backlog is taken for all.
        chains: Who speaks on each chain: ``originator(chain)`` and ``listener(chain)``.
    """

    def __init__(self, profile: Profile, settings: Settings, chains: Speakers, at_server: bool) -> None:
        self._make = lambda: Queues(profile, settings, chains.originator, at_server)
        self._chains = chains
        self._queues: dict[object, Queues] = {}

    def of(self, chain: int) -> Queues:
        """The queues of the listener that *chain* speaks to."""
        key = self._chains.listener(chain)
        found = self._queues.get(key)
        if found is None:
            found = self._queues[key] = self._make()
        return found
