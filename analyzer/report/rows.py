"""The page's own tables as JSON columns: failed rows first, a fixed number at the most."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from analyzer.connections.names import host_texts
from analyzer.diagnosis.clock import CommonClock
from analyzer.diagnosis.model import Analysis, Vantage
from analyzer.kernel.rules import RULE_NAMES, WRITE_EVENTS
from analyzer.report.verdict import forwarded, named
from analyzer.report.words import date
from analyzer.schema import (
    ANSWERS,
    CAUSE,
    CAUSE_CERTAINTIES,
    CAUSES,
    CERTAINTIES,
    ERAS,
    FLOW_KINDS,
    OPT_TS,
    PROOFS,
    SYN_ROW,
    VERDICT,
    VERDICTS,
)
from analyzer.units import NO_TIME, NS

Records = np.ndarray[Any, np.dtype[np.void]]
Table = dict[str, Any]

MOST_SYNS = 10_000
"""Rows of the page's own table; the tables beside it hold all."""
MOST_OTHERS = 3_000


def number(title: str, values: Any, hidden: Any = None) -> Table:
    """A column of numbers; *hidden* ones are empty."""
    listed = np.asarray(values).tolist()
    if hidden is not None:
        listed = [None if h else v for v, h in zip(listed, np.asarray(hidden).tolist(), strict=True)]
    return {"title": title, "values": listed}


def coded(title: str, codes: Any, words: Sequence[str], hidden: Any = None) -> Table:
    """A column of words, each kept once."""
    codes = np.asarray(codes, np.int64)
    used, inverse = np.unique(codes, return_inverse=True)
    listed = inverse.tolist()
    if hidden is not None:
        listed = [None if h else v for v, h in zip(listed, np.asarray(hidden).tolist(), strict=True)]
    return {"title": title, "words": [words[c] for c in used.tolist()], "values": listed}


def texts(title: str, values: Sequence[str]) -> Table:
    """A column of texts, each kept once."""
    numbers: dict[str, int] = {}
    return coded(title, [numbers.setdefault(v, len(numbers)) for v in values], list(numbers))


def syn_table(analysis: Analysis) -> Table:
    """SYNs of all captures, failed ones first."""
    parts = list(_failed_first(analysis))
    total = sum(len(v.tracked.syns) for v in analysis.vantages)
    blocks = [_syn_columns(analysis, *part) for part in parts]
    columns = [_joined([block[i] for block in blocks]) for i in range(len(blocks[0]))] if blocks else []
    return {"caption": "SYNs", "total": total, "columns": columns}


def _failed_first(analysis: Analysis) -> Iterator[tuple[int, Records, Records, Records]]:
    """(vantage index, SYN rows, verdicts, causes): failed ones of every capture, then answered ones."""
    room = MOST_SYNS
    for failed in (True, False):
        for index, vantage in enumerate(analysis.vantages):
            rows = _some(vantage, failed, room)
            if len(rows[0]):
                room -= len(rows[0])
                yield index, *rows


def _some(vantage: Vantage, failed: bool, room: int) -> tuple[Records, Records, Records]:
    kept: list[tuple[Records, Records, Records]] = []
    for syns, verdicts, causes in _beside(vantage):
        where = np.flatnonzero((causes["cause"] != 0) == failed)[:room]
        kept.append((syns[where], verdicts[where], causes[where]))
        room -= len(where)
        if room <= 0:
            break
    if not kept:
        return np.zeros(0, SYN_ROW.dtype), np.zeros(0, VERDICT.dtype), np.zeros(0, CAUSE.dtype)
    syns, verdicts, causes = (np.concatenate(part) for part in zip(*kept, strict=True))
    return syns, verdicts, causes


def _beside(vantage: Vantage) -> Iterator[tuple[Records, Records, Records]]:
    """Chunks of SYN rows with their verdicts and causes; blank ones where nothing was judged."""
    verdicts = iter(vantage.replayed.verdicts.chunks()) if vantage.replayed is not None else iter(())
    causes = iter(vantage.causes.chunks())
    for syns in vantage.tracked.syns.chunks():
        judged, weighed = next(verdicts, None), next(causes, None)
        if judged is None or len(judged) != len(syns):
            judged = np.zeros(len(syns), VERDICT.dtype)
        if weighed is None or len(weighed) != len(syns):
            weighed = np.zeros(len(syns), CAUSE.dtype)
            weighed["cause"] = CAUSES.index("no_evidence") * (syns["answer"] != ANSWERS.index("syn_ack"))
        yield syns, judged, weighed


