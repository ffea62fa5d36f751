"""Frames fit to be shared: mapped addresses, no MAC addresses, no payload, nothing unknown.

A frame is built anew from what is understood: an Ethernet header of zeros (with its VLAN tag), the
innermost IP header without options, and the TCP header with its harmless options; or an ICMP error with
the header it quotes.  Tunnels, trailers and all other protocols are left out.  Lengths on the wire stay.
"""

import struct
from typing import Any

import numpy as np

from analyzer.anonymize import Anonymizer
from analyzer.capture.decode import LINK_ETHERNET
from analyzer.capture.frames import Frame
from analyzer.capture.rare import innermost, skip_extensions

TCP, ICMP, ICMP6 = 6, 1, 58
VLAN = (0x8100, 0x88A8, 0x9100)
SHOWN_OPTIONS = frozenset((2, 3, 4, 5, 8))
"""TCP options kept as they are: MSS, window scale, SACK (permitted), timestamps; others keep kind and length."""

Content = tuple[bytes, int]


class Scrubber:
    """Callable from a frame to (Ethernet frame, length on the wire), or None to leave it out."""

    def __init__(self, anonymizer: Anonymizer) -> None:
        self._map = anonymizer.packed

    def __call__(self, frame: Frame) -> Content | None:
        """Scrub one frame."""
        data = np.frombuffer(frame.data, np.uint8)
        at = innermost(data, frame.link)
        if at is None:
            return None
        packet = self._packet(frame.data[at:], frame.length - at)
        if packet is None:
            return None
        content, length = packet
        tag = _vlan_tag(frame)
        kind = b"\x86\xdd" if content[0] >> 4 == 6 else b"\x08\x00"
        head = b"\0" * 12 + tag + kind
        return head + content, len(head) + length

    def _packet(self, ip: bytes, wire: int) -> Content | None:
        head = _Header.read(ip, wire)
        if head is None:
            return None
        body = ip[head.size : head.total]
        length = head.total - head.size
        if head.protocol == TCP:
            segment = self._tcp(head, body, length)
            return None if segment is None else (head.build(self._map, segment[1]) + segment[0], head.base + segment[1])
        if head.protocol == (ICMP6 if head.v6 else ICMP):
            message = self._icmp(head, body)
            return (
                None if message is None else (head.build(self._map, len(message)) + message, head.base + len(message))
            )
        return None

    def _tcp(self, head: "_Header", body: bytes, length: int) -> Content | None:
        """The TCP header with what its segment was long on the wire; the payload counts as zeros."""
        if len(body) < 14:
            return None
        size = (body[12] >> 4) * 4
        shown = bytearray(body[:size])
        if len(body) >= size >= 20:
            shown[20:size] = _options(bytes(body[20:size]))
        if len(shown) >= 18:
            offloaded = len(body) == length and _sum(head.pseudo(head.source, head.target, length) + body) != 0xFFFF
            shown[16:18] = b"\0\0"
            pseudo = head.pseudo(self._map(head.source), self._map(head.target), length)
            value = _sum(pseudo) if offloaded else 0xFFFF ^ _sum(pseudo + bytes(shown))
            shown[16:18] = struct.pack(">H", value)
        return bytes(shown), length

    def _icmp(self, head: "_Header", body: bytes) -> bytes | None:
        """An error message with the headers it quotes, cut behind them."""
        if len(body) < 8 or body[0] not in ((1, 2, 3, 4) if head.v6 else (3, 4, 5, 11, 12)):
            return None
        quoted = _Header.read(body[8:], 1 << 16)
        if quoted is None or quoted.protocol != TCP or quoted.v6 != head.v6:
            return None
        carried = max(0, quoted.total - quoted.size)
        transport = body[8 + quoted.size :]
        if len(transport) < 8:
            return None
        segment = self._tcp(quoted, transport[:carried], carried)
        shown = segment[0] if segment is not None else transport[:8]
        rest = body[4:8] if head.v6 or body[0] != 5 else self._map(body[4:8])
        message = bytearray(body[:2] + b"\0\0" + rest + quoted.build(self._map, carried) + shown)
        pseudo = head.pseudo(self._map(head.source), self._map(head.target), len(message)) if head.v6 else b""
        message[2:4] = struct.pack(">H", 0xFFFF ^ _sum(pseudo + bytes(message)))
        return bytes(message)


