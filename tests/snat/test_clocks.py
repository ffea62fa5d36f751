"""Host clocks behind addresses: how many, how fast, and when nothing can be told."""

import ipaddress

import numpy as np
import pytest

from analyzer.capture import open_capture
from analyzer.connections import Tracked, follow, track
from analyzer.connections.names import host_texts
from analyzer.schema import ERAS, OPT_TS, PACKET
from analyzer.snat.clocks import clocks_of
from analyzer.snat.model import Seen
from analyzer.units import NO_TIME, NS
from tests.conftest import FIXTURES

START = 1_700_000_000
SERVER, OTHER = "10.0.0.2", "10.0.0.3"


class Clock:
    """A clock of *hz* ticks a second that shows *offset* at the start and runs *ppm* too fast."""

    def __init__(self, hz, offset, ppm=0.0):
        self.hz, self.offset, self.ppm = hz, offset, ppm

    def __call__(self, time):
        return int(self.offset + self.hz * (1 + self.ppm * 1e-6) * time) % 2**32


SERVER_CLOCK = Clock(1000, 77)
dice = np.random.default_rng(11)
ports = iter(range(1024, 65535))


def talk(client, clock, times, server=SERVER, answers=SERVER_CLOCK, port=None, late=0.0):
    """Packets of one connection per time: SYN, SYN-ACK, ACK, data, and the close half a second later."""
    packets = []
    for at in times:
        sport = next(ports) if port is None else port
        isn, reply = (int(n) for n in dice.integers(0, 2**32, 2))
        steps = [
            (0, 0.0, 2, isn, 0, 0), (1, 0.0001, 18, reply, isn + 1, 0), (0, 0.0006, 16, isn + 1, reply + 1, 0),
            (0, 0.0007, 24, isn + 1, reply + 1, 10), (1, 0.5, 17, reply + 1, isn + 11, 0),
            (0, 0.5005, 17, isn + 11, reply + 2, 0), (1, 0.5006, 16, reply + 2, isn + 12, 0),
        ]  # fmt: skip
        for back, later, flags, seq, ack, length in steps:
            time = at + later + (late if not back else 0.0)
            speaks = answers if back else clock
            tsval = None if speaks is None else speaks(at + later - (0.00002 if back else 0.0002))
            ends = (server, 1120, client, sport) if back else (client, sport, server, 1120)
            packets.append((time, *ends, flags, seq % 2**32, ack % 2**32, length, tsval))
    return packets


def address(text):
    return 0xFFFF00000000 | int(ipaddress.ip_address(text))


def capture(*talks):
    return capture_in_order(sorted(p for talk in talks for p in talk))


def capture_in_order(packets):
    rows = np.zeros(len(packets), PACKET.dtype)
    for row, (time, src, sport, dst, dport, flags, seq, ack, length, tsval) in zip(rows, packets, strict=True):
        row["time"] = START * NS + round(time * NS)
        row["src_lo"], row["sport"], row["dst_lo"], row["dport"] = address(src), sport, address(dst), dport
        row["flags"], row["seq"], row["ack"], row["length"], row["window"] = flags, seq, ack, length, 500
        row["opts"], row["tsval"] = (0, 0) if tsval is None else (OPT_TS, tsval)
    rows["frame"] = np.arange(1, len(rows) + 1)
    return follow([rows], Tracked("server"))


def clocks(tracked, host):
    """Records of one address, with the peer's name in front."""
    names = [str(name) for name in host_texts(tracked.hosts)]
    rows = clocks_of([Seen("server", "server", tracked)])
    return [(names[r["peer"]] if r["peer"] >= 0 else "*", r) for r in rows[rows["host"] == names.index(host)]]


def every(seconds, count=20, start=0.0):
    return start + seconds * np.arange(count) + dice.random(count) * 0.3


def word(row):
    return ERAS[row["era"]]


@pytest.mark.parametrize("hz", [100, 250, 1000, 1_000_000])
def test_rate_offset_and_skew_of_a_clock(hz):
    tracked = capture(talk("10.0.0.1", Clock(hz, 123456, ppm=150), every(3)))
    ((peer, row),) = clocks(tracked, "10.0.0.1")
    assert (peer, row["hz"], row["number"], word(row)) == (SERVER, hz, 1, "per address pair")
    assert abs(row["skew_ppm"] - 150) <= row["skew_bound"] < 300
    shown = Clock(hz, 123456, ppm=150)((tracked.first_time - START * NS) / NS)
    assert abs(int(row["offset"]) - shown) <= 2 + hz // 1000
    assert row["connections"] == 20
    assert row["boot"] == NO_TIME


