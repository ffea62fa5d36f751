"""What was before the capture, written by hand."""

import pytest

from analyzer.capture import open_capture
from analyzer.connections import track
from analyzer.kernel.profiles import find_profile
from analyzer.kernel.rules import RULE_NAMES
from analyzer.kernel.settings import Settings
from analyzer.replay.run import Scope, replay
from analyzer.schema import CERTAINTIES, VERDICTS
from tests.frames import A, F, P, R, S, Segment, write

C, V = "10.0.0.1", "10.0.0.2"
START = Segment(0, "10.9.9.9", 5, V, 1120, A, 1)


def c(time, flags, seq, ack=0, tsval=None, payload=b"", port=40000):
    return Segment(time, C, port, V, 1120, flags, seq, ack, tsval, 1, payload)


def v(time, flags, seq, ack=0, tsecr=0, payload=b"", ipid=0):
    return Segment(time, V, 1120, C, 40000, flags, seq, ack, 9, tsecr, payload, ipid)


@pytest.fixture
def judge(tmp_path):
    def run(segments, kernel="6.1", recycle=0, **scope):
        path = write(tmp_path / "x.pcap", sorted([START, *segments], key=lambda s: s.time))
        tracked = track(open_capture([str(path)], "server"))
        said = replay(tracked, find_profile(kernel), Settings(tw_recycle=recycle, backlog=128), Scope(**scope))
        return [
            (VERDICTS[int(r["verdict"])], CERTAINTIES[int(r["certainty"])], RULE_NAMES[int(r["rule"])])
            for r in said.verdicts.to_array()
        ]

    return run


def test_a_fresh_syn_is_only_possible_in_the_first_minute(judge):
    assert judge([c(30, S, 100, tsval=5)]) == [("accept", "possible", "listener")]
    assert judge([c(61, S, 100, tsval=5)]) == [("accept", "certain", "listener")]


def test_unless_something_proves_that_there_was_nothing(judge):
    assert judge([c(30, S, 100, tsval=5)], known_empty=True) == [("accept", "certain", "listener")]


def test_each_refusal_may_keep_a_time_wait_from_before_alive(judge):
    """Retries at 50, 100 and 150 s: each may have met the same re-armed bucket."""
    said = judge([c(t, S, 100 + 7 * t, tsval=5) for t in (50, 100, 150)])
    assert [certainty for _, certainty, _ in said] == ["possible"] * 3


def test_a_connection_from_before_the_capture_leaves_its_reuse_open(judge):
    """Its FIN may have gone unseen: still open, closing, or gone."""
    said = judge([c(70, P | A, 500, 900, 50, b"x"), v(70.1, A, 900, 501, 50), c(90, S, 7000, tsval=40)])
    assert said[0][:2] == ("ack", "possible")


def test_its_close_inside_the_capture_settles_it(judge):
    closing = [v(70, F | A, 900, 501, 50), c(70.01, F | A, 501, 901, 51), v(70.02, A, 901, 502, 51)]
    assert judge([c(65, P | A, 500, 900, 50, b"x"), *closing, c(90, S, 7000, tsval=40)])[0] == (
        "ack",
        "certain",
        "time_wait_paws",
    )


def test_a_bare_ack_shows_what_was_not_seen(judge):
    """The refusal tells numbers and timestamp of something unseen; the client's RST then clears it."""
    refused = [c(30, S, 7000, tsval=40), v(30.001, A, 900, 555, tsecr=99)]
    again = judge([*refused, c(31, S, 7000, tsval=41)])
    assert again[1][1] == "possible"
    cleared = judge([*refused, c(30.002, R, 555), c(31, S, 7000, tsval=41)])
    assert cleared[1][0] == "accept"


def test_a_full_socket_answers_with_a_counting_ip_id(judge):
    """FIN_WAIT2 after shutdown(): an ACK with an IP id to a SYN, so nothing was remembered at the ACK of the FIN.

    A close() since then would have written what no packet shows.
    """
    far = 100
    old = [
        c(far, S, 100, tsval=5000), v(far + 0.001, S | A, 900, 101, 5000), c(far + 0.002, A, 101, 901, 5001),
        v(far + 1, F | A, 901, 101, 5001), c(far + 1.001, A, 101, 902, 6000),
    ]  # fmt: skip
    low = c(far + 3, S, 9000, tsval=10, port=50000)
    assert judge([*old, low], "el7.9", 1)[1][:2] == ("drop", "possible")
    probe = [c(far + 2, S, 8000, tsval=7000), v(far + 2.001, A, 902, 101, 6000, ipid=777)]
    assert judge([*old, *probe, low], "el7.9", 1)[2] == ("accept", "possible", "listener")


def server_closes(at, isn=100):
    """A connection without timestamps that the server closes; TIME_WAIT from *at* + 1.01 s on."""
    return [
        c(at, S, isn), Segment(at + 0.001, V, 1120, C, 40000, S | A, 900, isn + 1), c(at + 0.002, A, isn + 1, 901),
        Segment(at + 1, V, 1120, C, 40000, F | A, 901, isn + 1), c(at + 1.01, F | A, isn + 1, 902),
        Segment(at + 1.011, V, 1120, C, 40000, A, 902, isn + 2),
    ]  # fmt: skip


def test_a_held_back_ack_keeps_the_name_of_its_rule(judge):
    said = judge([*server_closes(100, isn=5000), c(110, S, 70), c(110.1, S, 60)])
    assert [rule for *_, rule in said[1:]] == ["time_wait_sequence", "time_wait_sequence_rate_limited"]
    assert said[2][:2] == ("drop", "certain")


def test_a_late_segment_does_not_bring_back_a_bucket_for_certain(judge):
    """On timer slots a TIME-WAIT lasts 52.5 to 60 s: at 55 s nobody knows whether the late FIN still met it."""
    late = c(100 + 56, F | A, 5001, 902)
    assert judge([*server_closes(100, isn=5000), late, c(170, S, 70)], "3.4")[1][:2] == ("ack", "possible")
    early = c(100 + 30, F | A, 5001, 902)
    assert judge([*server_closes(100, isn=5000), early, c(170, S, 70)], "3.4")[1][:2] == ("ack", "certain")
