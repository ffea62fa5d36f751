"""Flows: which client's connection is which on the server's side."""

import csv
from collections import Counter
from dataclasses import replace

import pytest

from analyzer.capture import open_capture
from analyzer.connections import track
from analyzer.schema import FLOW_KINDS, PROOFS
from analyzer.snat.joining import join
from analyzer.snat.model import Seen
from tests.frames import NS, A, R, S, Segment, pcap
from tests.snat.estate import SERVER, SNAT, VIP, Estate, four, joined_of, talk


def words(joined):
    """(kind, proof) of each flow."""
    return [(FLOW_KINDS[f["kind"]], PROOFS[f["proof"]]) for f in joined.flows]


def test_a_syn_that_keeps_isn_and_stamp_proves_the_pair(tmp_path):
    estate = Estate()
    estate.syn(1.0, "10.1.0.5", 40000, 2000, isn=111, tsval=900)
    estate.answer(1.001, "10.1.0.5", 40000, 2000, ack=112)
    joined, _ = joined_of(estate, tmp_path)
    (flow,) = joined.flows
    assert four(flow) == ("10.1.0.5", 40000, VIP, 80, SNAT, 2000, SERVER, 1120)
    assert words(joined) == [("layer4", "exact")]
    assert flow["margin"] == 1.0 and flow["rivals"] == 0
    assert (flow["client_conn"], flow["lb_conn"], flow["server_conn"]) == (0, 1, 0)


def test_a_retry_on_another_port_is_another_flow_of_the_same_client(tmp_path):
    estate = Estate()
    estate.syn(1.0, "10.1.0.5", 40000, 2000, isn=111, tsval=900)
    estate.answer(1.001, "10.1.0.5", 40000, 2000, ack=999, flags=16)
    estate.client_side.append(replace(estate.client_side[0], time=1.002, flags=R, seq=999, tsval=None))
    estate.syn(1.01, "10.1.0.5", 40000, 2001, isn=111, tsval=910)
    joined, _ = joined_of(estate, tmp_path)
    assert sorted(four(f)[5] for f in joined.flows) == [2000, 2001]
    assert {int(f["client_conn"]) for f in joined.flows} == {0}


def test_retries_that_move_between_members_are_no_client_side(tmp_path):
    estate = Estate()
    for n in range(12):
        estate.syn(n, "10.1.0.5", 40000 + n, 2000 + n, isn=111 * n, tsval=900, ipid=2 * n + 1)
        estate.syn(n + 0.01, "10.1.0.5", 40000 + n, 3000 + n, isn=111 * n, tsval=910, ipid=2 * n + 2)
        estate.server_side[-1] = replace(estate.server_side[-1], dst="10.30.0.12")
    joined, _ = joined_of(estate, tmp_path, lb="server", server=False)
    assert len(joined.flows) == 0
    assert len(joined_of(estate, tmp_path, server=False)[0].flows) == 24


def test_a_syn_that_was_not_forwarded_has_no_flow(tmp_path):
    estate = Estate()
    estate.syn(1.0, "10.1.0.5", 40000, None, isn=5)
    estate.syn(1.5, "10.1.0.6", 40000, 2000, isn=6)
    joined, _ = joined_of(estate, tmp_path)
    assert [four(f)[0] for f in joined.flows] == ["10.1.0.6"]


@pytest.mark.parametrize("tsval_out", [None, 123456])
def test_stripped_or_shifted_stamps_leave_the_isn_as_strong_proof(tmp_path, tsval_out):
    estate = Estate()
    for n in range(3):
        estate.syn(n, f"10.1.0.{n + 1}", 40000, 2000 + n, isn=5000 + 77 * n, tsval=900, tsval_out=tsval_out)
    joined, _ = joined_of(estate, tmp_path)
    assert {(four(f)[0], four(f)[5]) for f in joined.flows} == {(f"10.1.0.{n + 1}", 2000 + n) for n in range(3)}
    assert set(words(joined)) == {("layer4", "strong")}


