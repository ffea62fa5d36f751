"""Full sockets: data, closes, and SYNs on a live connection.

net/ipv4/tcp_input.c ``tcp_rcv_established``, ``tcp_rcv_state_process``, ``tcp_validate_incoming``,
``tcp_fin``; net/ipv4/tcp.c ``tcp_close``, ``tcp_shutdown``.  Every segment with data is acknowledged at once.
"""

from typing import TYPE_CHECKING

from analyzer.kernel import rules
from analyzer.kernel.events import ACK, FIN, PSH, RST, SYN, Close, Decision, Reply, Segment, Send, Shutdown
from analyzer.kernel.sender import Unacked
from analyzer.kernel.sockets import RECEIVE_WINDOW, Connection, State
from analyzer.seqnum import add32, d32

if TYPE_CHECKING:
    from analyzer.kernel.model import Server

ESTABLISHED_TOLERANCE = 1
RETRIES = 8
"""Repetitions after which a closing socket is given up (``tcp_orphan_retries``)."""


def syn(server: "Server", conn: Connection, seg: Segment, out: Decision) -> None:
    """A SYN meets a connection that is still open (2.5)."""
    bucket, tsval, second = conn.bucket(), server.tsval_of(seg), server.second(seg.time)
    paws = rules.paws_rejects(server.profile, bucket, tsval, second, ESTABLISHED_TOLERANCE)
    ruling = rules.live(server.profile, rules.in_window(bucket, seg.seq, add32(seg.seq, 1)), paws)
    out.verdict, out.rule = ruling.verdict, ruling.rule
    out.compared = (conn.ts_recent, conn.ts_recent_s) if conn.has_ts and tsval is not None else None
    if ruling.verdict == "drop":
        return
    if ruling.verdict == "rst":
        out.counters += ruling.counters
        server.leave(conn)
        server.refuse(conn.key, seg, out)
        out.notices.append(("reset", conn.key, 0))
        return
    if server.suppressed(conn, seg.time):
        out.verdict, out.rule = "drop", "live_rate_limited"
        out.counters += [c for c in ruling.counters if c != "TCPChallengeACK"]
        out.counters.append("TCPACKSkippedPAWS" if paws else "TCPACKSkippedChallenge")
        return
    out.counters += ruling.counters
    out.replies.append(_ack(server, conn, seg.time))


def segment(server: "Server", conn: Connection, seg: Segment, out: Decision) -> None:
    """Anything but a SYN meets a full socket."""
    if seg.flags & RST:
        _reset(server, conn, seg, out)
        return
    if not seg.flags & ACK or not _valid(server, conn, seg, out):
        return
    if seg.flags & SYN:
        out.replies.append(_ack(server, conn, seg.time))
        return
    _stamp(server, conn, seg)
    if not conn.sender.acknowledge(seg.ack, seg.time):
        return
    _rearm(server, conn)
    told = conn.rcv_nxt
    fin, data = _take(conn, seg)
    if conn.closed and data:
        server.leave(conn)
        server.refuse(conn.key, seg, out)
        out.counters.append("TCPAbortOnData")
        out.notices.append(("reset", conn.key, 0))
        return
    if data and conn.accepted:
        out.notices.append(("data", conn.key, data))
    elif data:
        conn.unread += data
    if conn.rcv_nxt != told or (d32(seg.seq, told) != 0 and (seg.length or seg.flags & FIN)):
        out.replies.append(_ack(server, conn, seg.time))
    _advance(server, conn, seg, fin, out)


def _reset(server: "Server", conn: Connection, seg: Segment, out: Decision) -> None:
    if seg.seq == conn.rcv_nxt:
        server.leave(conn)
        if conn.state in (State.ESTABLISHED, State.CLOSE_WAIT):
            out.counters.append("EstabResets")
        out.notices.append(("reset", conn.key, 0))
    elif (
        server.profile.live_syn == "challenge"
        and rules.in_window(conn.bucket(), seg.seq, seg.seq)
        and not server.suppressed(conn, seg.time)
    ):
        out.counters.append("TCPChallengeACK")
        out.replies.append(_ack(server, conn, seg.time))