def test_a_clock_that_passes_zero_stays_one():
    tracked = capture(talk("10.0.0.1", Clock(1000, 2**32 - 20_000), every(2)))
    ((_, row),) = clocks(tracked, "10.0.0.1")
    assert (row["hz"], row["connections"]) == (1000, 20)


def test_the_same_clock_towards_two_addresses_is_the_host_s_and_tells_its_boot():
    clock = Clock(1000, 5_000_000)
    tracked = capture(talk("10.0.0.1", clock, every(3)), talk("10.0.0.1", clock, every(3), server=OTHER))
    ((peer, row),) = clocks(tracked, "10.0.0.1")
    assert (peer, word(row), row["connections"]) == ("*", "per host", 40)
    assert row["boot"] == pytest.approx((START - 5000) * NS, abs=NS)


def test_an_offset_per_address_pair_is_no_second_host():
    tracked = capture(
        talk("10.0.0.1", Clock(1000, 5_000_000), every(3)),
        talk("10.0.0.1", Clock(1000, 3_000_000_000), every(3), server=OTHER),
    )
    rows = clocks(tracked, "10.0.0.1")
    assert sorted(peer for peer, _ in rows) == [SERVER, OTHER]
    assert {(word(r), int(r["number"])) for _, r in rows} == {("per address pair", 1)}


def test_hosts_side_by_side_behind_one_address_are_counted():
    hosts = [Clock(1000, 4_000_000_000), Clock(250, 1000), Clock(100, 77), Clock(1000, 8_000), Clock(1000, 11_000)]
    tracked = capture(*(talk("10.0.0.9", clock, every(4, 15)) for clock in hosts))
    rows = clocks(tracked, "10.0.0.9")
    assert sorted(int(r["number"]) for _, r in rows) == [1, 2, 3, 4, 5]
    assert sorted(r["hz"] for _, r in rows) == [100, 250, 1000, 1000, 1000]


def test_a_restart_is_no_second_host():
    before, after = Clock(1000, 900_000_000), Clock(1000, 0)
    tracked = capture(talk("10.0.0.1", before, every(2, 10)), talk("10.0.0.1", after, every(2, 10, start=60)))
    assert {int(r["number"]) for _, r in clocks(tracked, "10.0.0.1")} == {1}


@pytest.mark.parametrize("step", [-30, 30])
def test_a_step_of_the_capture_s_clock_is_no_second_host(step):
    packets = talk("10.0.0.1", Clock(1000, 5_000_000), every(2, 30))
    tracked = capture(packets)
    bent = capture_in_order([(p[0] + (step if p[0] > 31 else 0), *p[1:]) for p in sorted(packets)])
    assert len(clocks(tracked, "10.0.0.1")) == 1
    assert {int(r["number"]) for _, r in clocks(bent, "10.0.0.1")} == {1}


def test_a_few_connections_on_each_of_two_lines_prove_nothing():
    one, two = Clock(1000, 900_000_000), Clock(1000, 0)
    tracked = capture(talk("10.0.0.1", one, every(5, 4)), talk("10.0.0.1", two, every(5, 4, start=2)))
    assert all(row["number"] <= 1 for _, row in clocks(tracked, "10.0.0.1"))


def test_an_offset_per_connection_is_not_identifiable():
    talks = [talk("10.0.0.1", Clock(1000, int(dice.integers(0, 2**32))), [at]) for at in every(1, 60)]
    ((peer, row),) = clocks(capture(*talks), "10.0.0.1")
    assert (peer, word(row), row["hz"], row["number"]) == ("*", "not identifiable", 0, 0)
    assert row["connections"] == 60


def test_four_numbers_used_again_do_not_make_an_offset_per_connection_a_clock():
    talks = []
    for port in range(5000, 5008):
        clock = Clock(1000, int(dice.integers(0, 2**32)))
        talks.append(talk("10.0.0.1", clock, every(5, 8, start=port / 100), port=port))
    ((_, row),) = clocks(capture(*talks), "10.0.0.1")
    assert (word(row), row["hz"]) == ("not identifiable", 0)


def test_client_ports_used_again_behind_a_nat_are_no_clocks():
    talks = [talk("10.0.0.1", Clock(1000, 5_000), every(5, 12)), talk("10.0.0.1", Clock(100, 9), every(5, 12))]
    for number in range(40):
        clock = Clock(1000, int(dice.integers(0, 2**32)))
        talks.append(talk("10.0.0.1", clock, dice.random(1 if number % 3 else 3) * 60))
    rows = [row for _, row in clocks(capture(*talks), "10.0.0.1")]
    assert sorted(r["hz"] for r in rows) == [0, 100, 1000]


