"""What a live server holds for one four-tuple: a half-open request, a full socket, or a small bucket."""

from dataclasses import dataclass, field
from enum import IntEnum

from analyzer.kernel.events import Key
from analyzer.kernel.rules import Bucket
from analyzer.kernel.sender import Sender
from analyzer.seqnum import add32

RECEIVE_WINDOW = 28_960
"""Bytes that a server of ours offers; it reads as fast as data come."""


class State(IntEnum):
    """States of a full socket (RFC 9293 section 3.3.2)."""

    ESTABLISHED = 1
    CLOSE_WAIT = 2
    FIN_WAIT1 = 3
    FIN_WAIT2 = 4
    CLOSING = 5
    LAST_ACK = 6


@dataclass(slots=True)
class Request:
    """A half-open request (SYN_RECV); ``ts_recent`` stays that of the SYN that made it."""

    key: Key
    isn: int
    start: int
    created: int
    has_ts: bool
    ts_recent: int
    ts_recent_s: int
    wscale: int | None
    mss: int
    sack: bool = True
    timeouts: int = 0
    acked: bool = False
    due: int = 0
    last_oow: int | None = None

    def bucket(self) -> Bucket:
        """What a SYN or a third ACK is compared with."""
        return Bucket(
            add32(self.isn, 1), RECEIVE_WINDOW, add32(self.start, 1), self.ts_recent, self.ts_recent_s, self.has_ts
        )


@dataclass(slots=True)
class Opening:
    """A socket of ours that has sent a SYN (SYN_SENT)."""

    key: Key
    start: int
    sent: int
    tries: int = 0
    due: int = 0
    ipid: int = 0


@dataclass(slots=True)
class Connection:
    """A full socket.

    ``rcv_wup`` is ``rcv_nxt`` as the server last told it; ``closed``: the application has closed the
    descriptor (not merely shut down); ``parked``: segments that came ahead of a gap.
    """

    key: Key
    sender: Sender
    rcv_nxt: int
    rcv_wup: int
    has_ts: bool
    ts_recent: int
    ts_recent_s: int
    ipid: int
    state: State = State.ESTABLISHED
    closed: bool = False
    accepted: bool = False
    unread: int = 0
    mss: int = 1448
    fin_wait2_due: int | None = None
    last_oow: int | None = None
    born: int = 0
    parked: list[tuple[int, int, bool]] = field(default_factory=list)

    def bucket(self) -> Bucket:
        """What a SYN is compared with."""
        return Bucket(self.rcv_nxt, RECEIVE_WINDOW, self.sender.nxt, self.ts_recent, self.ts_recent_s, self.has_ts)


@dataclass(slots=True)
class TimeWait:
    """A TIME-WAIT bucket; ``waits_for_fin``: substate FIN_WAIT2."""

    key: Key
    waits_for_fin: bool
    rcv_nxt: int
    snd_nxt: int
    has_ts: bool
    ts_recent: int
    ts_recent_s: int
    life_if_recycled: int
    recycled: bool
    due: int = 0
    life: int = 0
    last_oow: int | None = None

    def bucket(self) -> Bucket:
        """What a SYN is compared with."""
        return Bucket(self.rcv_nxt, RECEIVE_WINDOW, self.snd_nxt, self.ts_recent, self.ts_recent_s, self.has_ts)


@dataclass(slots=True)
class Listener:
    """A listening socket; ``queue`` holds connections that nobody has accepted yet, dead ones too."""

    port: int
    backlog: int
    dual_stack: bool = False
    requests: int = 0
    young: int = 0
    queue: list[Connection] = field(default_factory=list)
