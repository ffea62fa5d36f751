"""A capture: one file or several, as one stream of packet blocks in order of arrival."""

import glob as globbing
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from analyzer.capture.decode import CODES
from analyzer.capture.identity import Collector
from analyzer.capture.inputs import InputFile, Interface
from analyzer.capture.reader import BUFFER_BYTES, FileReader
from analyzer.errors import InputError, Problem
from analyzer.units import NO_TIME

Records = np.ndarray[Any, np.dtype[np.void]]
Progress = Callable[[int, int, int], None]

PEEK_BYTES = 1 << 16


class Capture:
    """Packets of one vantage point; iterate :meth:`blocks` once.

    Attributes:
        name: Name of the vantage, e.g. ``server``.
        files: What was found in each file, complete once the blocks were read.
        problems: Flaws of the inputs, complete once the blocks were read.
        counts: int64 (CODES,): frames by what became of them (``capture.decode`` codes).
        identities: Spool of IDENTITY: what packets say of the other side, complete once the blocks were read.
    """

    def __init__(self, name: str, readers: list[FileReader], total: int, progress: Progress | None) -> None:
        self.name = name
        self._readers = readers
        self._total, self._progress = total, progress
        self.counts = np.zeros(CODES, np.int64)
        collector = Collector()
        self.identities = collector.rows
        for reader in readers:
            reader.identities = collector

    @property
    def files(self) -> list[InputFile]:
        """What was found in each file."""
        return [reader.info for reader in self._readers]

    @property
    def problems(self) -> list[Problem]:
        """Flaws of the inputs."""
        return [problem for reader in self._readers for problem in reader.problems]

    @property
    def interfaces(self) -> list[Interface]:
        """Interfaces of all files."""
        return [interface for info in self.files for interface in info.interfaces]

    def blocks(self) -> Iterator[Records]:
        """Yield PACKET records in order of arrival; files that overlap are merged by time."""
        one, packets = len(self._readers) == 1, 0
        for block in self._readers[0].blocks() if one else _merged(self._readers):
            yield block
            if self._progress is not None:
                packets += len(block)
                self._progress(sum(r.stored_bytes for r in self._readers), self._total, packets)
        self.counts = np.sum([r.counts for r in self._readers], axis=0)


def _merged(readers: list[FileReader]) -> Iterator[Records]:
    """Merge by time, stable; inside one file the order of arrival is kept even if its clock steps."""
    streams = [reader.blocks() for reader in readers]
    heads: list[Records | None] = [next(stream, None) for stream in streams]
    while True:
        live = [(int(np.max(h["time"][:1])), i) for i, h in enumerate(heads) if h is not None and len(h)]
        for i, head in enumerate(heads):
            if head is not None and not len(head):
                heads[i] = next(streams[i], None)
        if not live:
            if all(h is None for h in heads):
                return
            continue
        live.sort()
        first = live[0][1]
        head = heads[first]
        assert head is not None
        limit = live[1][0] if len(live) > 1 else None
        count = len(head) if limit is None else _until(head["time"], limit)
        yield head[:count]
        rest = head[count:]
        heads[first] = rest if len(rest) else next(streams[first], None)


def _until(times: np.ndarray[Any, np.dtype[np.int64]], limit: int) -> int:
    """How many leading rows come before *limit*: at least one."""
    later = np.flatnonzero(times > limit)
    return max(1, int(later[0])) if len(later) else len(times)


def expand(paths: Sequence[str]) -> list[str]:
    """Files named by *paths*: files, folders (their files), globs, or ``-``.

    Raises:
        InputError: A name matches nothing.
    """
    found: list[str] = []
    for path in paths:
        if path == "-":
            found.append(path)
            continue
        place = Path(path)
        if place.is_dir():
            inside = sorted(str(p) for p in place.iterdir() if p.is_file() and not p.name.startswith("."))
            found.extend(p for p in inside if _looks_like_capture(p))
        elif place.exists():
            found.append(path)
        else:
            matches = sorted(globbing.glob(path))  # noqa: PTH207 - users' patterns may be absolute
            if not matches:
                raise InputError(f"{path}: no such file; give a capture, a folder of captures or a pattern")
            found.extend(m for m in matches if Path(m).is_file())
    if not found:
        raise InputError(f"{', '.join(paths)}: no capture files found there")
    return list(dict.fromkeys(found))


def _looks_like_capture(path: str) -> bool:
    return ".pcap" in path or path.endswith((".cap", ".dmp", ".pcapng", ".gz", ".zst"))


def open_capture(
    paths: Sequence[str],
    name: str,
    *,
    digests: bool = False,
    hashes: bool = True,
    progress: Progress | None = None,
) -> Capture:
    """Open one or several files as one capture.

    Args:
        paths: Files, folders, globs, or ``-`` for standard input.
        name: Name of the vantage point.
        digests: Whether to compute ``PACKET.digest``.
        hashes: Whether to compute each file's SHA-256.
        progress: Called with (bytes read, bytes in all, TCP packets so far) after each block.

    Raises:
        InputError: Nothing readable; the message names the file.
    """
    names = expand(paths)
    if len(names) > 1:
        names = _by_first_time(names)
    size = BUFFER_BYTES if len(names) <= 4 else BUFFER_BYTES >> 2
    readers: list[FileReader] = []
    broken: list[InputError] = []
    for path in names:
        try:
            readers.append(FileReader(path, len(readers), digests, hashes, size))
        except InputError as error:
            broken.append(error)
    if not readers:
        raise broken[0]
    readers[0].problems.extend(Problem(name, None, f"left out: {reason}", "unreadable") for reason in broken)
    total = sum(Path(r.info.path).stat().st_size for r in readers if r.info.path != "-")
    return Capture(name, readers, total, progress)


def _by_first_time(names: list[str]) -> list[str]:
    """Order the files of a rotated set by their first packet."""

    def first(path: str) -> tuple[int, str]:
        if path == "-":
            return (0, path)
        try:
            reader = FileReader(path, hashes=False, buffer_bytes=PEEK_BYTES)
        except InputError:
            return (2**63 - 1, path)
        for block in reader.blocks():
            times = block["time"][block["time"] != NO_TIME]
            if len(times):
                return (int(times[0]), path)
        return (2**63 - 1, path)

    return sorted(names, key=first)