def test_equal_syns_pair_in_their_order_even_a_millisecond_apart(tmp_path):
    estate = Estate()
    for n in range(40):
        estate.syn(0.0005 * n, f"10.1.0.{n + 1}", 40000, 2000 + n, isn=42 if n < 6 else 500 + n, tsval=900)
    joined, _ = joined_of(estate, tmp_path)
    assert {(four(f)[0], four(f)[5]) for f in joined.flows} == {(f"10.1.0.{n + 1}", 2000 + n) for n in range(40)}


def test_the_servers_leg_stamped_too_early_by_another_tap_still_pairs(tmp_path):
    estate = Estate()
    for n in range(8):
        estate.syn(n, f"10.1.0.{n + 1}", 40000, 2000 + n, isn=111 + n, tsval=900)
    estate.server_side[1] = replace(estate.server_side[1], time=0.999)
    joined, _ = joined_of(estate, tmp_path)
    assert {(four(f)[0], four(f)[5]) for f in joined.flows} == {(f"10.1.0.{n + 1}", 2000 + n) for n in range(8)}


def test_the_client_side_alone_pairs_with_the_servers_capture(tmp_path):
    estate = Estate()
    for n in range(3):
        estate.syn(n, f"10.1.0.{n + 1}", 40000, 2000 + n, isn=5000 + n, tsval=900, ipid=10 + n)
    joined, _ = joined_of(estate, tmp_path, lb="client", server_clock=-3600.0)
    assert {(four(f)[0], four(f)[5]) for f in joined.flows} == {(f"10.1.0.{n + 1}", 2000 + n) for n in range(3)}
    assert set(joined.flows["lb_conn"]) == {-1} and -1 not in joined.flows["server_conn"]


def test_a_syn_proxy_keeps_the_isn_and_speaks_later(tmp_path):
    estate = Estate()
    for n in range(8):
        client, isn = f"10.1.0.{n + 1}", 1000 * n
        estate.syn(n, client, 40000, 2000 + n, isn=isn, tsval=900, tsval_out=900 + n % 2, ipid=2 * n + 1, ipid_out=99)
        estate.server_side[-1] = replace(estate.server_side[-1], time=n + 0.003)
        answer = Segment(n + 0.0001, VIP, 80, client, 40000, S | A, 7, ack=isn + 1)
        estate.client_side += [answer, Segment(n + 0.002, client, 40000, VIP, 80, A, isn + 1, ack=8)]
    joined, _ = joined_of(estate, tmp_path, server=False)
    assert {(four(f)[0], four(f)[5]) for f in joined.flows} == {(f"10.1.0.{n + 1}", 2000 + n) for n in range(8)}
    assert {kind for kind, _ in words(joined)} == {"synproxy"}


def test_a_few_named_packets_among_unnamed_ones_do_no_harm(tmp_path):
    estate = Estate()
    estate.syn(0, "10.1.0.5", 40000, 2000, isn=1, ipid=5)
    for n in range(5):
        estate.syn(1 + n, "10.1.0.6", 40000 + n, 2001 + n, isn=100 + n, tsval=None)
        estate.client_side.append(Segment(1.5 + n, "10.1.0.6", 50000 + n, "192.0.2.99", 443, S, 9000 + n))
    joined, _ = joined_of(estate, tmp_path, server=False)
    assert len(joined.flows) == 6


@pytest.mark.parametrize("clock", [0.0, 5000.0])
def test_an_isn_rewritten_behind_the_balancer_is_found_by_four_numbers_and_time(tmp_path, clock):
    estate = Estate()
    for n in range(12):  # three ports in turn: every one is used four times
        estate.syn(0.7 * n, f"10.1.0.{n + 1}", 40000, 2000 + n % 3, isn=100 + n, isn_there=9000 + 31 * n)
    joined, seen = joined_of(estate, tmp_path, server_clock=clock)
    isn_there = seen[1].tracked.syns.to_array()["isn"]
    got = {four(f)[0]: int(isn_there[f["server_conn"]]) for f in joined.flows}
    assert got == {f"10.1.0.{n + 1}": 9000 + 31 * n for n in range(12)}


