"""The replay held against a probe on the live server, packet by packet."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import numpy as np

from analyzer.connections.names import host_texts
from analyzer.diagnosis.model import ProbeMatch, Vantage
from analyzer.diagnosis.probes import ProbeLine, ProbeLog
from analyzer.kernel.rules import RULE_NAMES
from analyzer.schema import ANSWER_SYN_ACK, CERTAINTIES, OPT_TS, VERDICTS
from analyzer.units import MS, NO_TIME, NS

Records = np.ndarray[Any, np.dtype[np.void]]

NEAR = 100 * MS
"""How far a line's time may lie from its packet's, once the clocks' offset is taken off."""
TOGETHER = 2 * MS
"""The same for lines without addresses."""
MOST_DISAGREEMENTS = 1_000
VOTERS = 20_000
"""Lines that find out the offset of the probe's clock."""
HALF_HOUR = 1_800 * NS

_PEER = ("peer_timestamp", "peer_timestamp_missing")
_LISTENER = ("listener", "last_quarter", *_PEER)
_RULES_OF = {
    "drop paws_passive": _PEER,
    "drop acceptq_full": ("accept_queue_full",),
    "drop reqq_full": ("syn_queue_full",),
    "drop last_quarter": ("last_quarter",),
    "drop other": ("no_route",),
    "PROVEN ret=0": _PEER,
    "TIME-WAIT ACK": ("time_wait_paws", "time_wait_sequence", "fin_wait2_ack"),
    "DROP TCP_RFC7323_TW_PAWS": ("time_wait_paws", "time_wait_paws_rate_limited"),
    "DROP TCP_RFC7323_PAWS": ("live_challenge", "live_rate_limited", "syn_recv_paws"),
    "DROP TCP_INVALID_SYN": ("live_challenge", "live_rate_limited"),
    "DROP TCP_LISTEN_OVERFLOW": ("accept_queue_full",),
    "DROP NO_SOCKET": ("no_listener",),
    "LISTEN accept queue full": ("accept_queue_full", "syn_queue_full", "syn_cookie"),
}
"""Rules of the model that say the same as a probe's word."""
_VERDICT_OF: dict[str, tuple[str, ...]] = {
    "drop": ("drop",), "accept": ("accept",), "cookie": ("cookie",), "TIME-WAIT ACK": ("ack",),
    "TIME-WAIT RST": ("rst",), "TIME-WAIT SUCCESS": ("drop",), "PROVEN ret=0": ("drop",),
}  # fmt: skip
_BELOW_TCP = (
    "NETFILTER_DROP", "IP_RPFILTER", "IP_CSUM", "IP_INHDR", "OTHERHOST", "XFRM_POLICY", "PKT_TOO_SMALL", "TCP_CSUM",
    "XDP", "TC_INGRESS", "BPF_CGROUP_INGRESS", "CPU_BACKLOG", "NOMEM", "PROTO_MEM", "SOCKET_FILTER", "TCP_MINTTL",
    "TCP_MD5NOTFOUND", "TCP_MD5UNEXPECTED", "TCP_MD5FAILURE", "SECURITY_HOOK",
)  # fmt: skip


@dataclass
class _Table:
    """The SYNs of a capture, by what a line may name them by."""

    rows: Records
    verdicts: Records
    names: list[str]
    by_sport: dict[tuple[str, int], list[int]] = field(default_factory=lambda: defaultdict(list))
    by_tsval: dict[tuple[str, int | None], list[int]] = field(default_factory=lambda: defaultdict(list))
    known: list[tuple[int, int, int | None]] = field(default_factory=list)

    def __post_init__(self) -> None:
        columns = self.rows[["orig", "orig_p", "resp_p", "isn", "tsval", "opts"]].tolist()
        for i, (orig, sport, dport, isn, raw, opts) in enumerate(columns):
            tsval = raw if opts & OPT_TS else None
            self.by_sport[self.names[orig], sport].append(i)
            self.by_tsval[self.names[orig], tsval].append(i)
            self.known.append((dport, isn, tsval))

    def candidates(self, line: ProbeLine) -> list[int]:
        """SYNs that *line* may speak of, whatever their time; the check sees TSval 0 where a SYN has none."""
        if not line.source:
            return []
        if not line.sport:
            return self.by_tsval.get((line.source, line.tsval), [])
        found = []
        for i in self.by_sport.get((line.source, line.sport), ()):
            dport, isn, tsval = self.known[i]
            same = (not line.dport or dport == line.dport) and (line.seq is None or isn == line.seq)
            if same and ((tsval or 0) == line.tsval if line.kind == "check" else line.tsval in (None, tsval)):
                found.append(i)
        return found


