"""Vendor formats built byte by byte: F5 trailers and NetScaler traces of every generation."""

import socket
import struct

from tests.frames import Segment

NS = 1_000_000_000


def mapped(address: str) -> bytes:
    """An address as 16 bytes."""
    if ":" in address:
        return socket.inet_pton(socket.AF_INET6, address)
    return b"\0" * 10 + b"\xff\xff" + socket.inet_aton(address)


# ---- F5 -----------------------------------------------------------------------------------------


def block(kind: int, version: int, data: bytes) -> bytes:
    """A block of the older trailer."""
    return struct.pack(">BBB", kind, len(data) + 1, version) + data


def low(name: bytes = b"/Common/vip", ingress: int = 1) -> bytes:
    """Low details as 11.2 and later write them."""
    return block(1, 1, struct.pack(">BBBB", ingress, 0, 1, len(name)) + name)


def medium(flow: int, peer: int) -> bytes:
    """Medium details, version 3."""
    return block(2, 3, struct.pack(">QQIIBBHHBB", flow, peer, 0, 0, 0, 0, 0, 0, 3, 0))


def high(remote: bytes, remote_p: int, local: bytes, local_p: int) -> bytes:
    """High details."""
    return block(3, 0, struct.pack(">BH", 6, 100) + remote + local + struct.pack(">HH", remote_p, local_p))


def element(kind: int, version: int, data: bytes, provider: int = 1) -> bytes:
    """An element of the newer trailer."""
    return struct.pack(">HHHH", provider, kind, 8 + len(data), version) + data


def dpt(*elements: bytes) -> bytes:
    """The newer trailer."""
    body = b"".join(elements)
    return struct.pack(">IHH", 0xF5DEB0F5, 8 + len(body), 1) + body


# ---- NetScaler ----------------------------------------------------------------------------------

FIRST = {20: 0xC0, 21: 0xD0, 22: 0xE0, 23: 0xF0, 24: 0xF8, 25: 0xB0, 26: 0xA0}
START = 1_500_000_000


def record(
    generation: int, frame: bytes, step_us: int, pcb: int, linked: int, *, rx: bool, part: bool = False
) -> bytes:
    """A packet record of 2.x; *step_us* after the one before, or after START where times are absolute."""
    if generation < 23:
        body = struct.pack("<BI", 3, 2 << 30 | step_us)
    else:
        body = struct.pack("<BQ", 3, START * NS + step_us * 1000)
    if part:
        body += struct.pack("<HH", len(frame) + 50, 0)
    if generation > 20:
        body += struct.pack("<II", pcb, linked)
    if generation > 21:
        body += struct.pack("<H", 7)
    if generation > 22:
        body += struct.pack("<H", 1)
    if generation > 23:
        body += struct.pack("<HHB", 0, 0, 0)
    if generation > 24:
        body += struct.pack("<BB", 2, 3)
    if generation > 25:
        body += bytes(17)
    if generation > 24:
        body += b"vm" + b"vm2"
    size = 3 + len(body) + len(frame)
    kind = FIRST[generation] + 4 * part + 2 * rx
    return struct.pack("<BBB", kind, size & 0x7F | 0x80, size >> 7) + body + frame


def trace(version: bytes, records: list[bytes]) -> bytes:
    """A trace: signature, absolute time, records; none crosses a page of 2.x."""
    page = 8192 if version == b"V20" else 16384
    text = b"NetScaler " + version + b" Performance Data\0"
    out = bytearray(struct.pack("<BBB", 1, 3 + len(text), 0) + text)
    out += struct.pack("<BBHI", 7, 8, 0, START)
    for one in records:
        if version == b"V20" and len(out) % page + len(one) > page:
            out += bytes(-len(out) % page)
        out += one
    return bytes(out + bytes(-len(out) % page))


def segments(count: int) -> list[Segment]:
    """SYNs of one client, each one second and one port on."""
    from tests.frames import S

    return [Segment(i, "192.0.2.9", 40000 + i, "198.51.100.1", 443, S, 77 + i, tsval=500 + i) for i in range(count)]
