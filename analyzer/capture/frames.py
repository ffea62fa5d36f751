"""The second pass: raw frames by their numbers, from any input that the first pass can read.

Packets do not outlive their block, so what a report wants to show of them is read again.  The same
walk finds the frames, so that both passes count alike, damage included; memory stays at one block.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from analyzer.capture import walk
from analyzer.capture.decode import RARE, TAKEN, decode_frame
from analyzer.capture.inputs import InputFile
from analyzer.capture.rare import decode_rare
from analyzer.capture.reader import BUFFER_BYTES, FileReader
from analyzer.errors import InputError
from analyzer.schema import META_RECEIVED, META_SENT, PACKET

Numbers = np.ndarray[Any, np.dtype[np.int64]]

SMALL_BUFFER = BUFFER_BYTES >> 2


@dataclass(frozen=True)
class Frame:
    """One frame as it was captured.

    Attributes:
        file: Index of its file in the list asked for.
        number: Frame number in that file, from 1.
        time: ns since 1970 UTC on the capture's clock; ``units.NO_TIME`` if the file tells none.
        link: Link type (tcpdump.org's numbers).
        interface: Index in the file's list of interfaces.
        length: Bytes on the wire.
        data: Captured bytes.
        direction: 0 unknown, 1 received, 2 sent, by the capturing host.
    """

    file: int
    number: int
    time: int
    link: int
    interface: int
    length: int
    data: bytes
    direction: int = 0


class FrameReader(FileReader):
    """Reads one file's frames undecoded; :meth:`frames` instead of ``blocks``."""

    def __init__(self, info: InputFile, index: int = 0, buffer_bytes: int = SMALL_BUFFER) -> None:
        super().__init__(info.place, index, hashes=False, buffer_bytes=buffer_bytes)
        self._state[walk.LOCATE] = 1

    def frames(self, wanted: Numbers | None = None) -> Iterator[Frame]:
        """Yield the frames of these numbers (sorted), or all; stops reading after the last of them."""
        left = wanted
        for rows in self.blocks():
            numbers = rows["frame"].astype(np.int64)
            where = np.arange(len(rows))
            if left is not None:
                at = np.searchsorted(numbers, left)
                hit = (at < len(numbers)) & (numbers[np.minimum(at, len(numbers) - 1)] == left)
                where = at[hit]
                left = left[left > numbers[-1]]
            yield from self._located(rows, where)
            if left is not None and not len(left):
                return

    def _take(self) -> Any:
        """The rows of the located frames; their places stay until the next walk."""
        count = int(self._state[walk.ROWS])
        self._state[walk.ROWS] = self._state[walk.RARES] = 0
        return self._identified(self._rows[:count], self._rows[:count])

    def _located(self, rows: Any, where: Numbers) -> Iterator[Frame]:
        """Frames of some rows of the block; their bytes are taken before the walk goes on."""
        told = [rows[name][where].tolist() for name in ("frame", "time", "interface", "meta")]
        for place, number, time, interface, meta in zip(self._rare[where].tolist(), *told, strict=True):
            _, at, size, wire, link, _ = place
            direction = 1 if meta & META_RECEIVED else 2 if meta & META_SENT else 0
            data = self._buffer[at : at + size].tobytes()
            yield Frame(self._index, number, time, link, interface, wire, data, direction)


def fetch(
    files: Sequence[InputFile], wanted: Mapping[int, Sequence[int] | Numbers | None], buffer_bytes: int = SMALL_BUFFER
) -> Iterator[Frame]:
    """Yield frames of several files, file after file in the order of *wanted*.

    Args:
        files: As ``Capture.files`` or ``Tracked.files`` lists them.
        wanted: Frame numbers by index in *files*; None for all frames of a file.
        buffer_bytes: Size of the read buffer of each file.

    Raises:
        InputError: A file cannot be read again: it was standard input, or is gone.
    """
    for index, numbers in wanted.items():
        info = files[index]
        if not info.readable_again:
            raise InputError(f"{info.path}: cannot be read a second time; save the capture to a file")
        asked = None if numbers is None else np.unique(np.asarray(numbers, np.int64))
        if asked is None or len(asked):
            yield from FrameReader(info, index, buffer_bytes).frames(asked)


def decode(frame: Frame) -> Any | None:
    """The PACKET record of a frame; None if it is neither TCP nor an ICMP error about TCP."""
    rows = np.zeros(1, PACKET.dtype).view(np.recarray)
    data = np.frombuffer(frame.data, np.uint8)
    code = decode_frame(data, 0, len(data), frame.length, frame.link, False, rows[0])
    if code == RARE:
        code = decode_rare(data, frame.length, frame.link, False, rows, 0)
    if code != TAKEN:
        return None
    rows["time"], rows["frame"], rows["file"] = frame.time, frame.number, frame.file
    return rows[0]