def test_an_isn_rewritten_by_the_balancer_is_found_by_the_ip_id_that_it_leaves(tmp_path):
    estate = Estate()
    for n in range(20):
        estate.syn(
            0.3 * n, f"10.1.0.{n + 1}", 40000, 2000 + n, isn=100 + n, isn_out=9000 + 31 * n, tsval_out=5, ipid=300 + n
        )
    joined, _ = joined_of(estate, tmp_path)
    assert {(four(f)[0], four(f)[5]) for f in joined.flows} == {(f"10.1.0.{n + 1}", 2000 + n) for n in range(20)}
    assert set(words(joined)) == {("layer4", "strong")}


def test_ip_ids_that_agree_now_and_then_prove_nothing(tmp_path):
    estate = Estate()
    for n in range(20):
        out = 300 + n if n < 3 else 7000 + n
        estate.syn(
            0.3 * n, f"10.1.0.{n + 1}", 40000, 2000 + n, isn=100 + n, isn_out=9000 + 31 * n, ipid=300 + n, ipid_out=out
        )
    joined, _ = joined_of(estate, tmp_path)
    assert len(joined.flows) == 0


def proxied(count: int, gap: float, said, silent: int = 0) -> Estate:
    """A proxy that opens its own connection 0.4 ms after the client's."""
    estate = Estate()
    for n in range(count):
        payload = said(n) if n >= silent else b""
        ends = (f"10.1.0.{n + 1}", 40000, VIP, 80)
        talk(estate.client_side, n * gap, ends, 1000 + 3 * n, payload, payload[::-1])
        inner = (SNAT, 2000 + n, SERVER, 1120)
        talk(estate.server_side, n * gap + 0.0004, inner, 900_000 + 7 * n, payload, payload[::-1])
    return estate


def test_proxied_legs_pair_by_payload_and_silent_ones_are_left_open(tmp_path):
    joined, _ = joined_of(proxied(12, 0.05, lambda n: b"request %d" % n, silent=2), tmp_path, server=False)
    assert {(four(f)[0], four(f)[5]) for f in joined.flows} == {(f"10.1.0.{n + 1}", 2000 + n) for n in range(2, 12)}
    assert set(words(joined)) == {("layer7", "payload")}
    assert joined.notes[0][0] == "pairing" and joined.notes[0][1].startswith("2 connections")


def test_equal_payload_pairs_by_the_delay_that_the_proxy_has(tmp_path):
    joined, _ = joined_of(proxied(40, 0.05, lambda n: b"GET / HTTP/1.1"), tmp_path, server=False)
    assert {(four(f)[0], four(f)[5]) for f in joined.flows} == {(f"10.1.0.{n + 1}", 2000 + n) for n in range(40)}


def test_what_nothing_tells_apart_is_not_guessed(tmp_path):
    joined, _ = joined_of(proxied(30, 0.0, lambda n: b"GET / HTTP/1.1"), tmp_path, server=False)
    assert len(joined.flows) == 0
    assert joined.notes[0][1].startswith("30 connections")


def test_one_client_that_asks_two_servers_the_same_is_no_proxy(tmp_path):
    estate = Estate()
    for n in range(12):
        talk(estate.client_side, 0.1 * n, ("10.1.0.9", 40000 + n, VIP, 80), 1000 + n, b"hello %d" % n, b"x")
        talk(estate.client_side, 0.1 * n + 0.001, ("10.1.0.9", 50000 + n, SERVER, 80), 9000 + n, b"hello %d" % n, b"x")
    joined, _ = joined_of(estate, tmp_path, lb="client", server=False)
    assert len(joined.flows) == 0


