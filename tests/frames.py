"""Frames and capture files built with dpkt and struct, independent of the readers under test."""

import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import dpkt

NS = 1_000_000_000
S, A, F, R, P = dpkt.tcp.TH_SYN, dpkt.tcp.TH_ACK, dpkt.tcp.TH_FIN, dpkt.tcp.TH_RST, dpkt.tcp.TH_PUSH


@dataclass
class Segment:
    """One TCP segment at *time* seconds; tsval None means no timestamps option."""

    time: float
    src: str
    sport: int
    dst: str
    dport: int
    flags: int
    seq: int
    ack: int = 0
    tsval: int | None = None
    tsecr: int = 0
    payload: bytes = b""
    ipid: int = 0
    window: int = 29200

    def ip(self) -> bytes:
        """The IP packet."""
        options = b""
        if self.flags & S:
            options += struct.pack(">BBH", 2, 4, 1460) + b"\x04\x02"
        if self.tsval is not None:
            options += b"\x01\x01" if not self.flags & S else b""
            options += struct.pack(">BBII", 8, 10, self.tsval & 0xFFFFFFFF, self.tsecr & 0xFFFFFFFF)
        if self.flags & S:
            options += b"\x01\x03\x03\x07"
        options += b"\x00" * (-len(options) % 4)
        tcp = dpkt.tcp.TCP(
            sport=self.sport, dport=self.dport, seq=self.seq & 0xFFFFFFFF, ack=self.ack & 0xFFFFFFFF,
            off=5 + len(options) // 4, flags=self.flags, win=self.window, opts=options, data=self.payload,
        )  # fmt: skip
        if ":" in self.src:
            packet = dpkt.ip6.IP6(
                src=socket.inet_pton(socket.AF_INET6, self.src), dst=socket.inet_pton(socket.AF_INET6, self.dst),
                nxt=6, hlim=64, data=tcp, plen=len(tcp),
            )  # fmt: skip
            return bytes(packet)
        packet = dpkt.ip.IP(src=socket.inet_aton(self.src), dst=socket.inet_aton(self.dst), p=6, id=self.ipid, data=tcp)
        packet.len = 20 + len(tcp)
        return bytes(packet)

    def frame(self) -> bytes:
        """The Ethernet frame."""
        kind = 0x86DD if ":" in self.src else 0x0800
        return b"\x02" * 6 + b"\x04" * 6 + struct.pack(">H", kind) + self.ip()


def pcap(
    frames: Sequence[tuple[int, bytes]], *, order: str = "<", nanos: bool = True, link: int = 1, snaplen: int = 65535
) -> bytes:
    """A pcap file of (time in ns, frame)."""
    magic = 0xA1B23C4D if nanos else 0xA1B2C3D4
    out = struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, snaplen, link)
    for time, frame in frames:
        fraction = time % NS if nanos else time % NS // 1000
        cut = frame[:snaplen]
        out += struct.pack(order + "IIII", time // NS, fraction, len(cut), len(frame)) + cut
    return out


def block(order: str, kind: int, body: bytes) -> bytes:
    """A pcapng block."""
    body += b"\0" * (-len(body) % 4)
    size = struct.pack(order + "I", 12 + len(body))
    return struct.pack(order + "I", kind) + size + body + size


def section(order: str = "<") -> bytes:
    """A pcapng section header."""
    return block(order, 0x0A0D0D0A, struct.pack(order + "IHHq", 0x1A2B3C4D, 1, 0, -1))


def interface(
    order: str = "<", link: int = 1, resolution: int | None = None, offset: int | None = None, name: str = ""
) -> bytes:
    """A pcapng interface description."""
    body = struct.pack(order + "HHI", link, 0, 0)
    options = b""
    if name:
        raw = name.encode()
        options += struct.pack(order + "HH", 2, len(raw)) + raw + b"\0" * (-len(raw) % 4)
    if resolution is not None:
        options += struct.pack(order + "HH", 9, 1) + bytes([resolution, 0, 0, 0])
    if offset is not None:
        options += struct.pack(order + "HHq", 14, 8, offset)
    return block(order, 1, body + (options + struct.pack(order + "HH", 0, 0) if options else b""))


def enhanced(units: int, frame: bytes, order: str = "<", index: int = 0) -> bytes:
    """A pcapng enhanced packet with its time in the interface's units."""
    head = struct.pack(order + "IIIII", index, units >> 32, units & 0xFFFFFFFF, len(frame), len(frame))
    return block(order, 6, head + frame + b"\0" * (-len(frame) % 4))


def write(path: Path, segments: Sequence[Segment], base: int = 1_500_000_000) -> Path:
    """Write *segments* as a nanosecond pcap; their times count from *base* seconds."""
    path.write_bytes(
        pcap(
            [
                (round((base + s.time) * NS) if base < 10**6 else base * NS + round(s.time * NS), s.frame())
                for s in segments
            ]
        )
    )
    return path
