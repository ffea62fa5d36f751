"""The second pass finds the frames that the first one counted."""

import gzip
import os

import numpy as np
import pytest
import zstandard

from analyzer.capture import open_capture
from analyzer.capture.frames import decode, fetch
from analyzer.capture.inputs import InputFile
from analyzer.errors import InputError
from tests.conftest import FIXTURES
from tests.frames import NS, A, S, Segment, enhanced, interface, pcap, section

FRAMES = [
    (NS * (i + 1) + i, Segment(i, "10.0.0.1", 1000 + i, "10.0.0.2", 80, S if i % 3 else A, i, tsval=i).frame())
    for i in range(9000)
]


def plain():
    return pcap(FRAMES)


def blocks():
    return section() + interface(resolution=9) + b"".join(enhanced(time, frame) for time, frame in FRAMES)


CONTAINERS = {
    "a.pcap": plain,
    "a.pcap.gz": lambda: gzip.compress(plain(), 1),
    "a.pcapng": blocks,
    "a.pcapng.zst": lambda: zstandard.compress(blocks(), 1),
}


@pytest.mark.parametrize("name", CONTAINERS)
def test_any_container(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(CONTAINERS[name]())
    wanted = [1, 2, 8192, 8193, 8999, 9000]
    found = list(fetch([InputFile(str(path))], {0: wanted[::-1]}))
    assert [frame.number for frame in found] == wanted
    assert [(frame.time, frame.data) for frame in found] == [FRAMES[n - 1] for n in wanted]
    assert {(frame.link, frame.length) for frame in found} <= {(1, len(frame)) for _, frame in FRAMES}


def test_all_frames_and_none(tmp_path):
    path = tmp_path / "a.pcap"
    path.write_bytes(pcap(FRAMES, snaplen=60))
    files = [InputFile(str(path))] * 2
    assert [f.number for f in fetch(files, {1: None})] == list(range(1, 9001))
    assert {(f.file, len(f.data), f.length) for f in fetch(files, {1: [7]})} == {(1, 60, len(FRAMES[6][1]))}
    assert list(fetch(files, {0: [], 1: [9001]})) == []


def test_both_passes_count_alike_in_damaged_files(tmp_path):
    raw = bytearray(blocks())
    raw[300_000:300_400] = b"\xff" * 400
    path = tmp_path / "damaged.pcapng"
    path.write_bytes(raw)
    capture = open_capture([str(path)], "x")
    rows = np.concatenate([block.copy() for block in capture.blocks()])
    assert capture.problems
    frames = {f.number: f for f in fetch(capture.files, {0: rows["frame"].astype(np.int64)})}
    assert len(frames) == len(rows) > 7000
    assert all(frames[int(row["frame"])].time == int(row["time"]) for row in rows[::97])
    again = [decode(frames[int(row["frame"])]) for row in rows[::501]]
    assert [int(p.seq) for p in again] == rows["seq"][::501].tolist()


def test_vendor_traces_and_tunnels(tmp_path):
    path = FIXTURES / "vendor" / "ns35.cap.zst"
    found = list(fetch([InputFile(str(path))], {0: None}))
    assert [f.number for f in found] == list(range(1, 34))
    assert [f.direction for f in found[:3]] == [1, 2, 1]
    assert int(decode(found[1]).tsval) == 900


def test_what_gives_its_bytes_once_is_not_opened_again(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name in ("-", str(tmp_path / "pipe"), str(tmp_path / "gone.pcap")):
        with pytest.raises(InputError, match="second time"):
            list(fetch([InputFile(name)], {0: [1]}))