_NO_LINE: tuple[ProbeLine | None, ...] = (None,)


def match(log: ProbeLog, vantage: Vantage) -> ProbeMatch:
    """Pair every line of a probe with its SYN and compare what both say.

    Args:
        log: A probe's lines.
        vantage: The capture of the same server, with its replay.

    Returns:
        Word against verdict for each SYN in the time that the log covers; ``no line`` where the log has
        none for it.
    """
    assert vantage.replayed is not None
    table = _Table(
        vantage.tracked.syns.to_array(), vantage.replayed.verdicts.to_array(), host_texts(vantage.tracked.hosts)
    )
    lines = [line for line in log.lines if line.kind != "stamp"]
    said, unmatched = _pair(lines, table)
    counts: Counter[tuple[str, str]] = Counter()
    wrong: list[tuple[int, str, str, str]] = []
    silent = _covered(lines, table, said)
    kinds = {line.kind for line in lines}
    for row in sorted([*said, *silent]):
        mine = said.get(row, [])
        verdict, rule = _replay_says(table, row)
        word = " + ".join(dict.fromkeys(line.word for line in mine)) or "no line"
        counts[word, f"{verdict} ({rule})"] += 1
        for line in mine or _NO_LINE:
            doubt = _compare(line, verdict, rule, kinds)
            if doubt is not None and len(wrong) < MOST_DISAGREEMENTS:
                text = line.text if line is not None else "no line"
                why = _why(vantage, table, row, doubt)
                wrong.append((int(table.rows["frame"][row]), text, f"{verdict} ({rule})", why))
                break
    stamps, lost = _stamps([line for line in log.lines if line.kind == "stamp"], vantage, table.names)
    matrix = tuple((*key, n) for key, n in sorted(counts.items(), key=lambda item: (-item[1], item[0])))
    return ProbeMatch(matrix + _compared(said, table) + stamps, tuple(wrong), unmatched + lost, log.ignored)


def _pair(lines: Sequence[ProbeLine], table: _Table) -> tuple[dict[int, list[ProbeLine]], int]:
    """The lines of each SYN row, and how many lines have none."""
    times = table.rows["time"].tolist()
    candidates = [table.candidates(line) for line in lines]
    offset = _offset(lines, candidates, times)
    if offset is None:
        offset = _zone(lines, table)
    said: dict[int, list[ProbeLine]] = defaultdict(list)
    taken: set[tuple[str, int]] = set()
    unmatched = 0
    for line, named in zip(lines, candidates, strict=True):
        found, near = (named, NEAR) if line.source else (_by_time(line, table, offset), TOGETHER)
        free = [i for i in found if (line.kind, i) not in taken]
        if line.time != NO_TIME:
            free = [i for i in free if abs(line.time - offset - times[i]) <= near]
            free.sort(key=lambda i, at=line.time - offset: abs(at - times[i]))  # type: ignore[misc]
        if not free:
            unmatched += 1
            continue
        taken.add((line.kind, free[0]))
        said[free[0]].append(line)
    return said, unmatched


