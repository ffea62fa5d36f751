"""One behaviour each: handshakes, closes, reuse, answers, events."""

import numpy as np
import pytest

from analyzer.capture import open_capture
from analyzer.connections import Tracked, follow, track
from analyzer.connections.names import host_text
from analyzer.schema import (
    ANSWER_ACK,
    ANSWER_NONE,
    ANSWER_RST,
    ANSWER_SYN_ACK,
    CLOSER_BOTH,
    CLOSER_ORIG,
    CLOSER_RESP,
    CONN_STATES,
    SEEN_ESTABLISHED,
    SEEN_GAP_ORIG,
    SEEN_MIDSTREAM,
)
from analyzer.units import NO_TIME, NS
from tests.frames import A, F, P, R, S, Segment, write

C, V = "10.0.0.1", "10.0.0.2"


def c(time, flags, seq, ack=0, tsval=None, tsecr=0, payload=b"", port=40000):
    return Segment(time, C, port, V, 1120, flags, seq, ack, tsval, tsecr, payload)


def v(time, flags, seq, ack=0, tsval=None, tsecr=0, payload=b"", port=40000):
    return Segment(time, V, 1120, C, port, flags, seq, ack, tsval, tsecr, payload)


def handshake(t=0.0, isn=100, tsval=1000, port=40000):
    return [
        c(t, S, isn, tsval=tsval, port=port),
        v(t + 0.001, S | A, 900, isn + 1, tsval=5, tsecr=tsval, port=port),
        c(t + 0.002, A, isn + 1, 901, tsval=tsval + 2, tsecr=5, port=port),
    ]


def server_close(t, isn=100, tsval=2000):
    return [
        v(t, F | A, 901, isn + 1, tsval=6, tsecr=tsval),
        c(t + 0.01, A, isn + 1, 902, tsval=tsval, tsecr=6),
        c(t + 0.5, F | A, isn + 1, 902, tsval=tsval + 500, tsecr=6),
        v(t + 0.501, A, 902, isn + 2, tsval=7, tsecr=tsval + 500),
    ]


@pytest.fixture
def run(tmp_path):
    def tracked(segments):
        return track(open_capture([str(write(tmp_path / "t.pcap", sorted(segments, key=lambda s: s.time)))], "server"))

    return tracked


def state(row):
    return CONN_STATES[int(row["state"])]


def test_a_whole_connection(run):
    out = run([*handshake(), c(1, P | A, 101, 901, tsval=1500, tsecr=5, payload=b"hello"), *server_close(2, isn=105)])
    (row,) = out.connections.to_array()
    assert (row["isn_orig"], row["isn_resp"]) == (100, 900)
    assert state(row) == "SF"
    assert row["history"] == b"ShADfFa"
    assert (row["closer"], row["syn_count"], row["bytes_orig"]) == (CLOSER_RESP, 1, 5)
    assert row["fin_resp_acked"] - row["fin_resp_time"] == 10_000_000
    assert (row["first_tsval_orig"], row["last_tsval_orig"]) == (1000, 2500)
    assert host_text(out.hosts, int(row["orig"])) == C
    assert row["rtt_min"] == 1000


def test_repeated_syns_are_one_attempt(run):
    out = run([c(t, S, 100, tsval=1000 + int(t)) for t in (0, 1, 3, 7)])
    rows = out.syns.to_array()
    assert rows["attempt"].tolist() == [1, 2, 3, 4]
    assert rows["answer"].tolist() == [ANSWER_NONE] * 4
    assert out.connection_count == 1
    assert state(out.connections.to_array()[0]) == "S0"


def test_only_the_answered_syn_of_a_series_gets_the_answer(run):
    out = run([c(0, S, 100), c(1, S, 100), v(1.001, S | A, 900, 101), v(2, S | A, 900, 101)])
    assert out.syns.to_array()["answer"].tolist() == [ANSWER_NONE, ANSWER_SYN_ACK]


def test_a_reset_is_an_answer(run):
    out = run([c(0, S, 100), v(0.001, R | A, 0, 101)])
    assert out.syns.to_array()["answer"].tolist() == [ANSWER_RST]
    assert state(out.connections.to_array()[0]) == "REJ"


def test_reuse_of_the_four_numbers(run):
    out = run([*handshake(), *server_close(1), *handshake(30, isn=9000)])
    first, second = np.sort(out.connections.to_array(), order="conn")
    assert (second["previous"], second["chain"]) == (first["conn"], first["chain"])
    assert second["start"] - second["previous_end"] == 30 * NS - 1_501_000_000
    assert out.chain_syns.tolist() == [2]


def test_a_bare_ack_answers_the_syn_and_not_the_old_connection(run):
    out = run([*handshake(), *server_close(1), c(5, S, 7000, tsval=10), v(5.001, A, 902, 102, tsval=9, tsecr=2500)])
    rows = out.syns.to_array()
    assert rows["answer"].tolist() == [ANSWER_SYN_ACK, ANSWER_ACK]
    assert rows["answer_time"][1] - rows["time"][1] == 1_000_000


