"""The server's side of one four-tuple, rebuilt from what crossed the wire.

A :class:`Socket` follows the states of RFC 9293 section 3.3.2 as Linux keeps them, from the
originator's packets and the responder's FINs, RSTs and data.  SYN-ACKs play no part: whether a SYN
was taken is the model's own prediction until the third ACK shows it.
"""

from enum import IntEnum

from analyzer.units import NO_TIME


class Phase(IntEnum):
    """State of a four-tuple at the server; FIN_WAIT2 covers both the full socket and the small bucket."""

    NONE = 0
    SYN_RECV = 1
    OPEN = 2  # ESTABLISHED, CLOSE_WAIT
    FIN_WAIT1 = 3
    FIN_WAIT2 = 4
    CLOSING = 5
    LAST_ACK = 6
    TIME_WAIT = 7


LIVE = (Phase.OPEN, Phase.FIN_WAIT1, Phase.CLOSING, Phase.LAST_ACK)


class Socket:
    """One four-tuple's socket, request or bucket.

    Attributes:
        phase: Where it stands.
        conn: Connection id it belongs to.
        sure: False if its existence rests on a prediction that was only possible.
        before: What stands on the four-tuple if it does not exist after all.
        by_listener: Whether the SYN went through the listener (not through a bucket).
        isn: The originator's initial sequence number (SYN_RECV).
        has_ts: Whether the connection uses timestamps.
        ts_recent, ts_recent_time: As the server stores them.
        ts_frame, ts_file: The frame that brought it.
        rcv_nxt, rcv_wnd: Next expected sequence number and window, as last acknowledged.
        born: Time of the SYN (SYN_RECV) or of the last move.
        armed, life_lo, life_hi: When the bucket's timer was set and the bounds of its life, ns.
        last_ack: Time of the last rate-limited ACK sent from here, NO_TIME if none.
        asked: Time of a SYN that should have been answered from here and was not yet, NO_TIME if none.
        open_fd: True if data acknowledged after the FIN proves that the descriptor is open.
        midstream: True while what happened before the capture may matter: FINs may have gone unseen.
        rtt_lo, rtt_hi: Round-trip bounds of the connection, ns; hi is 0 when never measured.
    """

    sure = True
    before: "Socket | None" = None
    isn = rcv_nxt = rcv_wnd = ts_recent = fin_end = 0
    has_ts = False
    ts_frame = ts_file = 0
    ts_recent_time = NO_TIME
    life_lo = life_hi = 0
    last_ack = asked = NO_TIME
    open_fd = midstream = by_listener = False
    rtt_lo = rtt_hi = 0

    def __init__(self, phase: Phase, conn: int, born: int) -> None:
        self.phase = phase
        self.conn = conn
        self.born = self.armed = born

    def arm(self, now: int, life: tuple[int, int]) -> None:
        """Set the bucket's timer at *now* with the given bounds of its life in ns."""
        self.armed = now
        self.life_lo, self.life_hi = life

    def may_be_gone(self, now: int) -> bool:
        """Whether a bucket's timer may have fired by *now*."""
        return self.is_bucket and now >= self.armed + self.life_lo

    @property
    def is_bucket(self) -> bool:
        """Whether a timer may end it: TIME_WAIT, and FIN_WAIT2 unless its descriptor is known to be open."""
        return self.phase is Phase.TIME_WAIT or (self.phase is Phase.FIN_WAIT2 and not self.open_fd)

    def is_gone(self, now: int) -> bool:
        """Whether a bucket's timer has certainly fired by *now*; a FIN_WAIT2 may be a full socket, which has none."""
        return self.phase is Phase.TIME_WAIT and now > self.armed + self.life_hi