def _offset(lines: Sequence[ProbeLine], candidates: Sequence[Sequence[int]], times: Sequence[int]) -> int | None:
    """The probe's clock minus the capture's: the shift that most lines agree on; None without addresses.

    Ports are reused, so one line may fit several SYNs; only the true shift recurs from line to line.
    """
    shifts = [
        line.time - times[i]
        for line, found in zip(lines[:VOTERS], candidates, strict=False)
        if line.time != NO_TIME
        for i in sorted(found, key=lambda i, at=line.time: abs(at - times[i]))[:16]  # type: ignore[misc]
    ]
    if not shifts:
        return None
    cells = np.floor_divide(np.array(shifts, np.int64), NEAR)
    values, votes = np.unique(cells, return_counts=True)
    votes = votes + np.where(np.isin(values + 1, values), votes[np.searchsorted(values, values + 1) % len(votes)], 0)
    best = votes == votes.max()
    cell = values[best][np.argmin(np.abs(values[best]))]
    return int(median(s for s in shifts if cell <= s // NEAR <= cell + 1))


def _zone(lines: Sequence[ProbeLine], table: _Table) -> int:
    """Lines of local time stand whole half-hours off; 0 where the lines are no wall-clock times at all."""
    stamped = [line.time for line in lines if line.time != NO_TIME]
    if not stamped or not len(table.rows):
        return 0
    away = int(median(stamped)) - int(np.median(table.rows["time"]))
    return round(away / HALF_HOUR) * HALF_HOUR if abs(away) < 15 * 3600 * NS else 0


def _by_time(line: ProbeLine, table: _Table, offset: int) -> list[int]:
    """The one SYN without a SYN-ACK at the moment of a line without addresses."""
    if line.time == NO_TIME:
        return []
    at = line.time - offset
    low, high = np.searchsorted(np.maximum.accumulate(table.rows["time"]), [at - TOGETHER, at + TOGETHER])
    near = [i for i in range(int(low), int(high)) if table.rows["answer"][i] != ANSWER_SYN_ACK]
    return near if len(near) == 1 else []


def _covered(lines: Sequence[ProbeLine], table: _Table, said: dict[int, list[ProbeLine]]) -> list[int]:
    """SYNs of the log's time that no line speaks of."""
    if not said:
        return []
    rows = table.rows["time"][sorted(said)]
    within = (table.rows["time"] >= rows.min()) & (table.rows["time"] <= rows.max())
    return [int(i) for i in np.flatnonzero(within) if int(i) not in said]


def _replay_says(table: _Table, row: int) -> tuple[str, str]:
    verdict = table.verdicts[row]
    return VERDICTS[int(verdict["verdict"])], RULE_NAMES[int(verdict["rule"])] or "unknown"


def _compare(line: ProbeLine | None, verdict: str, rule: str, kinds: set[str]) -> str | None:
    """None where both agree, else what may explain it (empty if nothing)."""
    if line is None:
        return _unsaid(verdict, rule, kinds)
    word = line.word
    reason = word.removeprefix("DROP ")
    rules = _RULES_OF.get(word)
    if rules is not None:
        return None if rule in rules else _OTHERWISE.get(word) or _other_rule(word, verdict)
    if word == "PROVEN ret=1":
        passed = verdict in ("accept", "cookie") or (verdict == "drop" and rule not in _PEER)
        return None if passed else ""
    if line.kind == "drop":
        if reason in _BELOW_TCP:
            return f"dropped before the rules of the model apply ({reason})"
        return None if verdict != "accept" or reason in ("NOT_SPECIFIED", "TCP_CLOSE") or "code" in reason else ""
    if word == "LISTEN accept queue has room":
        return None if rule != "accept_queue_full" else ""
    wanted = _VERDICT_OF.get(word) or _VERDICT_OF.get(word.split(" ")[0])
    return None if wanted is not None and verdict in wanted else ""


_OTHERWISE = {
    "drop other": "no route back, no memory or a security module: nothing of that shows on the wire",
    "DROP NO_SOCKET": "nothing listened on the port at that moment: no packet shows that beforehand",
}


def _other_rule(word: str, verdict: str) -> str:
    return "both drop it, by different rules" if verdict == "drop" and word.startswith(("drop", "PROVEN")) else ""


def _unsaid(verdict: str, rule: str, kinds: set[str]) -> str | None:
    """A SYN without a line: what that means depends on what the probe looks at."""
    if "decision" in kinds:
        return None if rule not in _LISTENER else "the probe saw no such SYN at the listener"
    if "check" in kinds:
        return "the check was not reached: another rule, or the probe missed it" if rule in _PEER else None
    if "listen" in kinds and rule == "accept_queue_full":
        return "the SYN did not reach the listener"
    if "drop" in kinds and verdict == "drop":
        consumed = rule in ("accept_queue_full", "syn_queue_full", "last_quarter")
        return None if consumed else "no drop was reported: the kernel took it, or the probe lost the event"
    return None


def _why(vantage: Vantage, table: _Table, row: int, doubt: str) -> str:
    """The explanation, with the replay's own doubt where it had one."""
    assert vantage.replayed is not None
    verdict = table.verdicts[row]
    if CERTAINTIES[int(verdict["certainty"])] == "certain":
        return doubt or "unexplained"
    reason = vantage.replayed.reasons[int(verdict["reason"])]
    own = f"the replay was not certain: {reason}" if reason else "the replay was not certain"
    return f"{doubt}; {own}" if doubt else own


def _compared(said: dict[int, list[ProbeLine]], table: _Table) -> tuple[tuple[str, str, int], ...]:
    """Whether check and replay compared the SYN with the same remembered TSval."""
    counts: Counter[str] = Counter()
    for row, lines in said.items():
        stored = next((line.stored for line in lines if line.stored is not None), None)
        verdict = table.verdicts[row]
        if stored is None or RULE_NAMES[int(verdict["rule"])] not in _LISTENER:
            continue
        mine = int(verdict["peer_tsval"]) if verdict["compared"] else 0
        counts["the same TSval remembered" if mine == stored[0] else "another TSval remembered"] += 1
    return tuple(("compared with tcpm_ts", word, n) for word, n in sorted(counts.items(), reverse=True))


def _stamps(
    lines: Sequence[ProbeLine], vantage: Vantage, names: list[str]
) -> tuple[tuple[tuple[str, str, int], ...], int]:
    """Writes of the memory against the replay's ``peer_states``."""
    assert vantage.replayed is not None
    writes: dict[tuple[str, int], set[int]] = defaultdict(set)
    for peer, tsval, stored in vantage.replayed.peer_states[["peer", "tsval", "stored"]].tolist():
        writes[names[peer], tsval].add(stored)
    counts: Counter[tuple[str, str]] = Counter()
    lost = 0
    for line in lines:
        if line.tsval is None or not line.source:
            lost += 1
            continue
        seen = writes.get((line.source, line.tsval), set())
        said = "stored" if 1 in seen else "perhaps stored" if 2 in seen else "not stored" if seen else "no write"
        counts[line.word, said] += 1
    return tuple((*key, n) for key, n in sorted(counts.items())), lost


def match_any(log: ProbeLog, vantages: Sequence[Vantage]) -> ProbeMatch | None:
    """The log against the servers that it was taken on.

    Lines go to the captures of the address that they name; the rest to the capture whose SYNs most of them
    speak of.  Where there are several captures, what the replay says has the capture's name in front.
    """
    servers = [v for v in vantages if v.side == "server" and v.replayed is not None]
    servers = servers or [v for v in vantages[:1] if v.replayed is not None]
    if len(servers) < 2:
        return match(log, servers[0]) if servers else None
    asked = [_asked(v) for v in servers]
    found = []
    left = [line for line in log.lines if not any(line.dest in hosts for hosts in asked)]
    for vantage, hosts in zip(servers, asked, strict=True):
        mine = [line for line in log.lines if line.dest in hosts]
        if mine:
            found.append((vantage.name, match(ProbeLog(mine), vantage)))
    if left:
        rest = ((v.name, match(ProbeLog(left), v)) for v in servers)
        found.append(min(rest, key=lambda pair: pair[1].unmatched_lines))
    return _merged(found, log.ignored)


def _asked(vantage: Vantage) -> set[str]:
    """Addresses that SYNs of a capture speak to."""
    names = host_texts(vantage.tracked.hosts)
    return {names[host] for chunk in vantage.tracked.syns.chunks() for host in np.unique(chunk["resp"]).tolist()}


def _merged(found: Sequence[tuple[str, ProbeMatch]], ignored: int) -> ProbeMatch:
    counts: Counter[tuple[str, str]] = Counter()
    for _, one in found:
        for word, said, n in one.matrix:
            counts[word, said] += n
    wrong = [
        (frame, line, f"{name}: {said}", why) for name, one in found for frame, line, said, why in one.disagreements
    ]
    matrix = tuple((*key, n) for key, n in sorted(counts.items(), key=lambda item: (-item[1], item[0])))
    return ProbeMatch(matrix, tuple(wrong), sum(one.unmatched_lines for _, one in found), ignored)
