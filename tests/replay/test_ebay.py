"""The case it all comes from, written by hand: the logging system's server on port 1120."""

import pytest

from analyzer.capture import open_capture
from analyzer.connections import track
from analyzer.kernel.profiles import find_profile
from analyzer.kernel.rules import RULE_NAMES
from analyzer.kernel.settings import Settings
from analyzer.replay.run import replay
from analyzer.schema import VERDICTS
from analyzer.units import NS
from tests.frames import A, F, P, R, S, Segment, write

LB, SERVER = "10.2.0.5", "10.2.0.80"
LEAD_IN = 100  # so that nothing hangs on what was before the capture
REMEMBERED = 517740536
BEHIND = 481284815


def close_by_server(port=33000, isn=7000, at=18.0, tsval=REMEMBERED):
    """A long connection that the server closes; the LB's ACK of its FIN brings *tsval* at second *at*."""

    def lb(time, flags, seq, ack=0, stamp=tsval, payload=b""):
        return Segment(LEAD_IN + time, LB, port, SERVER, 1120, flags, seq, ack, stamp, 1, payload)

    def server(time, flags, seq, ack, payload=b""):
        return Segment(LEAD_IN + time, SERVER, 1120, LB, port, flags, seq, ack, 99, tsval, payload)

    return [
        lb(1, S, isn, 0, tsval - 17000),
        server(1.0002, S | A, 500, isn + 1),
        lb(1.001, A, isn + 1, 501, tsval - 16999),
        lb(2, P | A, isn + 1, 501, tsval - 16000, b"log line"),
        server(2.001, P | A, 501, isn + 9, b"ok"),
        lb(2.002, A, isn + 9, 503, tsval - 15998),
        server(at - 0.001, F | A, 503, isn + 9),
        lb(at, A, isn + 9, 504, tsval),
        lb(at + 0.0005, F | A, isn + 9, 504, tsval),
        server(at + 0.0006, A, 504, isn + 10),
    ]


def syns(at, tsval, port=33000):
    """Three SYNs, no answer, and the LB's RST after 15 s."""
    tries = [Segment(LEAD_IN + at + d, LB, port, SERVER, 1120, S, 88000, 0, tsval + round(d * 1000)) for d in (0, 3, 9)]
    return [*tries, Segment(LEAD_IN + at + 15, LB, port, SERVER, 1120, R, 88001)]


@pytest.fixture
def verdict_of(tmp_path):
    def judge(segments, kernel="3.10.0-693.11.1.el7.x86_64", recycle=1, dual_stack=0):
        start = Segment(0, "10.9.9.9", 5, SERVER, 1120, A, 1)
        tracked = track(open_capture([str(write(tmp_path / "ebay.pcap", [start, *segments]))], "server"))
        replayed = replay(
            tracked, find_profile(kernel), Settings(tw_recycle=recycle, backlog=1024, dual_stack=dual_stack)
        )
        index = next(i for i, row in enumerate(tracked.syns.to_array()) if row["isn"] == 88000)
        row = replayed.verdicts.to_array()[index]
        return VERDICTS[int(row["verdict"])], RULE_NAMES[int(row["rule"])], row

    return judge


def test_the_syn_of_second_60_is_dropped(verdict_of):
    verdict, rule, row = verdict_of([*close_by_server(), *syns(60, BEHIND)])
    assert (verdict, rule) == ("drop", "peer_timestamp")
    assert row["certainty"] == 2
    assert row["peer_tsval"] == REMEMBERED
    assert row["tsval_delta"] == -36455721
    assert round(row["stamp_age"] / NS, 2) == 42.0


def test_it_is_taken_at_second_78(verdict_of):
    assert verdict_of([*close_by_server(), *syns(78, BEHIND)])[:2] == ("accept", "listener")
    assert verdict_of([*close_by_server(), *syns(77.9, BEHIND)])[0] == "drop"


def test_one_tick_behind_is_tolerated(verdict_of):
    assert verdict_of([*close_by_server(), *syns(60, REMEMBERED - 1)])[0] == "accept"
    assert verdict_of([*close_by_server(), *syns(60, REMEMBERED - 2)])[0] == "drop"


def test_another_port_is_dropped_too(verdict_of):
    assert verdict_of([*close_by_server(), *syns(60, BEHIND, port=44444)])[0] == "drop"


def test_nothing_is_remembered_without_tw_recycle(verdict_of):
    """The SYN then meets the TIME-WAIT of its own four numbers: a bare ACK."""
    assert verdict_of([*close_by_server(), *syns(60, BEHIND)], recycle=0)[:2] == ("ack", "time_wait_paws")
    assert verdict_of([*close_by_server(), *syns(60, BEHIND, port=44444)], recycle=0)[0] == "accept"


def test_vanilla_3_10_never_checks_ipv4_clients_of_a_dual_stack_listener(verdict_of):
    """The kernel that the article quotes would not have dropped it behind a ``::`` listener; RHEL 7 does."""
    case = [*close_by_server(), *syns(60, BEHIND, port=44444)]
    assert verdict_of(case, "3.10.108")[0] == "drop"
    assert verdict_of(case, "3.10.108", dual_stack=1)[0] == "accept"
    assert verdict_of(case, dual_stack=1)[0] == "drop"


def test_nothing_is_remembered_from_4_12_on(verdict_of):
    assert verdict_of([*close_by_server(), *syns(60, BEHIND, port=44444)], kernel="4.12")[0] == "accept"


def test_a_close_by_the_client_leaves_no_memory(verdict_of):
    def seg(time, src, flags, seq, ack=0):
        ends = (LB, 33000, SERVER, 1120) if src == LB else (SERVER, 1120, LB, 33000)
        return Segment(LEAD_IN + time, *ends, flags, seq, ack, REMEMBERED if src == LB else 99, 1)

    segments = [
        seg(1, LB, S, 7000), seg(1.001, SERVER, S | A, 500, 7001), seg(1.002, LB, A, 7001, 501),
        seg(17, LB, F | A, 7001, 501), seg(17.01, SERVER, F | A, 501, 7002), seg(18, LB, A, 7002, 502),
    ]  # fmt: skip
    assert verdict_of([*segments, *syns(60, BEHIND)])[:2] == ("accept", "listener")


def test_a_lower_close_in_between_does_not_lower_the_memory(verdict_of):
    lower = close_by_server(port=33001, isn=9000, at=30.0, tsval=BEHIND - 1000)
    verdict, _, row = verdict_of([*close_by_server(), *lower, *syns(60, BEHIND)])
    assert (verdict, row["peer_tsval"]) == ("drop", REMEMBERED)


def test_a_missing_lead_in_is_said(tmp_path):
    """Without the minute before, a taken SYN may have been refused by what was remembered before."""
    path = write(tmp_path / "short.pcap", syns(0, BEHIND))
    tracked = track(open_capture([str(path)], "server"))
    replayed = replay(tracked, find_profile("el7.9"), Settings(tw_recycle=1, backlog=1024))
    row = replayed.verdicts.to_array()[0]
    assert (VERDICTS[int(row["verdict"])], row["certainty"]) == ("accept", 1)
    assert "lead-in missing" in replayed.reasons[int(row["reason"])]