def _valid(server: "Server", conn: Connection, seg: Segment, out: Decision) -> bool:
    """PAWS and the sequence test; a refused segment is answered with a duplicate ACK."""
    tsval, second = server.tsval_of(seg), server.second(seg.time)
    end = add32(seg.seq, seg.length + bool(seg.flags & FIN))
    right = add32(conn.rcv_nxt, RECEIVE_WINDOW)
    paws = rules.paws_rejects(server.profile, conn.bucket(), tsval, second, ESTABLISHED_TOLERANCE)
    paws = paws and not (not seg.length and seg.seq == conn.rcv_nxt and seg.ack == conn.sender.una)
    if not paws and d32(end, conn.rcv_wup) >= 0 and d32(seg.seq, right) <= 0:
        return True
    out.counters += ["PAWSEstab"] if paws else []
    if seg.length or not server.suppressed(conn, seg.time):
        out.replies.append(_ack(server, conn, seg.time))
    else:
        out.counters.append("TCPACKSkippedPAWS" if paws else "TCPACKSkippedSeq")
    return False


def _stamp(server: "Server", conn: Connection, seg: Segment) -> None:
    """The TSval to echo and to remember (RFC 7323 section 4.3; ``tcp_replace_ts_recent``)."""
    tsval = server.tsval_of(seg)
    if not conn.has_ts or tsval is None or d32(seg.seq, conn.rcv_wup) > 0:
        return
    if d32(conn.ts_recent, tsval) <= 0:
        conn.ts_recent, conn.ts_recent_s = tsval, server.second(seg.time)


def _take(conn: Connection, seg: Segment) -> tuple[bool, int]:
    """Take what is next in order, and what it closes the gap to: (FIN reached, new bytes)."""
    conn.parked.append((seg.seq, seg.length, bool(seg.flags & FIN)))
    fin, new = False, 0
    for seq, length, ends in sorted(conn.parked, key=lambda part: d32(part[0], conn.rcv_nxt)):
        if d32(seq, conn.rcv_nxt) > 0:
            break
        fresh = d32(add32(seq, length), conn.rcv_nxt)
        if fresh > 0:
            new += fresh
            conn.rcv_nxt = add32(conn.rcv_nxt, fresh)
        if ends and fresh >= 0:
            fin = True
            conn.rcv_nxt = add32(conn.rcv_nxt, 1)
    conn.parked = [p for p in conn.parked if d32(p[0], conn.rcv_nxt) > 0]
    return fin, new


def _advance(server: "Server", conn: Connection, seg: Segment, fin: bool, out: Decision) -> None:
    """State changes by our acknowledged FIN and the client's FIN."""
    acked = conn.sender.una == conn.sender.nxt
    now = seg.time
    if conn.state is State.LAST_ACK and acked:
        server.leave(conn)
        out.notices.append(("gone", conn.key, 0))
    elif conn.state is State.CLOSING and acked:
        server.make_bucket(conn, False, now, out)
    elif conn.state is State.FIN_WAIT1 and acked:
        if fin:
            server.make_bucket(conn, False, now, out)
            return
        life = rules.fin_time_ns(server.settings, conn.sender.rto)
        if conn.closed and life <= rules.TIME_WAIT_NS:
            server.make_bucket(conn, True, now, out)
            return
        conn.state = State.FIN_WAIT2
        if conn.closed:
            _wait_long(server, conn, now + life - rules.TIME_WAIT_NS)
    elif fin:
        if conn.state is State.ESTABLISHED:
            conn.state = State.CLOSE_WAIT
            out.notices.append(("eof", conn.key, 0))
        elif conn.state is State.FIN_WAIT1:
            conn.state = State.CLOSING
        elif conn.state is State.FIN_WAIT2:
            server.make_bucket(conn, False, now, out)


