"""Clock offsets: the truth lies within the bounds, whatever the clocks do."""

import json
import struct
from pathlib import Path

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from analyzer.capture import open_capture
from analyzer.connections import track
from analyzer.schema import SEEN_SYN, SEEN_SYN_ACK
from analyzer.snat.alignment import align
from analyzer.snat.hulls import contradiction, fitting
from analyzer.snat.model import Seen
from analyzer.units import NS
from tests.conftest import FIXTURES
from tests.frames import A, F, P, S, Segment, write

CASE = FIXTURES / "v6.18-lb-drops-ack"
TRUTH = {"s1": (-0.412377, 80.0), "s2": (1.734, 0.0)}
PORT = 1120
HOUR = 3600 * NS


def seen(path, name, side):
    return Seen(name, side, track(open_capture([str(p) for p in (path if isinstance(path, list) else [path])], name)))


def moved(name: str, folder: Path, clock) -> Path:
    """A capture of the fixture with every stamp replaced by ``clock(time, sent by the server)``, ns."""
    with zstandard.open(CASE / f"{name}.pcap.zst") as source:
        data = bytearray(source.read())
    unit = 1 if struct.unpack_from("<I", data)[0] == 0xA1B23C4D else 1000
    at = 24
    while at < len(data):
        seconds, fraction, size = struct.unpack_from("<III", data, at)
        (port,) = struct.unpack_from(">H", data, at + 16 + 14 + 20)
        time = int(clock(seconds * NS + fraction * unit, port == PORT))
        struct.pack_into("<II", data, at, time // NS, time % NS // unit)
        at += 16 + size
    path = folder / f"{name}.pcap"
    path.write_bytes(data)
    return path


def aligned(folder, server="s2", lb_clock=lambda t, _: t, clock=lambda t, _: t):
    """The one offset between both captures, their clocks bent."""
    lb = seen(moved("lb_server", folder, lb_clock), "lb", "lb")
    (offset,) = align([lb, seen(moved(server, folder, clock), "server", "server")])
    return offset


def inside(segment, seconds, ppm, slack=0.0):
    """Whether offset at both ends and drift lie within their bounds."""
    span = (segment.end - segment.start) / NS
    at_end = segment.seconds + segment.drift_ppm * 1e-6 * span - (seconds + ppm * 1e-6 * span)
    return (
        abs(segment.seconds - seconds) <= segment.half_width + slack
        and abs(at_end) <= segment.half_width_end + slack
        and abs(segment.drift_ppm - ppm) <= segment.drift_bound
    )


def smallest_round_trip(first, second):
    """Seconds from LB to server and back, without what the server took, from whole handshakes."""
    whole = SEEN_SYN | SEEN_SYN_ACK
    took = []
    for tracked in (first, second):
        rows = tracked.connections.to_array()
        rows = rows[((rows["seen"] & whole) == whole) & (rows["syn_count"] == 1) & (rows["syn_ack_count"] == 1)]
        gaps = (rows["syn_ack_time"] - rows["syn_time"]).tolist()
        took.append(
            dict(zip(zip(rows["isn_orig"].tolist(), rows["isn_resp"].tolist(), strict=True), gaps, strict=True))
        )
    return min(took[0][key] - took[1][key] for key in took[0].keys() & took[1].keys()) / NS


@pytest.mark.parametrize("server", ["s1", "s2"])
def test_the_true_offset_and_drift_lie_within_bounds_no_wider_than_a_round_trip(server):
    lb = seen(CASE / "lb_server.pcap.zst", "lb", "lb")
    other = seen(CASE / f"{server}.pcap.zst", server, "server")
    (offset,) = align([lb, other])
    (segment,) = offset.segments
    assert inside(segment, *TRUTH[server])
    assert segment.half_width <= smallest_round_trip(lb.tracked, other.tracked) / 2
    assert segment.drift_bound < 0.2
    assert offset.notes == ()


def test_the_order_of_captures_turns_the_sign():
    captures = [seen(CASE / "lb_server.pcap.zst", "a", "server"), seen(CASE / "s2.pcap.zst", "b", "server")]
    (forth,), (back,) = align(captures), align(captures[::-1])
    assert forth.segments[0].seconds == pytest.approx(-back.segments[0].seconds, abs=1e-6)
    assert (forth.first, back.first) == ("a", "b")


def test_the_load_balancer_is_the_reference_wherever_it_stands():
    captures = [seen(CASE / "s2.pcap.zst", "b", "server"), seen(CASE / "lb_server.pcap.zst", "a", "lb")]
    (offset,) = align(captures)
    assert (offset.first, offset.second) == ("a", "b")
    assert inside(offset.segments[0], *TRUTH["s2"])


def test_an_hour_and_200_ppm(tmp_path):
    began = seen(CASE / "s2.pcap.zst", "s2", "server").tracked.first_time
    offset = aligned(tmp_path, clock=lambda t, _: t + HOUR + (t - began) // 5000)
    (segment,) = offset.segments
    assert inside(segment, TRUTH["s2"][0] + 3600, 200.0, slack=1e-9)


@pytest.mark.parametrize("step", [1, -3600, 0.001])
@pytest.mark.parametrize("whose", ["server", "lb"])
def test_a_step_parts_the_capture(tmp_path, step, whose):
    tracked = seen(CASE / ("s2.pcap.zst" if whose == "server" else "lb_server.pcap.zst"), "x", "server").tracked
    middle = (tracked.first_time + tracked.last_time) // 2

    def clock(time, _):
        return time + (round(step * NS) if time > middle else 0)

    offset = aligned(tmp_path, **{"clock" if whose == "server" else "lb_clock": clock})
    assert len(offset.segments) == 2
    sign = 1 if whose == "server" else -1
    assert inside(offset.segments[0], *TRUTH["s2"])
    assert inside(offset.segments[1], TRUTH["s2"][0] + sign * step, 0.0)
    assert any("once" in note for note in offset.notes)


def test_a_change_of_pace_parts_the_capture(tmp_path):
    began = seen(CASE / "s2.pcap.zst", "s2", "server").tracked.first_time
    offset = aligned(tmp_path, clock=lambda t, _: t + min(max(t - began - 20 * NS, 0), 20 * NS) // 2000)
    assert len(offset.segments) == 3
    assert [round(s.drift_ppm) for s in offset.segments] == [0, 500, 0]


@pytest.mark.parametrize("split", [37, -37])
@pytest.mark.parametrize("whose", ["server", "lb", "both"])
def test_sent_and_received_packets_on_clocks_apart(tmp_path, split, whose):
    def clock(time, by_server):
        return time + (split * NS if by_server else 0)

    clocks = {"server": {"clock": clock}, "lb": {"lb_clock": clock}, "both": {"clock": clock, "lb_clock": clock}}
    offset = aligned(tmp_path, **clocks[whose])
    (segment,) = offset.segments
    assert inside(segment, *TRUTH["s2"])
    assert segment.half_width < 100e-6
    told = [note for note in offset.notes if "different clocks" in note]
    assert len(told) == (2 if whose == "both" else 1)


def test_stray_stamps_are_left_out(tmp_path):
    dice = np.random.default_rng(5)
    offset = aligned(tmp_path, clock=lambda t, _: t + (NS if dice.random() < 0.003 else 0))
    (segment,) = offset.segments
    assert inside(segment, *TRUTH["s2"])
    assert segment.half_width < 10e-6


def test_ragged_stamps_widen_the_bounds(tmp_path):
    dice = np.random.default_rng(6)
    offset = aligned(tmp_path, clock=lambda t, _: t + int(dice.integers(-50_000, 50_000)))
    (segment,) = offset.segments
    assert inside(segment, *TRUTH["s2"])
    assert any("contradict" in note for note in offset.notes)


def exchange(number, client="10.0.0.1", isn=None):
    """Five packets of one connection at true times, with the side that sends each."""
    t, port = 1.0 + 0.370001237 * number, 40000 + number
    isn = 1000 * number + 5 if isn is None else isn
    reply = 7000 * number + 9

    def packet(at, back, flags, seq, ack=0, payload=b""):
        ends = ("10.0.0.2", PORT, client, port) if back else (client, port, "10.0.0.2", PORT)
        return Segment(t + at, *ends, flags, seq, ack, payload=payload, ipid=0 if back else 10 * number + int(at * 1e3))

    return [
        packet(0.000, False, S, isn),
        packet(0.001, True, S | A, reply, isn + 1),
        packet(0.003, False, A, isn + 1, reply + 1),
        packet(0.004, False, A | P, isn + 1, reply + 1, b"x" * 20),
        packet(0.005, True, A | F, reply + 1, isn + 21),
    ]


def captured(folder, name, packets, offset=0.0, delays=(0.0, 0.0)):
    """The packets *delays* (forward, backward) later than they are, on a clock *offset* ahead."""
    shifted = [
        Segment(**{**vars(p), "time": p.time + offset + delays[p.sport == PORT]})
        for p in sorted(packets, key=lambda p: p.time)
    ]
    return write(folder / f"{name}.pcap", shifted)


def test_without_a_packet_back_the_offset_is_bounded_from_one_side(tmp_path):
    packets = [p for n in range(6) for p in exchange(n)]
    there = [p for p in packets if p.sport != PORT]
    lb = seen(captured(tmp_path, "lb", there), "lb", "lb")
    server = seen(captured(tmp_path, "server", there, 5.0, (0.0002, 0)), "server", "server")
    (offset,) = align([lb, server])
    (segment,) = offset.segments
    assert segment.half_width == float("inf")
    assert segment.seconds == pytest.approx(5.0002, abs=1e-6)
    assert any("one direction" in note for note in offset.notes)


def test_with_direct_server_return_third_acks_bound_the_other_side(tmp_path):
    packets = [p for n in range(6) for p in exchange(n)]
    there = [p for p in packets if p.sport != PORT]
    lb = seen(captured(tmp_path, "lb", there), "lb", "lb")
    server = seen(captured(tmp_path, "server", packets, 5.0, (0.0002, 0)), "server", "server")
    (offset,) = align([lb, server])
    (segment,) = offset.segments
    assert abs(segment.seconds - 5.0) <= segment.half_width < 0.003


def test_rewritten_sequence_numbers_are_paired_by_their_distances(tmp_path):
    ours = [p for n in range(8) for p in exchange(n)]
    theirs = [p for n in range(8) for p in exchange(n, isn=900_000 + n)]
    lb = seen(captured(tmp_path, "lb", ours, 0.0, (0.0, 0.0002)), "lb", "lb")
    server = seen(captured(tmp_path, "server", theirs, -2.0, (0.0002, 0)), "server", "server")
    (offset,) = align([lb, server])
    (segment,) = offset.segments
    assert abs(segment.seconds + 2.0) <= segment.half_width <= 0.000201
    assert any("distances" in note for note in offset.notes)


def test_captures_that_share_nothing_have_no_offset(tmp_path):
    one = seen(captured(tmp_path, "one", exchange(1)), "one", "server")
    two = seen(captured(tmp_path, "two", exchange(2, client="10.0.0.7")), "two", "server")
    assert align([one, two]) == []
    assert align([one]) == []


lines = st.tuples(st.floats(-900, 900), st.floats(-1e6, 1e6))


@given(lines, st.integers(0, 2**32 - 1), st.integers(2, 60))
@settings(max_examples=60, deadline=None)
def test_bounds_are_those_of_the_linear_program(line, seed, count):
    from scipy.optimize import linprog

    ppm, start = line
    dice = np.random.default_rng(seed)
    x = dice.random(2 * count) * 50
    truth = start + 1000 * ppm * x
    late = dice.exponential(3e4, 2 * count)
    above, below = (x[:count], truth[:count] + late[:count]), (x[count:], truth[count:] - late[count:])
    fits = fitting(above, below, 1e6)
    assert fits is not None
    matrix = np.vstack([np.column_stack([np.ones(count), above[0]]), -np.column_stack([np.ones(count), below[0]])])
    limits = np.concatenate((above[1], -below[1]))
    for at in (0.0, 50.0):
        low, high = fits.bounds(at)
        best = [
            linprog(sign * np.array([1, at]), A_ub=matrix, b_ub=limits, bounds=[(None, None), (-1e6, 1e6)]).fun
            for sign in (1, -1)
        ]
        assert low == pytest.approx(best[0], abs=1.0)
        assert high == pytest.approx(-best[1], abs=1.0)
        assert low - 1e-3 <= start + 1000 * ppm * at <= high + 1e-3


def test_contradiction_is_the_least_that_every_point_must_give():
    above, below = (np.array([0.0, 1.0]), np.array([0.0, 0.0])), (np.array([0.0, 1.0]), np.array([10.0, 10.0]))
    assert contradiction(above, below, 1e6) == pytest.approx(5.0)
    assert fitting(above, below, 1e6) is None
    assert fitting(above, below, 1e6, slack=5.0) is not None


@pytest.mark.corpus
@pytest.mark.parametrize("name", ["M1_l4_snat", "M2a_tw_reuse", "M2g_est_collision", "M9_nc_loop"])
def test_real_load_balancers(shared, name):
    folder = shared / "captures" / "modern" / name
    about = {c["file"]: c for c in json.loads((folder / "meta.json").read_text())["captures"]}
    lb = seen([folder / "lb_client.pcap", next(folder.glob("lb_server.pcap*"))], "lb", "lb")
    servers = [seen(folder / f"{s}.pcap", s, "server") for s in ("s1", "s2")]
    for server, offset in zip(servers, align([lb, *servers]), strict=True):
        (segment,) = offset.segments
        truth = about[f"{server.name}.pcap"]
        assert inside(segment, truth["clock_offset_s"], truth["drift_ppm"])
        assert segment.half_width <= smallest_round_trip(lb.tracked, server.tracked) / 2
