"""``evidence.pcapng``: the packets behind the verdicts, for Wireshark.

One interface per capture point, frames in order of time on the reference clock but stamped with their
own capture's; the comments and packet ids come from ``report.selection``.
"""

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from analyzer.capture.frames import Frame, fetch
from analyzer.capture.inputs import InputFile
from analyzer.diagnosis.clock import CommonClock
from analyzer.diagnosis.model import Analysis, Vantage
from analyzer.errors import InputError
from analyzer.report.pcapng import PcapngWriter
from analyzer.report.scrub import Scrubber
from analyzer.report.selection import Mark, Selection, judged, select
from analyzer.schema import LEGS

LINK_ETHERNET = 1
BATCH = 256
"""Frames of one stream whose times are aligned at once."""
MOST_OPEN = 8
"""Beyond so many inputs read at once, their buffers shrink."""


@dataclass(frozen=True)
class Written:
    """What went into an evidence file.

    Attributes:
        frames: Frames written.
        comments: Frames with a comment.
        left_out: Judged SYNs that found no room.
        problems: What could not be read again, a line each.
    """

    frames: int
    comments: int
    left_out: int
    problems: tuple[str, ...] = ()


def readable_again(analysis: Analysis) -> bool:
    """Whether any capture is a file; pipes and standard input are read only once."""
    return any(info.readable_again for vantage in analysis.vantages for info in vantage.tracked.files)


def write_evidence(analysis: Analysis, path: Path, everything: bool = False) -> Written:
    """Write the evidence of an analysis; frames of an anonymised one are scrubbed.

    Args:
        analysis: What was found; its captures are read a second time.
        path: File to write, replaced if it exists.
        everything: Every frame of every capture, not only those that matter.

    Raises:
        InputError: The file cannot be written.
    """
    selections = select(analysis, everything)
    problems: list[str] = []
    try:
        with path.open("wb") as out:
            writer = PcapngWriter(out, f"synquest {analysis.version}", _summary(analysis))
            scrub = None if analysis.anonymizer is None else Scrubber(analysis.anonymizer)
            points = _Points(writer, analysis, plain=scrub is not None)
            frames, comments = _copy(writer, points, _streams(analysis, selections, everything, problems), scrub)
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror or error}") from None
    return Written(frames, comments, sum(s.left_out for s in selections), tuple(problems))


def _summary(analysis: Analysis) -> str:
    summary = analysis.diagnosis.summary
    first = analysis.diagnosis.findings[0].statement if analysis.diagnosis.findings else "Nothing failed."
    return f"{summary.unanswered} of {summary.syns} SYNs got no SYN-ACK. {first}"


class _Points:
    """The interfaces of the file: one for each capture point (side of the load balancer), link type and name."""

    def __init__(self, writer: PcapngWriter, analysis: Analysis, plain: bool) -> None:
        self._numbers: dict[tuple[str, int, int], int] = {}
        known: dict[tuple[int, str], int] = {}
        for vantage in analysis.vantages:
            text = _description(analysis, vantage)
            sides = _sides(analysis, vantage)
            for file, info in enumerate(vantage.tracked.files):
                for index, interface in enumerate(info.interfaces):
                    link = LINK_ETHERNET if plain else interface.link_type
                    words = (vantage.name, sides.get((file, index), ""), interface.name)
                    name = " ".join(word for word in words if word)
                    if (link, name) not in known:
                        known[link, name] = writer.interface(link, name, text)
                    self._numbers[vantage.name, file, index] = known[link, name]

    def number(self, vantage: str, frame: Frame) -> int | None:
        """Interface of a frame."""
        return self._numbers.get((vantage, frame.file, frame.interface))