def test_the_same_four_numbers_on_both_sides_are_a_direct_flow(tmp_path):
    estate = Estate()
    for n in range(3):
        estate.syn(n, f"10.1.0.{n + 1}", 40000, None, isn=100 + n, tsval=900, ipid=7 + n)
    frames = []
    for segment in estate.client_side:
        frame = bytearray(segment.frame())
        frames.append((round((1_500_000_000 + segment.time) * NS), bytes(frame)))
        frame[14 + 8] -= 1  # TTL: forwarded
        frames.append((frames[-1][0] + 50_000, bytes(frame)))
    path = tmp_path / "any.pcap"
    path.write_bytes(pcap(frames))
    joined = join([Seen("lb", "lb", track(open_capture([str(path)], "lb")))])
    assert set(words(joined)) == {("direct", "exact")} and len(joined.flows) == 3
    assert all(f["client_conn"] == f["lb_conn"] for f in joined.flows)


def test_two_taps_of_the_same_leg_are_no_load_balancer(tmp_path):
    estate = Estate()
    for n in range(3):
        estate.syn(n, f"10.1.0.{n + 1}", 40000, None, isn=100 + n, tsval=900, ipid=7 + n)
    estate.server_side = [replace(s, time=s.time + 0.0001) for s in estate.client_side]
    joined, _ = joined_of(estate, tmp_path, server=False)
    assert len(joined.flows) == 0


def test_without_a_load_balancers_capture_there_are_no_flows(tmp_path):
    estate = Estate()
    estate.syn(1.0, "10.1.0.5", 40000, 2000, isn=111, tsval=900)
    joined = join(estate.seen(tmp_path)[1:])
    assert len(joined.flows) == 0 and len(joined.paths["server"]) == 1


TRUTH = {
    "M2a_tw_reuse": 1.0,
    "M2d_tw_lb_drops_ack": 1.0,
    "M4a_loss_before": 1.0,
    "M4j_snat_exhausted": 1.0,
    "M6a_strip_ts": 1.0,
    "M6c_isn_ts_rewrite": 0.99,
    "M7b_vlan": 1.0,
    "M5a_haproxy": 0.98,
    "M5d_nginx": 0.98,
}


@pytest.mark.parametrize("scenario", TRUTH)
@pytest.mark.parametrize("servers", [True, False])
def test_real_load_balancers_tables_are_rebuilt(shared, scenario, servers):
    folder = shared / "captures" / "modern" / scenario
    files = [str(folder / name) for name in ("lb_client.pcap", "lb_server.pcap")]
    seen = [Seen("lb", "lb", track(open_capture(files, "lb", digests=True)))]
    for name in ("s1", "s2") if servers else ():
        seen.append(Seen(name, "server", track(open_capture([str(folder / f"{name}.pcap")], name))))
    got = {four(flow) for flow in join(seen).flows}
    names = ("client_ip", "client_port", "vip", "vport", "snat_ip", "snat_port", "server_ip", "server_port")
    truth = _truth(folder / "snat_truth.csv", names)
    if not truth:
        truth = _truth(folder / "app_truth.csv", [n.replace("snat_", "backend_src_") for n in names])
    assert got <= truth
    assert len(got & truth) >= TRUTH[scenario] * len(truth)


def _truth(path, names):
    with path.open() as lines:
        rows = [[row[name] for name in names] for row in csv.DictReader(lines)]
    return {tuple(int(v) if i % 2 else v for i, v in enumerate(row)) for row in rows if all(row)}


def test_the_order_of_captures_changes_no_flow(shared):
    folder = shared / "captures" / "modern" / "M2a_tw_reuse"
    files = [str(folder / name) for name in ("lb_client.pcap", "lb_server.pcap")]
    seen = [Seen("lb", "lb", track(open_capture(files, "lb")))]
    seen += [Seen(n, "server", track(open_capture([str(folder / f"{n}.pcap")], n))) for n in ("s1", "s2")]
    one, other = join(seen).flows, join(seen[::-1]).flows
    assert Counter(map(four, one)) == Counter(map(four, other))
    assert sorted(one["server_conn"].tolist()) == sorted(other["server_conn"].tolist())
