"""Where each SYN was seen, and how far its answer came."""

import csv

import pytest

from analyzer.capture import open_capture
from analyzer.connections import track
from analyzer.schema import LEGS
from analyzer.snat.joining import join
from analyzer.snat.model import Seen
from analyzer.units import NO_TIME
from tests.snat.estate import WAY, Estate, joined_of, seconds, word

CLIENT = "10.1.0.5"
PLACES = ("time_lb_client", "time_lb_server", "time_server", "time_answered", "time_answer_lb", "time_answer_client")


def answers(row):
    """Answers seen at the server, on the LB's server side, on its client side."""
    return tuple(word(row[f"answer_{place}"]) for place in ("server", "lb", "client"))


def by_leg(paths, leg):
    """PATH rows of one leg."""
    return paths[paths["leg"] == LEGS.index(leg)]


def test_a_syn_and_its_answer_are_timed_at_every_place_on_its_own_clock(tmp_path):
    estate = Estate()
    estate.syn(1.0, CLIENT, 40000, 2000, isn=111)
    estate.answer(1.001, CLIENT, 40000, 2000, ack=112)
    joined, _ = joined_of(estate, tmp_path, server_clock=30.0)
    rows = [*joined.paths["lb"], *joined.paths["server"]]
    expected = [1.0, 1.0 + WAY, 31.0 + 2 * WAY, 31.001, 1.001 + WAY, 1.001 + 2 * WAY]
    for row in rows:
        assert [seconds(row[place]) for place in PLACES] == pytest.approx(expected)
        assert answers(row) == ("syn_ack", "syn_ack", "syn_ack")
        assert (row["flow"], row["server"], row["server_row"]) == (0, 1, 0)
    assert len({int(row["journey"]) for row in rows}) == 1
    assert [LEGS[row["leg"]] for row in rows] == ["client_leg", "lb_server_leg", "server"]


def test_a_bare_ack_that_the_balancer_swallows_is_shown(tmp_path):
    estate = Estate()
    estate.syn(1.0, CLIENT, 40000, 2000, isn=111)
    estate.answer(1.001, CLIENT, 40000, 2000, ack=999, flags=16, upto="lb")
    joined, _ = joined_of(estate, tmp_path)
    (row,) = by_leg(joined.paths["lb"], "client_leg")
    assert answers(row) == ("ack", "ack", "none")
    assert row["time_answer_client"] == NO_TIME


def test_each_try_has_its_own_journey_and_a_lost_one_ends_at_the_balancer(tmp_path):
    estate = Estate()
    estate.syn(1.0, CLIENT, 40000, 2000, isn=111, tsval=900, at_server=False)
    estate.syn(2.0, CLIENT, 40000, 2000, isn=111, tsval=1900)
    estate.answer(2.001, CLIENT, 40000, 2000, ack=112)
    joined, _ = joined_of(estate, tmp_path)
    first, second = by_leg(joined.paths["lb"], "client_leg")
    assert answers(first) == (None, "none", "none") and first["time_server"] == NO_TIME
    assert answers(second) == ("syn_ack", "syn_ack", "syn_ack")
    (there,) = joined.paths["server"]
    assert there["journey"] == second["journey"] != first["journey"]
    assert first["flow"] == second["flow"] == 0


def test_a_syn_that_was_not_forwarded_ends_at_the_client_side(tmp_path):
    estate = Estate()
    estate.syn(1.0, CLIENT, 40000, None, isn=111)
    estate.syn(2.0, CLIENT, 40000, 2000, isn=111, tsval=1001)
    joined, _ = joined_of(estate, tmp_path)
    first, _second = by_leg(joined.paths["lb"], "client_leg")
    assert answers(first) == (None, None, "none") and first["flow"] == -1


def test_tries_without_stamps_or_ids_go_by_time(tmp_path):
    estate = Estate()
    for n in range(4):  # known pairs give the clocks' difference
        estate.syn(0.1 * n, f"10.1.0.{20 + n}", 40000, 3000 + n, isn=n)
    estate.syn(1.0, CLIENT, 40000, 2000, isn=111, tsval=None, at_server=False)
    estate.syn(2.0, CLIENT, 40000, 2000, isn=111, tsval=None)
    estate.syn(4.0, CLIENT, 40000, 2000, isn=111, tsval=None)
    joined, _ = joined_of(estate, tmp_path, server_clock=-77.0)
    tries = by_leg(joined.paths["lb"], "client_leg")[-3:]
    assert [seconds(row["time_server"]) for row in tries] == [None, -75 + 2 * WAY, -73 + 2 * WAY]


