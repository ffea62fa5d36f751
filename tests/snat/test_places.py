"""Where a capture was taken, and whether its packets show it at all."""

import pytest

from analyzer.capture import open_capture
from analyzer.connections import track
from analyzer.pipeline import AnalyzeOptions, analyze
from analyzer.replay.placing import NOT_THE_SERVERS_NUMBERS
from analyzer.schema import CAUSE_CERTAINTIES, CAUSES, CERTAINTIES
from analyzer.snat.legs import Place, place_of
from analyzer.snat.vantages import group_captures
from tests.frames import A, S, Segment, write
from tests.snat.estate import talk

HERE, THERE = "192.0.2.1", "198.51.100.7"


def handshake(tap, time, ends, answer_after, ack_after, isn=1000):
    """A handshake whose SYN-ACK and third ACK come after so many seconds; None leaves them away."""
    src, sport, dst, dport = ends
    tap.append(Segment(time, src, sport, dst, dport, S, isn))
    if answer_after is not None:
        tap.append(Segment(time + answer_after, dst, dport, src, sport, S | A, 7000, isn + 1))
    if ack_after is not None:
        tap.append(Segment(time + answer_after + ack_after, src, sport, dst, dport, A, isn + 1, 7001))


def place(tap, folder) -> Place:
    path = write(folder / "x.pcap", sorted(tap, key=lambda s: s.time))
    return place_of(track(open_capture([str(path)], "x")))


@pytest.mark.parametrize(
    ("answer", "ack", "expected"),
    [
        (0.00003, 0.0002, Place("server", True)),
        (0.0300, 0.0001, Place("client", True)),
        (0.0005, 0.0001, Place("client", True)),
        (0.0001, 0.0001, Place("server", False)),  # as long one way as the other
        (0.14, None, Place("client", True)),  # never completed, but no kernel takes so long
        (0.0001, None, Place("server", False)),
        (None, None, Place("server", False)),
    ],
)
def test_handshakes_tell_the_side(tmp_path, answer, ack, expected):
    tap: list = []
    for n in range(4):
        handshake(tap, float(n), (HERE, 4000 + n, THERE, 80), answer, ack)
    assert place(tap, tmp_path) == expected


@pytest.mark.parametrize(("asked", "side"), [(True, "server"), (False, "client")])
def test_the_address_that_all_share_is_the_capturing_hosts(tmp_path, asked, side):
    tap: list = []
    for n in range(5):
        peer = f"203.0.113.{n + 1}"
        ends = (peer, 4000, HERE, 80) if asked else (HERE, 4000, peer, 80)
        handshake(tap, float(n), ends, None, None)
    assert place(tap, tmp_path) == Place(side, True)


def causes_of(tap, folder, **how):
    path = str(write(folder / "x.pcap", sorted(tap, key=lambda s: s.time)))
    analysis = analyze(AnalyzeOptions(**{name: [path] for name in how}))
    rows = analysis.main.causes.to_array()
    return {(CAUSES[r["cause"]], CAUSE_CERTAINTIES[r["certainty"]]) for r in rows}, analysis.diagnosis.quality


def test_silence_accuses_no_server_where_nothing_shows_a_server(tmp_path):
    tap: list = []
    for n in range(3):
        handshake(tap, 2.0 * n, (HERE, 4000 + n, THERE, 80), None, None, isn=1000 * n)
    handshake(tap, 9.0, (HERE, 5000, THERE, 81), 0.0001, 0.0001)
    given, _ = causes_of(tap, tmp_path, servers=True)
    assert ("server_silent", "likely") in given
    found, quality = causes_of(tap, tmp_path, captures=True)
    assert found == {("answered", "certain"), ("no_evidence", "possible")}
    assert any(note.kind == "vantage" and "--server" in note.text for note in quality)


@pytest.mark.parametrize("port", [4000, None])
def test_a_scan_with_one_isn_shows_no_load_balancer(tmp_path, port):
    tap: list = []
    for n in range(12):
        handshake(tap, 0.01 * n, (HERE, port or 5000 + n, f"203.0.113.{n + 1}", 80), None, None)
    assert place(tap, tmp_path) == Place("client", True)


def test_generated_traffic_with_one_isn_shows_no_load_balancer(tmp_path):
    tap: list = []
    for n in range(2):
        handshake(tap, 0.5 * n, (f"192.0.2.{n + 1}", 4000, f"203.0.113.{n + 1}", 80), 0.0001, 0.0001, isn=1)
    assert place(tap, tmp_path).side == "server"


