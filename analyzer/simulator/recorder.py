"""Capture points: records gathered in bounded windows, merged in time, written to one file each."""

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from analyzer.simulator.frames import COLUMNS, TEXT, TIME, Records, room_for, write_pcap, write_pcapng

Row = tuple[int, ...]
PART = 100_000
_MILLION = 1_000_000


@dataclass(frozen=True)
class Clock:
    """An error against true time: *offset* ns at *start*, drifting by *drift_ppm* from there."""

    offset: int = 0
    drift_ppm: int = 0
    start: int = 0

    def show(self, time: Any) -> Any:
        """What the clock shows at true *time*; works on arrays too."""
        return time + self.offset + (time - self.start) * self.drift_ppm // _MILLION

    def when(self, shown: int) -> int:
        """True time at which the clock has come to *shown*."""
        time = self.start + (shown - self.offset - self.start) * _MILLION // (_MILLION + self.drift_ppm)
        while self.show(time) < shown:
            time += 1
        return time


class CapturePoint:
    """One capture file.

    Args:
        path: ``.pcap`` or ``.pcapng``.
        interfaces: Names of its interfaces (pcapng), in order of their index.
        clock: Its clock's error.
        snaplen: Bytes kept of each frame.
        drop: One record in how many is lost by the capture; 0: none.
    """

    def __init__(
        self, path: Path, interfaces: tuple[str, ...], clock: Clock, snaplen: int = 65535, drop: int = 0
    ) -> None:
        self.path, self.clock, self.snaplen, self.drop = path, clock, snaplen, drop
        self.rows: list[Row] = []
        self.blocks: list[Records] = []
        self.packets = 0
        self.dropped = 0
        self._ng = path.suffix == ".pcapng"
        self._file: BinaryIO = path.open("wb")
        self._file.write(_pcapng_head(interfaces, snaplen) if self._ng else _pcap_head(snaplen))

    def held(self) -> int:
        """Records that wait to be written."""
        return len(self.rows) + sum(len(block) for block in self.blocks)

    def flush(self, horizon: int) -> None:
        """Write every record before *horizon*, in order of time; later ones stay."""
        parts = [np.array(self.rows, np.int64).reshape(-1, len(COLUMNS)), *self.blocks]
        records = np.concatenate(parts)
        order = np.argsort(records[:, TIME], kind="stable")
        ready = int(np.searchsorted(records[order, TIME], horizon))
        self.rows, self.blocks = [], [records[order[ready:]]] if ready < len(order) else []
        for first in range(0, ready, PART):
            self._write(records[order[first : min(first + PART, ready)]])

    def _write(self, records: Records) -> None:
        numbers = np.arange(self.packets + self.dropped, self.packets + self.dropped + len(records))
        if self.drop:
            kept = mix(numbers.astype(np.uint64)) % np.uint64(self.drop) != 0
            self.dropped += int((~kept).sum())
            records = records[kept]
        records[:, TIME] = self.clock.show(records[:, TIME])
        out = np.empty(room_for(records), np.uint8)
        write = write_pcapng if self._ng else write_pcap
        size = write(out, records, np.arange(len(records)), TEXT, self.snaplen)
        self._file.write(out[:size].data)
        self.packets += len(records)

    def close(self) -> None:
        """Write what is left and close the file."""
        self.flush(2**63 - 1)
        self._file.close()


def mix(numbers: "np.ndarray[Any, np.dtype[np.uint64]]") -> "np.ndarray[Any, np.dtype[np.uint64]]":
    """Well-mixed 64-bit numbers from consecutive ones, the same everywhere (splitmix64)."""
    with np.errstate(over="ignore"):
        z = numbers * np.uint64(0x9E3779B97F4A7C15) + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def _pcap_head(snaplen: int) -> bytes:
    return struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, snaplen, 1)


def _block(kind: int, body: bytes) -> bytes:
    size = struct.pack("<I", 12 + len(body))
    return struct.pack("<I", kind) + size + body + size


def _option(code: int, value: bytes) -> bytes:
    return struct.pack("<HH", code, len(value)) + value + bytes(-len(value) % 4)


def _pcapng_head(interfaces: tuple[str, ...], snaplen: int) -> bytes:
    head = _block(0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1))
    for name in interfaces:
        options = _option(2, name.encode()) + _option(9, b"\x09") + _option(0, b"")
        head += _block(1, struct.pack("<HHI", 1, 0, snaplen) + options)
    return head