def test_an_answer_repeated_by_the_server_is_not_the_lost_first_one(tmp_path):
    estate = Estate()
    estate.syn(1.0, CLIENT, 40000, 2000, isn=111, tsval=900)
    estate.answer(1.001, CLIENT, 40000, 2000, ack=112, upto="server")
    estate.answer(2.0 - WAY, CLIENT, 40000, 2000, ack=112)  # the server's timer
    estate.syn(2.0 + 2 * WAY, CLIENT, 40000, 2000, isn=111, tsval=1900)  # sent before that came
    estate.answer(2.001, CLIENT, 40000, 2000, ack=112, upto="server")
    joined, _ = joined_of(estate, tmp_path)
    first, second = by_leg(joined.paths["lb"], "client_leg")
    assert answers(first) == ("syn_ack", "none", "none")
    assert answers(second) == ("syn_ack", "syn_ack", "syn_ack")


def test_a_late_first_answer_without_another_try_stays_with_its_syn(tmp_path):
    estate = Estate()
    estate.syn(1.0, CLIENT, 40000, 2000, isn=111, tsval=900)
    estate.answer(1.001, CLIENT, 40000, 2000, ack=112, upto="server")
    estate.answer(2.0, CLIENT, 40000, 2000, ack=112)
    joined, _ = joined_of(estate, tmp_path)
    (row,) = by_leg(joined.paths["lb"], "client_leg")
    assert answers(row) == ("syn_ack", "syn_ack", "syn_ack")


def test_a_packet_that_two_taps_of_one_side_show_is_one_journey(tmp_path):
    estate = Estate()
    for n in range(3):
        estate.syn(n, f"10.1.0.{n + 1}", 40000, 2000 + n, isn=111 + n, tsval=900)
    seen = estate.seen(tmp_path)
    again = [str(tmp_path / name) for name in ("lb0.pcap", "lb1.pcap")]
    twice = tmp_path / "copy.pcap"
    twice.write_bytes((tmp_path / "lb1.pcap").read_bytes())
    lb = Seen("lb", "lb", track(open_capture([*again, str(twice)], "lb")))
    joined = join([lb, seen[1]])
    assert len(joined.flows) == 3 and len(joined.paths["lb"]) == 9
    assert len(set(joined.paths["lb"]["journey"].tolist())) == 3


# ---- real load balancers ----------------------------------------------------------------------

REPLY = {"synack": "syn_ack", "ack_only": "ack", "rst": "rst", "none": "none"}
SERVER_WORD = {
    "answered_synack": "syn_ack",
    "answered_ack_only": "ack",
    "answered_rst": "rst",
    "answered_icmp": "icmp",
    "no_answer": "none",
    "not_seen_at_server": None,
    "not_forwarded_by_lb": None,
}


@pytest.mark.parametrize(
    "scenario", ["M2d_tw_lb_drops_ack", "M4a_loss_before", "M4c_loss_synack", "M4f_icmp", "M4j_snat_exhausted"]
)
def test_real_syns_end_where_their_hosts_say(shared, scenario):
    folder = shared / "captures" / "modern" / scenario
    files = [str(folder / name) for name in ("lb_client.pcap", "lb_server.pcap")]
    seen = [Seen("lb", "lb", track(open_capture(files, "lb")))]
    seen += [Seen(n, "server", track(open_capture([str(folder / f"{n}.pcap")], n))) for n in ("s1", "s2")]
    rows, paths = seen[0].tracked.syns.to_array(), join(seen).paths["lb"]
    mine = paths["leg"] == LEGS.index("client_leg")
    ours = {(int(r["isn"]), round(int(r["time"]) / 1e9, 3)): p for r, p in zip(rows[mine], paths[mine], strict=True)}
    total = wrong = 0
    with (folder / "cause_truth.csv").open() as lines:
        for truth in csv.DictReader(lines):
            path = _nearest(ours, int(truth["isn"]), float(truth["time_lb_in"]))
            total += 1
            wrong += word(path["answer_server"]) != SERVER_WORD[truth["server_verdict"]]
            wrong += not truth["client_reply"].startswith("icmp") and word(path["answer_client"]) != REPLY.get(
                truth["client_reply"]
            )
    assert total > 100
    assert wrong <= 0.01 * total


def _nearest(ours, isn, time):
    for step in (0, 1, -1, 2, -2):
        key = (isn, round(time + step / 1000, 3))
        if key in ours:
            return ours[key]
    raise AssertionError(f"no SYN {isn} at {time}")
