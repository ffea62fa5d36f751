"""Queues: what the answers to earlier SYNs show, and that a SYN's own answer never judges it."""

from copy import copy
from dataclasses import replace

import numpy as np
import pytest

from analyzer.capture import open_capture
from analyzer.connections import track
from analyzer.kernel.profiles import find_profile
from analyzer.kernel.rules import RULE_NAMES
from analyzer.kernel.settings import Settings
from analyzer.replay.backlog import AcceptQueue, Requests
from analyzer.replay.run import replay
from analyzer.schema import ACK, SYN, VERDICTS
from analyzer.spool import Spool
from analyzer.units import NS
from tests.frames import A, P, S, Segment, write

SERVER = "10.0.0.9"
OLD = Segment(0, "10.9.9.9", 5, SERVER, 80, A, 1)


def syn(number, at, net="10.0.1"):
    return Segment(at, f"{net}.{number + 1}", 5000, SERVER, 80, S, 1000, 0, 5)


def syn_ack(number, at, net="10.0.1"):
    return Segment(at, SERVER, 80, f"{net}.{number + 1}", 5000, S | A, 9, 1001, 7, 5)


@pytest.fixture
def seen(tmp_path):
    def run(segments):
        path = write(tmp_path / "x.pcap", sorted([OLD, *segments], key=lambda s: s.time))
        return track(open_capture([str(path)], "server"))

    return run


def rules_of(tracked, kernel, settings):
    rows = replay(tracked, find_profile(kernel), settings).verdicts.to_array()
    return [(VERDICTS[int(r["verdict"])], RULE_NAMES[int(r["rule"])]) for r in rows]


FEW = Settings(tw_recycle=0, syncookies=0, max_syn_backlog=64, backlog=128)


def flood(count, answered):
    """One SYN every 50 ms from 100 s on; only the first *answered* get a SYN-ACK."""
    answers = [syn_ack(i, 100.001 + i / 20) for i in range(answered)]
    return [*(syn(i, 100 + i / 20) for i in range(count)), *answers]


def test_the_last_quarter_begins_when_49_of_64_are_half_open(seen):
    said = rules_of(seen(flood(80, 49)), "el7.9", FEW)
    assert said[48] == ("accept", "listener")
    assert set(said[49:]) == {("drop", "last_quarter")}


def test_silence_before_outweighs_settings_that_were_changed(seen):
    """With tcp_tw_recycle=1 the last quarter does not exist; the SYNs before show that it does."""
    said = rules_of(seen(flood(80, 49)), "el7.9", replace(FEW, tw_recycle=1))
    assert said[49] == ("accept", "listener")
    assert set(said[58:]) == {("drop", "last_quarter")}


def test_requests_that_got_no_syn_ack_fill_no_queue(seen):
    said = rules_of(seen(flood(200, 20)), "el7.9", replace(FEW, tw_recycle=1))
    assert said[-1] == ("accept", "listener")


def test_a_network_without_answers_is_one_without_a_route(seen):
    near = [*(syn(i, 100 + i / 4, "10.0.1") for i in range(20)), *(syn_ack(i, 100.001 + i / 4) for i in range(20))]
    far = [syn(i, 100.1 + i / 4, "172.17.0") for i in range(20)]
    said = rules_of(seen([*near, *far]), "4.9.337", replace(FEW, syncookies=1, backlog=32))
    assert set(said[0::2]) == {("accept", "listener")}
    assert set(said[9::2]) == {("drop", "no_route")}


def up_to(tracked, syns):
    """The capture cut off right after a number of SYNs; their answers are gone."""
    early = copy(tracked)
    events = tracked.events.to_array()
    where = np.flatnonzero((events["flags"] & (SYN | ACK)) == SYN)[syns - 1]
    early.events, early.syns = Spool(tracked.events.table), Spool(tracked.syns.table)
    early.events.append(events[: where + 1])
    rows = tracked.syns.to_array()[:syns].copy()
    late = rows["answer_time"] > events["time"][where]
    rows["answer"][late], rows["answer_time"][late] = 0, -(2**63)
    early.syns.append(rows)
    return early


@pytest.mark.parametrize("count", [30, 50, 55, 80])
def test_no_syn_is_judged_by_its_own_answer(seen, count):
    tracked, settings = seen(flood(80, 49)), replace(FEW, tw_recycle=1)
    assert rules_of(up_to(tracked, count), "el7.9", settings) == rules_of(tracked, "el7.9", settings)[:count]


def test_a_crowded_queue_gives_old_requests_up_after_two_timeouts():
    requests = Requests(limit=32, retries=5)
    for chain in range(20):
        requests.add(chain, chain)
    requests.run_timers(7 * NS - 1)
    assert (len(requests), requests.young) == (20, 0)
    requests.run_timers(7 * NS + 30)
    assert len(requests) < 20
    assert requests.most == 20
    requests.none_given_up()
    assert len(requests) == 20


def test_a_quiet_queue_keeps_requests_for_63_seconds():
    requests = Requests(limit=128, retries=5)
    requests.add(1, 0)
    requests.run_timers(63 * NS - 1)
    assert len(requests) == 1
    requests.run_timers(63 * NS)
    assert (len(requests), requests.most) == (0, 0)


def test_only_requests_whose_syn_ack_was_seen_lately_are_sure():
    requests = Requests(limit=128, retries=5)
    requests.add(1, 0)
    requests.confirm(2, 1)
    assert (len(requests), requests.least(5)) == (2, 1)
    assert requests.least(7 * NS + 1) == 0
    requests.deny(1, 0)
    assert len(requests) == 1


def test_the_accept_queue_empties_in_order():
    queue = AcceptQueue()
    for chain in range(5):
        queue.add(chain)
    queue.taken(2)
    assert len(queue) == 2
    queue.had_room(4, backlog=0)
    assert queue.hidden_accepts == 1
    queue.taken(1)
    assert len(queue) == 2


def test_an_answered_syn_shows_that_the_queue_had_room():
    requests = Requests(limit=4, retries=5)
    for chain in range(6):
        requests.add(chain, chain)
    requests.none_given_up()
    requests.had_room(4)
    assert len(requests) == requests.most == 4
    assert not requests.remove(1)
    assert requests.remove(2)


def test_a_handshake_that_was_not_predicted_leaves_the_queue(seen):
    """Late timers keep old requests longer than counted: silence shows it, an answer later that there is room again."""
    few = replace(FEW, backlog=4, max_syn_backlog=2048)
    late = [syn(30, 107.4), syn(31, 107.45)]
    honest = [
        segment
        for n in range(20, 26)
        for segment in (
            syn(n, 106 + n / 10),
            syn_ack(n, 106 + n / 10 + 0.001),
            Segment(106 + n / 10 + 0.002, f"10.0.1.{n + 1}", 5000, SERVER, 80, A, 1001, 10, 5, 7),
            Segment(106 + n / 10 + 0.003, SERVER, 80, f"10.0.1.{n + 1}", 5000, P | A, 10, 1001, 7, 5, b"x"),
        )
    ]
    rows = replay(seen([*flood(5, 5), *late, *honest]), find_profile("6.18"), few).verdicts.to_array()
    words = [VERDICTS[int(r["verdict"])] for r in rows[-6:]]
    assert words == ["drop", *["accept"] * 5]
    assert rows["certainty"][-6] == 1
