"""A clock set back, and closes that no packet shows."""

import numpy as np
import pytest

from analyzer.capture import open_capture
from analyzer.connections import track
from analyzer.kernel.profiles import find_profile
from analyzer.kernel.settings import Settings
from analyzer.replay import run
from analyzer.replay.clock import steps_of
from analyzer.replay.run import replay
from analyzer.schema import CERTAINTIES, VERDICTS
from tests.frames import A, F, S, Segment, write
from tests.replay.real import capture, settings
from tests.replay.test_ebay import BEHIND, LB, LEAD_IN, REMEMBERED, SERVER, close_by_server

START = Segment(0, "10.9.9.9", 5, SERVER, 1120, A, 1)


def low(at, port=50000):
    return Segment(LEAD_IN + at, LB, port, SERVER, 1120, S, 88000, 0, BEHIND)


@pytest.fixture
def last(tmp_path):
    """Verdict and certainty of the last SYN; segments stand in order of arrival."""

    def judge(segments, kernel="el7.9", **values):
        tracked = track(open_capture([str(write(tmp_path / "x.pcap", [START, *segments]))], "server"))
        said = replay(tracked, find_profile(kernel), Settings(tw_recycle=1, backlog=128, **values))
        row = said.verdicts.to_array()[-1]
        return VERDICTS[int(row["verdict"])], CERTAINTIES[int(row["certainty"])]

    return judge


def test_a_stamp_of_the_future_rejects_nothing_until_the_clock_passes_it_again(last):
    """The stamp is of second 18; then the clock is set back by 20 s."""
    assert last([*close_by_server(), low(4)])[0] == "accept"
    assert last([*close_by_server(), low(4, 50001), low(25)])[0] == "drop"
    assert last([*close_by_server(), low(4)], "el6")[0] == "drop", "wide seconds: the future is fresh"


def test_a_clock_set_forward_ends_the_minute(last):
    assert last([*close_by_server(), low(18 + 120)])[0] == "accept"


def test_after_a_step_back_what_was_before_the_capture_may_be_fresh_again(last):
    far = [Segment(200, LB, 7, SERVER, 1120, S, 1, 0, BEHIND), Segment(20, LB, 8, SERVER, 1120, S, 1, 0, BEHIND)]
    assert last(far[:1]) == ("accept", "certain")
    assert last(far)[1] == "possible"


def test_times_are_made_straight_and_told_on_the_captures_clock(tmp_path):
    path = write(tmp_path / "x.pcap", [START, *close_by_server(), low(4)])
    tracked = track(open_capture([str(path)], "server"))
    steps = steps_of(tracked)
    times = [ev.time for ev in run.events_of(tracked)]
    assert times == sorted(times)
    assert len(steps.events) == 1
    assert [steps.wall(t) for t in times] == tracked.events.to_array()["time"].tolist()


def shut_down(at, tsval=6000):
    """The server sends its FIN, the client acknowledges it and stays."""

    def seg(time, src, flags, seq, ack=0, stamp=0):
        ends = (LB, 33000, SERVER, 1120) if src == LB else (SERVER, 1120, LB, 33000)
        return Segment(LEAD_IN + time, *ends, flags, seq, ack, stamp, 1)

    return [
        seg(at, LB, S, 100, 0, tsval - 9), seg(at + 0.001, SERVER, S | A, 900, 101, 1),
        seg(at + 0.002, LB, A, 101, 901, tsval - 8), seg(at + 1, SERVER, F | A, 901, 101, 2),
        seg(at + 1.01, LB, A, 101, 902, tsval),
    ]  # fmt: skip


def behind(at):
    return Segment(LEAD_IN + at, LB, 50000, SERVER, 1120, S, 88000, 0, 10)


def test_a_long_fin_timeout_delays_the_write(last):
    """tcp_fin_timeout = 120: a full socket for a minute writes nothing, then perhaps a bucket with an old stamp."""
    assert last([*shut_down(1), behind(4)], fin_timeout=60) == ("drop", "possible")
    assert last([*shut_down(1), behind(4)], fin_timeout=120) == ("accept", "certain")
    assert last([*shut_down(1), behind(70)], fin_timeout=120)[0] == "accept"
    assert last([*shut_down(1), behind(34)], fin_timeout=90) == ("drop", "possible")


def test_an_overflow_of_buckets_writes_the_stamp_all_the_same(last):
    assert last([*close_by_server(), low(25)], max_tw_buckets=1) == ("drop", "certain")


def test_without_a_bucket_a_reuse_is_open(last):
    again = Segment(LEAD_IN + 18.3, LB, 33000, SERVER, 1120, S, 88000, 0, BEHIND)
    assert last([*close_by_server(), again], max_tw_buckets=100) == ("ack", "certain")
    assert last([*close_by_server(), again], max_tw_buckets=1)[1] == "possible"


def test_a_server_without_timestamps_drops_every_syn_of_a_fresh_peer(last):
    """The option is ignored: each SYN is one without timestamps, however high its own."""
    higher = Segment(LEAD_IN + 25, LB, 50000, SERVER, 1120, S, 88000, 0, REMEMBERED + 9000)
    assert last([*close_by_server(), higher], timestamps=0) == ("drop", "certain")
    assert last([*close_by_server(), higher], "3.10", timestamps=0) == ("accept", "certain")
    assert last([*close_by_server(), higher]) == ("accept", "certain")


@pytest.mark.parametrize(("name", "kernel"), [("el7-recycle", "el7.9"), ("v3.10-recycle", "3.10.108")])
def test_what_is_screened_out_changes_no_verdict(monkeypatch, name, kernel):
    quick = replay(capture(name), find_profile(kernel), settings(name))
    monkeypatch.setattr(run, "screen", lambda *_: None)
    slow = replay(capture(name), find_profile(kernel), settings(name))
    for column in ("verdict", "certainty", "rule", "peer_tsval"):
        assert np.array_equal(quick.verdicts.to_array()[column], slow.verdicts.to_array()[column]), column
    assert len(quick.peer_states) == len(slow.peer_states)