def _sides(analysis: Analysis, vantage: Vantage) -> dict[tuple[int, int], str]:
    """Which side of the load balancer each (file, interface) saw, where all its SYNs are of one side."""
    seen: dict[tuple[int, int], set[int]] = {}
    for rows, _, _, paths in judged(analysis, vantage):
        keys = np.stack([rows["file"], rows["interface"], paths["leg"]], axis=1)
        for file, interface, leg in np.unique(keys, axis=0).tolist():
            seen.setdefault((file, interface), set()).add(leg)
    words = {LEGS.index("client_leg"): "client side", LEGS.index("lb_server_leg"): "server side"}
    return {key: words.get(next(iter(legs)), "") for key, legs in seen.items() if len(legs) == 1}


def _description(analysis: Analysis, vantage: Vantage) -> str:
    """Where a capture was taken and how its clock stands, with the hard bound."""
    sides = {"lb": "load balancer", "server": "server", "client": "client side"}
    where = f"capture at the {sides.get(vantage.side, vantage.side)}"
    first = CommonClock(analysis.vantages, analysis.joined).reference
    if len(analysis.vantages) == 1:
        return where
    if vantage.name == first:
        return f"{where}; times of the other captures are compared with this clock"
    offsets = [o for o in analysis.joined.offsets if o.first == first and o.second == vantage.name]
    segments = [segment for offset in offsets for segment in offset.segments]
    if not segments:
        return f"{where}; clock not aligned with {first}'s"
    said = [
        f"{s.seconds:+.9f} s ± {s.half_width:.9f} s, drift {s.drift_ppm:+.3f} ± {s.drift_bound:.3f} ppm"
        for s in segments[:4]
    ]
    return f"{where}; clock minus {first}'s clock: " + ", then ".join(said)


Item = tuple[int, str, Frame, Mark | None]


def _streams(
    analysis: Analysis, selections: list[Selection], everything: bool, problems: list[str]
) -> list[Iterator[Item]]:
    """For each capture, chains of files that do not overlap in time, as streams of frames."""
    chains = [(s, chain) for s in selections for chain in _chains(s.vantage.tracked.files)]
    size = (1 << 22) if len(chains) <= MOST_OPEN else 1 << 20
    return [_stream(analysis, s, chain, everything, size, problems) for s, chain in chains]


def _chains(files: list[InputFile]) -> list[list[int]]:
    chains: list[list[int]] = []
    for index in sorted(range(len(files)), key=lambda i: (files[i].first_time, i)):
        for chain in chains:
            if files[chain[-1]].last_time <= files[index].first_time:
                chain.append(index)
                break
        else:
            chains.append([index])
    return chains


def _stream(
    analysis: Analysis, chosen: Selection, chain: list[int], everything: bool, size: int, problems: list[str]
) -> Iterator[Item]:
    name, files = chosen.vantage.name, chosen.vantage.tracked.files
    clock = CommonClock(analysis.vantages, analysis.joined)
    by_file: dict[int, list[int]] = {}
    for file, number in chosen.marks:
        by_file.setdefault(file, []).append(number)
    wanted: dict[int, Any] = {index: None if everything else by_file.get(index, []) for index in chain}
    try:
        frames = fetch(files, wanted, size)
        while batch := list(islice(frames, BATCH)):
            times = clock.times(name, np.array([frame.time for frame in batch], np.int64)).tolist()
            for time, frame in zip(times, batch, strict=True):
                mark = chosen.marks.get((frame.file, frame.number))
                if mark is not None and mark.time != frame.time:
                    mark = None
                    if not everything:
                        continue
                yield time, name, frame, mark
    except InputError as error:
        problems.append(str(error))


def _copy(
    writer: PcapngWriter, points: _Points, streams: list[Iterator[Item]], scrub: Scrubber | None
) -> tuple[int, int]:
    frames = comments = 0
    for _, name, frame, mark in heapq.merge(*streams, key=lambda item: item[0]):
        interface = points.number(name, frame)
        content = (frame.data, frame.length) if scrub is None else scrub(frame)
        if interface is None or content is None:
            continue
        comment = mark.comment if mark is not None else ""
        writer.packet(
            interface, frame.time, *content, comment=comment,
            packet_id=mark.packet_id if mark is not None else None, direction=frame.direction,
        )  # fmt: skip
        frames += 1
        comments += bool(comment)
    return frames, comments
