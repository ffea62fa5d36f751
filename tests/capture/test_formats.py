"""Container formats, built byte by byte."""

import gzip
import hashlib
import io
import random
import struct

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from analyzer.capture import open_capture
from analyzer.errors import InputError
from tests.frames import NS, A, S, Segment, block, enhanced, interface, pcap, section

SYN = Segment(0, "10.0.0.1", 40000, "10.0.0.2", 80, S, 1000, tsval=77)
FRAME = SYN.frame()
TIMES = [1_500_000_000 * NS + 123_456_789, 1_500_000_001 * NS + 1]


def read(path, **options):
    capture = open_capture([str(path)], "x", **options)
    blocks = [b.copy() for b in capture.blocks()]
    return (np.concatenate(blocks) if blocks else np.zeros(0)), capture


def put(tmp_path, data, name="a.pcap"):
    path = tmp_path / name
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("nanos", [True, False])
def test_pcap_of_each_kind(tmp_path, order, nanos):
    rows, capture = read(put(tmp_path, pcap([(t, FRAME) for t in TIMES], order=order, nanos=nanos)))
    expected = TIMES if nanos else [t // 1000 * 1000 for t in TIMES]
    assert rows["time"].tolist() == expected
    assert rows["frame"].tolist() == [1, 2]
    assert (rows["seq"][0], rows["tsval"][0], rows["sport"][0]) == (1000, 77, 40000)
    assert capture.files[0].packets == 2
    assert not capture.problems


RESOLUTIONS = [
    (None, 10**6),
    (0, 1),
    (3, 10**3),
    (6, 10**6),
    (9, 10**9),
    (12, 10**12),
    (0x80 | 10, 2**10),
    (0x80 | 32, 2**32),
    (0x80 | 40, 2**40),
]


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("resolution", "per_second"), RESOLUTIONS)
def test_pcapng_time_resolutions(tmp_path, order, resolution, per_second):
    seconds, half = 1_500_000, per_second // 2
    data = (
        section(order) + interface(order, resolution=resolution) + enhanced(seconds * per_second + half, FRAME, order)
    )
    rows, _ = read(put(tmp_path, data))
    assert rows["time"].tolist() == [seconds * NS + (NS // 2 if per_second > 1 else 0)]


def test_pcapng_time_offset(tmp_path):
    data = section() + interface(resolution=6, offset=1000) + enhanced(5_000_000, FRAME)
    assert read(put(tmp_path, data))[0]["time"].tolist() == [1005 * NS]


def test_pcapng_sections_and_interfaces(tmp_path):
    """The second section has its own byte order and its own interfaces."""
    data = section() + interface(name="eth0") + interface(link=101, resolution=9, name="tun0")
    data += enhanced(7_000_000, FRAME) + enhanced(8 * NS, SYN.ip(), index=1)
    data += section(">") + interface(">", link=1, resolution=9, name="eth9") + enhanced(9 * NS, FRAME, ">")
    rows, capture = read(put(tmp_path, data))
    assert rows["time"].tolist() == [7 * NS, 8 * NS, 9 * NS]
    assert rows["interface"].tolist() == [0, 1, 2]
    assert [i.name for i in capture.interfaces] == ["eth0", "tun0", "eth9"]
    assert rows["seq"].tolist() == [1000] * 3


def test_pcapng_simple_and_obsolete_packets(tmp_path):
    simple = block("<", 3, struct.pack("<I", len(FRAME)) + FRAME)
    obsolete = block("<", 2, struct.pack("<HHIIII", 0, 0, 0, 6_000_000, len(FRAME), len(FRAME)) + FRAME)
    rows, _ = read(put(tmp_path, section() + interface() + simple + obsolete))
    assert rows["frame"].tolist() == [1, 2]
    assert rows["time"][1] == 6 * NS


@pytest.mark.parametrize(("name", "pack"), [("gzip", gzip.compress), ("zstd", zstandard.ZstdCompressor().compress)])
def test_compressed(tmp_path, name, pack):
    packed = pack(pcap([(t, FRAME) for t in TIMES]))
    rows, capture = read(put(tmp_path, packed, "a.bin"))
    (info,) = capture.files
    assert len(rows) == 2
    assert (info.compression, info.sha256) == (name, hashlib.sha256(packed).hexdigest())


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.ZstdCompressor().compress])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_packets_before_the_end_of_cut_compressed_data_are_kept(tmp_path, pack, share):
    """Random payloads, so that bytes in and bytes out keep step."""
    noise = random.Random(7)
    frames = [
        (i, Segment(0, "10.0.0.1", 1, "10.0.0.2", 2, A, i, payload=noise.randbytes(900)).frame()) for i in range(1600)
    ]
    packed = pack(pcap(frames))
    rows, capture = read(put(tmp_path, packed[: int(len(packed) * share)], "a.bin"))
    assert (share - 0.15) * 1600 < len(rows) <= share * 1600 + 1
    assert rows["seq"].tolist() == list(range(len(rows)))
    assert capture.problems


