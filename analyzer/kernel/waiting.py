"""Segments that meet a TIME-WAIT bucket; net/ipv4/tcp_minisocks.c ``tcp_timewait_state_process``."""

from typing import TYPE_CHECKING

from analyzer.kernel import listening, rules
from analyzer.kernel.events import ACK, FIN, RST, SYN, Decision, Segment
from analyzer.kernel.sockets import TimeWait
from analyzer.seqnum import add32, d32

if TYPE_CHECKING:
    from analyzer.kernel.model import Server

RFC1337_STAMP_AGE_S = 60
_LIMITED = {
    "time_wait_paws": "time_wait_paws_rate_limited",
    "time_wait_sequence": "time_wait_sequence_rate_limited",
    "fin_wait2_ack": "fin_wait2_rate_limited",
}


def syn(server: "Server", bucket: TimeWait, seg: Segment, out: Decision) -> None:
    """A SYN meets a bucket (F1, F2, T1-T4)."""
    judge = rules.fin_wait2 if bucket.waits_for_fin else rules.time_wait
    tsval, second = server.tsval_of(seg), server.second(seg.time)
    ruling = judge(server.profile, bucket.bucket(), seg.seq, tsval, second)
    if bucket.has_ts and tsval is not None:
        out.compared = (bucket.ts_recent, bucket.ts_recent_s)
    if ruling.verdict == "accept" and bucket.key[1] in server.listeners:
        server.forget(bucket.key)
        listening.syn(server, bucket.key, seg, out, (ruling.isn or 0) if server.profile.tw_isn else 0)
        if out.rule == "listener":
            out.rule = "time_wait_reuse"
        return
    out.counters += ruling.counters
    out.verdict, out.rule = ruling.verdict, ruling.rule
    if ruling.verdict == "accept":
        out.verdict, out.rule = "ack", "time_wait_sequence"
    if ruling.destroys and ruling.verdict == "rst":
        server.forget(bucket.key)
        server.refuse(bucket.key, seg, out)
        out.counters.remove("OutRsts")
        return
    if ruling.rearm:
        server.arm_bucket(bucket, seg.time, rules.TIME_WAIT_NS)
    if not _answer(server, bucket, seg, out):
        out.verdict, out.rule = "drop", _LIMITED[out.rule]


def segment(server: "Server", bucket: TimeWait, seg: Segment, out: Decision) -> None:
    """Anything but a SYN meets a bucket (E5, T5, T6)."""
    (_waits_for_fin if bucket.waits_for_fin else _time_wait)(server, bucket, seg, out)


def _rejected(server: "Server", bucket: TimeWait, seg: Segment) -> bool:
    second = server.second(seg.time)
    if seg.flags & RST and second - bucket.ts_recent_s >= RFC1337_STAMP_AGE_S:
        return False
    return rules.paws_rejects(server.profile, bucket.bucket(), server.tsval_of(seg), second)


def _waits_for_fin(server: "Server", bucket: TimeWait, seg: Segment, out: Decision) -> None:
    end = add32(seg.seq, seg.length + bool(seg.flags & FIN))
    if _rejected(server, bucket, seg) or not rules.in_window(bucket.bucket(), seg.seq, end):
        if not seg.flags & RST:
            _answer(server, bucket, seg, out)
        return
    if seg.flags & RST:
        server.forget(bucket.key)
        return
    if not seg.flags & ACK or d32(end, bucket.rcv_nxt) <= 0 or end == seg.seq:
        return
    if not seg.flags & FIN or end != add32(bucket.rcv_nxt, 1):
        server.forget(bucket.key)
        server.refuse(bucket.key, seg, out)
        return
    bucket.waits_for_fin = False
    bucket.rcv_nxt = end
    tsval = server.tsval_of(seg)
    if bucket.has_ts and tsval is not None:
        bucket.ts_recent, bucket.ts_recent_s = tsval, server.second(seg.time)
    recycled = bucket.recycled and server.remember("E5", bucket, seg.time, out)
    server.arm_bucket(bucket, seg.time, bucket.life_if_recycled if recycled else rules.TIME_WAIT_NS)
    _say(server, bucket, seg, out)


def _time_wait(server: "Server", bucket: TimeWait, seg: Segment, out: Decision) -> None:
    rejected = _rejected(server, bucket, seg)
    empty = not seg.length and not seg.flags & (FIN | SYN)
    if not rejected and seg.seq == bucket.rcv_nxt and (empty or seg.flags & RST):
        if seg.flags & RST:
            if not server.settings.rfc1337:
                server.forget(bucket.key)
            return
        server.arm_bucket(bucket, seg.time, rules.TIME_WAIT_NS)
        tsval = server.tsval_of(seg)
        if bucket.has_ts and tsval is not None:
            bucket.ts_recent, bucket.ts_recent_s = tsval, server.second(seg.time)
        return
    if seg.flags & RST:
        return
    if rejected:
        out.counters.append(server.profile.paws_tw_counter)
    if rejected or seg.flags & ACK:
        server.arm_bucket(bucket, seg.time, rules.TIME_WAIT_NS)
    _answer(server, bucket, seg, out)


def _answer(server: "Server", bucket: TimeWait, seg: Segment, out: Decision) -> bool:
    """The bucket's ACK, unless the rate limit holds it back; data without SYN are never limited."""
    limited = not seg.length or bool(seg.flags & SYN)
    if limited and server.suppressed(bucket, seg.time):
        out.counters.append("TCPACKSkippedFinWait2" if bucket.waits_for_fin else "TCPACKSkippedTimeWait")
        return False
    _say(server, bucket, seg, out)
    return True


def _say(server: "Server", bucket: TimeWait, seg: Segment, out: Decision) -> None:
    echo = bucket.ts_recent if bucket.has_ts else None
    out.replies.append(server.reply(bucket.key, ACK, (bucket.snd_nxt, bucket.rcv_nxt), seg.time, echo))
