"""How full the listener's queues can be, from what the wire shows.

The SYN queue is counted: every SYN taken and not yet completed.  The accept queue empties unseen,
so it is bounded: connections leave it in order, and data or a FIN from the application proves that
its connection, and every one queued before it, has left.  An accepted connection while the count
says "full" proves that more had left than were seen to.
"""

from typing import Any

from analyzer.kernel import rules
from analyzer.kernel.profiles import Profile
from analyzer.kernel.settings import Settings
from analyzer.units import NS

SMALLEST_BACKLOG = 1
"""What an unknown backlog may be at the least: above this fill a verdict is no longer certain."""


class Queues:
    """SYN queue and accept queue of one listener.

    Args:
        profile: Kernel rules.
        settings: Sysctls; ``backlog`` None means that the listener's backlog is not known.
    """

    def __init__(self, profile: Profile, settings: Settings) -> None:
        self.profile = profile
        self.settings = settings
        self.backlog = settings.backlog
        self.assumed = self.backlog if self.backlog is not None else (settings.somaxconn or 128)
        self.syn_limit = rules.syn_queue_limit(profile, self.assumed, settings.max_syn_backlog or 512)
        self.requests: dict[int, tuple[int, bool]] = {}
        self.waiting: list[int] = []  # chains whose third ACK came, in order, not known to be accepted
        self.waiting_since: list[int] = []
        self.hidden_accepts = 0
        self.overflowing = False

    # ---- what packets tell --------------------------------------------------------------------

    def syn(self, chain: int, now: int, ruling: Any) -> None:
        """A SYN was judged."""
        if ruling.verdict == "accept" and not ruling.repeats:
            self.requests[chain] = (now, ruling.certain)

    def third_ack(self, chain: int, now: int) -> None:
        """The originator completed the handshake: request → accept queue."""
        if self.requests.pop(chain, None) is not None:
            self.waiting.append(chain)
            self.waiting_since.append(now)

    def alive(self, chain: int, now: int, application: bool) -> None:
        """The responder spoke on an established connection: its kernel had room, or its application works."""
        if chain not in self.waiting:
            return
        index = self.waiting.index(chain)
        if application:
            del self.waiting[: index + 1]
            del self.waiting_since[: index + 1]
            self.hidden_accepts = min(self.hidden_accepts, len(self.waiting))
        else:
            self.hidden_accepts = max(self.hidden_accepts, index - self.assumed)

    def gone(self, chain: int, now: int) -> None:
        """A request was reset."""
        self.requests.pop(chain, None)

    # ---- what follows for a SYN ------------------------------------------------------------------

    def _expire(self, now: int) -> None:
        dead = [chain for chain, (born, _) in self.requests.items() if now - born > 63 * NS]
        for chain in dead:
            del self.requests[chain]

    def _young(self, now: int) -> int:
        return sum(now - born < NS for born, _ in self.requests.values())

    def judge_syn(self, chain: int, now: int, ruling: Any) -> str:
        """Steps L5, L6, L9 for a SYN at the listener; changes *ruling*, returns what is in doubt."""
        self._expire(now)
        length = len(self.requests)
        most, least = length, sum(sure for _, sure in self.requests.values())
        if rules.syn_queue_full(self.profile, most, self.syn_limit):
            sure = self.backlog is not None and rules.syn_queue_full(self.profile, least, self.syn_limit)
            ruling.certain = ruling.certain and sure
            ruling.reason = "" if sure else "depends on how many half-open requests the listener held"
            if self.settings.syncookies:
                ruling.verdict, ruling.rule = "cookie", "syn_cookie"
            else:
                ruling.verdict, ruling.rule = "drop", "syn_queue_full"
            return ""
        doubt = self.judge_accept_queue(chain, now, ruling)
        if ruling.verdict == "accept" and self._last_quarter(length):
            ruling.verdict, ruling.rule = "drop", "last_quarter"
            ruling.certain = least == most
            return ""
        near = rules.syn_queue_full(self.profile, most + 2, self.syn_limit)
        if self.backlog is None and length > 8:
            return "the listener's backlog is not known (--backlog)"
        return doubt or ("the SYN queue is within two of its limit" if near and most != least else "")

    def _last_quarter(self, length: int) -> bool:
        settings = self.settings
        if settings.syncookies or settings.tw_recycle:
            return False
        limit = settings.max_syn_backlog or 512
        return limit - length < limit >> 2

    def judge_accept_queue(self, chain: int, now: int, ruling: Any) -> str:
        """Step L6; changes *ruling* if the queue is likely full, returns what is in doubt."""
        most = len(self.waiting)
        if self.backlog is None and most <= SMALLEST_BACKLOG:
            return ""
        young = self._young(now)
        if self.backlog is not None and not rules.accept_queue_drops(self.profile, most, self.backlog, young):
            return ""
        likely = most - self.hidden_accepts
        if rules.accept_queue_drops(self.profile, likely, self.assumed, young):
            ruling.verdict, ruling.rule, ruling.certain = "drop", "accept_queue_full", False
            ruling.reason = f"{most} completed connections were not seen to be accepted by the application"
            return ""
        return (
            "the application may not have accepted its queue"
            if self.backlog is not None
            else ("the listener's backlog is not known (--backlog)")
        )