class _Header:
    """The parts of an IP header that are kept."""

    def __init__(self, raw: bytes, v6: bool, size: int, total: int, protocol: int) -> None:
        self.v6, self.size, self.total, self.protocol = v6, size, total, protocol
        self._raw = raw
        self.base = 40 if v6 else 20
        self.source, self.target = (raw[8:24], raw[24:40]) if v6 else (raw[12:16], raw[16:20])

    @staticmethod
    def read(ip: bytes, wire: int) -> "_Header | None":
        """The header at the front of *ip*, or None if it is none or a later fragment's."""
        if len(ip) >= 20 and ip[0] >> 4 == 4:
            size, total = (ip[0] & 15) * 4, struct.unpack_from(">H", ip, 2)[0]
            if size < 20 or len(ip) < size or struct.unpack_from(">H", ip, 6)[0] & 0x1FFF:
                return None
            return _Header(ip[:20], False, size, total if total >= size else max(wire, size), ip[9])
        if len(ip) >= 40 and ip[0] >> 4 == 6:
            protocol, size = skip_extensions(np.frombuffer(ip, np.uint8), 0)
            if ip[6] == 44 and len(ip) >= 48 and struct.unpack_from(">H", ip, 42)[0] & 0xFFF8:
                return None
            total = 40 + struct.unpack_from(">H", ip, 4)[0]
            return _Header(ip[:40], True, size, total if total > 40 else max(wire, size), protocol)
        return None

    def build(self, mapped: Any, length: int) -> bytes:
        """A new header without options over *length* bytes, its addresses mapped."""
        source, target = mapped(self.source), mapped(self.target)
        raw = self._raw
        if self.v6:
            head = raw[:4] + struct.pack(">HBB", min(length, 0xFFFF), self.protocol, raw[7])
            return head + source + target
        total = struct.pack(">H", min(20 + length, 0xFFFF))
        head = b"\x45" + raw[1:2] + total + raw[4:10] + b"\0\0" + source + target
        return head[:10] + struct.pack(">H", 0xFFFF ^ _sum(head)) + head[12:]

    def pseudo(self, source: bytes, target: bytes, length: int) -> bytes:
        """Pseudo-header of TCP and ICMPv6 checksums (RFC 9293 section 3.1, RFC 8200 section 8.1)."""
        if self.v6:
            return source + target + struct.pack(">IxxxB", length, self.protocol)
        return source + target + struct.pack(">xBH", self.protocol, length & 0xFFFF)


def _vlan_tag(frame: Frame) -> bytes:
    data = frame.data
    if frame.link == LINK_ETHERNET and len(data) >= 18 and int.from_bytes(data[12:14], "big") in VLAN:
        return b"\x81\x00" + data[14:16]
    return b""


def _options(raw: bytes) -> bytes:
    """TCP options with the contents of unknown ones zeroed: some carry addresses or cookies."""
    out = bytearray(raw)
    at = 0
    while at < len(raw) and raw[at] != 0:
        if raw[at] == 1:
            at += 1
            continue
        size = raw[at + 1] if at + 1 < len(raw) else 0
        if size < 2 or at + size > len(raw):
            break
        if raw[at] not in SHOWN_OPTIONS:
            out[at + 2 : at + size] = b"\0" * (size - 2)
        at += size
    out[at:] = b"\0" * (len(raw) - at)
    return bytes(out)


def _sum(data: bytes) -> int:
    """Ones' complement sum of 16-bit words (RFC 1071)."""
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total
