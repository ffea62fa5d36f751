"""Link layers, IP and TCP: our decoder against dpkt and against frames built by hand."""

import socket
import struct

import dpkt
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analyzer.capture import open_capture
from analyzer.schema import (
    KIND_ICMP,
    META_TUNNELLED,
    META_V6,
    OPT_CLIPPED,
    OPT_MSS,
    OPT_SACK_OK,
    OPT_TS,
    OPT_TS_CUT,
    OPT_WSCALE,
)
from tests.frames import A, S, Segment, pcap

SEGMENT = Segment(0, "10.1.2.3", 4444, "10.9.8.7", 80, S, 0xDEADBEEF, tsval=123456789)
SIX = Segment(0, "2001:db8::1", 4444, "2001:db8::2", 80, S, 0xDEADBEEF, tsval=123456789)


def rows_of(tmp_path, frames, link=1, snaplen=65535):
    path = tmp_path / "d.pcap"
    path.write_bytes(pcap([(i, f) for i, f in enumerate(frames)], link=link, snaplen=snaplen))
    capture = open_capture([str(path)], "x")
    blocks = [b.copy() for b in capture.blocks()]
    return np.concatenate(blocks) if blocks else np.zeros(0, [("seq", "u4")])


def ethernet(kind, payload):
    return b"\2" * 12 + struct.pack(">H", kind) + payload


def vlan(tag, kind, payload, outer=0x8100):
    return ethernet(outer, struct.pack(">HH", tag, kind) + payload)


LINKS = {
    "ethernet": (1, ethernet(0x0800, SEGMENT.ip())),
    "vlan": (1, vlan(112, 0x0800, SEGMENT.ip())),
    "qinq": (1, vlan(7, 0x8100, struct.pack(">HH", 8, 0x0800) + SEGMENT.ip(), 0x88A8)),
    "sll": (113, struct.pack(">HHH8sH", 0, 1, 6, b"", 0x0800) + SEGMENT.ip()),
    "sll2": (276, struct.pack(">HHIHBB8s", 0x0800, 0, 5, 1, 0, 6, b"") + SEGMENT.ip()),
    "raw": (101, SEGMENT.ip()),
    "ipv4": (228, SEGMENT.ip()),
    "null": (0, struct.pack("<I", 2) + SEGMENT.ip()),
    "loop": (108, struct.pack(">I", 2) + SEGMENT.ip()),
    "pppoe": (1, ethernet(0x8864, b"\x11\0\0\1\0\x40\0\x21" + SEGMENT.ip())),
    "mpls": (1, ethernet(0x8847, struct.pack(">I", 0x00064140) + SEGMENT.ip())),
    "ppp": (9, b"\xff\x03\0\x21" + SEGMENT.ip()),
}


@pytest.mark.parametrize("name", sorted(LINKS))
def test_link_layers(tmp_path, name):
    link, frame = LINKS[name]
    (row,) = rows_of(tmp_path, [frame], link)
    assert (row["seq"], row["tsval"], row["sport"], row["dport"]) == (0xDEADBEEF, 123456789, 4444, 80)
    assert int(row["src_lo"]) & 0xFFFFFFFF == int.from_bytes(socket.inet_aton("10.1.2.3"), "big")
    assert row["opts"] == OPT_TS | OPT_MSS | OPT_SACK_OK | OPT_WSCALE
    assert (row["mss"], row["wscale"]) == (1460, 7)


def outer(protocol, payload):
    packet = dpkt.ip.IP(src=b"\1\1\1\1", dst=b"\2\2\2\2", p=protocol, data=payload)
    packet.len = 20 + len(payload)
    return ethernet(0x0800, bytes(packet))


TUNNELS = {
    "ipip": outer(4, SEGMENT.ip()),
    "gre": outer(47, b"\0\0\x08\0" + SEGMENT.ip()),
    "gre with key": outer(47, b"\x20\0\x08\0\0\0\0\7" + SEGMENT.ip()),
    "vxlan": outer(
        17, struct.pack(">HHHH", 999, 4789, 16 + 14 + len(SEGMENT.ip()), 0) + b"\x08\0\0\0\0\0\1\0" + SEGMENT.frame()
    ),
    "6in4": outer(41, SIX.ip()),
}


