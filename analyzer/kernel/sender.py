"""A sender's memory: what is unacknowledged, when to repeat it, how long a round trip takes.

RFC 6298 with Linux' constants: RTO = srtt + max(200 ms, 4 * rttvar), doubled at each repetition.
net/ipv4/tcp_input.c ``tcp_rtt_estimator``, net/ipv4/tcp_timer.c ``tcp_retransmit_timer``.
"""

from dataclasses import dataclass

from analyzer.kernel.rules import NS_PER_MS, RTO_MIN_NS
from analyzer.seqnum import add32, d32

RTO_MAX_NS = 120_000 * NS_PER_MS


@dataclass(slots=True)
class Unacked:
    """One segment in flight; ``end`` is the number after its last byte, a FIN counting as one."""

    seq: int
    end: int
    flags: int
    length: int
    sent: int
    repeated: bool = False


class Sender:
    """Sending half of one connection.

    Attributes:
        una, nxt: Oldest unacknowledged number, next number to send.
        flight: Segments in flight, oldest first.
        rto: Current timeout in ns, backoff not included.
        backoff: How often the oldest segment was repeated since the last progress.
        due: When the oldest segment is to be repeated, None if nothing is in flight.
    """

    __slots__ = ("_var", "backoff", "due", "flight", "nxt", "rto", "srtt", "start", "una")

    def __init__(self, start: int, rto: int) -> None:
        self.start = start
        self.una = self.nxt = add32(start, 1)
        self.flight: list[Unacked] = []
        self.srtt = 0
        self._var = 0
        self.rto = rto
        self.backoff = 0
        self.due: int | None = None

    def sample(self, rtt: int) -> None:
        """Take one measured round trip, ns."""
        rtt = max(rtt, NS_PER_MS)
        if not self.srtt:
            self.srtt, self._var = rtt, rtt // 2
        else:
            self._var = (3 * self._var + abs(self.srtt - rtt)) // 4
            self.srtt = (7 * self.srtt + rtt) // 8
        self.rto = min(RTO_MAX_NS, self.srtt + max(RTO_MIN_NS, 4 * self._var))

    def push(self, now: int, flags: int, length: int, extra: int = 0) -> Unacked:
        """Put one segment in flight; *extra* is 1 for a FIN."""
        segment = Unacked(self.nxt, add32(self.nxt, length + extra), flags, length, now)
        self.nxt = segment.end
        self.flight.append(segment)
        if self.due is None:
            self.due = now + self.rto
        return segment

    def acknowledge(self, ack: int, now: int) -> bool:
        """Take an ACK number; returns whether it was acceptable (neither old nor of unsent bytes)."""
        if d32(ack, self.una) < 0 or d32(ack, self.nxt) > 0:
            return False
        if ack == self.una:
            return True
        self.una = ack
        newest: Unacked | None = None
        while self.flight and d32(self.flight[0].end, ack) <= 0:
            newest = self.flight.pop(0)
        if newest is not None and not newest.repeated:
            self.sample(now - newest.sent)
        self.backoff = 0
        self.due = now + self.rto if self.flight else None
        return True

    def repeat(self, now: int) -> Unacked | None:
        """The segment to send again now, its timer doubled; None if nothing is in flight."""
        if not self.flight:
            self.due = None
            return None
        first = self.flight[0]
        first.repeated = True
        self.backoff += 1
        self.due = now + min(RTO_MAX_NS, self.rto << min(self.backoff, 10))
        return first
