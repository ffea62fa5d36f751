"""The content of ``findings.json``."""

from dataclasses import asdict
from typing import Any

from analyzer.diagnosis.model import Analysis, Story
from analyzer.units import NO_TIME, NS

SCHEMA_VERSION = "1.0"


def as_dict(analysis: Analysis) -> dict[str, Any]:
    """Everything the reports say, as plain JSON values; ``docs/findings.schema.json`` describes it."""
    diagnosis = analysis.diagnosis
    return {
        "schema_version": SCHEMA_VERSION,
        "synquest_version": analysis.version,
        "inputs": [
            _input(info, vantage.name, vantage.side) for vantage in analysis.vantages for info in vantage.tracked.files
        ],
        "capture_quality": [asdict(note) for note in diagnosis.quality],
        "summary": asdict(diagnosis.summary),
        "kernel": asdict(diagnosis.kernel),
        "findings": [_finding(f) for f in diagnosis.findings],
        "contradictions": diagnosis.contradictions,
        "counters": [],
    }


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
