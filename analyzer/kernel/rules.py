"""The kernel's decisions as pure functions of numbers: one rule, one name.

Sequence numbers and TSvals are plain integers 0 … 2**32-1, times are whole seconds (``_s``) or
nanoseconds (``_ns``) given by the caller.  Sections in parentheses name the steps of a SYN's way:
per-peer test and write rule, TIME-WAIT, half-open requests, live connections, queues.
"""

from dataclasses import dataclass

from analyzer.kernel.profiles import Profile
from analyzer.kernel.settings import Settings
from analyzer.seqnum import add32, after, d32, u32age

PAWS_MSL_S = 60
PAWS_WINDOW = 1
TIME_WAIT_NS = 60_000_000_000
NS_PER_MS = 1_000_000
ISN_STEP = 65_537
"""A connection accepted out of TIME-WAIT starts this far behind the old one (T2)."""

WRITE_EVENTS = ("", "E1", "E2", "E3", "E3_timer", "E4", "E5")


@dataclass(frozen=True)
class Bucket:
    """What a TIME-WAIT bucket, a request or a live connection is compared by."""

    rcv_nxt: int
    rcv_wnd: int = 0
    snd_nxt: int = 0
    ts_recent: int = 0
    ts_recent_s: int = 0
    has_ts: bool = False


@dataclass(frozen=True)
class Outcome:
    """What the kernel does with a SYN.

    Attributes:
        verdict: ``accept``, ``drop``, ``ack``, ``rst`` or ``cookie``.
        rule: Name of the rule that decided.
        rearm: Whether a bucket's timer starts anew with 60 s.
        destroys: Whether what stood on the four-tuple is gone afterwards.
        counters: TcpExt counters that rise by one.
        isn: The server's initial sequence number where the rule presets it.
    """

    verdict: str
    rule: str
    rearm: bool = False
    destroys: bool = False
    counters: tuple[str, ...] = ()
    isn: int | None = None


# ---- the peer's memory ---------------------------------------------------------------------------


def peer_fresh(profile: Profile, stamp_s: int, now_s: int) -> bool:
    """Whether a remembered stamp still rejects: younger than 60 whole seconds.

    2.6.32 and el6 compare wide integers, so a stamp of the future is fresh; later kernels take the
    unsigned 32-bit age.  net/ipv4/tcp_metrics.c ``tcp_peer_is_proven``; before 3.6 tcp_ipv4.c
    ``tcp_v4_conn_request``.
    """
    if profile.wide_seconds:
        return now_s < stamp_s + PAWS_MSL_S
    return u32age(now_s, stamp_s) < PAWS_MSL_S


def peer_rejects(profile: Profile, stored_ts: int, stored_s: int, tsval: int | None, now_s: int) -> bool:
    """The per-peer timestamp test (L8): drop a SYN more than one tick behind a fresh stamp.

    ``tcp_peer_is_proven`` in net/ipv4/tcp_metrics.c (3.6-4.11).  From 3.17 and in el7.3+ a SYN
    without the option counts as TSval 0 that always fails (commit a26552afe894).
    """
    if not stored_s or not peer_fresh(profile, stored_s, now_s):
        return False
    if tsval is None:
        return profile.drop_without_ts
    return d32(stored_ts, tsval) > PAWS_WINDOW


def peer_write_replaces(profile: Profile, old_ts: int, old_s: int, new_ts: int, new_s: int, now_s: int) -> bool:
    """Whether a closing connection's stamp replaces the remembered one.

    Within a minute the record is a running maximum; afterwards a lower value may replace it if it was
    not received earlier.  ``tcp_remember_stamp``, ``tcp_tw_remember_stamp`` in tcp_metrics.c.
    """
    if d32(old_ts, new_ts) <= 0:
        return True
    if profile.wide_seconds:
        return old_s + PAWS_MSL_S < now_s and old_s <= new_s
    return u32age(now_s, old_s) > PAWS_MSL_S and old_s <= new_s


def peer_key(
    profile: Profile, local: object, remote: object, v6: bool = False, dual_stack: bool = False
) -> object | None:
    """Under what a peer's stamp is filed; None where this kernel never checks this peer.

    Remote address only up to 3.13 and el7.1, (local, remote) from 3.14 and el7.3 (a544302820db).
    """
    if v6 and not profile.ipv6_peers:
        return None
    if dual_stack and not v6 and profile.dual_stack == "never checked":
        return None
    return (local, remote) if profile.key == "local_remote" else remote


# ---- TIME-WAIT --------------------------------------------------------------------------------------