def test_one_syn_sent_from_several_ports_is_no_line_of_several_connections():
    talks = []
    for at in every(2, 30):
        clock, isn = Clock(1000, int(dice.integers(0, 2**32))), int(dice.integers(0, 2**31))
        for number in range(6):
            port = next(ports)
            talks.append([(at + number, "10.0.0.1", port, SERVER, 1120, 2, isn, 0, 0, clock(at + number))])
    talks.append(talk("10.0.0.1", Clock(1000, 1), [1.0]))
    assert all(row["hz"] == 0 for _, row in clocks(capture(*talks), "10.0.0.1"))


def test_clocks_of_known_hosts_are_told_beside_hosts_of_an_offset_per_connection():
    talks = [talk("10.0.0.1", Clock(1000, int(dice.integers(0, 2**32))), [at]) for at in every(1, 60)]
    talks += [talk("10.0.0.1", Clock(1000, 5_000), every(5, 12)), talk("10.0.0.1", Clock(100, 9), every(5, 12))]
    rows = [row for _, row in clocks(capture(*talks), "10.0.0.1")]
    assert sorted((int(r["number"]), r["hz"], int(r["connections"])) for r in rows if r["hz"]) == [
        (1, 100 if rows[0]["hz"] == 100 else 1000, 12), (2, 1000 if rows[0]["hz"] == 100 else 100, 12),
    ]  # fmt: skip
    assert [int(r["connections"]) for r in rows if not r["hz"]] == [60]


def test_an_address_that_answers_with_many_offsets_is_not_taken_for_many_hosts():
    talks = []
    for offset in dice.integers(0, 2**32, 12).tolist():
        for client in ("10.0.1.1", "10.0.1.2"):
            talks.append(talk(client, Clock(1000, 9), every(6, 6), answers=Clock(1000, offset)))
    ((_, row),) = clocks(capture(*talks), SERVER)
    assert (word(row), row["number"]) == ("not identifiable", 0)


def test_late_packets_are_no_second_clock():
    clock = Clock(1000, 5_000_000)
    tracked = capture(
        talk("10.0.0.1", clock, every(3)), *(talk("10.0.0.1", clock, [at], late=0.2) for at in every(7, 8))
    )
    ((_, row),) = clocks(tracked, "10.0.0.1")
    assert (row["number"], row["connections"]) == (1, 28)


def test_without_timestamps_there_is_no_clock():
    ((_, row),) = clocks(capture(talk("10.0.0.1", None, every(3), answers=None)), "10.0.0.1")
    assert (word(row), row["hz"], row["packets"]) == ("not identifiable", 0, 0)


def test_a_capture_without_packets_has_no_clocks():
    assert len(clocks_of([Seen("server", "server", Tracked("server"))])) == 0
    assert len(clocks_of([])) == 0


def known(path):
    tracked = track(open_capture([str(path)], "server"))
    names = [str(name) for name in host_texts(tracked.hosts)]
    rows = clocks_of([Seen("server", "server", tracked)])
    found = {}
    for row in rows[rows["hz"] > 0]:
        found.setdefault(names[row["host"]], []).append(row["hz"])
    return {name: sorted(rates) for name, rates in found.items()}


@pytest.mark.parametrize(
    ("case", "server"), [("el7-recycle", [1000]), ("v4.9-recycle", [1000]), ("v6.1-timewait", None)]
)
def test_clients_behind_the_snat_addresses_of_real_captures(case, server):
    found = known(FIXTURES / case / "server.pcap.zst")
    assert found["172.16.10.241"] == [100, 250, 250, 1000, 1000, 1000]
    assert found["172.16.10.242"] == [1000, 1000]
    assert found["172.16.10.243"] == [1000]
    assert found.get("172.16.10.10") == server  # that 6.1 has the offset per connection


def test_real_clients_of_three_rates_and_others_with_an_offset_per_connection():
    found = known(FIXTURES / "v6.18-lb-drops-ack" / "lb_client.pcap.zst")
    assert found == {"10.10.0.23": [1000], "10.10.0.24": [1000], "10.10.0.25": [100], "10.10.0.26": [250]}


@pytest.mark.corpus
def test_no_capture_from_the_wild_is_said_to_hide_several_hosts(shared):
    from analyzer.errors import InputError

    claims = []
    for path in sorted((shared / "corpus" / "captures").iterdir()):
        try:
            tracked = track(open_capture([str(path)], "x"))
        except InputError:
            continue
        if (clocks_of([Seen("x", "server", tracked)])["number"] > 1).any():
            claims.append(path.name)
    assert claims == []
