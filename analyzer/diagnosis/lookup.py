"""One SYN and all that is known of it, by its frame number."""

from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import numpy as np

from analyzer.diagnosis.model import Analysis, Vantage
from analyzer.errors import UsageError


@dataclass(frozen=True)
class Row:
    """One SYN row beside its verdict, cause, path and connection; None where there is none.

    Attributes:
        vantage: Its capture.
        file: Name of its file.
        syn, verdict, cause, path, connection: Records of SYN_ROW, VERDICT, CAUSE, PATH, CONNECTION.
    """

    vantage: Vantage
    file: str
    syn: Any
    verdict: Any | None
    cause: Any | None
    path: Any
    connection: Any | None

    @property
    def profile(self) -> str:
        """Name of the kernel that was replayed."""
        return "" if self.vantage.replayed is None else self.vantage.replayed.hypothesis.profile.name

    @property
    def reason(self) -> str:
        """Why the verdict is not certain."""
        if self.vantage.replayed is None or self.verdict is None:
            return ""
        return self.vantage.replayed.reasons[int(self.verdict["reason"])]


def find(analysis: Analysis, frame: int, capture: str | None) -> Row:
    """The SYN in a frame.

    Raises:
        UsageError: No such capture or frame, several files have it, or it is no SYN.
    """
    vantage, files = _place(analysis, capture)
    found = _syn_rows(vantage, frame, files)
    if len(found) > 1:
        names = ", ".join(vantage.tracked.files[int(syn["file"])].path for _, syn in found)
        raise UsageError(f"frame {frame} is a SYN in several files of {vantage.name}: name one with --capture: {names}")
    if not found:
        raise UsageError(_no_syn(vantage, frame, files))
    number, syn = found[0]
    replayed = vantage.replayed
    count = len(vantage.tracked.syns)
    return Row(
        vantage=vantage,
        file=vantage.tracked.files[int(syn["file"])].path,
        syn=syn,
        verdict=None if replayed is None else _nth(replayed.verdicts, number),
        cause=_nth(vantage.causes, number) if len(vantage.causes) == count else None,
        path=analysis.joined.path(vantage.name, count)[number],
        connection=_connection(vantage, int(syn["conn"])),
    )


def _place(analysis: Analysis, capture: str | None) -> tuple[Vantage, list[int]]:
    """The vantage and its files that *capture* names."""
    if capture is None:
        return analysis.main, list(range(len(analysis.main.tracked.files)))
    for vantage in analysis.vantages:
        files = vantage.tracked.files
        if vantage.name == capture:
            return vantage, list(range(len(files)))
        named = [i for i, info in enumerate(files) if capture in (info.path, PurePath(info.path).name)]
        if named:
            return vantage, named
    names = ", ".join(vantage.name for vantage in analysis.vantages)
    raise UsageError(f"--capture {capture}: captures here are {names}; the name of one of their files will do too")


def _syn_rows(vantage: Vantage, frame: int, files: list[int]) -> list[tuple[int, Any]]:
    """(row number, SYN row) of the SYNs with this frame number."""
    found: list[tuple[int, Any]] = []
    start = 0
    for rows in vantage.tracked.syns.chunks():
        for at in np.flatnonzero((rows["frame"] == frame) & np.isin(rows["file"], files)).tolist():
            found.append((start + at, rows[at].copy()))
        start += len(rows)
    return found


def _nth(spool: Any, number: int) -> Any:
    """One row of a spool."""
    start = 0
    for rows in spool.chunks():
        if number < start + len(rows):
            return rows[number - start].copy()
        start += len(rows)
    return None


def _connection(vantage: Vantage, conn: int) -> Any | None:
    for rows in vantage.tracked.connections.chunks():
        hit = np.flatnonzero(rows["conn"] == conn)
        if len(hit):
            return rows[hit[0]].copy()
    return None


# ---- a frame that is no SYN ---------------------------------------------------------------------


def _no_syn(vantage: Vantage, frame: int, files: list[int]) -> str:
    """One line: what the frame is, and the nearest SYN of its connection."""
    from analyzer.capture.frames import decode, fetch

    infos = vantage.tracked.files
    if frame < 1 or all(frame > infos[i].packets for i in files):
        most = max((infos[i].packets for i in files), default=0)
        return f"frame {frame}: {vantage.name} has frames 1 to {most}"
    if not all(infos[i].readable_again for i in files):
        return f"frame {frame} of {vantage.name} is no SYN"
    for found in fetch(infos, {i: [frame] for i in files}):
        packet = decode(found)
        if packet is None:
            continue
        syn = _nearest_syn(vantage, packet)
        if syn is None:
            return f"frame {frame} of {vantage.name} is no SYN, and its connection's SYN is not in the capture"
        return f"frame {frame} of {vantage.name} is no SYN; the nearest SYN of its connection is frame {syn}"
    return f"frame {frame} of {vantage.name} is no TCP packet"


def _nearest_syn(vantage: Vantage, packet: Any) -> int | None:
    """Frame of the last SYN before *packet* on its four numbers, or of the first after it."""
    hosts = vantage.tracked.hosts
    ids = [np.flatnonzero((hosts["hi"] == packet[f"{e}_hi"]) & (hosts["lo"] == packet[f"{e}_lo"])) for e in _ENDS]
    best: tuple[bool, int, int] | None = None
    for rows in vantage.tracked.syns.chunks():
        there = np.isin(rows["orig"], ids[0]) & np.isin(rows["resp"], ids[1])
        there &= (rows["orig_p"] == packet["sport"]) & (rows["resp_p"] == packet["dport"])
        back = np.isin(rows["orig"], ids[1]) & np.isin(rows["resp"], ids[0])
        back &= (rows["orig_p"] == packet["dport"]) & (rows["resp_p"] == packet["sport"])
        for row in rows[there | back]:
            away = int(packet["time"]) - int(row["time"])
            candidate = (away < 0, abs(away), int(row["frame"]))
            best = candidate if best is None or candidate < best else best
    return None if best is None else best[2]


_ENDS = ("src", "dst")
