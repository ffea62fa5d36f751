"""The host's counters against what the replay and the packets predict.

Every rule of the model names the counters that it moves; what follows after a SYN (third ACKs, resets,
TIME-WAIT buckets) is counted from the connections.  Where a verdict is not certain, what came back settles
which of its states it was; what stays open widens the bounds.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from analyzer.diagnosis.buckets import buckets
from analyzer.diagnosis.model import CounterRow, Vantage
from analyzer.diagnosis.netstat import Snapshots, delta
from analyzer.diagnosis.third_acks import third_acks
from analyzer.errors import UsageError
from analyzer.kernel.catalogue import NETSTAT_WORDS, RULES
from analyzer.kernel.profiles import Profile
from analyzer.kernel.rules import RULE_NAMES
from analyzer.schema import (
    ANSWER_ACK,
    ANSWER_NONE,
    ANSWER_RST,
    ANSWER_SYN_ACK,
    CERTAINTIES,
    SEEN_ESTABLISHED,
    SEEN_GAP_ORIG,
    SEEN_RST_ORIG,
    SEEN_SYN,
    SEEN_SYN_ACK,
    VERDICTS,
)

Records = np.ndarray[Any, np.dtype[np.void]]

_RULE = {name: number for number, name in enumerate(RULE_NAMES)}
_CERTAIN = CERTAINTIES.index("certain")
_CHALLENGES_PAWS = (6, 6)
"""From this kernel on a SYN with an old timestamp on a live connection is challenged, not counted as PAWS."""
_SENT_BACK = {
    "accept": ANSWER_SYN_ACK, "cookie": ANSWER_SYN_ACK, "drop": ANSWER_NONE, "ack": ANSWER_ACK, "rst": ANSWER_RST,
}  # fmt: skip
_VERDICT_OF = np.array(
    [{"syn_cookie": "cookie", "listener": "accept", "time_wait_reuse": "accept", "syn_recv_repeat": "accept"}.get(
        rule,
        "rst" if rule.endswith(("reset", "abort")) or rule == "no_listener"
        else "ack" if rule in ("time_wait_paws", "time_wait_sequence", "fin_wait2_ack", "syn_recv_paws",
                               "syn_recv_ack", "live_challenge")
        else "drop")
     for rule in RULE_NAMES]
)  # fmt: skip
_SENT = np.array([_SENT_BACK.get(v, 255) for v in _VERDICT_OF], np.uint8)
"""By rule: the answer that it sends."""

NAMES = (
    "PAWSPassive", "PAWSEstab", "PAWSTimewait", "ListenOverflows", "ListenDrops", "TCPReqQFullDrop",
    "TCPReqQFullDoCookies", "SyncookiesSent", "SyncookiesRecv", "TW", "TWKilled", "PassiveOpens", "EmbryonicRsts",
    "OutRsts", "TCPSYNChallenge", "TCPChallengeACK", "TCPACKSkippedTimeWait", "TCPACKSkippedFinWait2",
    "TCPACKSkippedSynRecv", "TCPACKSkippedChallenge", "TCPACKSkippedPAWS", "TCPAbortOnSyn", "InSegs",
)  # fmt: skip
"""Counters that are predicted, in the order of the report."""
ALWAYS_SHOWN = ("PAWSPassive", "PAWSEstab", "ListenOverflows", "ListenDrops", "TW", "TWKilled")
LISTENER_DROPS = ("ListenDrops", "PAWSPassive", "ListenOverflows", "TCPReqQFullDrop")
MORE_WORDS = {
    "TW": "TCP sockets finished time wait in fast timer",
    "TWKilled": "TCP sockets finished time wait in slow timer",
    "PassiveOpens": "passive connection openings",
    "InSegs": "segments received",
}


@dataclass
class Tally:
    """Low, likeliest and high count of each counter, and what the residuals may come from."""

    low: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    likely: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    high: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    silent_accepts: int = 0
    refuted: int = 0

    def add(self, name: str, low: int, likely: int, high: int) -> None:
        """Add to one counter."""
        self.low[name] += low
        self.likely[name] += likely
        self.high[name] += high


def reconcile(vantage: Vantage, before: dict[str, int], after: dict[str, int]) -> list[CounterRow]:
    """Seen and predicted rise of every counter that this capture's SYNs and connections move.

    Args:
        vantage: A server-side capture with its replay.
        before: Counters of the host when the capture began, as ``netstat.read_counters`` gives them.
        after: The same when it ended.

    Returns:
        Rows in report order; counters that neither rose nor should have are left out, unless they are
        the ones a reader looks for.
    """
    assert vantage.replayed is not None
    tally = predict(vantage)
    received = delta(before, after, "InSegs")
    missing = None if received is None else received - tally.likely["InSegs"]
    rows = []
    for name in NAMES:
        seen = delta(before, after, name)
        if not _exists(vantage.replayed.hypothesis.profile, name) and not seen:
            continue
        likely = tally.likely[name]
        if not seen and not likely and not (name in ALWAYS_SHOWN and seen is not None):
            continue
        row = CounterRow(
            vantage.name, name, NETSTAT_WORDS.get(name, MORE_WORDS.get(name, "")), seen, likely,
            tally.low[name], max(tally.high[name], likely),
        )  # fmt: skip
        if row.residual:
            row = CounterRow(**{**vars(row), "explanation": _explain(row, tally, missing, before, after)})
        elif seen is None:
            text = "it fell between the snapshots: the host was rebooted" if name in after else "not in the snapshots"
            row = CounterRow(**{**vars(row), "explanation": text})
        rows.append(row)
    return rows


def reconcile_all(vantages: Sequence[Vantage], snapshots: Sequence[Snapshots]) -> list[CounterRow]:
    """Rows for every host whose counters were given: one pair of snapshots per server, in their order.

    Raises:
        UsageError: More pairs than captures of servers.
    """
    servers = [v for v in vantages if v.side == "server" and v.replayed is not None]
    hosts = servers or [v for v in vantages[:1] if v.replayed is not None]
    if len(snapshots) > len(hosts):
        raise UsageError(f"--netstat given for {len(snapshots)} hosts, but there are captures of {len(hosts)} servers")
    return [row for v, pair in zip(hosts, snapshots, strict=False) for row in reconcile(v, *pair)]


def _exists(profile: Profile, name: str) -> bool:
    if name == "PAWSPassive":
        return profile.tw_recycle
    return name != "PAWSTimewait" or profile.paws_tw_counter == name


def predict(vantage: Vantage) -> Tally:
    """What the replay and the packets of one server's capture say of its counters."""
    assert vantage.replayed is not None
    tally = Tally()
    settings, profile = vantage.replayed.hypothesis.settings, vantage.replayed.hypothesis.profile
    foreign = _busiest_server(vantage)
    cookies, refused = np.zeros((2, max(vantage.tracked.connection_count, 1)), np.bool_)
    for syns, verdicts in zip(vantage.tracked.syns.chunks(), vantage.replayed.verdicts.chunks(), strict=True):
        keep = syns["orig"] != foreign
        _add_syns(tally, profile, syns[keep], verdicts[keep])
        rule = _settled(syns, verdicts)
        cookies[syns["conn"][rule == _RULE["syn_cookie"]]] = True
        refused[syns["conn"][(rule == _RULE["syn_recv_paws"]) | (rule == _RULE["syn_recv_ack"])]] = True
    acks = third_acks(vantage.tracked, bool(settings.abort_on_overflow), foreign)
    overflows = acks.ignored + acks.aborted
    for name in ("ListenOverflows", "ListenDrops"):
        tally.add(name, overflows, overflows, overflows + acks.doubtful)
    tally.add("EmbryonicRsts", acks.aborted, acks.aborted + acks.client_resets, acks.aborted + acks.client_resets)
    tally.likely["OutRsts"] = tally.low["OutRsts"] = tally.high["OutRsts"] = acks.resets
    _add_connections(tally, vantage, foreign, cookies, acks.never_taken)
    resets = _resets_of(vantage, refused)
    tally.add("EmbryonicRsts", 0, resets, resets)
    for name, (low, likely, high) in buckets(vantage, foreign).items():
        tally.add(name, low, likely, high)
    return tally


