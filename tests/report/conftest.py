"""Analyses that report tests share: two of real captures, and one with everything optional filled in by hand."""

from dataclasses import replace

import numpy as np
import pytest

from analyzer.diagnosis.model import BlastRadius, CounterRow, ProbeMatch, WhatIf
from analyzer.pipeline import AnalyzeOptions, analyze
from analyzer.snat.model import ClockOffset, OffsetSegment
from tests.conftest import FIXTURES
from tests.frames import A, S, Segment, write

NS = 1_000_000_000
PORTS = ("172.16.10.241", "172.16.10.10", 500, 12, 0.0078)


@pytest.fixture(scope="session")
def recycled():
    """A server with a peer memory, one capture."""
    case = FIXTURES / "el7-recycle"
    return analyze(
        AnalyzeOptions(
            servers=[str(case / "server.pcap.zst")], kernel="el7.9", sysctl_file=str(case / "sysctl.txt"), backlog=128
        )
    )


@pytest.fixture(scope="session")
def behind_lb():
    """Two servers behind a load balancer that swallows ACKs, four captures."""
    case = FIXTURES / "v6.18-lb-drops-ack"
    names = {n: str(case / f"{n}.pcap.zst") for n in ("s1", "s2", "lb_client", "lb_server")}
    return analyze(
        AnalyzeOptions(
            servers=[names["s1"], names["s2"]],
            lbs=[names["lb_client"], names["lb_server"]],
            kernel="6.18",
            sysctl_file=str(case / "sysctl.txt"),
        )
    )


@pytest.fixture(scope="session")
def everything(recycled):
    """The first one with blast radius, counters, probe, what-if and clock offset as others would fill them in."""
    began = recycled.main.tracked.first_time
    times = np.linspace(0, 240, 200)
    off = -0.25 + 50e-6 * times
    wiggle = 30e-6 * (1 + np.sin(times) ** 2)
    segment = OffsetSegment(began, began + 240 * NS, -0.25, 35e-6, 50.0, 0.4, 400)
    offset = ClockOffset(
        "server", "lb", (segment,), np.column_stack([times, off + wiggle]), np.column_stack([times, off - wiggle])
    )
    clients = tuple(
        (f"10.0.{n // 250}.{n % 250}", f"172.16.10.24{1 + n % 2}", 40, 20 if n < 30 else 0) for n in range(400)
    )
    diagnosis = replace(
        recycled.diagnosis,
        counters=[
            CounterRow("server", "PAWSPassive", "connections rejected because of time stamp", 706, 706, 700, 712),
            CounterRow("server", "ListenDrops", "SYNs to LISTEN sockets dropped", 750, 706, 700, 712, "another port"),
            CounterRow("server", "ListenOverflows", "", 0, 0, 0, 0),
        ],
        probe=ProbeMatch((("rejected", "drop", 706), ("accepted", "accept", 559)), (), 3, 1),
        blast=BlastRadius(clients, began + NS, (), (0.5, 3.0, 59.0, 61.0), 3, (PORTS,)),
        whatif=[WhatIf("tcp_tw_recycle=0", {"peer_timestamp": 706}, {"time_wait_paws": 3}, ("same traffic",), ())],
    )  # fmt: skip
    joined = replace(recycled.joined, offsets=[offset])
    return replace(recycled, diagnosis=diagnosis, joined=joined)


@pytest.fixture
def healthy(tmp_path):
    """Three connections that all opened."""
    segments = []
    for n in range(3):
        ends = ("10.0.0.1", 1000 + n, "10.0.0.2", 80)
        segments += [
            Segment(n, *ends, S, 5),
            Segment(n + 0.001, *ends[2:], *ends[:2], S | A, 9, 6),
            Segment(n + 0.002, *ends, A, 6, 10),
        ]
    return analyze(AnalyzeOptions(servers=[str(write(tmp_path / "h.pcap", segments))], kernel="6.1"))


@pytest.fixture
def two_syns(tmp_path):
    """One SYN, sent twice, never answered."""
    segments = [Segment(t, "10.0.0.1", 2, "10.0.0.2", 80, S, 77, tsval=1000 * t) for t in (1, 2)]
    return analyze(AnalyzeOptions(servers=[str(write(tmp_path / "two.pcap", segments))], kernel="6.1"))