@pytest.mark.parametrize("name", sorted(TUNNELS))
def test_tunnels_show_the_inner_packet(tmp_path, name):
    (row,) = rows_of(tmp_path, [TUNNELS[name]])
    assert row["seq"] == 0xDEADBEEF
    assert row["meta"] & META_TUNNELLED
    assert bool(row["meta"] & META_V6) == (name == "6in4")


def test_ipv6_extension_headers(tmp_path):
    ip = SIX.ip()
    options = b"\x06\x00\x01\x04\0\0\0\0"
    longer = struct.pack(">I", 6 << 28) + struct.pack(">HBB", len(ip) - 40 + 8, 0, 64) + ip[8:40] + options + ip[40:]
    (row,) = rows_of(tmp_path, [ethernet(0x86DD, longer)])
    assert (row["seq"], row["meta"] & META_V6) == (0xDEADBEEF, META_V6)
    assert int(row["src_hi"]) == 0x20010DB8 << 32


def test_first_fragment_is_a_packet_and_later_ones_are_not(tmp_path):
    first = dpkt.ip.IP(SEGMENT.ip())
    first.mf = 1
    later = dpkt.ip.IP(SEGMENT.ip())
    later.offset = 4
    assert len(rows_of(tmp_path, [ethernet(0x0800, bytes(first)), ethernet(0x0800, bytes(later))])) == 1


def test_icmp_error_shows_the_quoted_connection(tmp_path):
    quoted = SEGMENT.ip()[:28]
    icmp = struct.pack(">BBHI", 3, 13, 0, 0) + quoted
    (row,) = rows_of(tmp_path, [outer(1, icmp)])
    assert row["kind"] == KIND_ICMP
    assert (row["flags"], row["seq"], row["sport"]) == (3 << 8 | 13, 0xDEADBEEF, 4444)


def test_options_cut_by_the_snap_length_are_told(tmp_path):
    frame = SEGMENT.frame()
    whole = len(frame)
    assert rows_of(tmp_path, [frame], snaplen=whole)[0]["opts"] & OPT_CLIPPED == 0
    assert rows_of(tmp_path, [frame], snaplen=56)[0]["opts"] & OPT_CLIPPED
    plain = Segment(0, "10.1.2.3", 1, "10.9.8.7", 2, A, 5, tsval=99, tsecr=98).frame()
    (row,) = rows_of(tmp_path, [plain], snaplen=len(plain) - 2)
    assert row["opts"] & (OPT_TS | OPT_TS_CUT) == OPT_TS | OPT_TS_CUT
    assert row["tsval"] == 99


@settings(max_examples=150, deadline=None)
@given(
    st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1), st.integers(0, 255), st.binary(max_size=40),
    st.lists(st.tuples(st.sampled_from([1, 2, 3, 4, 5, 8, 19, 34, 253]), st.binary(max_size=12)), max_size=3),
)  # fmt: skip
def test_fields_agree_with_dpkt(tmp_path_factory, seq, ack, flags, payload, options):
    raw = b"".join(b"\1" if kind == 1 else bytes([kind, 2 + len(body)]) + body for kind, body in options)[:40]
    raw += b"\0" * (-len(raw) % 4)
    tcp = dpkt.tcp.TCP(sport=1, dport=2, seq=seq, ack=ack, off=5 + len(raw) // 4, flags=flags, opts=raw, data=payload)
    ip = dpkt.ip.IP(src=b"\1\1\1\1", dst=b"\2\2\2\2", p=6, data=tcp)
    ip.len = 20 + len(tcp)
    rows = rows_of(tmp_path_factory.mktemp("d"), [ethernet(0x0800, bytes(ip))])
    second = dpkt.ethernet.Ethernet(ethernet(0x0800, bytes(ip))).data.data
    (row,) = rows
    assert (row["seq"], row["ack"], row["flags"], row["length"]) == (
        second.seq,
        second.ack,
        second.flags,
        len(second.data),
    )
    stamps = [
        body for kind, body in dpkt.tcp.parse_opts(second.opts) if kind == 8 and body is not None and len(body) == 8
    ]
    if stamps and _sound(raw):
        assert row["opts"] & OPT_TS
        assert (row["tsval"], row["tsecr"]) == struct.unpack(">II", stamps[0])


def _sound(raw):
    at = 0
    while at < len(raw) and raw[at] != 0:
        if raw[at] == 1:
            at += 1
        elif at + 1 >= len(raw) or raw[at + 1] < 2 or at + raw[at + 1] > len(raw):
            return False
        else:
            at += raw[at + 1]
    return True
