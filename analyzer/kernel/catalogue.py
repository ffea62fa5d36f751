"""What each rule is, in words: for users, for ``docs/kernel-rules.md``, for the report."""

from dataclasses import dataclass

from analyzer.kernel.profiles import FLAGS, PROFILES, meaning


@dataclass(frozen=True)
class Rule:
    """One rule that decides over a SYN.

    Attributes:
        summary: What happens, one sentence.
        versions: Kernels that have it.
        where: Kernel file and function.
        counters: Counters of /proc/net/netstat (or snmp) that it moves.
    """

    summary: str
    versions: str
    where: str
    counters: tuple[str, ...] = ()


_REQUEST = "net/ipv4/tcp_input.c tcp_conn_request (up to 3.16 tcp_ipv4.c tcp_v4_conn_request)"
_TIMEWAIT = "net/ipv4/tcp_minisocks.c tcp_timewait_state_process"
_LIMIT = "net/ipv4/tcp_minisocks.c tcp_timewait_check_oow_rate_limit"
_CHECK = "net/ipv4/tcp_minisocks.c tcp_check_req"
_LIVE = "net/ipv4/tcp_input.c tcp_validate_incoming"
_DROPS = "ListenDrops"

RULES: dict[str, Rule] = {
    "listener": Rule("The listener has room and answers with a SYN-ACK.", "all", _REQUEST),
    "peer_timestamp": Rule(
        "The SYN's TSval lies two ticks or more behind the one remembered for its source address, received in the "
        "last 60 whole seconds: dropped without a word.",
        "up to 4.11, only with tcp_tw_recycle=1",
        "net/ipv4/tcp_metrics.c tcp_peer_is_proven (up to 3.5 inline in tcp_v4_conn_request)",
        ("PAWSPassive", _DROPS),
    ),
    "peer_timestamp_missing": Rule(
        "The SYN has no timestamps while one is remembered for its source address: dropped without a word.",
        "3.17 - 4.11 and el7.3+, only with tcp_tw_recycle=1",
        "net/ipv4/tcp_metrics.c tcp_peer_is_proven",
        ("PAWSPassive", _DROPS),
    ),
    "time_wait_reuse": Rule(
        "The TIME-WAIT on the same four numbers gives way: newer timestamp, or higher sequence number without an "
        "older timestamp. The server's ISN is the old snd_nxt + 65537.",
        "all",
        _TIMEWAIT,
    ),
    "time_wait_paws": Rule(
        "The TIME-WAIT on the same four numbers holds a newer timestamp: a bare ACK, and its minute starts anew.",
        "all",
        _TIMEWAIT,
        ("PAWSEstab", "PAWSTimewait"),
    ),
    "time_wait_sequence": Rule(
        "The TIME-WAIT on the same four numbers: no newer timestamp, sequence number not above the old one: "
        "a bare ACK.",
        "all",
        _TIMEWAIT,
    ),
    "time_wait_paws_rate_limited": Rule(
        "As `time_wait_paws`, but within 500 ms of the last bare ACK: nothing is sent; the minute starts anew.",
        "4.0 and later, el7.3+",
        _LIMIT,
        ("TCPACKSkippedTimeWait", "PAWSEstab", "PAWSTimewait"),
    ),
    "time_wait_sequence_rate_limited": Rule(
        "As `time_wait_sequence`, but within 500 ms of the last bare ACK: nothing is sent.",
        "4.0 and later, el7.3+",
        _LIMIT,
        ("TCPACKSkippedTimeWait",),
    ),
    "fin_wait2_rate_limited": Rule(
        "As `fin_wait2_ack`, but within 500 ms of the last bare ACK: nothing is sent.",
        "4.0 and later, el7.3+",
        _LIMIT,
        ("TCPACKSkippedFinWait2",),
    ),
    "fin_wait2_ack": Rule(
        "A bucket that still waits for the client's FIN, and a SYN out of its window or with an older timestamp: "
        "a bare ACK.",
        "all",
        _TIMEWAIT,
    ),
    "fin_wait2_reset": Rule(
        "A bucket that still waits for the client's FIN, and a SYN in its window: a RST, and the bucket is gone.",
        "all",
        _TIMEWAIT,
        ("OutRsts",),
    ),
    "syn_recv_repeat": Rule("The SYN of a half-open request comes again: its SYN-ACK is repeated.", "all", _CHECK),
    "syn_recv_paws": Rule(
        "Another SYN with an older timestamp meets a half-open request: a bare ACK.", "all", _CHECK, ("PAWSEstab",)
    ),
    "syn_recv_ack": Rule("Another SYN out of the window meets a half-open request: a bare ACK.", "all", _CHECK),
    "syn_recv_reset": Rule(
        "Another SYN in the window meets a half-open request: a RST, and the request is gone.",
        "all",
        _CHECK,
        ("EmbryonicRsts", "AttemptFails"),
    ),
    "syn_recv_rate_limited": Rule(
        "A half-open request answered less than 500 ms ago: nothing is sent.",
        "4.0 and later, el7.3+",
        _CHECK,
        ("TCPACKSkippedSynRecv",),
    ),
    "live_challenge": Rule(
        "A connection is still open on the same four numbers: a challenge ACK (RFC 5961 section 4).",
        "el6, 3.4, el7, 3.17 and later",
        _LIVE,
        ("TCPSYNChallenge", "TCPChallengeACK", "PAWSEstab"),
    ),
    "live_silent": Rule(
        "A connection is still open on the same four numbers: the SYN is discarded, no answer and no counter.",
        "3.8 - 3.16 (measured on 3.10.108)",
        "net/ipv4/tcp_input.c tcp_rcv_established, tcp_rcv_state_process",
    ),
    "live_abort": Rule(
        "A connection is still open on the same four numbers and the SYN lies in its window: RST, the connection is "
        "aborted.",
        "2.6.32 - 3.3 vanilla",
        _LIVE,
        ("TCPAbortOnSyn",),
    ),
    "live_rate_limited": Rule(
        "As the challenge ACK, but within 500 ms of the last one: nothing is sent.",
        "4.0 and later, el7.3+",
        "net/ipv4/tcp_input.c tcp_oow_rate_limited",
        ("TCPACKSkippedChallenge", "TCPACKSkippedSeq", "TCPACKSkippedPAWS"),
    ),
    "accept_queue_full": Rule(
        "The accept queue holds more than the backlog: dropped without a word (older kernels only if more than one "
        "young request waits).",
        "all; every SYN from 4.10 and in late 4.9",
        _REQUEST,
        ("ListenOverflows", _DROPS),
    ),
    "syn_queue_full": Rule(
        "The SYN queue is full and cookies are off: dropped without a word.",
        "all",
        _REQUEST,
        ("TCPReqQFullDrop", _DROPS),
    ),
    "last_quarter": Rule(
        "Cookies are off and the SYN queue is in its last quarter, kept for proven peers: dropped without a word.",
        "all; which peers are proven differs",
        _REQUEST,
        (_DROPS,),
    ),
    "syn_cookie": Rule(
        "The SYN queue is full and cookies are on: a SYN-ACK without state; no other check is made.",
        "all",
        _REQUEST,
        ("TCPReqQFullDoCookies", "SyncookiesSent"),
    ),
    "no_listener": Rule("Nothing listens on the port: a RST.", "all", "net/ipv4/tcp_ipv4.c tcp_v4_rcv", ("OutRsts",)),
    "no_route": Rule(
        "The server has no way back to the SYN's network, or a filter drops it: nothing is sent. Concluded from "
        "earlier SYNs of that network, all unanswered.",
        "all",
        _REQUEST,
        (_DROPS,),
    ),
}