def _busiest_server(vantage: Vantage) -> int:
    """Host id that most SYNs speak to; connections that it opens itself are none of its listener's."""
    asked = np.zeros(max(len(vantage.tracked.hosts), 1), np.int64)
    for chunk in vantage.tracked.syns.chunks():
        asked += np.bincount(chunk["resp"], minlength=len(asked))
    return int(np.argmax(asked)) if asked.any() else -1


def _add_syns(tally: Tally, profile: Profile, syns: Records, verdicts: Records) -> None:
    """Counters of the SYNs' rules, many at a time."""
    certain = verdicts["certainty"] == _CERTAIN
    rule = _settled(syns, verdicts)
    paws = (verdicts["compared"] == 1) & (verdicts["tsval_delta"] < -1)
    for number in np.unique(rule):
        mine = rule == number
        for old in (False, True):
            where = mine & (paws == old)
            if RULE_NAMES[int(number)] == "fin_wait2_ack":  # a full socket there counts as a live one
                for name in _live(profile, old, False):
                    tally.high[name] += int(np.count_nonzero(where))
            for name in moved(profile, RULE_NAMES[int(number)], old):
                count = int(np.count_nonzero(where))
                tally.add(name, int(np.count_nonzero(where & certain)), count, count)
    open_ = ~certain & (rule != verdicts["alternative"]) & (verdicts["alternative"] > 0)
    open_ &= (_SENT[rule] != syns["answer"]) | (_SENT[verdicts["alternative"]] == syns["answer"])
    for number in np.unique(verdicts["alternative"][open_]):
        for name in moved(profile, RULE_NAMES[int(number)], True):
            tally.high[name] += int(np.count_nonzero(open_ & (verdicts["alternative"] == number)))
    if tally.likely["SyncookiesSent"]:  # in a crowded queue any SYN-ACK may have been a cookie
        doubtful = ~certain & (rule == _RULE["listener"]) & (syns["answer"] == ANSWER_SYN_ACK)
        for name in moved(profile, "syn_cookie", False):
            tally.high[name] += int(np.count_nonzero(doubtful))
        tally.high["SyncookiesRecv"] += int(np.count_nonzero(doubtful))
    taken = np.isin(verdicts["verdict"], [VERDICTS.index("accept"), VERDICTS.index("cookie")])
    dropped = certain & (verdicts["verdict"] == VERDICTS.index("drop"))
    tally.refuted += int(np.count_nonzero(dropped & (syns["answer"] == ANSWER_SYN_ACK)))
    tally.silent_accepts += int(np.count_nonzero(taken & (rule > 0) & (syns["answer"] == ANSWER_NONE)))


