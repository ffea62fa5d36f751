"""Pairs that the packets name themselves, against everything that would mislead."""

import struct

import pytest

from analyzer.capture import open_capture
from analyzer.connections import track
from analyzer.schema import FLOW_KINDS, PROOFS
from analyzer.snat.joining import join
from analyzer.snat.legs import side_of
from analyzer.snat.model import Seen
from tests.capture.vendors import high, low, mapped, medium, record, trace
from tests.conftest import FIXTURES
from tests.frames import NS, A, P, S, Segment, pcap

VIP, SERVER, SNAT = "198.51.100.1", "10.0.2.1", "10.0.1.1"
CLIENTS = ["192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4"]


def handshake(start, client, sport, server, dport, isn, delay=0.001, tsval=None):
    """SYN, SYN-ACK and ACK."""
    one = (client, sport, server, dport)
    back = (server, dport, client, sport)
    return [
        Segment(start, *one, S, isn, tsval=tsval),
        Segment(start + delay, *back, S | A, isn + 7, isn + 1, tsval=None if tsval is None else 9),
        Segment(start + 2 * delay, *one, A, isn + 1, isn + 8, tsval=tsval),
    ]


def joined(path):
    seen = [Seen("lb", "lb", track(open_capture([str(path)], "lb", digests=True)))]
    return join(seen)


def flows(found):
    """{(client address, port): (SNAT port, proof, kind)}."""
    return {
        (f"192.0.2.{int(f['client_lo']) & 255}", int(f["client_p"])): (
            int(f["snat_p"]), PROOFS[f["proof"]], FLOW_KINDS[f["kind"]],
        )
        for f in found.flows
    }  # fmt: skip


def trailer(segment, own, peer, far, near):
    """The frame with F5's trailer; *far* and *near* are the other leg's ends."""
    tail = low(ingress=1) + medium(own, peer) + high(mapped(far[0]), far[1], mapped(near[0]), near[1])
    return segment.frame() + tail


def f5_proxy(order, isns=lambda i: (100 + i, 5000 + i)):
    """A full proxy: clients open together, server legs in *order*; every frame but the first SYN says its peer."""
    frames = []
    for i, client in enumerate(CLIENTS):
        j = order.index(i)
        front, back = handshake(1 + i / 1e4, client, 4000, VIP, 80, isns(i)[0]), handshake(
            1.01 + j / 1e4, SNAT, 6000 + j, SERVER, 8080, isns(i)[1]
        )  # fmt: skip
        for k, segment in enumerate(front):
            own = (0, 0) if k == 0 else (0x100 + i, 0x200 + i)
            frames.append((segment.time, trailer(segment, *own, (SERVER, 8080), (SNAT, 6000 + j))))
        for segment in back:
            frames.append((segment.time, trailer(segment, 0x200 + i, 0x100 + i, (client, 4000), (VIP, 80))))
    return pcap([(round(time * NS), frame) for time, frame in sorted(frames)])


@pytest.mark.parametrize("name", ["f5_legacy.pcap", "f5_dpt.pcap", "ns30.cap", "ns35.cap"])
def test_vendor_files(name):
    found = joined(FIXTURES / "vendor" / f"{name}.zst")
    assert flows(found) == {("192.0.2.10", 40000): (1120, "in_band", "layer4")}
    path = found.paths["lb"]
    assert path["journey"][0] == path["journey"][1]


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 1, 0, 2], [3, 2, 1, 0]])
def test_a_full_proxy_is_followed_whatever_the_order(tmp_path, order):
    path = tmp_path / "a.pcap"
    path.write_bytes(f5_proxy(order))
    expected = {(client, 4000): (6000 + order.index(i), "in_band", "layer7") for i, client in enumerate(CLIENTS)}
    assert flows(joined(path)) == expected
    assert side_of(track(open_capture([str(path)], "x"))) == "lb"