def test_the_old_connections_close_after_a_silent_syn_is_its_own(run):
    """The SYN met a live socket and was dropped; the server's later FIN belongs to the old connection."""
    out = run([*handshake(), c(2, S, 70_000_000, tsval=10), v(3, F | A, 901, 101, tsval=9, tsecr=1002)])
    first, second = np.sort(out.connections.to_array(), order="conn")
    assert first["fin_resp_time"] != NO_TIME
    assert second["fin_resp_time"] == NO_TIME
    assert out.syns.to_array()["answer"].tolist() == [ANSWER_SYN_ACK, ANSWER_NONE]


@pytest.mark.parametrize(
    ("segments", "closer"),
    [
        ([c(1, F | A, 101, 901), v(1.01, F | A, 901, 102), c(1.02, A, 102, 902)], CLOSER_ORIG),
        ([v(1, F | A, 901, 101), c(1.0001, F | A, 101, 901), v(1.1, A, 902, 102), c(1.1, A, 102, 902)], CLOSER_BOTH),
    ],
)
def test_who_closed_first(run, segments, closer):
    (row,) = run([*handshake(), *segments]).connections.to_array()
    assert row["closer"] == closer


def test_ts_recent_takes_the_first_segment_in_order_only(run):
    """Of two segments between two ACKs of the server only the first updates ts_recent (RFC 7323 section 4.3)."""
    segments = [
        *handshake(),
        c(1, P | A, 101, 901, tsval=1500, payload=b"a"),
        c(1.1, P | A, 102, 901, tsval=1600, payload=b"b"),
    ]
    segments += [v(1.2, F | A, 901, 103, tsval=9)]
    events = run(segments).events.to_array()
    assert events[-1]["ts_recent"] == 1500


def test_an_older_timestamp_never_lowers_ts_recent(run):
    events = run(
        [*handshake(tsval=1000), c(1, A, 101, 901, tsval=900), v(2, F | A, 901, 101, tsval=9)]
    ).events.to_array()
    assert events[-1]["ts_recent"] == 1002


def test_midstream_and_gaps(run):
    out = run([c(0, P | A, 500, 901, payload=b"x"), v(0.1, A, 901, 501), c(1, P | A, 700, 901, payload=b"y")])
    (row,) = out.connections.to_array()
    assert row["seen"] & SEEN_MIDSTREAM
    assert row["seen"] & SEEN_GAP_ORIG
    assert state(row) == "OTH"
    assert host_text(out.hosts, int(row["orig"])) == C


def test_third_ack_without_syn_ack_is_no_establishment(run):
    (row,) = run([c(0, S, 100), c(1, A, 101, 901)]).connections.to_array()
    assert not row["seen"] & SEEN_ESTABLISHED


def test_blocks_of_any_size_give_the_same(tmp_path):
    segments = [*handshake(), *server_close(1), *handshake(9, isn=5), *handshake(10, isn=6, port=41000)]
    path = write(tmp_path / "b.pcap", sorted(segments, key=lambda s: s.time))
    rows = np.concatenate([b.copy() for b in open_capture([str(path)], "x").blocks()])
    whole, single = follow([rows], Tracked("x")), follow((rows[i : i + 1] for i in range(len(rows))), Tracked("x"))
    for table in ("connections", "syns", "events"):
        assert np.array_equal(getattr(whole, table).to_array(), getattr(single, table).to_array())


def test_unrelated_packets_change_nothing(run, tmp_path):
    mine = [*handshake(), *server_close(1), c(5, S, 7000, tsval=10)]
    noise = [Segment(s.time + 0.0001, "10.7.7.7", 5, "10.8.8.8", 6, A, 1) for s in mine]
    alone, mixed = run(mine), run([*mine, *noise])
    for column in ("isn", "attempt", "answer", "tsval"):
        assert np.array_equal(alone.syns.to_array()[column], mixed.syns.to_array()[column])


def test_a_flood_of_single_syns_is_handed_over(tmp_path):
    """Open attempts are dropped from memory once nothing speaks of them any more."""
    blocks = []
    path = write(tmp_path / "f.pcap", [c(0, S, 1)])
    base = next(open_capture([str(path)], "x").blocks()).copy()
    for step in range(40):
        block = np.repeat(base, 5000)
        block["sport"] = np.arange(5000)
        block["src_lo"] += np.uint64(step)
        block["time"] += step * 200 * NS
        blocks.append(block.view(np.recarray))
    from analyzer.connections.tracker import Tracker

    tracker = Tracker(Tracked("x"))
    for block in blocks:
        tracker.feed(block)
    assert len(tracker._slots) < 150_000
    out = tracker.close()
    assert len(out.syns) == len(out.connections) == 200_000


