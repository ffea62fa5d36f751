"""The content of ``findings.json``."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from analyzer.diagnosis.model import Analysis, BlastRadius, CounterRow, ProbeMatch, Story, WhatIf
from analyzer.snat.model import ClockOffset, OffsetSegment
from analyzer.units import NO_TIME, NS

SCHEMA_VERSION = "1.0"
MOST_CLIENTS = 1_000
"""Clients, and addresses by their ports in use, listed, the worst first; the tables have all."""
LONG = 100
"""Entries of a list that has them on a line each."""
_COMPACT = json.JSONEncoder().encode
MOST_MINUTES = 5_000
"""Minutes of addresses listed; if there are more, those with the largest shares at risk or failed."""


def as_dict(analysis: Analysis) -> dict[str, Any]:
    """Everything the reports say, as plain JSON values; ``docs/findings.schema.json`` describes it."""
    diagnosis = analysis.diagnosis
    offsets = [_offset(o) for o in analysis.joined.offsets if o.segments]
    return {
        "schema_version": SCHEMA_VERSION,
        "synquest_version": analysis.version,
        "inputs": [
            _input(info, vantage.name, vantage.side) for vantage in analysis.vantages for info in vantage.tracked.files
        ],
        "capture_quality": [asdict(note) for note in diagnosis.quality],
        "summary": asdict(diagnosis.summary),
        "clock_offset": offsets[0] if offsets else None,
        "clock_offsets": offsets,
        "kernel": asdict(diagnosis.kernel),
        "findings": [_finding(f) for f in diagnosis.findings],
        "contradictions": diagnosis.contradictions,
        "counters": [_counter(row) for row in diagnosis.counters],
        "probe": None if diagnosis.probe is None else _probe(diagnosis.probe),
        "blast": None if diagnosis.blast is None else _blast(diagnosis.blast),
        "whatif": [_whatif(case) for case in diagnosis.whatif],
    }


def as_text(content: Any, indent: str = "") -> str:
    """The text of ``findings.json``: indented, and long lists with an entry a line, which goes much faster."""
    deeper = indent + " "
    if isinstance(content, list) and len(content) > LONG:
        return "[\n" + ",\n".join(deeper + _COMPACT(item) for item in content) + f"\n{indent}]"
    if isinstance(content, list) and content:
        return "[\n" + ",\n".join(deeper + as_text(item, deeper) for item in content) + f"\n{indent}]"
    if isinstance(content, dict) and content:
        lines = (f"{deeper}{_COMPACT(str(key))}: {as_text(value, deeper)}" for key, value in content.items())
        return "{\n" + ",\n".join(lines) + f"\n{indent}}}"
    return _COMPACT(content)


def longest(offset: ClockOffset) -> OffsetSegment:
    """The segment that rests on most pairs of packets."""
    return max(offset.segments, key=lambda segment: segment.pairs)


def _offset(offset: ClockOffset) -> dict[str, Any]:
    """The segment with most pairs, and all of them where a clock stepped."""
    return {
        "first": offset.first,
        "second": offset.second,
        **_segment(longest(offset)),
        "segments": [_segment(segment) for segment in offset.segments],
        "notes": list(offset.notes),
    }


def _segment(segment: OffsetSegment) -> dict[str, Any]:
    return {
        "start": _time(segment.start),
        "end": _time(segment.end),
        "seconds": segment.seconds,
        "half_width": _finite(segment.half_width),
        "half_width_end": _finite(segment.half_width_end),
        "drift_ppm": _finite(segment.drift_ppm),
        "drift_bound": _finite(segment.drift_bound),
        "pairs": segment.pairs,
    }


def _finite(value: float) -> float | None:
    """JSON has no infinity: a bound that is none is null."""
    return value if math.isfinite(value) else None


def _time(ns: int) -> float | None:
    return None if ns == NO_TIME else ns / NS


def _input(info: Any, name: str, side: str) -> dict[str, Any]:
    return {
        "file": info.path,
        "capture": name,
        "vantage": side,
        "format": info.format,
        "compression": info.compression,
        "sha256": info.sha256,
        "bytes": info.size,
        "packets": info.packets,
        "tcp_packets": info.tcp_packets,
        "first_time": _time(info.first_time),
        "last_time": _time(info.last_time),
        "link_types": list(info.link_types),
    }


def _finding(finding: Any) -> dict[str, Any]:
    plain = asdict(finding)
    plain["story"] = _story(finding.story)
    return plain


def _story(story: Story | None) -> dict[str, Any] | None:
    if story is None:
        return None
    plain = asdict(story)
    del plain["conn"]
    plain["steps"] = [{**asdict(step), "time": step.time / NS} for step in story.steps]
    return plain


def _counter(row: CounterRow) -> dict[str, Any]:
    return {**asdict(row), "residual": row.residual}


def _probe(probe: ProbeMatch) -> dict[str, Any]:
    return {
        "matrix": [{"probe": p, "replay": r, "syns": n} for p, r, n in probe.matrix],
        "disagreements": [
            {"frame": frame, "line": line, "replay": replay, "explanation": why}
            for frame, line, replay, why in probe.disagreements
        ],
        "unmatched_lines": probe.unmatched_lines,
        "ignored_lines": probe.ignored_lines,
    }


def _blast(blast: BlastRadius) -> dict[str, Any]:
    reuse = blast.reuse
    return {
        "began": _time(blast.began),
        "clients_seen": len(blast.clients),
        "clients": [
            {"client": client, "snat": snat, "syns": syns, "failed": failed}
            for client, snat, syns, failed in blast.clients[:MOST_CLIENTS]
        ],
        "at_risk": [
            {"minute": _time(minute), "source": source, "at_risk": risk, "failed": failed}
            for minute, source, risk, failed in _worst_minutes(blast.at_risk)
        ],
        "reuse": {
            "count": len(reuse),
            "under_60": blast.reuse_under_60,
            "shortest": reuse[0] if reuse else None,
            "median": reuse[len(reuse) // 2] if reuse else None,
        },
        "ports": [
            {"source": source, "server": server, "ports": ports, "most_in_use": most, "share": share}
            for source, server, ports, most, share in blast.ports[:MOST_CLIENTS]
        ],
    }


def _worst_minutes(rows: tuple[tuple[int, str, float, float], ...]) -> Sequence[tuple[int, str, float, float]]:
    """All of them where they are not too many, in their order."""
    if len(rows) <= MOST_MINUTES:
        return rows
    told = [row for row in rows if row[2] or row[3]]
    worst = sorted(range(len(told)), key=lambda at: (-max(told[at][2:]), at))[:MOST_MINUTES]
    return [told[at] for at in sorted(worst)]


def _whatif(case: WhatIf) -> dict[str, Any]:
    plain = asdict(case)
    return {**plain, "lost_before": sum(case.before.values()), "lost_after": sum(case.after.values())}