NETSTAT_WORDS = {
    "PAWSPassive": "passive connections rejected because of time stamp",
    "PAWSActive": "active connections rejected because of time stamp",
    "PAWSEstab": "packets rejected in established connections because of timestamp",
    "ListenOverflows": "times the listen queue of a socket overflowed",
    "ListenDrops": "SYNs to LISTEN sockets dropped",
    "SyncookiesSent": "SYN cookies sent",
    "SyncookiesRecv": "SYN cookies received",
    "SyncookiesFailed": "invalid SYN cookies received",
    "EmbryonicRsts": "resets received for embryonic SYN_RECV sockets",
    "TCPAbortOnSyn": "connections reset due to unexpected SYN",
    "OutRsts": "resets sent",
    "AttemptFails": "failed connection attempts",
}
"""How ``netstat -s`` (net-tools) words a counter; those not here are printed by name."""


def markdown() -> str:
    """The text of ``docs/kernel-rules.md``."""
    lines = [
        "# Kernel rules",
        "",
        "Generated from `analyzer/kernel`; a test keeps it up to date. What happens to an incoming SYN, by the rule "
        "that decides.",
        "",
        "| rule | what happens | kernels | kernel file and function | counters |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, rule in RULES.items():
        counters = ", ".join(_counter(c) for c in rule.counters) or "none"
        lines.append(f"| `{name}` | {rule.summary} | {rule.versions} | {rule.where} | {counters} |")
    lines += [
        "",
        "## Profiles",
        "",
        "Kernels differ as data. Each profile is one column of answers to these questions.",
        "",
    ]
    for flag in FLAGS:
        values: dict[str, list[str]] = {}
        for profile in PROFILES:
            values.setdefault(_say(getattr(profile, flag)), []).append(profile.name)
        lines.append(
            f"- **{meaning(flag)}**: " + "; ".join(f"{value}: {', '.join(names)}" for value, names in values.items())
        )
    lines += ["", "| profile | kernels |", "| --- | --- |"]
    lines += [f"| `{p.name}` | {p.covers} |" for p in PROFILES]
    return "\n".join(lines) + "\n"


def _counter(name: str) -> str:
    words = NETSTAT_WORDS.get(name)
    return f"`{name}` (“{words}”)" if words else f"`{name}`"


def _say(value: object) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