def test_a_syn_on_two_legs_shows_a_load_balancer(tmp_path):
    tap: list = []
    for n in range(2):
        handshake(tap, 1.0 * n, (f"192.0.2.{n + 1}", 4000, HERE, 80), 0.0003, 0.0001, isn=77 + n)
        handshake(tap, 1.0 * n + 0.0001, (THERE, 6000 + n, "203.0.113.1", 80), 0.0001, 0.0002, isn=77 + n)
    assert place(tap, tmp_path) == Place("lb", True)


def member(n):
    return f"10.30.0.{11 + n % 2}"


def sorted_out(folder, **taps):
    """Files of one estate given without a word, by the side they are sorted to."""
    paths = {name: str(write(folder / name, sorted(tap, key=lambda s: s.time))) for name, tap in taps.items()}
    groups = group_captures(list(paths.values()), [], [])
    return {name: group.side for group in groups for name, path in paths.items() if path in group.paths}


def test_members_that_share_retries_of_a_few_addresses_are_servers(tmp_path):
    taps: dict = {"lb": [], "one": [], "two": []}
    for n in range(12):
        for second in (0, 1):  # the retry keeps its ISN and goes to the other member
            tap = taps["two" if (n + second) % 2 else "one"]
            ends = ("10.20.0.101", 4000 + 2 * n + second, member(n + second), 80)
            handshake(tap, 3.0 * n + second, ends, 0.00003, 0.0003, isn=100 + n)
            inside = ("192.0.2.5", 5000 + n, "192.0.2.80", 443)
            handshake(taps["lb"], 3.0 * n + second - 0.0001, inside, 0.0004, 0.0001, isn=100 + n)
    assert sorted_out(tmp_path, **taps) == {"lb": "lb", "one": "server", "two": "server"}


def test_a_proxys_client_side_is_told_by_the_payload_that_goes_on(tmp_path):
    taps: dict = {"front": [], "back": [], "one": [], "two": []}
    for n in range(20):
        said, told = b"request %d" % n, b"response %d" % n
        client = (f"192.0.2.{n % 9 + 1}", 5000 + n, "192.0.2.80", 443)
        talk(taps["front"], 0.4 * n, client, 9000 * n, said, told)
        ends = ("10.20.0.101", 6000 + n, member(n), 80)
        talk(taps["back"], 0.4 * n + 0.0004, ends, 9000 * n + 7, said, told)
        tap = taps["two" if n % 2 else "one"]
        talk(tap, 0.4 * n + 0.0005, ends, 9000 * n + 7, said, told)
    found = sorted_out(tmp_path, **taps)
    assert found == {"front": "lb", "back": "lb", "one": "server", "two": "server"}


def test_a_server_that_asks_another_is_no_balancer(tmp_path):
    tap: list = []
    for n in range(40):
        talk(tap, 0.4 * n, (f"192.0.2.{n % 9 + 1}", 5000 + n, HERE, 80), 9000 * n, b"GET /%d" % n, b"page %d" % n)
        talk(tap, 0.4 * n + 0.0015, (HERE, 6000 + n, THERE, 3306), 9000 * n + 7, b"select %d" % n, b"row %d" % n)
    path = write(tmp_path / "x.pcap", sorted(tap, key=lambda s: s.time))
    assert place_of(track(open_capture([str(path)], "x", digests=True))).side == "server"


def test_one_leg_of_a_balancer_makes_no_verdict_certain(tmp_path):
    tap: list = []
    for n in range(20):
        talk(tap, 10.0 * n, (HERE, 4000 + n % 2, THERE, 80), 9_000_000 * (n + 1), b"GET /%d" % n, b"page %d" % n)
    path = str(write(tmp_path / "x.pcap", sorted(tap, key=lambda s: s.time)))
    certain = CERTAINTIES.index("certain")
    at_server = analyze(AnalyzeOptions(servers=[path], kernel="6.1")).main.replayed.verdicts.to_array()
    at_lb = analyze(AnalyzeOptions(lbs=[path], kernel="6.1")).main.replayed
    assert (at_server["certainty"] == certain).any()
    assert not (at_lb.verdicts.to_array()["certainty"] == certain).any()
    assert NOT_THE_SERVERS_NUMBERS in at_lb.reasons
