"""The other end: a socket that opens a connection (SYN_SENT).

net/ipv4/tcp_input.c ``tcp_rcv_synsent_state_process``, net/ipv4/tcp_timer.c ``tcp_retransmit_timer``.
"""

from typing import TYPE_CHECKING

from analyzer.kernel.events import ACK, RST, SYN, Connect, Decision, Reply, Segment
from analyzer.kernel.sender import Sender
from analyzer.kernel.sockets import Connection, Opening
from analyzer.seqnum import add32

if TYPE_CHECKING:
    from analyzer.kernel.model import Server

_NS = 1_000_000_000
QUICK_RETRY_TICKS = 2
"""``TCP_TIMEOUT_MIN``: how soon a SYN goes again after a first unusable ACK."""


def connect(server: "Server", event: Connect, out: Decision) -> None:
    """The application opens a connection: the first SYN."""
    opening = Opening(event.key, server.initial_seq(event.key, event.time), event.time)
    opening.ipid = opening.start & 0xFFFF
    server.table[event.key] = opening
    _send(server, opening, event.time, out)


def _send(server: "Server", opening: Opening, now: int, out: Decision) -> None:
    machine = server.machine
    tsval = machine.stamp(now, opening.key) if server.settings.timestamps else None
    opening.ipid = opening.ipid + 1 & 0xFFFF
    opening.sent = now
    out.replies.append(
        Reply(
            opening.key, SYN, opening.start, 0, tsval, 0, 0, machine.syn_window, opening.ipid, opening.start,
            (1460, machine.wscale, True), opening.tries > 0,
        )
    )  # fmt: skip
    waits = machine.syn_timeouts
    opening.due = server.bucket_clock.timer(now, waits[min(opening.tries, len(waits) - 1)])
    opening.tries += 1
    server.arm(opening.key, opening.due)


def timer(server: "Server", opening: Opening, now: int, out: Decision) -> None:
    """The SYN again, or the end of connect()."""
    if opening.tries >= len(server.machine.syn_timeouts):
        server.forget(opening.key)
        out.notices.append(("timeout", opening.key, 0))
        return
    _send(server, opening, now, out)


def segment(server: "Server", opening: Opening, seg: Segment, out: Decision) -> None:
    """Whatever comes back to a SYN."""
    if not seg.flags & ACK:
        return
    if seg.ack != add32(opening.start, 1):
        if not seg.flags & RST:
            out.replies.append(Reply(opening.key, RST, seg.ack, 0))
            if server.machine.quick_retry and opening.tries == 1:
                wait = QUICK_RETRY_TICKS * _NS // server.machine.hz
                opening.due = server.bucket_clock.timer(seg.time, wait)
                server.arm(opening.key, opening.due)
        return
    if seg.flags & RST:
        server.forget(opening.key)
        out.notices.append(("refused", opening.key, 0))
    elif seg.flags & SYN:
        _established(server, opening, seg, out)


def _established(server: "Server", opening: Opening, seg: Segment, out: Decision) -> None:
    sender = Sender(opening.start, _NS)
    if opening.tries == 1:
        sender.sample(seg.time - opening.sent)
    tsval = server.tsval_of(seg)
    next_ = add32(seg.seq, 1)
    conn = Connection(
        opening.key, sender, next_, next_, tsval is not None, tsval or 0, server.second(seg.time), opening.ipid,
        accepted=True, born=seg.time, mss=(seg.mss or 536) - (12 if tsval is not None else 0),
    )  # fmt: skip
    server.table[opening.key] = conn
    conn.ipid = conn.ipid + 1 & 0xFFFF
    echo = conn.ts_recent if conn.has_ts else None
    reply = server.reply(opening.key, ACK, (sender.nxt, next_), seg.time, echo)
    out.replies.append(reply._replace(ipid=conn.ipid, start=sender.start))
    out.notices.append(("connected", opening.key, 0))
