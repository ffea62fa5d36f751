"""NetScaler's nstrace (2.x, 3.0, 3.5) as a pcapng stream that the ordinary walk reads.

A trace is a chain of pages of fixed size, filled with records (little-endian).  Each packet record
becomes one enhanced packet block, so frames count as Wireshark counts them; its NIC becomes an interface
and its direction a packet flag.  What pcapng has no place for, the ids of both connections that belong
together (PCB and linked PCB), is kept beside it.
"""

import struct
from typing import Any

import numpy as np
from numba import njit

from analyzer.capture.stream import ByteStream
from analyzer.errors import Problem

Bytes = np.ndarray[Any, np.dtype[np.uint8]]

PAGE_V2, PAGE_V3 = 8192, 16384
HALF_PAGE = 4096
LARGEST_RECORD = 255 * 128 + 127

LINK = np.dtype([("frame", "u4"), ("pcb", "u4"), ("linked", "u4"), ("direction", "u1")], align=True)
"""Ids of one packet record: frame number, PCB, linked PCB, 1 received or 2 sent."""

# columns of the layout table, one row per record type; positions in the record, -1 where it has no such field
GENERATION, DIRECTION, RELATIVE, ORIGINAL, PCB, NAMES, BODY, LAYOUT_COLUMNS = 0, 1, 2, 3, 4, 5, 6, 7

# the converter's state
POS, END, BASE, OUT, LINKS, FRAMES, NOW, PAGE, DAMAGED, FIRST_BAD, NICS, STATE_SIZE = range(12)


def _layouts() -> np.ndarray[Any, np.dtype[np.int64]]:
    """Where each packet record keeps what, by type byte."""
    table = np.full((256, LAYOUT_COLUMNS), -1, np.int64)
    table[:, GENERATION] = 0
    extra = {20: 0, 21: 8, 22: 10, 23: 12, 24: 17, 25: 19, 26: 36}
    first = {20: 0xC0, 21: 0xD0, 22: 0xE0, 23: 0xF0, 24: 0xF8, 25: 0xB0, 26: 0xA0}
    for generation, base in first.items():
        for part in (0, 1):
            after_time = (8 if generation < 23 else 12) + 4 * part
            for kind in range(4 if generation >= 24 else 3):
                row = table[base + 4 * part + kind]
                row[GENERATION], row[DIRECTION] = generation, 2 if kind < 2 else 1
                row[RELATIVE] = generation < 23
                row[ORIGINAL] = after_time - 4 if part else -1
                row[PCB] = after_time if generation > 20 else -1
                row[NAMES] = after_time + 17 if generation >= 25 else -1
                row[BODY] = after_time + extra[generation]
    for kind in range(4):
        table[0xA8 + kind] = 30, 2 if kind < 2 else 1, 0, 20, 12, 31, 52
        table[0xAC + kind] = 35, 2 if kind < 2 else 1, 0, 20, 12, -1, 35
    return table


LAYOUTS = _layouts()


def page_size(head: bytes) -> int:
    """Page size of the trace that begins with *head* (its first page), 0 if it is none."""
    for text, size in ((b"V20", PAGE_V2), (b"V30", PAGE_V3), (b"V35", PAGE_V3)):
        at = head.find(text + b" Performance Data")
        if at >= 10 and head[at - 10 : at].lower() == b"netscaler ":
            return size
    return 0


def is_first_generation(head: bytes) -> bool:
    """Whether *head* begins a trace of version 1.0, whose packet records are not known here."""
    return head[:2] == b"\x01\x01" and b"etScaler Performance Data" in head[:256]


@njit(cache=True, inline="always")
def _le(buf, at, size):
    value = np.int64(0)
    for i in range(size - 1, -1, -1):
        value = (value << 8) | np.int64(buf[at + i])
    return value


@njit(cache=True, inline="always")
def _put(out, at, value, size):
    for i in range(size):
        out[at + i] = (value >> (8 * i)) & 0xFF


@njit(cache=True)
def _ethernet(buf, at, size, body):
    """Where the Ethernet frame of a 3.5 record begins: behind the chain of sub-records."""
    kind = buf[at + 34]
    where = body
    while kind != 1:
        if where + 3 > size:
            return -1
        step = _le(buf, at + where, 2)
        if step < 3:
            return -1
        kind = buf[at + where + 2]
        where += step
    return where if where <= size else -1


