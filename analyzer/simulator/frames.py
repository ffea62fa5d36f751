"""Records to bytes: Ethernet, IPv4, TCP with Linux' order of options, true checksums, pcap or pcapng.

A record is one row of int64 columns (:data:`COLUMNS`); one compiled pass writes any number of them.
Payload is text by position: byte *k* of a stream is ``TEXT[(salt + k) % 4096]``, so a repeated segment
repeats its bytes and both legs of a connection carry the same.
"""

from typing import Any

import numpy as np
from numba import njit

Records = np.ndarray[Any, np.dtype[np.int64]]

COLUMNS = (
    "time", "interface", "src", "dst", "sport", "dport", "seq", "ack", "flags", "window", "tsval", "tsecr",
    "length", "options", "ttl", "ipid", "salt", "offset",
)  # fmt: skip
(
    TIME, INTERFACE, SRC, DST, SPORT, DPORT, SEQ, ACKNO, FLAGS, WINDOW, TSVAL, TSECR,
    LENGTH, OPTIONS, TTL, IPID, SALT, OFFSET,
) = range(len(COLUMNS))  # fmt: skip
"""``tsval`` is -1 without the option; ``options`` is 0, or of a SYN: see :func:`syn_options`."""

MAX_OVERHEAD = 32 + 4 + 14 + 20 + 60
_TEXT_SIZE = 4096
_LINES = (
    b"t%02d:cal pool=log%02d severity=INFO type=TXN name=/api/item/view status=0 dur=%03dms data=uid%%3D%06d\r\n" % (
        i % 60, i % 24, 17 * i % 997, 7919 * i % 1000003 % 999999)
    for i in range(64)
)  # fmt: skip
TEXT = np.frombuffer(b"".join(_LINES)[:_TEXT_SIZE].ljust(_TEXT_SIZE, b"."), np.uint8)


def syn_options(mss: int, wscale: int | None, sack: bool) -> int:
    """A SYN's options in one number."""
    return mss | (255 if wscale is None else wscale) << 16 | sack << 24 | 1 << 25


@njit(cache=True, inline="always")
def _be16(out, at, value):
    out[at], out[at + 1] = (value >> 8) & 255, value & 255


@njit(cache=True, inline="always")
def _be32(out, at, value):
    for k in range(4):
        out[at + k] = (value >> (24 - 8 * k)) & 255


@njit(cache=True, inline="always")
def _le32(out, at, value):
    for k in range(4):
        out[at + k] = (value >> (8 * k)) & 255


@njit(cache=True)
def _sum16(out, start, stop):
    total = 0
    for i in range(start, stop - 1, 2):
        total += (np.int64(out[i]) << 8) | np.int64(out[i + 1])
    if (stop - start) & 1:
        total += np.int64(out[stop - 1]) << 8
    return total


@njit(cache=True)
def _fold(total):
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


@njit(cache=True)
def _tcp_options(out, at, record):
    """Options in Linux' order (net/ipv4/tcp_output.c ``tcp_options_write``); returns where they end."""
    packed, stamps = record[OPTIONS], record[TSVAL] >= 0
    sack = (packed >> 24) & 1
    if packed:
        out[at], out[at + 1] = 2, 4
        _be16(out, at + 2, packed & 0xFFFF)
        at += 4
    if stamps:
        both = packed != 0 and sack == 1
        out[at], out[at + 1] = (4, 2) if both else (1, 1)
        out[at + 2], out[at + 3] = 8, 10
        _be32(out, at + 4, record[TSVAL])
        _be32(out, at + 8, record[TSECR])
        at += 12
    elif packed and sack:
        out[at], out[at + 1], out[at + 2], out[at + 3] = 1, 1, 4, 2
        at += 4
    scale = (packed >> 16) & 255
    if packed and scale != 255:
        out[at], out[at + 1], out[at + 2], out[at + 3] = 1, 3, 3, scale
        at += 4
    return at


@njit(cache=True)
def _frame(out, at, record, text):
    """One Ethernet frame from *at*; returns where it ends."""
    for k in range(2):
        host = record[DST] if k == 0 else record[SRC]
        out[at + 6 * k], out[at + 6 * k + 1] = 2, 0
        _be32(out, at + 6 * k + 2, host)
    _be16(out, at + 12, 0x0800)
    ip, tcp = at + 14, at + 34
    end = _tcp_options(out, tcp + 20, record)
    header, length = end - tcp, record[LENGTH]
    out[ip], out[ip + 1] = 0x45, 0
    _be16(out, ip + 2, 20 + header + length)
    _be16(out, ip + 4, record[IPID])
    _be16(out, ip + 6, 0x4000)
    out[ip + 8], out[ip + 9] = record[TTL], 6
    _be16(out, ip + 10, 0)
    _be32(out, ip + 12, record[SRC])
    _be32(out, ip + 16, record[DST])
    _be16(out, ip + 10, _fold(_sum16(out, ip, tcp)))
    _be16(out, tcp, record[SPORT])
    _be16(out, tcp + 2, record[DPORT])
    _be32(out, tcp + 4, record[SEQ])
    _be32(out, tcp + 8, record[ACKNO])
    out[tcp + 12], out[tcp + 13] = (header // 4) << 4, record[FLAGS]
    _be16(out, tcp + 14, record[WINDOW])
    _be32(out, tcp + 16, 0)
    where = (record[SALT] + record[OFFSET]) % len(text)
    for k in range(length):
        out[end + k] = text[where]
        where += 1
        if where == len(text):
            where = 0
    pseudo = _sum16(out, ip + 12, tcp) + 6 + header + length
    _be16(out, tcp + 16, _fold(pseudo + _sum16(out, tcp, end + length)))
    return end + length


@njit(cache=True)
def write_pcap(out, records, order, text, snaplen):
    """Write nanosecond pcap records of *records* in *order*; returns the bytes written."""
    at = 0
    for index in order:
        record = records[index]
        end = _frame(out, at + 16, record, text)
        size = end - at - 16
        kept = min(size, snaplen)
        _le32(out, at, record[TIME] // 1_000_000_000)
        _le32(out, at + 4, record[TIME] % 1_000_000_000)
        _le32(out, at + 8, kept)
        _le32(out, at + 12, size)
        at += 16 + kept
    return at


@njit(cache=True)
def write_pcapng(out, records, order, text, snaplen):
    """Write enhanced packet blocks (nanoseconds) of *records* in *order*; returns the bytes written."""
    at = 0
    for index in order:
        record = records[index]
        end = _frame(out, at + 28, record, text)
        size = end - at - 28
        kept = min(size, snaplen)
        padded = (kept + 3) // 4 * 4
        for k in range(kept, padded):
            out[at + 28 + k] = 0
        _le32(out, at, 6)
        _le32(out, at + 4, 32 + padded)
        _le32(out, at + 8, record[INTERFACE])
        _le32(out, at + 12, record[TIME] >> 32)
        _le32(out, at + 16, record[TIME] & 0xFFFFFFFF)
        _le32(out, at + 20, kept)
        _le32(out, at + 24, size)
        _le32(out, at + 28 + padded, 32 + padded)
        at += 32 + padded
    return at


def room_for(records: Records) -> int:
    """Bytes that hold *records* however they are written."""
    return int(records[:, LENGTH].sum()) + MAX_OVERHEAD * len(records)