def _syn_columns(analysis: Analysis, index: int, rows: Records, verdicts: Records, causes: Records) -> list[Table]:
    vantage = analysis.vantages[index]
    hosts = host_texts(vantage.tracked.hosts)
    no_state, no_ts = verdicts["compared"] == 0, (rows["opts"] & OPT_TS) == 0
    no_age = no_state | (verdicts["peer_stamp_time"] == NO_TIME)
    no_answer = rows["answer_time"] == NO_TIME
    count = len(rows)
    columns = [
        coded("capture", np.zeros(count), [vantage.name]),
        number("frame", rows["frame"]),
        number("time s", _since(analysis, vantage, rows["time"])),
        coded("source", rows["orig"], hosts),
        number("port", rows["orig_p"]),
        coded("destination", rows["resp"], hosts),
        number("dport", rows["resp_p"]),
        number("TSval", rows["tsval"], no_ts),
        number("try", rows["attempt"]),
        coded("answer", rows["answer"], ANSWERS),
        number("answer ms", np.round((rows["answer_time"] - rows["time"]) / 1e6, 3), no_answer),
        coded("verdict", verdicts["verdict"], VERDICTS),
        coded("certainty", verdicts["certainty"], CERTAINTIES),
        coded("rule", verdicts["rule"], RULE_NAMES),
        number("TSval difference", verdicts["tsval_delta"], no_state | no_ts),
        number("age s", np.round(verdicts["stamp_age"] / NS, 3), no_age),
        number("kept from frame", verdicts["peer_stamp_frame"], no_state | (verdicts["peer_stamp_frame"] == 0)),
        coded("cause", causes["cause"], CAUSES),
        coded("sure", causes["certainty"], CAUSE_CERTAINTIES),
        coded("made worse by", causes["aggravated_by"], CAUSES, causes["aggravated_by"] == 0),
    ]
    if any(len(v.tracked.files) > 1 for v in analysis.vantages):
        columns.append(coded("file", rows["file"], [info.path for info in vantage.tracked.files]))
    return columns


def _since(analysis: Analysis, vantage: Vantage, times: Any) -> Any:
    """Seconds since the decisive capture began, on the common clock."""
    clock, main = CommonClock(analysis.vantages, analysis.joined), analysis.main
    start = clock.time(main.name, main.tracked.first_time)
    return np.round((clock.times(vantage.name, np.asarray(times, np.int64)) - start) / NS, 6)


def _joined(parts: list[Table]) -> Table:
    """The same column of several blocks in one."""
    if "words" not in parts[0]:
        return {"title": parts[0]["title"], "values": [v for part in parts for v in part["values"]]}
    numbers: dict[str, int] = {}
    values: list[int | None] = []
    for part in parts:
        codes = [numbers.setdefault(word, len(numbers)) for word in part["words"]]
        values += [None if v is None else codes[v] for v in part["values"]]
    return {"title": parts[0]["title"], "words": list(numbers), "values": values}


def client_table(analysis: Analysis) -> Table:
    """Clients, the worst first."""
    blast = analysis.diagnosis.blast
    rows = named(blast.clients) if blast is not None else []
    shown = rows[:MOST_OTHERS]
    columns = [
        texts("client" if blast is not None and forwarded(blast.clients) else "source", [r[0] for r in shown]),
        texts("seen by the server as", [r[1] for r in shown]),
        number("SYNs", [r[2] for r in shown]),
        number("failed", [r[3] for r in shown]),
        number("failed %", [round(100 * r[3] / r[2], 1) if r[2] else 0.0 for r in shown]),
    ]
    caption = "Clients" if blast is not None and forwarded(blast.clients) else "Source addresses"
    return {"caption": caption, "total": len(rows), "columns": columns}