def _wait_long(server: "Server", conn: Connection, due: int) -> None:
    """tcp_fin_timeout above a minute: the full socket stays for the excess (E3')."""
    conn.fin_wait2_due = due
    server.arm(conn.key, due)


# ---- the application's wishes ---------------------------------------------------------------------------


def send(server: "Server", event: Send, out: Decision) -> None:
    """Write to a connection, in segments of its MSS."""
    conn = server.table.get(event.key)
    if not isinstance(conn, Connection) or conn.state not in (State.ESTABLISHED, State.CLOSE_WAIT):
        return
    left = event.length
    while left > 0:
        part = min(left, conn.mss)
        left -= part
        segment_ = conn.sender.push(event.time, ACK | (PSH if not left else 0), part)
        out.replies.append(_data(server, conn, segment_, event.time))
    _rearm(server, conn)


def close(server: "Server", event: Close, out: Decision) -> None:
    """The descriptor goes: a FIN, or a RST with SO_LINGER 0; after a shutdown nothing is sent (E4)."""
    conn = server.table.get(event.key)
    if not isinstance(conn, Connection):
        return
    if event.reset:
        server.leave(conn)
        out.replies.append(_numbered(server, conn, RST | ACK, event.time))
        out.counters += ["OutRsts", "TCPAbortOnClose"]
        return
    conn.closed = True
    if conn.state is State.FIN_WAIT2:
        life = rules.fin_time_ns(server.settings, conn.sender.rto)
        if life <= rules.TIME_WAIT_NS:
            server.make_bucket(conn, True, event.time, out)
        else:
            _wait_long(server, conn, event.time + life - rules.TIME_WAIT_NS)
        return
    _finish(server, conn, event.time, out)


def shutdown(server: "Server", event: Shutdown, out: Decision) -> None:
    """The sending direction ends: a FIN, and the descriptor stays open."""
    conn = server.table.get(event.key)
    if isinstance(conn, Connection):
        _finish(server, conn, event.time, out)


def _finish(server: "Server", conn: Connection, now: int, out: Decision) -> None:
    following = {State.ESTABLISHED: State.FIN_WAIT1, State.CLOSE_WAIT: State.LAST_ACK}.get(conn.state)
    if following is None:
        return
    conn.state = following
    out.replies.append(_data(server, conn, conn.sender.push(now, FIN | ACK, 0, 1), now))
    _rearm(server, conn)


# ---- timers and replies ------------------------------------------------------------------------------------


def timer(server: "Server", conn: Connection, now: int, out: Decision) -> None:
    """Repeat what is unacknowledged, or end a long FIN_WAIT2."""
    if conn.fin_wait2_due is not None and conn.fin_wait2_due <= now:
        server.make_bucket(conn, True, now, out)
        return
    if conn.sender.backoff >= RETRIES and conn.closed:
        server.leave(conn)
        out.notices.append(("gone", conn.key, 0))
        return
    first = conn.sender.repeat(now)
    if first is not None:
        out.counters.append("RetransSegs")
        out.replies.append(_data(server, conn, first, now, again=True))
    _rearm(server, conn)


def _rearm(server: "Server", conn: Connection) -> None:
    if conn.sender.due is not None:
        server.arm(conn.key, conn.sender.due)


def _data(server: "Server", conn: Connection, part: Unacked, now: int, again: bool = False) -> Reply:
    reply = _numbered(server, conn, part.flags, now)
    return reply._replace(seq=part.seq, length=part.length, again=again)


def _ack(server: "Server", conn: Connection, now: int) -> Reply:
    return _numbered(server, conn, ACK, now)


def _numbered(server: "Server", conn: Connection, flags: int, now: int) -> Reply:
    """A segment of a full socket: next numbers, its own IP id, ``rcv_wup`` told."""
    conn.rcv_wup = conn.rcv_nxt
    conn.ipid = conn.ipid + 1 & 0xFFFF
    reply = server.reply(conn.key, flags, (conn.sender.nxt, conn.rcv_nxt), now, conn.ts_recent if conn.has_ts else None)
    return reply._replace(ipid=conn.ipid, start=conn.sender.start)