def test_several_files_are_one_capture_in_time_order(tmp_path):
    late = put(tmp_path, pcap([(20 * NS, FRAME), (40 * NS, FRAME)]), "a.pcap")
    early = put(tmp_path, pcap([(10 * NS, FRAME), (30 * NS, FRAME)]), "b.pcap")
    capture = open_capture([str(late), str(early)], "x")
    times = [t for b in capture.blocks() for t in b["time"].tolist()]
    assert times == [10 * NS, 20 * NS, 30 * NS, 40 * NS]


def test_a_clock_that_steps_keeps_the_order_of_arrival(tmp_path):
    rows, _ = read(put(tmp_path, pcap([(t * NS, FRAME) for t in (5, 3, 9, 1)])))
    assert (rows["time"] // NS).tolist() == [5, 3, 9, 1]


@pytest.mark.parametrize("cut", [1, 15, 16, 17, 40])
def test_a_cut_record_is_a_problem_and_no_packet(tmp_path, cut):
    data = pcap([(t, FRAME) for t in TIMES])
    size = (len(data) - 24) // 2
    rows, capture = read(put(tmp_path, data[: 24 + size + cut]))
    assert len(rows) == 1
    (problem,) = capture.problems
    assert (problem.kind, problem.offset) == ("cut", 24 + size)


def test_pcap_damage_keeps_what_came_before(tmp_path):
    data = bytearray(pcap([(t, FRAME) for t in TIMES * 2]))
    size = (len(data) - 24) // 4
    data[24 + 2 * size + 8 : 24 + 2 * size + 12] = b"\xff\xff\xff\x7f"
    rows, capture = read(put(tmp_path, bytes(data)))
    assert len(rows) == 2
    assert capture.problems[0].offset == 24 + 2 * size


def test_pcapng_goes_on_behind_damage(tmp_path):
    good = enhanced(7_000_000, FRAME)
    bad = bytearray(good)
    bad[4:8] = struct.pack("<I", 21)
    rows, capture = read(put(tmp_path, section() + interface() + good + bytes(bad) + good + good))
    assert rows["frame"].tolist() == [1, 2, 3]
    assert capture.problems[0].kind == "damaged"


@pytest.mark.parametrize("data", [b"", b"hello, this is text\n" * 9, b"\x00" * 64, b"\xd4\xc3\xb2\xa1"])
def test_no_capture_is_one_line(tmp_path, data):
    with pytest.raises(InputError) as caught:
        read(put(tmp_path, data))
    assert "\n" not in str(caught.value)
    assert "a.pcap" in str(caught.value)


def test_missing_file_is_one_line():
    with pytest.raises(InputError, match="no such file"):
        open_capture(["/nonexistent/x.pcap"], "x")


BASES = {
    "pcap": pcap([(t, FRAME) for t in TIMES * 3]),
    "pcapng": section()
    + interface(name="e")
    + b"".join(enhanced(i, FRAME) for i in range(6))
    + block("<", 5, b"\0" * 12),
    "gz": gzip.compress(pcap([(t, FRAME) for t in TIMES * 3])),
    "zst": zstandard.ZstdCompressor().compress(pcap([(t, FRAME) for t in TIMES * 3])),
}


@settings(max_examples=120, deadline=None)
@given(
    st.sampled_from(sorted(BASES)),
    st.lists(st.tuples(st.integers(0, 700), st.integers(0, 255)), max_size=4),
    st.integers(0, 800),
)
def test_fuzz_readers_end_and_raise_nothing_else(tmp_path_factory, kind, edits, keep):
    data = bytearray(BASES[kind])
    for place, value in edits:
        data[place % len(data)] = value
    path = tmp_path_factory.mktemp("fuzz") / "f.bin"
    path.write_bytes(bytes(data[: max(keep, 1)]))
    try:
        rows, _ = read(path)
    except InputError as error:
        assert "\n" not in str(error)
    else:
        assert len(rows) <= 800


def test_bytes_of_a_huge_unknown_block_are_passed_over(tmp_path):
    huge = block("<", 0x0BAD, b"\0" * (5 << 20))
    rows, _ = read(put(tmp_path, section() + interface() + enhanced(1, FRAME) + huge + enhanced(2, FRAME)))
    assert len(rows) == 2


def test_file_in_pieces_equals_the_whole(tmp_path):
    packets = [(i * NS, Segment(0, "10.0.0.1", 1000 + i, "10.0.0.2", 80, S | A, i).frame()) for i in range(50)]
    whole, _ = read(put(tmp_path, pcap(packets), "whole"))
    for number in range(5):
        put(tmp_path, pcap(packets[number * 10 : number * 10 + 10]), f"piece{number}.pcap")
    capture = open_capture([str(tmp_path / "piece*.pcap")], "x")
    pieces = np.concatenate([b.copy() for b in capture.blocks()])
    for column in ("time", "seq", "sport", "flags", "src_lo"):
        assert np.array_equal(whole[column], pieces[column])


def test_reading_from_a_pipe(synquest):
    segments = pcap([(TIMES[0], FRAME)])
    done = synquest("analyze", "--server", "-", stdin=io.BytesIO(segments).getvalue())
    assert done.returncode == 0, done.stderr
    assert b"1 packet," in done.stdout
