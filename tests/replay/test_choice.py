"""Telling kernels apart, and when there is nothing to tell."""

import pytest

from analyzer.capture import open_capture
from analyzer.connections import track
from analyzer.pipeline import AnalyzeOptions, analyze
from analyzer.replay.choice import timestamps_fall_back
from tests.conftest import FIXTURES
from tests.frames import A, S, Segment, write


def syn(time, tsval, port, src="10.0.0.1"):
    return Segment(time, src, port, "10.0.0.9", 80, S, port, 0, tsval)


def ack(time, tsval, port, src="10.0.0.1"):
    return Segment(time, src, port, "10.0.0.9", 80, A, port + 1, 1, tsval, 1)


@pytest.mark.parametrize(
    ("segments", "falls"),
    [
        ([syn(0, 1000, 1), syn(1, 1001, 2)], False),
        ([syn(0, 1000, 1), syn(1, 999, 2)], False),
        ([syn(0, 1000, 1), syn(1, 998, 2)], True),
        ([syn(0, 1000, 1), syn(1, 5, 2, "10.0.0.2"), syn(2, 1001, 3)], False),
        ([syn(0, 1000, 1), ack(0.5, 3000, 1), syn(1, 1500, 2)], True),
        ([syn(0, 2**32 - 5, 1), syn(1, 3, 2)], False),
        ([syn(0, 3, 1), syn(1, 2**32 - 5, 2)], True),
        ([syn(0, 1000, 1), ack(1, 10, 2)], False),
        ([], False),
    ],
)
def test_whether_a_timestamp_ever_falls_back(tmp_path, segments, falls):
    tracked = track(open_capture([str(write(tmp_path / "t.pcap", segments))], "x"))
    assert timestamps_fall_back(tracked) == falls


def test_chunks_carry_the_clock_on(tmp_path):
    """Enough SYNs for several chunks, the last one behind the first."""
    segments = [syn(i * 0.001, 5_000_000 + i, 1024 + i % 60000, f"10.0.{i % 3}.1") for i in range(40_000)]
    tracked = track(open_capture([str(write(tmp_path / "a.pcap", segments))], "x"))
    assert not timestamps_fall_back(tracked)
    segments.append(syn(50, 4_000_000, 65_000, "10.0.1.1"))
    tracked = track(open_capture([str(write(tmp_path / "b.pcap", segments))], "x"))
    assert timestamps_fall_back(tracked)


@pytest.mark.parametrize(("case", "cause"), [("el7-recycle", True), ("el7-norecycle", False)])
def test_a_recycle_that_nobody_told_is_weighed_under_a_given_kernel(case, cause):
    """A kernel alone must not mean tcp_tw_recycle=0: the silent SYNs would be laid on a firewall."""
    found = analyze(AnalyzeOptions(servers=[str(FIXTURES / case / "server.pcap.zst")], kernel="el7.9", backlog=128))
    assert ("peer_timestamp" in found.diagnosis.summary.by_cause) is cause
    assert found.diagnosis.kernel.profile == "el7.9"
