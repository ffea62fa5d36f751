"""Where each frame is and when it was taken, compiled: the record chains of pcap and pcapng.

Both walks fill PACKET rows from a block of bytes and stop when the rows are full, the bytes are used
up, or something needs Python (a new section, an interface, damage).
"""

import numpy as np
from numba import njit

from analyzer.capture.decode import CODES, RARE, TAKEN, decode_frame
from analyzer.schema import META_RECEIVED, META_SENT, META_TRAILER, OPT_PROXY, OPT_TOA

# why a walk stopped
MORE = 0  # bytes used up: give more
FULL = 1  # rows full
ASK = 2  # pcapng: a block for Python at state[POS]
BAD = 3  # impossible record at state[POS]

POS, END, ROWS, FRAMES, RARES, FIRST, LAST, FRAME0, COUNTS = 0, 1, 2, 3, 4, 5, 6, 7, 8
LOCATE = COUNTS + CODES  # 1: every frame gets a row and a place, and none is decoded
STATE_SIZE = LOCATE + 1

# columns of a place: row, position and captured size in the buffer, size on the wire, link type, why it is kept
PLACE_COLUMNS = 6
UNDECODED, DECODED = 0, 1
"""Why a place is kept: the slower path must decode it; it is decoded and carries more than the row holds."""

KIND_PENDING = 255
MAX_CAPTURED = 1 << 20
"""No link delivers a larger frame; a record that claims more is damaged."""

NO_TIME = -(2**63)


@njit(cache=True, inline="always")
def _u32(buf, at, swap):
    a, b, c, d = np.int64(buf[at]), np.int64(buf[at + 1]), np.int64(buf[at + 2]), np.int64(buf[at + 3])
    if swap:
        return (a << 24) | (b << 16) | (c << 8) | d
    return (d << 24) | (c << 16) | (b << 8) | a


@njit(cache=True, inline="always")
def _keep_place(rare, state, at, size, wire, link, why):
    here = state[RARES]
    rare[here, 0], rare[here, 1], rare[here, 2], rare[here, 3] = state[ROWS], at, size, wire
    rare[here, 4], rare[here, 5] = link, why
    state[RARES] += 1


@njit(cache=True, inline="always")
def _place(buf, at, size, wire, link, time, interface, digests, rows, rare, state):
    """Decode one frame into the next row; keeps the counts of *state*."""
    state[FRAMES] += 1
    row = rows[state[ROWS]]
    row.interface = interface
    if state[LOCATE]:
        row.time = time
        row.frame = state[FRAME0] + state[FRAMES]
        row.meta = 0
        _keep_place(rare, state, at, size, wire, link, UNDECODED)
        state[ROWS] += 1
        return
    code = decode_frame(buf, at, at + size, wire, link, digests, row)
    state[COUNTS + code] += 1
    if time != NO_TIME:
        if state[FIRST] == NO_TIME:
            state[FIRST] = time
        state[LAST] = time
    if code == TAKEN or code == RARE:
        row.time = time
        row.frame = state[FRAME0] + state[FRAMES]
        if code == RARE:
            row.kind = KIND_PENDING
            _keep_place(rare, state, at, size, wire, link, UNDECODED)
        elif row.meta & META_TRAILER or row.opts & (OPT_TOA | OPT_PROXY):
            _keep_place(rare, state, at, size, wire, link, DECODED)
        state[ROWS] += 1


@njit(cache=True, nogil=True)
def walk_pcap(buf, swap, nanos, link, digests, rows, rare, state):
    """Walk pcap records from state[POS] to state[END]."""
    at = state[POS]
    end = state[END]
    scale = 1 if nanos else 1000
    while True:
        if end - at < 16:
            state[POS] = at
            return MORE
        size = _u32(buf, at + 8, swap)
        wire = _u32(buf, at + 12, swap)
        fraction = _u32(buf, at + 4, swap)
        if size > MAX_CAPTURED or (fraction * scale >= 2_000_000_000 and size > wire):
            state[POS] = at
            return BAD
        if end - at - 16 < size:
            state[POS] = at
            return MORE
        if state[ROWS] >= rows.shape[0]:
            state[POS] = at
            return FULL
        time = _u32(buf, at, swap) * 1_000_000_000 + fraction * scale
        _place(buf, at + 16, size, wire, link, time, 0, digests, rows, rare, state)
        at += 16 + size