@njit(cache=True)
def _interface(out, at, nic):
    """An interface description block: Ethernet, nanoseconds, called after the NIC's number; 44 bytes."""
    _put(out, at, 1, 4)
    _put(out, at + 4, 44, 4)
    _put(out, at + 8, 1, 2)
    _put(out, at + 10, 0, 2)
    _put(out, at + 12, 0, 4)
    _put(out, at + 16, 2, 2)
    _put(out, at + 18, 6, 2)
    for i, letter in enumerate((110, 105, 99, 48 + nic // 100, 48 + nic // 10 % 10, 48 + nic % 10, 0, 0)):
        out[at + 20 + i] = letter
    _put(out, at + 28, 9, 2)
    _put(out, at + 30, 1, 2)
    _put(out, at + 32, 9, 4)
    _put(out, at + 36, 0, 4)
    _put(out, at + 40, 44, 4)
    return 44


@njit(cache=True)
def _packet(buf, data, size, wire, time, interface, direction, out, at):
    """An enhanced packet block with its direction; returns its length."""
    padded = (size + 3) & ~3
    length = 32 + padded + 12
    _put(out, at, 6, 4)
    _put(out, at + 4, length, 4)
    _put(out, at + 8, interface, 4)
    _put(out, at + 12, time >> 32, 4)
    _put(out, at + 16, time & 0xFFFFFFFF, 4)
    _put(out, at + 20, size, 4)
    _put(out, at + 24, max(wire, size), 4)
    for i in range(size):
        out[at + 28 + i] = buf[data + i]
    for i in range(size, padded):
        out[at + 28 + i] = 0
    end = at + 28 + padded
    _put(out, end, 2, 2)
    _put(out, end + 2, 4, 2)
    _put(out, end + 4, direction, 4)
    _put(out, end + 8, 0, 4)
    _put(out, at + length - 4, length, 4)
    return length


@njit(cache=True, nogil=True)
def convert(buf, layouts, nics, out, links, state):
    """Turn records of buf[state[POS]:state[END]] into blocks in *out* until one of the three is used up.

    *nics* holds each NIC's interface number, -1 while it has none.  Returns whether more input is needed.
    """
    at, end, base, page = state[POS], state[END], state[BASE], state[PAGE]
    room = out.shape[0] - LARGEST_RECORD - 128
    more = True
    while True:
        if state[OUT] > room or state[LINKS] >= links.shape[0]:
            more = False
            break
        inside = (base + at) % page
        left = page - inside
        if end - at < 3:
            break
        kind = buf[at]
        if kind == 0 or left < 3:
            step = HALF_PAGE - inside if page == PAGE_V2 and inside < HALF_PAGE else left
            if end - at < step:
                break
            at += step
            continue
        size = np.int64(buf[at + 1])
        if size & 0x80:
            size = (size & 0x7F) + 128 * np.int64(buf[at + 2])
        body = layouts[kind, BODY]
        wrong = size < 2 or (page == PAGE_V2 and size > left)
        if layouts[kind, GENERATION]:
            wrong = wrong or size < body
        elif kind == 7 or kind == 8:
            wrong = wrong or size < (8 if kind == 7 else 4)
        if wrong:
            if state[DAMAGED] == 0:
                state[FIRST_BAD] = base + at
            if end - at < left:
                break
            state[DAMAGED] += 1
            at += left
            continue
        if end - at < size:
            break
        if layouts[kind, GENERATION]:
            _record(buf, at, size, kind, layouts, nics, out, links, state)
        elif kind == 7:
            state[NOW] = _le(buf, at + 4, 4) * 1_000_000_000 + _le(buf, at + 2, 2) * 1_000_000
        elif kind == 8:
            state[NOW] += _le(buf, at + 2, 2) * 1_000_000
        at += size
    state[POS] = at
    return more


@njit(cache=True)
def _record(buf, at, size, kind, layouts, nics, out, links, state):
    """One packet record."""
    row = layouts[kind]
    body = row[BODY]
    if row[RELATIVE]:
        told = _le(buf, at + 4, 4)
        unit = told >> 30
        scale = 1_000_000_000 if unit == 0 else 1_000_000 if unit == 1 else 1000 if unit == 2 else 1
        state[NOW] += (told & 0x3FFFFFFF) * scale
    else:
        state[NOW] = _le(buf, at + 4, 8) & 0x7FFFFFFFFFFFFFFF
    if row[NAMES] >= 0:
        body += np.int64(buf[at + row[NAMES]]) + np.int64(buf[at + row[NAMES] + 1])
    if row[GENERATION] == 35:
        body = _ethernet(buf, at, size, body)
    state[FRAMES] += 1
    nic = buf[at + 3]
    if nics[nic] < 0:
        nics[nic] = state[NICS]
        state[NICS] += 1
        state[OUT] += _interface(out, state[OUT], np.int64(nic))
    if body < 0 or body > size:
        body = size
    data = size - body
    wire = _le(buf, at + row[ORIGINAL], 2) if row[ORIGINAL] >= 0 else data
    state[OUT] += _packet(buf, at + body, data, wire, state[NOW], nics[nic], row[DIRECTION], out, state[OUT])
    if row[PCB] >= 0:
        pcb, linked = _le(buf, at + row[PCB], 4), _le(buf, at + row[PCB] + 4, 4)
        if pcb or linked:
            link = links[state[LINKS]]
            link.frame = state[FRAMES]
            link.pcb = pcb
            link.linked = linked
            link.direction = row[DIRECTION]
            state[LINKS] += 1


class NstraceStream:
    """Stands in for the ``ByteStream`` of a trace and yields pcapng.

    Args:
        inner: The trace, of which *head* was already read.
        head: Its first bytes.
        page: Page size, by :func:`page_size`.

    Attributes:
        damage: What ended the data early, once met.
        flaws: Damaged pages that were passed over.
        links: LINK records of the packets converted so far; the reader takes them away.
    """

    def __init__(self, inner: ByteStream, head: Bytes, page: int) -> None:
        self._inner = inner
        self.path, self.compression = inner.path, inner.compression
        self._buffer = np.empty(max(1 << 20, len(head) + (1 << 16)), np.uint8)
        self._buffer[: len(head)] = head
        self._out = np.empty(1 << 20, np.uint8)
        self._links = np.zeros(8192, LINK).view(np.recarray)
        self._nics = np.full(256, -1, np.int64)
        self._state = np.zeros(STATE_SIZE, np.int64)
        self._state[END], self._state[PAGE] = len(head), page
        start = struct.pack("<IIIHHqI", 0x0A0D0D0A, 28, 0x1A2B3C4D, 1, 0, -1, 28)
        self._out[: len(start)] = np.frombuffer(start, np.uint8)
        self._given, self._state[OUT] = 0, len(start)
        self._ended = False
        self.links: list[Any] = []
        self.damage: Problem | None = None

    @property
    def stored_bytes(self) -> int:
        """Bytes of the stored file passed so far."""
        return self._inner.stored_bytes

    def fill(self, target: Bytes) -> int:
        """Write pcapng into *target* until it is full or the trace ends; returns the bytes written."""
        done = 0
        while done < len(target):
            ready = int(self._state[OUT]) - self._given
            if not ready:
                if not self._convert():
                    break
                continue
            take = min(ready, len(target) - done)
            target[done : done + take] = self._out[self._given : self._given + take]
            self._given += take
            done += take
        return done

    def _convert(self) -> bool:
        """Convert some more records; False at the end of the trace."""
        state = self._state
        while True:
            self._given = state[OUT] = state[LINKS] = 0
            hungry = convert(self._buffer, LAYOUTS, self._nics, self._out, self._links, state)
            if state[LINKS]:
                self.links.append(self._links[: int(state[LINKS])].copy())
            if hungry and not state[OUT] and not self._more():
                self._end()
                return False
            if state[OUT]:
                return True

    def _more(self) -> bool:
        state, buffer = self._state, self._buffer
        at, end = int(state[POS]), int(state[END])
        buffer[: end - at] = buffer[at:end].copy()
        state[BASE] += at
        count = self._inner.fill(buffer[end - at :])
        state[POS], state[END] = 0, end - at + count
        return count > 0

    def _end(self) -> None:
        state = self._state
        if self._ended:
            return
        self._ended = True
        if self._inner.damage is not None:
            self.damage = self._inner.damage
        elif state[DAMAGED]:
            text = f"{int(state[DAMAGED])} damaged pages were passed over from the bad record on"
            self.damage = Problem(self.path, int(state[FIRST_BAD]), text, "damaged")
        elif self._buffer[int(state[POS]) : int(state[END])].any():
            text = "the trace ends inside a record; intact packets before it are analysed"
            self.damage = Problem(self.path, int(state[BASE] + state[POS]), text, "cut")

    def finish(self) -> str:
        """Read to the end, close, and return the SHA-256 of the stored bytes."""
        return self._inner.finish()
