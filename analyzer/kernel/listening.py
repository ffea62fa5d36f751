"""SYNs at the listener, half-open requests and the handshake's third ACK.

Steps L5-L12, R0-R3 and A1-A6; net/ipv4/tcp_input.c ``tcp_conn_request``, net/ipv4/tcp_minisocks.c
``tcp_check_req``, net/ipv4/inet_connection_sock.c ``reqsk_timer_handler``.
"""

from typing import TYPE_CHECKING

from analyzer.kernel import rules, stream
from analyzer.kernel.events import ACK, FIN, RST, SYN, Accept, Decision, Key, Reply, Segment
from analyzer.kernel.sender import Sender
from analyzer.kernel.sockets import RECEIVE_WINDOW, Connection, Listener, Request
from analyzer.seqnum import add32, d32

if TYPE_CHECKING:
    from analyzer.kernel.model import Server

_NS = 1_000_000_000
COOKIE_WINDOW_NS = 60 * _NS
SCAN_NS = 200_000_000
"""Up to 4.0 one scan of all requests every 200 ms stands for their timers."""
DEFAULT_MSS = 536


def syn(server: "Server", key: Key, seg: Segment, out: Decision, isn: int = 0) -> None:
    """A SYN at the listener; *isn* is preset where it came through a bucket (T2)."""
    listener = server.listeners.get(key[1])
    if listener is None:
        out.verdict, out.rule = "rst", "no_listener"
        server.refuse(key, seg, out)
        return
    cookie = not isn and _wants_cookie(server, listener)
    refused = _refusal(server, listener, key, seg, out, bool(isn), cookie)
    if refused:
        out.verdict, out.rule = "drop", refused
        return
    tsval = server.tsval_of(seg)
    if cookie:
        _send_cookie(server, key, seg, out)
        return
    request = Request(
        key, seg.seq, isn or server.initial_seq(key, seg.time), seg.time, tsval is not None, tsval or 0,
        server.second(seg.time), seg.wscale, seg.mss or DEFAULT_MSS,
    )  # fmt: skip
    server.table[key] = request
    listener.requests += 1
    listener.young += 1
    _arm(server, request, seg.time)
    out.verdict, out.rule = "accept", "listener"
    out.replies.append(_syn_ack(server, request, seg.time))


def _wants_cookie(server: "Server", listener: Listener) -> bool:
    if not server.settings.syncookies:
        return False
    if server.settings.syncookies == 2 and server.profile.cookies_always:
        return True
    return _queue_full(server, listener)


def _queue_full(server: "Server", listener: Listener) -> bool:
    limit = rules.syn_queue_limit(server.profile, listener.backlog, server.settings.max_syn_backlog or 0)
    return rules.syn_queue_full(server.profile, listener.requests, limit)


def _refusal(
    server: "Server", listener: Listener, key: Key, seg: Segment, out: Decision, preset: bool, cookie: bool
) -> str:
    """The rule that drops this SYN, or nothing; steps L5-L9 in their order."""
    profile, settings = server.profile, server.settings
    if not preset and not cookie and _queue_full(server, listener):
        out.counters += server.drop_count(*(["TCPReqQFullDrop"] if profile.queue_counters else []))
        return "syn_queue_full"
    if cookie and profile.queue_counters:
        out.counters.append("TCPReqQFullDoCookies")
    if rules.accept_queue_drops(profile, len(listener.queue), listener.backlog, listener.young):
        out.counters += ["ListenOverflows", "ListenDrops"] if profile.overflow_counted else []
        return "accept_queue_full"
    if cookie or preset:
        return ""
    tsval = server.tsval_of(seg)
    peer = server.peer(key, listener.dual_stack and not seg.v6)
    recycle = profile.tw_recycle and bool(settings.tw_recycle)
    if recycle and (tsval is not None or profile.drop_without_ts) and (peer in server.peers or profile.first >= (3, 6)):
        stamp = server.peers.get(peer, (0, 0)) if peer is not None else (0, 0)
        second = server.second(seg.time)
        rejected = rules.peer_rejects(profile, *stamp, tsval, second)
        out.proven = (*stamp, second, not rejected)
        if stamp[1]:
            out.compared = stamp
        if rejected:
            out.counters += server.drop_count("PAWSPassive")
            return "peer_timestamp" if tsval is not None else "peer_timestamp_missing"
    elif rules.last_quarter(listener.requests, settings.max_syn_backlog or 0, settings.syncookies or 0) and not _proven(
        server, key, peer, recycle and tsval is not None
    ):
        out.counters += server.drop_count()
        return "last_quarter"
    return ""