def paws_rejects(profile: Profile, bucket: Bucket, tsval: int | None, now_s: int, tolerance: int = 0) -> bool:
    """PAWS against a stored ts_recent: older by more than *tolerance* and not forgotten.

    include/net/tcp.h ``tcp_paws_check``, ``tcp_paws_reject`` (RFC 7323 section 5).
    """
    if tsval is None or not bucket.has_ts:
        return False
    if bucket.ts_recent == 0 and profile.zero_exempt:
        return False
    if d32(bucket.ts_recent, tsval) <= tolerance:
        return False
    return now_s - bucket.ts_recent_s < profile.paws_forget_s


def in_window(bucket: Bucket, seq: int, end: int) -> bool:
    """Whether a segment [seq, end) touches the window.

    net/ipv4/tcp_minisocks.c ``tcp_in_window``.
    """
    right = add32(bucket.rcv_nxt, bucket.rcv_wnd)
    if seq == bucket.rcv_nxt:
        return True
    if after(end, bucket.rcv_nxt) and after(right, seq):
        return True
    return seq == right and seq == end


def time_wait(profile: Profile, bucket: Bucket, seq: int, tsval: int | None, now_s: int) -> Outcome:
    """A SYN meets a bucket in true TIME_WAIT (T1-T4).

    net/ipv4/tcp_minisocks.c ``tcp_timewait_state_process``; RFC 6191 with Linux' deviations.
    """
    rejected = paws_rejects(profile, bucket, tsval, now_s)
    newer = bucket.has_ts and tsval is not None and d32(bucket.ts_recent, tsval) < 0
    if not rejected and (after(seq, bucket.rcv_nxt) or newer):
        isn = add32(bucket.snd_nxt, ISN_STEP) or 1
        return Outcome("accept", "time_wait_reuse", destroys=True, isn=isn)
    if rejected:
        return Outcome("ack", "time_wait_paws", rearm=True, counters=(profile.paws_tw_counter,))
    return Outcome("ack", "time_wait_sequence")


def fin_wait2(profile: Profile, bucket: Bucket, seq: int, tsval: int | None, now_s: int) -> Outcome:
    """A SYN meets a bucket whose client has not sent its FIN yet (F1, F2).

    net/ipv4/tcp_minisocks.c ``tcp_timewait_state_process``, first half.
    """
    if paws_rejects(profile, bucket, tsval, now_s) or not in_window(bucket, seq, add32(seq, 1)):
        return Outcome("ack", "fin_wait2_ack")
    if d32(seq, bucket.rcv_nxt) >= 0:
        return Outcome("rst", "fin_wait2_reset", destroys=True, counters=("OutRsts",))
    return Outcome("ack", "fin_wait2_ack")


def syn_recv(profile: Profile, request: Bucket, seq: int, tsval: int | None, now_s: int) -> Outcome:
    """A SYN meets a half-open request (R0-R3); ``request.rcv_nxt`` is its ISN + 1.

    net/ipv4/tcp_minisocks.c ``tcp_check_req``.
    """
    rejected = paws_rejects(profile, request, tsval, now_s)
    if d32(seq, request.rcv_nxt) == -1 and not rejected:
        return Outcome("accept", "syn_recv_repeat")
    if rejected:
        return Outcome("ack", "syn_recv_paws", counters=("PAWSEstab",))
    if not in_window(request, seq, add32(seq, 1)):
        return Outcome("ack", "syn_recv_ack")
    return Outcome("rst", "syn_recv_reset", destroys=True, counters=("EmbryonicRsts", "AttemptFails"))


def live(profile: Profile, inside: bool, paws: bool) -> Outcome:
    """A SYN meets a connection that is still open (2.5).

    net/ipv4/tcp_input.c ``tcp_validate_incoming`` (RFC 5961 section 4); 3.8-3.16 discard a segment
    with neither ACK nor RST before that (measured on 3.10.108: no answer, no counter).
    """
    if profile.live_syn == "silent":
        return Outcome("drop", "live_silent")
    if paws:
        return Outcome("ack", "live_challenge", counters=("PAWSEstab",))
    if profile.live_syn == "challenge":
        return Outcome("ack", "live_challenge", counters=("TCPSYNChallenge", "TCPChallengeACK"))
    if inside:
        return Outcome("rst", "live_abort", destroys=True, counters=("TCPAbortOnSyn",))
    return Outcome("ack", "live_challenge")


def ack_suppressed(profile: Profile, settings: Settings, last_ns: int | None, now_ns: int) -> bool:
    """Whether an out-of-window ACK is held back: one per ``tcp_invalid_ratelimit``.

    net/ipv4/tcp_input.c ``tcp_oow_rate_limited`` (4.0 and later, el7.3+).
    """
    if not profile.ack_ratelimit or last_ns is None:
        return False
    limit = 500 if settings.invalid_ratelimit_ms is None else settings.invalid_ratelimit_ms
    return 0 <= now_ns - last_ns < limit * NS_PER_MS


# ---- buckets' lives -----------------------------------------------------------------------------------

RTO_MIN_NS = 200 * NS_PER_MS
RTO_UNSAMPLED_NS = 3_000 * NS_PER_MS


