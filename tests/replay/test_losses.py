"""A capture that lacks packets, and answers that contradict: what was certain becomes possible, for a while."""

import pytest

from analyzer.capture import open_capture
from analyzer.connections import track
from analyzer.kernel.profiles import find_profile
from analyzer.kernel.settings import Settings
from analyzer.replay.doubt import REFUTED, UNANSWERED, doubt_refuted
from analyzer.replay.losses import AFTER, LACKS, losses_of
from analyzer.replay.run import Scope, replay
from analyzer.schema import CERTAINTIES, VERDICTS
from analyzer.units import NS
from tests.frames import A, F, P, S, Segment, write

SERVER, CLIENT = "10.0.0.9", "10.0.0.1"
BACKLOG = Settings(backlog=1024)


def c(at, flags, seq, ack=0, payload=b"", port=40000, tsval=1000, src=CLIENT):
    return Segment(at, src, port, SERVER, 80, flags, seq, ack, tsval, 1, payload)


def s(at, flags, seq, ack, payload=b"", port=40000, dst=CLIENT):
    return Segment(at, SERVER, 80, dst, port, flags, seq, ack, 1, 1000, payload)


def talk(at, port):
    """Handshake, one request, its answer, and a close that the client begins."""
    return [
        c(at, S, 100, port=port), s(at + 0.001, S | A, 900, 101, port=port), c(at + 0.002, A, 101, 901, port=port),
        c(at + 0.003, P | A, 101, 901, b"question", port=port), s(at + 0.004, A, 901, 109, port=port),
        s(at + 0.005, P | A, 901, 109, b"answer", port=port), c(at + 0.006, A, 109, 907, port=port),
        c(at + 0.1, F | A, 109, 907, port=port), s(at + 0.101, F | A, 907, 110, port=port),
        c(at + 0.102, A, 110, 908, port=port),
    ]  # fmt: skip


@pytest.fixture
def seen(tmp_path):
    def run(segments):
        path = write(tmp_path / "x.pcap", sorted(segments, key=lambda segment: segment.time))
        return track(open_capture([str(path)], "server"))

    return run


def judged(tracked, doubted=False):
    replayed = replay(tracked, find_profile("6.1"), BACKLOG, Scope(known_empty=True))
    if doubted:
        doubt_refuted(tracked, replayed)
    rows = replayed.verdicts.to_array()
    words = [(VERDICTS[int(r["verdict"])], CERTAINTIES[int(r["certainty"])]) for r in rows]
    return words, [replayed.reasons[int(r["reason"])] for r in rows]


WHOLE = [segment for n, at in enumerate((1, 100, 130, 200)) for segment in talk(at, 40000 + n)]


def test_a_whole_capture_lacks_nothing(seen):
    tracked = seen(WHOLE)
    assert not losses_of(tracked, at_server=True)
    assert judged(tracked)[0][1:] == [("accept", "certain")] * 3


@pytest.mark.parametrize("missing", [1, 3, 5], ids=["SYN-ACK", "request", "answer"])
def test_an_acknowledgement_of_what_was_not_seen_is_a_loss(seen, missing):
    tracked = seen([segment for n, segment in enumerate(WHOLE) if n != 10 + missing])
    assert losses_of(tracked, at_server=True)
    words, reasons = judged(tracked)
    assert words[2] == ("accept", "possible")
    assert reasons[2] == LACKS
    assert words[3] == ("accept", "certain")


def test_loss_on_the_network_is_repaired_in_sight(seen):
    again = [c(100.5, P | A, 101, 901, b"question", port=40001), s(100.6, A, 901, 109, port=40001)]
    cut = [segment for n, segment in enumerate(WHOLE) if n not in (13, 14, 15, 16, 17, 18, 19)]
    assert not losses_of(seen([*cut, c(100.4, P | A, 109, 901, b"more", port=40001), *again]), at_server=True)


def test_what_was_missing_is_forgotten_after_a_minute(seen):
    tracked = seen([segment for n, segment in enumerate(WHOLE) if n != 13])
    losses = losses_of(tracked, at_server=True)
    time = round((1_500_000_000 + 100.004) * NS)
    assert losses.near(time)
    assert losses.near(time + AFTER - NS)
    assert not losses.near(time + AFTER + NS)
    assert losses.since(time - NS, time + 1000 * NS)
    assert not losses.since(time + 100 * NS, time + 1000 * NS)


def test_a_connection_that_was_open_then_may_have_ended_unseen(seen):
    still_open = talk(1, 50000)[:7]
    lossy = [segment for n, segment in enumerate(talk(20, 40001)) if n != 5]
    late = c(300, S, 5000, port=50000)
    assert judged(seen([*still_open, late]))[0][-1] == ("ack", "certain")
    assert judged(seen([*still_open, *lossy, late]))[0][-1] == ("ack", "possible")


def test_an_answer_that_contradicts_takes_the_certainty_of_later_syns_only(seen):
    still_open = talk(1, 50000)[:7]
    refuting = [c(50, S, 5000, port=50000), s(50.001, S | A, 7000, 5001, port=50000)]
    tracked = seen([*still_open, *refuting, *talk(60, 40002), *talk(130, 40003)])
    words, reasons = judged(tracked, doubted=True)
    assert words[1:] == [("ack", "certain"), ("accept", "possible"), ("accept", "certain")]
    assert reasons[2] == REFUTED


def test_silence_takes_the_certainty_of_its_own_address(seen):
    silent = [c(50, S, 5000, port=50000), c(51, S, 5000, port=50000)]
    other = "10.0.0.2"
    fine = [c(52, S, 1, src=other), s(52.001, S | A, 9, 2, dst=other)]
    words, reasons = judged(seen([*talk(1, 40000), *silent, *fine]), doubted=True)
    assert words[1:] == [("accept", "certain"), ("accept", "possible"), ("accept", "certain")]
    assert reasons[2] == UNANSWERED
