"""What goes into a live server and what comes out of it: plain values, no I/O and no clock.

Times are integer nanoseconds on the server's own clock and are arguments everywhere.  Addresses are
any hashable values; the model only compares them.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16

Key = tuple[object, int, object, int]
"""Local address, local port, remote address, remote port."""


class Segment(NamedTuple):
    """One TCP segment that the server received.

    ``tsval`` is None without the timestamps option; ``window`` is the raw field; ``wscale`` and ``mss``
    are valid in a SYN (None: option absent).
    """

    time: int
    src: object
    sport: int
    dst: object
    dport: int
    flags: int
    seq: int
    ack: int = 0
    tsval: int | None = None
    tsecr: int = 0
    length: int = 0
    window: int = 229
    wscale: int | None = 7
    mss: int | None = 1460
    v6: bool = False


class Connect(NamedTuple):
    """The application opens a connection to the remote end of *key*."""

    time: int
    key: Key


class Accept(NamedTuple):
    """The application takes the oldest connection off a listener's queue."""

    time: int
    port: int


class Send(NamedTuple):
    """The application writes *length* bytes."""

    time: int
    key: Key
    length: int


class Close(NamedTuple):
    """The application closes the descriptor; *reset*: with SO_LINGER 0."""

    time: int
    key: Key
    reset: bool = False


class Shutdown(NamedTuple):
    """The application ends its sending direction and keeps the descriptor."""

    time: int
    key: Key


class Timer(NamedTuple):
    """Time has come to *time*: whatever is due runs."""

    time: int


Event = Segment | Connect | Accept | Send | Close | Shutdown | Timer


class Reply(NamedTuple):
    """One segment that the server sends.

    ``start`` is the server's initial sequence number where a connection sends it, else 0: byte
    ``seq - start - 1`` of the stream comes first.  ``options``: the SYN-ACK's (mss, wscale or None, SACK).
    """

    key: Key
    flags: int
    seq: int
    ack: int
    tsval: int | None = None
    tsecr: int = 0
    length: int = 0
    window: int = 0
    ipid: int = 0
    start: int = 0
    options: tuple[int, int | None, bool] | None = None
    again: bool = False


class Write(NamedTuple):
    """One attempt to write the peer's remembered timestamp."""

    event: str
    peer: object
    tsval: int
    second: int
    stored: bool


@dataclass(slots=True)
class Decision:
    """What the server did with one event.

    Attributes:
        verdict, rule: For a SYN: ``accept``, ``drop``, ``ack``, ``rst``, ``cookie`` and the rule that decided.
        third: For a handshake's last ACK: ``accepted``, ``dropped``, ``reset``, ``acked``; else empty.
        replies: What is sent, in order.
        counters: Counters of /proc/net/netstat and snmp that moved, one entry for each step of one.
        compared: The (TSval, second) that a timestamp rule compared with.
        proven: Inputs and result of the per-peer test, where it ran: (TSval, second, now, passed).
        write: What was offered to the peer's memory.
        notices: For the application: (word, key, bytes); the words are ``ready``, ``taken``, ``data``,
            ``eof``, ``reset`` and ``gone``; of a connect: ``connected``, ``refused``, ``timeout``.
    """

    verdict: str = ""
    rule: str = ""
    third: str = ""
    replies: list[Reply] = field(default_factory=list)
    counters: list[str] = field(default_factory=list)
    compared: tuple[int, int] | None = None
    proven: tuple[int, int, int, bool] | None = None
    write: Write | None = None
    notices: list[tuple[str, Key, int]] = field(default_factory=list)
