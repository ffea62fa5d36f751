"""Frames against dpkt and the project's own reader, which know nothing of the writer."""

import io
import socket

import dpkt
import numpy as np
import pytest

from analyzer.capture import open_capture
from analyzer.schema import OPT_MSS, OPT_SACK_OK, OPT_TS, OPT_WSCALE
from analyzer.simulator.frames import COLUMNS, syn_options
from analyzer.simulator.recorder import CapturePoint, Clock

BASE = 1_500_000_000_000_000_000
SYN, ACK, PSH = 2, 16, 8


def record(**fields):
    values = {
        "time": BASE, "interface": 0, "src": 0x0A010203, "dst": 0x0A020304, "sport": 40000, "dport": 1120, "seq": 7,
        "ack": 0, "flags": ACK, "window": 229, "tsval": -1, "tsecr": 0, "length": 0, "options": 0, "ttl": 63,
        "ipid": 77, "salt": 5, "offset": 0,
    }  # fmt: skip
    return tuple((values | fields)[column] for column in COLUMNS)


CASES = [
    record(flags=SYN, options=syn_options(1460, 7, True), tsval=123, seq=2**32 - 1),
    record(flags=SYN, options=syn_options(1400, None, True)),
    record(flags=SYN, options=syn_options(1460, 2, False), tsval=0),
    record(flags=SYN, options=syn_options(536, None, False)),
    record(flags=ACK | PSH, length=301, tsval=2**32 - 1, tsecr=9, offset=4_000),
    record(flags=ACK | PSH, length=1, ack=2**32 - 1),
    record(flags=ACK, tsval=1, window=65535, ipid=65535),
]


def write(path, cases, **options):
    point = CapturePoint(path, ("eth0", "eth1"), Clock(), **options)
    point.rows = list(cases)
    point.close()
    return path


@pytest.mark.parametrize("case", range(len(CASES)))
def test_dpkt_reads_what_was_meant(tmp_path, case):
    want = dict(zip(COLUMNS, CASES[case], strict=True))
    raw = write(tmp_path / "one.pcap", [CASES[case]]).read_bytes()
    ((_, frame),) = dpkt.pcap.Reader(io.BytesIO(raw))
    ip = dpkt.ethernet.Ethernet(frame).data
    tcp = ip.data
    assert (socket.inet_ntoa(ip.src), ip.ttl, ip.id, ip.len) == ("10.1.2.3", 63, want["ipid"], len(bytes(ip)))
    assert (tcp.seq, tcp.ack, tcp.flags, tcp.win, len(tcp.data)) == (
        want["seq"], want["ack"], want["flags"], want["window"], want["length"])  # fmt: skip
    written = (ip.sum, tcp.sum)
    ip.sum = tcp.sum = 0
    fresh = dpkt.ip.IP(bytes(ip))
    assert (fresh.sum, fresh.data.sum) == written
    options = dict(dpkt.tcp.parse_opts(tcp.opts))
    assert (dpkt.tcp.TCP_OPT_TIMESTAMP in options) == (want["tsval"] >= 0)
    if want["tsval"] >= 0:
        stamp = options[dpkt.tcp.TCP_OPT_TIMESTAMP]
        assert int.from_bytes(stamp[:4], "big") == want["tsval"]


@pytest.mark.parametrize("name", ["a.pcap", "a.pcapng"])
def test_the_reader_gets_the_same_numbers(tmp_path, name):
    times = [record(time=BASE + i * 1_001, seq=i, interface=i % 2 if name.endswith("ng") else 0) for i in range(50)]
    rows = next(iter(open_capture([str(write(tmp_path / name, times))], "x").blocks())).copy()
    assert rows["time"].tolist() == [BASE + i * 1_001 for i in range(50)]
    assert rows["seq"].tolist() == list(range(50))
    assert set(rows["interface"].tolist()) == ({0, 1} if name.endswith("ng") else {0})


def test_options_of_a_syn_are_read_back(tmp_path):
    rows = next(iter(open_capture([str(write(tmp_path / "a.pcap", CASES[:4]))], "x").blocks())).copy()
    assert rows["opts"].tolist() == [
        OPT_MSS | OPT_SACK_OK | OPT_TS | OPT_WSCALE, OPT_MSS | OPT_SACK_OK, OPT_MSS | OPT_TS | OPT_WSCALE, OPT_MSS,
    ]  # fmt: skip


def test_a_repeated_segment_repeats_its_bytes(tmp_path):
    pair = [record(length=60, offset=100), record(length=30, offset=130)]
    raw = write(tmp_path / "a.pcap", pair).read_bytes()
    first, second = (dpkt.ethernet.Ethernet(frame).data.data.data for _, frame in dpkt.pcap.Reader(io.BytesIO(raw)))
    assert first[30:] == second


def test_windows_do_not_show_in_the_file(tmp_path):
    """Records that come late but before the horizon are merged in time; the bytes are those of one flush."""
    rng = np.random.default_rng(1)
    rows = [record(time=BASE + int(t), seq=i) for i, t in enumerate(rng.integers(0, 10**9, 500))]
    rows.sort()
    whole = write(tmp_path / "whole.pcap", rows).read_bytes()
    point = CapturePoint(tmp_path / "parts.pcap", ("eth0",), Clock())
    for first in range(0, 500, 50):
        point.rows += reversed(rows[first : first + 50])
        point.flush(rows[first + 25][0])
    point.close()
    assert (tmp_path / "parts.pcap").read_bytes() == whole


def test_snaplen_cuts_and_drops_are_counted(tmp_path):
    rows = [record(time=BASE + i, length=200) for i in range(400)]
    point = CapturePoint(tmp_path / "a.pcap", ("eth0",), Clock(), snaplen=96, drop=10)
    point.rows = rows
    point.close()
    frames = [frame for _, frame in dpkt.pcap.Reader(io.BytesIO((tmp_path / "a.pcap").read_bytes()))]
    assert {len(frame) for frame in frames} == {96}
    assert point.dropped == 400 - len(frames) > 0


def test_a_clock_shows_its_error_and_can_be_asked_back():
    clock = Clock(-412_377_000, 80, BASE)
    later = BASE + 600 * 10**9
    assert clock.show(later) == later - 412_377_000 + 48_000_000
    assert clock.show(clock.when(later)) >= later > clock.show(clock.when(later) - 1)