def _settled(syns: Records, verdicts: Records) -> Any:
    """The rule in force: the verdict's where certain; else that of its states which fits what came back."""
    rule, other = verdicts["rule"], verdicts["alternative"]
    fits = (_SENT[rule] == syns["answer"]) | (verdicts["certainty"] == _CERTAIN)
    other_fits = (other > 0) & (_SENT[other] == syns["answer"])
    listener = _RULE["listener"]
    answered = syns["answer"] == ANSWER_SYN_ACK
    return np.where(fits, rule, np.where(other_fits, other, np.where(answered, listener, rule)))


def moved(profile: Profile, rule: str, paws: bool) -> tuple[str, ...]:
    """Counters that one SYN decided by *rule* moves on this kernel.

    Args:
        profile: Its rules.
        rule: Name in ``RULE_NAMES``.
        paws: Whether the SYN's TSval lies behind the one it was compared with.
    """
    if rule in ("live_challenge", "live_rate_limited"):
        return _live(profile, paws, rule == "live_rate_limited")
    names = list(RULES[rule].counters) if rule else []
    if rule == "syn_cookie" and profile.cookie_counted:
        names.append("ListenDrops")
    if rule == "syn_recv_rate_limited" and paws:
        names.append("PAWSEstab")
    gone = {"PAWSEstab", "PAWSTimewait"} - {profile.paws_tw_counter} if "time_wait" in rule else set()
    if not profile.drops_counted or (rule == "accept_queue_full" and not profile.overflow_counted):
        gone |= {"ListenDrops"}
    if not profile.overflow_counted:
        gone |= {"ListenOverflows"}
    if not profile.queue_counters:
        gone |= {"TCPReqQFullDrop", "TCPReqQFullDoCookies"}
    return tuple(name for name in names if name not in gone)


