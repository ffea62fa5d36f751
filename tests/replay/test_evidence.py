"""What proves that nothing was before, and which networks are answered."""

import numpy as np
import pytest

from analyzer.capture import open_capture
from analyzer.connections import track
from analyzer.kernel.profiles import find_profile
from analyzer.kernel.settings import Settings
from analyzer.replay.evidence import booted, completed_handshakes, empty_by_counters
from analyzer.replay.run import replay
from analyzer.replay.traces import server_clock
from analyzer.schema import CERTAINTIES, VERDICTS
from analyzer.units import NS
from tests.frames import A, F, P, S, Segment, write

SERVER = "10.0.0.9"
FIRST = 2**32 - 300_000  # a 1000 Hz counter at boot


def talk(at, client="10.0.0.1", port=40000, uptime=None, tsval=1000, offset=FIRST):
    """A whole connection that the client closes; the server's timestamps say *uptime* seconds."""
    uptime = at if uptime is None else uptime

    def c(time, flags, seq, ack=0, payload=b""):
        return Segment(time, client, port, SERVER, 80, flags, seq, ack, tsval, 1, payload)

    def s(time, flags, seq, ack, payload=b""):
        ticks = (offset + round((uptime + time - at) * 1000)) % 2**32
        return Segment(time, SERVER, 80, client, port, flags, seq, ack, ticks, tsval, payload)

    return [
        c(at, S, 100), s(at + 0.001, S | A, 900, 101), c(at + 0.002, A, 101, 901), c(at + 0.003, P | A, 101, 901, b"x"),
        s(at + 0.004, P | A, 901, 102, b"y"), c(at + 0.1, F | A, 102, 902), s(at + 0.101, F | A, 902, 103),
        c(at + 0.102, A, 103, 903),
    ]  # fmt: skip


@pytest.fixture
def seen(tmp_path):
    def run(segments):
        path = write(tmp_path / "x.pcap", sorted(segments, key=lambda s: s.time))
        return track(open_capture([str(path)], "server"))

    return run


def certainties(tracked, kernel="4.9.337"):
    rows = replay(tracked, find_profile(kernel), Settings(tw_recycle=1, backlog=128)).verdicts.to_array()
    return [(VERDICTS[int(r["verdict"])], CERTAINTIES[int(r["certainty"])]) for r in rows]


def test_a_server_that_has_just_booted_remembers_nothing(seen):
    tracked = seen([*talk(0.9), *talk(5, port=40001), *talk(7, port=40002)])
    boot = booted(tracked, find_profile("4.9.337"))
    assert (boot.hz, round(boot.booted / NS % 1000, 1)) == (1000, 0.0)
    assert certainties(tracked) == [("accept", "possible"), ("accept", "certain"), ("accept", "certain")]


@pytest.mark.parametrize("hz", [100, 250, 1000])
def test_each_tick_rate_is_read(seen, hz):
    segments = [*talk(0.5), *talk(9, port=40001)]
    for segment in segments:
        if segment.src == SERVER:
            segment.tsval = (2**32 - 300 * hz + int(segment.time * hz)) % 2**32
    assert booted(seen(segments), find_profile("3.10")).hz == hz


def test_more_than_a_second_of_uptime_proves_nothing(seen):
    tracked = seen([*talk(0.9, uptime=2.0), *talk(5, port=40001, uptime=6.1)])
    assert booted(tracked, find_profile("4.9.337")) is None
    assert certainties(tracked)[1] == ("accept", "possible")


def test_a_clock_that_runs_otherwise_proves_nothing(seen):
    tracked = seen([*talk(0.9), *talk(5, port=40001, uptime=9)])
    assert booted(tracked, find_profile("4.9.337")) is None


def test_an_older_connection_proves_the_contrary(seen):
    old = Segment(1.2, "10.0.0.3", 999, SERVER, 80, A, 5, 7, 1, 1)
    assert booted(seen([*talk(0.9), old, *talk(5, port=40001)]), find_profile("4.9.337")) is None


def test_later_kernels_show_no_uptime(seen):
    assert booted(seen([*talk(0.9), *talk(5, port=40001)]), find_profile("4.10")) is None


def counters(**values):
    return {"PassiveOpens": 0, "TW": 0, "TWKilled": 0, "ListenOverflows": 0, **values}


def test_counters_prove_an_empty_start_when_they_count_the_captures_connections(seen):
    tracked = seen([*talk(1), *talk(5, port=40001)])
    shown = completed_handshakes(tracked)
    assert shown == 2
    assert "2 connections" in empty_by_counters(counters(), counters(PassiveOpens=2), shown)
    assert not empty_by_counters(counters(), counters(PassiveOpens=3), shown), "one is not in the capture"
    assert not empty_by_counters(counters(PassiveOpens=1), counters(PassiveOpens=2), shown)
    assert not empty_by_counters(counters(TW=1), counters(PassiveOpens=2), shown)
    assert not empty_by_counters(counters(), counters(PassiveOpens=2, ListenOverflows=1), shown)
    assert not empty_by_counters({}, counters(PassiveOpens=2), shown)


def test_a_network_never_answered_keeps_a_verdict_open(seen):
    start = Segment(0, "10.9.9.9", 5, SERVER, 80, A, 1)
    far = Segment(105, "172.16.0.1", 5000, SERVER, 80, S, 7, 0, 1000)
    near = Segment(106, "10.0.0.77", 5000, SERVER, 80, S, 7, 0, 1000)
    assert certainties(seen([start, *talk(100), far, near]), "6.1")[1:] == [
        ("accept", "possible"),
        ("accept", "certain"),
    ]


def test_distant_networks_answered_take_a_default_route(seen):
    start = Segment(0, "10.9.9.9", 5, SERVER, 80, A, 1)
    many = [segment for i in range(4) for segment in talk(100 + i, client=f"{20 + i}.1.1.1")]
    far = Segment(110, "172.16.0.1", 5000, SERVER, 80, S, 7, 0, 1000)
    assert certainties(seen([start, *many, far]), "6.1")[-1] == ("accept", "certain")


def clients(offset_of):
    """Two connections of each of four clients; the server's offset is a function of client and port."""
    return [
        segment
        for i in range(8)
        for segment in talk(1 + i, f"10.0.{i % 4}.1", 40000 + i, offset=offset_of(i % 4, i) % 2**32)
    ]


@pytest.mark.parametrize(
    ("offset_of", "era"),
    [
        (lambda client, port: 77, "one"),
        (lambda client, port: client * 900_000_001, "per address"),
        (lambda client, port: port * 450_000_007 + 13, "per connection"),
    ],
)
def test_the_servers_timestamp_clock_tells_its_era(seen, offset_of, era):
    assert server_clock(seen(clients(offset_of))).era == era


def test_one_client_cannot_tell_the_era(seen):
    assert server_clock(seen([s for i in range(5) for s in talk(1 + i, port=40000 + i)])).era == ""


def test_hosts_without_connections_have_no_clock():
    from analyzer.connections import Tracked

    assert server_clock(Tracked("x")).era == ""
    assert np.array_equal(completed_handshakes(Tracked("x")), 0)