def test_ids_overrule_equal_sequence_numbers(tmp_path):
    path = tmp_path / "a.pcap"
    path.write_bytes(f5_proxy([0, 1, 2, 3], isns=lambda i: (100 + i, 100 + (i ^ 1))))
    expected = {(client, 4000): 6000 + i for i, client in enumerate(CLIENTS)}
    assert {key: port for key, (port, _, _) in flows(joined(path)).items()} == expected


def test_connection_ids_are_used_again(tmp_path):
    """The same two PCBs join one pair of connections now, and another pair a minute later."""
    records = []
    for i, client in enumerate(CLIENTS):
        segments = handshake(60.0 * i, client, 4000, VIP, 80, 100 + i) + handshake(
            60.0 * i + 0.01, SNAT, 6000 + i, SERVER, 8080, 5000 + i
        )
        for k, segment in enumerate(segments):
            own = (0x11, 0x22) if k < 3 else (0x22, 0x11)
            records.append(record(24, segment.frame(), round(segment.time * 1e6), *own, rx=True))
    path = tmp_path / "a.cap"
    path.write_bytes(trace(b"V20", records))
    expected = {(client, 4000): (6000 + i, "in_band", "layer7") for i, client in enumerate(CLIENTS)}
    assert flows(joined(path)) == expected


def proxied(order, header):
    """A proxy that says the client at the head of its own connection."""
    frames = []
    for i, client in enumerate(CLIENTS):
        j = order.index(i)
        back = handshake(1.01 + j / 1e4, SNAT, 6000 + j, SERVER, 8080, 5000 + i)
        hello = Segment(1.02 + j / 1e4, SNAT, 6000 + j, SERVER, 8080, A | P, 5001 + i, 5008 + i, payload=header(client))
        frames += [*handshake(1 + i / 1e4, client, 4000, VIP, 80, 100 + i), *back, hello]
    return pcap([(round(s.time * NS), s.frame()) for s in sorted(frames, key=lambda s: s.time)])


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [2, 3, 1, 0]])
def test_proxy_headers(tmp_path, order):
    path = tmp_path / "a.pcap"
    path.write_bytes(proxied(order, lambda client: f"PROXY TCP4 {client} {VIP} 4000 80\r\nGET /".encode()))
    expected = {(client, 4000): (6000 + order.index(i), "in_band", "layer7") for i, client in enumerate(CLIENTS)}
    assert flows(joined(path)) == expected


def test_a_client_that_was_not_seen_is_nobody(tmp_path):
    path = tmp_path / "a.pcap"
    path.write_bytes(proxied([0, 1, 2, 3], lambda client: f"PROXY TCP4 203.0.113.7 {VIP} 4000 80\r\nGET /".encode()))
    assert all(proof != "in_band" for _, proof, _ in flows(joined(path)).values())


def test_client_address_options_where_the_sequence_number_is_rewritten(tmp_path):
    frames = []
    for i, client in enumerate(CLIENTS):
        j = 3 - i
        frames += [(s.time, s.frame()) for s in handshake(1 + i / 1e4, client, 4000, VIP, 80, 100 + i, delay=0.1)]
        for segment in handshake(1.01 + j / 1e4, SNAT, 6000 + j, SERVER, 8080, 9000 + 13 * i, delay=0.05):
            raw = bytearray(segment.frame())
            if segment.src == SNAT:
                raw += struct.pack(">BBH4B", 254, 8, 4000, *map(int, client.split(".")))
                raw[16:18] = struct.pack(">H", len(raw) - 14)
                raw[46] += 2 << 4
            frames.append((segment.time, bytes(raw)))
    path = tmp_path / "a.pcap"
    path.write_bytes(pcap([(round(time * NS), frame) for time, frame in sorted(frames)]))
    found = joined(path)
    assert flows(found) == {(client, 4000): (6003 - i, "in_band", "layer4") for i, client in enumerate(CLIENTS)}
    paths = found.paths["lb"]
    assert len(set(paths["journey"].tolist())) == 4  # each SYN was forwarded: one journey on both legs