def _live(profile: Profile, paws: bool, limited: bool) -> tuple[str, ...]:
    """A SYN on a live connection: net/ipv4/tcp_input.c ``tcp_validate_incoming``."""
    if paws and profile.first < _CHALLENGES_PAWS:
        return ("PAWSEstab", "TCPACKSkippedPAWS") if limited else ("PAWSEstab",)
    if profile.live_syn != "challenge":
        return ()
    return ("TCPSYNChallenge", "TCPACKSkippedChallenge" if limited else "TCPChallengeACK")


def _add_connections(tally: Tally, vantage: Vantage, foreign: int, cookies: Any, never: int) -> None:
    """PassiveOpens, SyncookiesRecv and segments received."""
    opened = by_cookie = received = gaps = 0
    for chunk in vantage.tracked.connections.chunks():
        ours = chunk["orig"] != foreign
        received += int(chunk["packets_orig"][ours].sum()) + int(chunk["packets_resp"][~ours].sum())
        full = ours & (chunk["seen"] & (SEEN_SYN | SEEN_SYN_ACK | SEEN_ESTABLISHED) == 7)
        opened += int(np.count_nonzero(full))
        by_cookie += int(np.count_nonzero(full & cookies[chunk["conn"]]))
        gaps += int(np.count_nonzero(ours & (chunk["seen"] & SEEN_GAP_ORIG > 0)))
    tally.add("PassiveOpens", opened - never, opened - never, opened)
    tally.add("SyncookiesRecv", 0, by_cookie, by_cookie)
    tally.add("InSegs", received, received, received + gaps)


def _resets_of(vantage: Vantage, refused: Any) -> int:
    """Clients that reset the half-open request which refused their SYN with an ACK."""
    return sum(
        int(np.count_nonzero(refused[chunk["conn"]] & (chunk["seen"] & SEEN_RST_ORIG > 0)))
        for chunk in vantage.tracked.connections.chunks()
    )


def _explain(row: CounterRow, tally: Tally, missing: int | None, before: dict[str, int], after: dict[str, int]) -> str:
    """Why the kernel counted more or less than predicted."""
    residual = row.residual or 0
    within = row.predicted_low <= (row.seen or 0) <= row.predicted_high
    if row.name == "InSegs":
        return _segments(residual)
    if row.name == "ListenDrops" and 0 < residual <= tally.silent_accepts:
        return (
            f"{tally.silent_accepts:,} SYNs that the model would have taken got no answer: drops at the listener that "
            "have no counter of their own (no route back, no memory, a security module)"
        )
    if residual < 0 < tally.refuted and row.name in LISTENER_DROPS:
        return (
            f"{tally.refuted:,} SYNs that should have been dropped for certain got their SYN-ACK: kernel, settings or "
            "the completeness of the capture are not as assumed"
        )
    if row.name in ("TW", "TWKilled") and within and residual > 0:
        return "TIME-WAITs that ended without a packet, after the capture's last one and before the snapshot"
    if within:
        return "within the bounds: the verdicts behind it are not all certain"
    if residual > 0 and missing is not None and missing > 0:
        return (
            f"the host received {missing:,} segments that are not in the capture (before or after it, on other ports "
            "or interfaces)"
        )
    if residual > 0 and row.name == "ListenDrops":
        overflows = delta(before, after, "ListenOverflows") or 0
        if residual == overflows - tally.likely["ListenOverflows"]:
            return "the same as for ListenOverflows"
    return "unexplained" + (": the capture holds every segment that the host received" if missing == 0 else "")


def _segments(residual: int) -> str:
    if residual > 0:
        return (
            f"{residual:,} segments reached the host that are not in the capture: other ports, other times, or losses"
        )
    return f"the capture holds {-residual:,} segments more than the host's TCP received: dropped below it, or later"