def _proven(server: "Server", key: Key, peer: object, looked_up: bool) -> bool:
    """Whether the last quarter is open to this peer (2.6.3)."""
    measured = (key[0], key[2]) in server.measured
    stamped = server.peers.get(peer, (0, 0))[1] != 0
    word = server.profile.proven
    if word == "RTT":
        return measured
    if word == "never" or not looked_up:
        return False
    return (measured or stamped) if word == "stamp or RTT" else measured and stamped


def _syn_ack(server: "Server", request: Request, now: int, again: bool = False) -> Reply:
    tsval = server.machine.stamp(now, request.key) if request.has_ts else None
    options = (1460, server.machine.wscale if request.wscale is not None else None, request.sack)
    return Reply(
        request.key, SYN | ACK, request.start, add32(request.isn, 1), tsval, request.ts_recent,
        window=RECEIVE_WINDOW, start=request.start, options=options, again=again,
    )  # fmt: skip


def _send_cookie(server: "Server", key: Key, seg: Segment, out: Decision) -> None:
    tsval = server.tsval_of(seg)
    start = server.cookie(key, seg.seq, seg.time // COOKIE_WINDOW_NS)
    stamp = None if tsval is None else server.machine.stamp(seg.time, key) & ~0x3F | 0x17
    server.cookies_until = seg.time + 2 * COOKIE_WINDOW_NS
    options = (1460, server.machine.wscale if tsval is not None else None, tsval is not None)
    reply = Reply(key, SYN | ACK, start, add32(seg.seq, 1), stamp, tsval or 0, window=RECEIVE_WINDOW, start=start)
    out.replies.append(reply._replace(options=options))
    out.verdict, out.rule = "cookie", "syn_cookie"
    out.counters.append("SyncookiesSent")
    if server.profile.cookie_counted:
        out.counters.append("ListenDrops")


def cookie_ack(server: "Server", key: Key, seg: Segment, out: Decision) -> bool:
    """An ACK that meets nothing: perhaps it returns a cookie.  False: it is to be refused with a RST."""
    listener = server.listeners.get(key[1])
    if listener is None or seg.time > server.cookies_until:
        return False
    isn, now = add32(seg.seq, -1), seg.time // COOKIE_WINDOW_NS
    if not any(server.cookie(key, isn, minute) == add32(seg.ack, -1) for minute in (now, now - 1)):
        out.counters.append("SyncookiesFailed")
        return False
    if rules.accept_queue_full(len(listener.queue), listener.backlog):
        out.counters += ["ListenOverflows", "ListenDrops"]
        out.third = "dropped"
        return True
    tsval = server.tsval_of(seg)
    request = Request(
        key, isn, add32(seg.ack, -1), seg.time, tsval is not None, tsval or 0, server.second(seg.time),
        7 if tsval is not None else None, DEFAULT_MSS,
    )  # fmt: skip
    out.counters.append("SyncookiesRecv")
    _establish(server, listener, request, seg, out)
    return True


# ---- half-open requests --------------------------------------------------------------------------------


def syn_on_request(server: "Server", request: Request, seg: Segment, out: Decision) -> None:
    """A SYN meets a half-open request (R0-R3)."""
    ruling = rules.syn_recv(server.profile, request.bucket(), seg.seq, server.tsval_of(seg), server.second(seg.time))
    out.verdict, out.rule = ruling.verdict, ruling.rule
    out.counters += ruling.counters
    if ruling.verdict == "rst":
        server.forget(request.key)
        server.refuse(request.key, seg, out)
        return
    limited = server.profile.request_ratelimit if ruling.verdict == "ack" else True
    if limited and server.suppressed(request, seg.time):
        out.verdict, out.rule = "drop", "syn_recv_rate_limited"
        out.counters.append("TCPACKSkippedSynRecv")
        return
    if ruling.verdict == "accept":
        out.replies.append(_syn_ack(server, request, seg.time))
        request.due = max(request.due, seg.time + (server.profile.initial_rto_s * _NS << request.timeouts))
        server.arm(request.key, request.due)
        return
    echo = request.ts_recent if request.has_ts else None
    numbers = (add32(request.start, 1), add32(request.isn, 1))
    out.replies.append(server.reply(request.key, ACK, numbers, seg.time, echo))


def third_ack(server: "Server", request: Request, seg: Segment, out: Decision) -> None:
    """Anything but a SYN meets a half-open request (A1-A6)."""
    bucket = request.bucket()
    end = add32(seg.seq, seg.length + bool(seg.flags & FIN))
    rejected = rules.paws_rejects(server.profile, bucket, server.tsval_of(seg), server.second(seg.time))
    inside = rules.in_window(bucket, seg.seq, end)
    if seg.flags & RST:
        if inside and not rejected:
            out.counters += ["EmbryonicRsts", "AttemptFails"]
            server.forget(request.key)
        return
    if not seg.flags & ACK:
        return
    if seg.ack != add32(request.start, 1):
        out.third = "reset"
        server.refuse(request.key, seg, out)
        return
    if rejected or not inside:
        out.third = "acked"
        out.counters += ["PAWSEstab"] if rejected else []
        echo = request.ts_recent if request.has_ts else None
        out.replies.append(server.reply(request.key, ACK, (seg.ack, bucket.rcv_nxt), seg.time, echo))
        return
    listener = server.listeners[request.key[1]]
    if rules.accept_queue_full(len(listener.queue), listener.backlog):
        out.counters += ["ListenOverflows", "ListenDrops"]
        if server.settings.abort_on_overflow:
            out.third = "reset"
            out.counters.append("EmbryonicRsts")
            server.forget(request.key)
            server.refuse(request.key, seg, out)
        else:
            out.third = "dropped"
            request.acked = True
        return
    server.forget(request.key)
    _establish(server, listener, request, seg, out)


def _establish(server: "Server", listener: Listener, request: Request, seg: Segment, out: Decision) -> None:
    """The child socket is made (A6); its first segment is then taken as any other."""
    sender = Sender(request.start, server.profile.initial_rto_s * _NS)
    if not request.timeouts and request.created < seg.time:
        sender.sample(seg.time - request.created)
    conn = Connection(
        request.key, sender, add32(request.isn, 1), add32(request.isn, 1), request.has_ts, request.ts_recent,
        server.second(seg.time), server.initial_seq(request.key, seg.time) & 0xFFFF, born=seg.time,
        mss=min(request.mss, 1460) - (12 if request.has_ts else 0),
    )  # fmt: skip
    tsval = server.tsval_of(seg)
    if conn.has_ts and tsval is not None and d32(seg.seq, conn.rcv_nxt) <= 0:
        conn.ts_recent = tsval
    server.table[request.key] = conn
    listener.queue.append(conn)
    out.third = "accepted"
    out.counters.append("PassiveOpens")
    out.notices.append(("ready", request.key, 0))
    if seg.length or seg.flags & FIN:
        stream.segment(server, conn, seg, out)


def accept(server: "Server", event: Accept, out: Decision) -> None:
    """The application takes one connection; its notice is ``taken`` with the bytes that wait."""
    listener = server.listeners.get(event.port)
    if listener is None or not listener.queue:
        return
    conn = listener.queue.pop(0)
    if server.table.get(conn.key) is conn:
        conn.accepted = True
        out.notices.append(("taken", conn.key, conn.unread))
        conn.unread = 0


# ---- SYN-ACK repetition ------------------------------------------------------------------------------------


def _arm(server: "Server", request: Request, now: int) -> None:
    due = now + (server.profile.initial_rto_s * _NS << request.timeouts)
    if server.profile.tw_timer == "slots":
        due = -(-due // SCAN_NS) * SCAN_NS
    request.due = due
    server.arm(request.key, due)


def request_timer(server: "Server", request: Request, now: int, out: Decision) -> None:
    """A request's timer fires: the SYN-ACK again, or the end."""
    listener = server.listeners[request.key[1]]
    if request.timeouts >= _retries(server, listener):
        server.forget(request.key)
        out.notices.append(("gone", request.key, 0))
        return
    listener.young -= request.timeouts == 0
    request.timeouts += 1
    _arm(server, request, now)
    out.replies.append(_syn_ack(server, request, now, again=True))
    out.counters += ["TCPSynRetrans", "RetransSegs"]


def _retries(server: "Server", listener: Listener) -> int:
    """Allowed repetitions: fewer when more than half of the queue is full of old requests."""
    allowed = server.settings.synack_retries if server.settings.synack_retries is not None else 5
    limit = rules.syn_queue_limit(server.profile, listener.backlog, server.settings.max_syn_backlog or 0)
    if listener.requests * 2 <= limit:
        return allowed
    young = listener.young << 1
    while allowed > 2 and listener.requests >= young:
        allowed -= 1
        young <<= 1
    return allowed