@njit(cache=True)
def _time_ns(high, low, base, shift):
    """A pcapng time stamp in ns; *base* 10 or 2, *shift* the negative exponent."""
    units = np.uint64((high << 32) | low)
    if base == 10:
        if shift <= 9:
            scale = np.uint64(1)
            for _ in range(9 - shift):
                scale *= np.uint64(10)
            return np.int64(units * scale)
        scale = np.uint64(1)
        for _ in range(shift - 9):
            scale *= np.uint64(10)
        return np.int64(units // scale)
    seconds = units >> np.uint64(shift) if shift < 64 else np.uint64(0)
    fraction = units - (seconds << np.uint64(shift)) if shift < 64 else units
    if shift > 30:
        fraction >>= np.uint64(shift - 30)
        shift = 30
    return np.int64(seconds) * 1_000_000_000 + np.int64((fraction * np.uint64(1_000_000_000)) >> np.uint64(shift))


@njit(cache=True, nogil=True)
def walk_pcapng(buf, swap, interfaces, digests, rows, rare, state):
    """Walk pcapng blocks; *interfaces* rows are (link type, base, exponent, offset in s, snap length, global index)."""
    at = state[POS]
    end = state[END]
    while True:
        if end - at < 12:
            state[POS] = at
            return MORE
        kind = _u32(buf, at, swap)
        length = _u32(buf, at + 4, swap)
        if kind not in (6, 3, 2):
            state[POS] = at
            return ASK
        if length < 16 or length % 4 or length > MAX_CAPTURED + 4096:
            state[POS] = at
            return BAD
        if end - at < length:
            state[POS] = at
            return MORE
        if state[ROWS] >= rows.shape[0]:
            state[POS] = at
            return FULL
        index = 0
        time = NO_TIME
        data = at + 28
        direction = 0
        if kind == 3:
            wire = _u32(buf, at + 8, swap)
            data = at + 12
            size = min(wire, length - 16)
            if interfaces.shape[0] and interfaces[0, 4] > 0:
                size = min(size, interfaces[0, 4])
        elif length < 32:
            state[POS] = at
            return BAD
        else:
            index = _u32(buf, at + 8, swap)
            if kind == 2:
                index = index >> 16 if swap else index & 0xFFFF
            size = _u32(buf, at + 20, swap)
            wire = _u32(buf, at + 24, swap)
        if index >= interfaces.shape[0] or _u32(buf, at + length - 4, swap) != length or data + size > at + length - 4:
            state[POS] = at
            return BAD
        if kind != 3:
            time = _time_ns(
                _u32(buf, at + 12, swap), _u32(buf, at + 16, swap), interfaces[index, 1], interfaces[index, 2]
            )
            time += interfaces[index, 3] * 1_000_000_000
            direction = _direction(buf, data + ((size + 3) & ~3), at + length - 4, swap)
        before = state[ROWS]
        _place(buf, data, size, wire, interfaces[index, 0], time, interfaces[index, 5], digests, rows, rare, state)
        if direction and state[ROWS] > before:
            rows[before].meta |= META_RECEIVED if direction == 1 else META_SENT
        at += length


@njit(cache=True)
def _direction(buf, at, end, swap):
    """Direction bits of the epb_flags option: 1 inbound, 2 outbound, 0 not told."""
    while end - at >= 4:
        first = _u32(buf, at, swap)
        code = first >> 16 if swap else first & 0xFFFF
        size = first & 0xFFFF if swap else first >> 16
        if code == 0:
            return 0
        if code == 2 and size == 4 and end - at >= 8:
            return _u32(buf, at + 4, swap) & 3
        at += 4 + ((size + 3) & ~3)
    return 0