def rto_bounds_ns(rtt_low_ns: int, rtt_high_ns: int) -> tuple[int, int]:
    """Bounds of a connection's RTO from bounds of its round trips (0, 0: never measured).

    RTO = srtt + max(200 ms, 4 * rttvar), net/ipv4/tcp_input.c ``tcp_rtt_estimator``, ``tcp_set_rto``.
    The first sample makes 4 * rttvar twice the sample (RFC 6298 section 2.2).
    """
    if rtt_high_ns <= 0:
        return RTO_MIN_NS, RTO_UNSAMPLED_NS
    return rtt_low_ns + RTO_MIN_NS, rtt_high_ns + max(RTO_MIN_NS, 2 * rtt_high_ns)


def bucket_life_ns(profile: Profile, settings: Settings, recycled: bool, rto_ns: int) -> tuple[int, int]:
    """Shortest and longest life of a bucket armed now.

    60 s, or 3.5 * RTO where tcp_tw_recycle remembered the peer's stamp.  Kernels up to 4.0 round to
    timer slots: of 7.5 s for long timers, so 60 s ends after 52.5-60 s; short ones end up to a slot
    of 128 ms (160 ms at HZ=100) early.  From 4.8 the timer wheel fires late instead: up to 1/8 of the
    span, 5.12 s for a minute at HZ=100 (measured: alive 60.9 s after the FIN on 6.18).
    net/ipv4/inet_timewait_sock.c ``inet_twsk_schedule``.
    """
    nominal = rto_ns * 7 // 2 if recycled else TIME_WAIT_NS
    short = nominal < 5_000 * NS_PER_MS
    if profile.tw_timer == "slots":
        early = (320 if short else 7_500) * NS_PER_MS
        return max(0, nominal - early), nominal + (160 * NS_PER_MS if short else 0)
    if profile.tw_timer == "wheel":
        return nominal, nominal + (160 if short else 5_120) * NS_PER_MS
    return nominal, nominal


def fin_time_ns(settings: Settings, rto_ns: int) -> int:
    """Life of a FIN_WAIT2: tcp_fin_timeout, at least 3.5 RTO; include/net/tcp.h ``tcp_fin_time``."""
    timeout = 60 if settings.fin_timeout is None else settings.fin_timeout
    return max(timeout * 1_000 * NS_PER_MS, rto_ns * 7 // 2)


# ---- queues ---------------------------------------------------------------------------------------------


def syn_queue_limit(profile: Profile, backlog: int, max_syn_backlog: int) -> int:
    """Length at which the SYN queue counts as full.

    Up to 4.3 the smallest power of two above max(8, min(backlog, tcp_max_syn_backlog)), at least 8
    (net/core/request_sock.c ``reqsk_queue_alloc``); from 4.4 the backlog itself.
    """
    if profile.syn_queue != "length >= power of two":
        return backlog
    n = max(8, min(backlog, max_syn_backlog)) + 1
    return 1 << (n - 1).bit_length()


def syn_queue_full(profile: Profile, length: int, limit: int) -> bool:
    """Step L5; include/net/inet_connection_sock.h ``inet_csk_reqsk_queue_is_full``."""
    return length > limit if profile.syn_queue == "length > backlog" else length >= limit


def accept_queue_full(length: int, backlog: int) -> bool:
    """``sk_acceptq_is_full``: longer than the backlog, so it holds backlog + 1."""
    return length > backlog


def accept_queue_drops(profile: Profile, length: int, backlog: int, young: int) -> bool:
    """Step L6: older kernels let a SYN in unless more than one young request waits already."""
    if not accept_queue_full(length, backlog):
        return False
    return young > 1 if profile.accept_queue == "if young > 1" else True


def last_quarter(length: int, max_syn_backlog: int, syncookies: int) -> bool:
    """Step L9: with cookies off the last quarter of tcp_max_syn_backlog is for proven peers."""
    return not syncookies and max_syn_backlog - length < max_syn_backlog >> 2


RULE_NAMES = (
    "",
    "listener",
    "peer_timestamp",
    "peer_timestamp_missing",
    "time_wait_reuse",
    "time_wait_paws",
    "time_wait_sequence",
    "time_wait_paws_rate_limited",
    "time_wait_sequence_rate_limited",
    "fin_wait2_ack",
    "fin_wait2_reset",
    "fin_wait2_rate_limited",
    "syn_recv_repeat",
    "syn_recv_paws",
    "syn_recv_ack",
    "syn_recv_reset",
    "syn_recv_rate_limited",
    "live_challenge",
    "live_silent",
    "live_abort",
    "live_rate_limited",
    "accept_queue_full",
    "syn_queue_full",
    "last_quarter",
    "syn_cookie",
    "no_listener",
    "no_route",
)
"""Stable names of the rules that decide over a SYN."""