def test_answers_match_real_kernels(shared):
    """Every SYN of four real captures gets the answer that the kernel's own log tells."""
    import csv

    words = {"accepted": ANSWER_SYN_ACK, "rejected": ANSWER_NONE, "ack": ANSWER_ACK, "rst": ANSWER_RST}
    for scenario in (
        "4.9.337/S1-recycle1",
        "3.10.108/S2-recycle0",
        "6.1.0-56/S2-recycle0",
        "3.10.0-1160.el7/S2-recycle0",
    ):
        folder = shared / "captures" / "kernel" / scenario
        out = track(open_capture([str(next(folder.glob("server.pcap*")))], "server"))
        truth = list(csv.DictReader((folder / "truth.csv").open()))
        rows = out.syns.to_array()
        assert rows["isn"].tolist() == [int(r["isn"]) for r in truth]
        assert rows["answer"].tolist() == [words[r["verdict"]] for r in truth]


def test_a_syn_captured_behind_its_syn_ack_is_the_same_connection(run):
    out = run([v(0, S | A, 900, 101), c(0.1, S, 100), c(0.2, A, 101, 901)])
    assert out.connection_count == 1


def test_a_capture_without_packets_is_no_failure(tmp_path):
    out = track(open_capture([str(write(tmp_path / "n.pcap", []))], "x"))
    assert (out.connection_count, len(out.syns), len(out.events)) == (0, 0, 0)


def test_a_syn_ack_for_another_syn_is_counted_but_answers_nothing(run):
    out = run([c(0, S, 100), v(0.001, S | A, 900, 555)])
    (row,) = out.connections.to_array()
    assert (row["packets_resp"], row["syn_ack_count"]) == (1, 1)
    assert state(row) == "S0"
    assert out.syns.to_array()["answer"].tolist() == [ANSWER_NONE]


@pytest.mark.parametrize(("acked", "answer"), [(101, 1), (106, 1), (103, 1), (107, 0)])
def test_a_syn_ack_may_cover_data_of_the_syn(run, acked, answer):
    """Fast Open (RFC 7413): the SYN-ACK acknowledges all, part or none of the SYN's data, and no more."""
    out = run([c(0, S, 100, payload=b"hello"), v(0.001, S | A, 900, acked)])
    assert out.syns.to_array()["answer"].tolist() == [answer]


def test_sequence_numbers_wrap(run):
    isn, top = 2**32 - 1, 2**32
    packets = [c(0, S, isn), v(0.001, S | A, top - 2, 0), c(0.002, A, 0, top - 1)]
    packets += [c(1, P | A, 0, top - 1, payload=b"xy"), v(1.1, P | A, top - 1, 2, payload=b"abc"), c(1.2, A, 2, 2)]
    packets += [v(2, F | A, 2, 2), c(2.1, F | A, 2, 3), v(2.2, A, 3, 3)]
    out = run(packets)
    (row,) = out.connections.to_array()
    assert state(row) == "SF"
    assert not row["seen"] & SEEN_GAP_ORIG
    assert row["fin_orig_acked"] - row["fin_orig_time"] == 100_000_000
    assert out.syns.to_array()["answer"].tolist() == [ANSWER_SYN_ACK]


@pytest.mark.parametrize(
    ("segments", "word"),
    [
        ([], "S1"),
        ([c(1, F | A, 101, 901)], "S2"),
        ([v(1, F | A, 901, 101)], "S3"),
        ([c(1, R | A, 101, 901)], "RSTO"),
        ([v(1, R | A, 901, 101)], "RSTR"),
    ],
)
def test_conn_states_after_a_handshake(run, segments, word):
    (row,) = run([*handshake(), *segments]).connections.to_array()
    assert state(row) == word


@pytest.mark.parametrize(
    ("segments", "word"),
    [
        ([c(0, S, 100), c(1, R, 101)], "RSTOS0"),
        ([c(0, S, 100), c(1, F | A, 101, 1)], "SH"),
        ([v(0, S | A, 900, 101), v(1, R | A, 901, 101)], "RSTRH"),
        ([v(0, S | A, 900, 101), v(1, F | A, 901, 101)], "SHR"),
    ],
)
def test_conn_states_of_half_a_conversation(run, segments, word):
    (row,) = run(segments).connections.to_array()
    assert state(row) == word


def test_time_that_steps_back_breaks_nothing(tmp_path):
    segments = [c(100, S, 100), v(40, S | A, 900, 101), c(41, A, 101, 901)]
    (row,) = track(open_capture([str(write(tmp_path / "t.pcap", segments))], "x")).connections.to_array()
    assert state(row) == "S1"
    assert row["start"] - row["end"] == 59 * NS


def test_the_same_without_the_compiler(tmp_path):
    """The pass gives the same rows as plain Python."""
    import os
    import subprocess
    import sys

    path = write(tmp_path / "p.pcap", sorted([*handshake(), *server_close(1), c(5, S, 7000)], key=lambda s: s.time))
    code = (
        "import sys; from analyzer.capture import open_capture; from analyzer.connections import track\n"
        "out = track(open_capture([sys.argv[1]], 'x'))\n"
        "print([getattr(out, t).to_array().tolist() for t in ('connections', 'syns', 'events')])"
    )
    texts = [
        subprocess.run(
            [sys.executable, "-c", code, str(path)], env={**os.environ, **extra}, capture_output=True, check=True
        ).stdout
        for extra in ({}, {"NUMBA_DISABLE_JIT": "1"})
    ]
    assert texts[0] == texts[1]
    assert b"ShA" in texts[0]