def risk_table(analysis: Analysis) -> Table:
    """Share of new connections at risk, minute by minute and address by address."""
    blast = analysis.diagnosis.blast
    rows = blast.at_risk if blast is not None else ()
    shown = rows[:MOST_OTHERS]
    columns = [
        texts("minute (UTC)", [date(r[0])[:16] for r in shown]),
        texts("source", [r[1] for r in shown]),
        number("at risk %", [round(100 * r[2], 1) for r in shown]),
        number("failed %", [round(100 * r[3], 1) for r in shown]),
    ]
    return {"caption": "New connections at risk per minute", "total": len(rows), "columns": columns}


def flow_table(analysis: Analysis) -> Table:
    """SNAT flows: whose connection each server leg is."""
    flows = analysis.joined.flows
    shown = flows[:MOST_OTHERS]
    sides = (("client", "client"), ("vip", "client"), ("snat", "server"), ("server", "server"))
    columns = []
    for name, family in sides:
        columns.append(texts(name, _addresses(shown, name, family)))
        columns.append(number(f"{name} port", shown[f"{name}_p"]))
    columns += [
        coded("kind", shown["kind"], FLOW_KINDS),
        coded("proof", shown["proof"], PROOFS),
        number("margin", np.round(shown["margin"], 3)),
        number("rivals", shown["rivals"]),
    ]
    return {"caption": "Flows through the load balancer", "total": len(flows), "columns": columns}


def _addresses(flows: Records, name: str, family: str) -> list[str]:
    hosts = np.zeros(len(flows), [("hi", "u8"), ("lo", "u8"), ("v6", "u1")])
    for part in ("hi", "lo"):
        hosts[part] = flows[f"{name}_{part}"]
    hosts["v6"] = flows[f"{family}_v6"]
    unique, inverse = np.unique(hosts, return_inverse=True)
    known = host_texts(unique)
    return [known[i] for i in inverse.tolist()]


def memory_table(analysis: Analysis) -> Table:
    """Writes of remembered timestamps, of every judged capture."""
    blocks, total = [], 0
    for vantage in analysis.vantages:
        if vantage.replayed is None:
            continue
        rows = vantage.replayed.peer_states
        total += len(rows)
        shown, hosts = rows[:MOST_OTHERS], host_texts(vantage.tracked.hosts)
        blocks.append(
            [
                coded("capture", np.zeros(len(shown)), [vantage.name]),
                number("frame", shown["frame"]),
                number("time s", _since(analysis, vantage, shown["time"])),
                coded("peer", shown["peer"], hosts),
                coded("server", shown["server"], hosts),
                number("TSval", shown["tsval"]),
                coded("event", shown["event"], WRITE_EVENTS),
                coded("stored", shown["stored"], ("no", "yes", "unknown")),
            ]
        )
    columns = [_joined([b[i] for b in blocks]) for i in range(len(blocks[0]))] if blocks else []
    return {"caption": "Remembered timestamps", "total": total, "columns": columns}


def clock_table(analysis: Analysis) -> Table:
    """Host clocks found behind the addresses."""
    clocks = analysis.joined.clocks
    shown = clocks[np.argsort(-clocks["packets"].astype(np.int64), kind="stable")][:MOST_OTHERS]
    names = [host_texts(v.tracked.hosts) for v in analysis.vantages]
    where = list(zip(shown["vantage"].tolist(), shown["host"].tolist(), shown["peer"].tolist(), strict=True))
    columns = [
        texts("capture", [analysis.vantages[v].name for v, _, _ in where]),
        texts("address", [names[v][h] for v, h, _ in where]),
        texts("towards", [names[v][p] if p >= 0 else "any" for v, _, p in where]),
        number("clock", shown["number"]),
        coded("one clock", shown["era"], ERAS),
        number("Hz", np.round(shown["hz"], 3), shown["hz"] == 0),
        number("skew ppm", np.round(shown["skew_ppm"], 2), ~np.isfinite(shown["skew_ppm"])),
        number("± ppm", np.round(shown["skew_bound"], 2), ~np.isfinite(shown["skew_bound"])),
        number("packets", shown["packets"]),
        number("connections", shown["connections"]),
        number("span s", np.round(shown["span"] / NS, 1)),
    ]
    return {"caption": "Clocks behind the addresses", "total": len(clocks), "columns": columns}
