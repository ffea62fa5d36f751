"""Each cause, told from the others by what the captures show; the same cause on every row of one SYN."""

import numpy as np
import pytest

from analyzer.diagnosis.causes import BY_WORD, PRECEDENCE, REGISTRY
from analyzer.library import analyze
from analyzer.schema import CAUSES
from tests.diagnosis.world import World
from tests.frames import A, S

CASE = 30_000
"""Port of the SYN in question."""


def judged(world, tmp_path, *, lb=True, server=True, **known):
    files = world.files(tmp_path)
    given = {name: files[name] for name, wanted in (("lb", lb), ("server", server)) if wanted}
    return analyze(**given, kernel="6.18", **known)


def causes_of(report, port=CASE):
    """(causes, certainties, second causes) over all rows of one client port."""
    rows = report.syns[report.syns["sport"] == port]
    return tuple(set(rows[c].dropna().astype(str)) for c in ("cause", "cause_certainty", "aggravated_by"))


@pytest.fixture
def world():
    made = World()
    made.healthy(range(20_000, 20_040))
    return made


def test_the_registry_holds_every_word_in_report_order():
    assert tuple(cause.word for cause in REGISTRY) == CAUSES
    assert sorted(PRECEDENCE) == list(range(len(CAUSES)))
    for cause in REGISTRY[1:]:
        assert cause.remedy and cause.refutation


def test_a_healthy_estate_has_no_finding(world, tmp_path):
    report = judged(world, tmp_path)
    assert report.findings == []
    assert set(report.syns["cause"]) == {"answered"}


@pytest.mark.parametrize(
    ("cause", "seen"),
    [
        ("not_forwarded", ("client",)),
        ("lost_before_server", ("client", "lb")),
        ("server_silent", ("client", "lb", "server")),
    ],
)
def test_where_a_silent_syn_was_seen_last(world, tmp_path, cause, seen):
    world.syn(2.0, CASE, at=seen)
    report = judged(world, tmp_path)
    certainty = "likely" if cause == "server_silent" else "certain"
    assert causes_of(report)[:2] == ({cause}, {certainty})
    assert [f.syns for f in report.findings] == [1]


@pytest.mark.parametrize(("cause", "seen"), [("syn_ack_lost", ("server",)), ("answer_not_forwarded", ("server", "lb"))])
def test_where_an_answer_was_seen_last(world, tmp_path, cause, seen):
    world.syn(2.0, CASE)
    world.syn_ack(2.0002, CASE, at=seen)
    assert causes_of(judged(world, tmp_path))[:2] == ({cause}, {"certain"})


def test_a_capture_that_began_later_proves_no_loss(world, tmp_path):
    world.syn(0.5, CASE, at=("client", "lb"))
    world.seen["server"] = [s for s in world.seen["server"] if s.time > 1.0]
    assert causes_of(judged(world, tmp_path))[:2] == ({"lost_before_server"}, {"likely"})
    world.healthy(range(21_000, 21_080), start=4.0)
    world.seen["server"] = [s for s in world.seen["server"] if s.time > 8.0]
    assert causes_of(judged(world, tmp_path))[0] == {"no_evidence"}


def test_a_loss_is_not_told_from_one_side(world, tmp_path):
    world.syn(2.0, CASE, at=("client", "lb"))
    report = judged(world, tmp_path, server=False)
    assert causes_of(report)[0] == {"no_evidence"}
    assert "a capture on the server" in report.findings[0].statement


def test_a_repeat_after_the_syn_ack_tells_the_server_that_it_was_lost(world, tmp_path):
    world.syn(2.0, CASE)
    world.syn_ack(2.0002, CASE, at=("server",))
    world.opened(3.0, CASE)
    world.answered(3.1, CASE)
    report = judged(world, tmp_path, lb=False)
    rows = report.syns[report.syns["sport"] == CASE].sort_values("time")
    assert rows["cause"].tolist() == ["syn_ack_lost", "answered"]
    assert rows["cause_certainty"].tolist() == ["likely", "certain"]


def test_a_later_echo_tells_the_load_balancer_that_the_syn_had_arrived(world, tmp_path):
    world.syn(2.0, CASE, tsval=777)
    world.syn(3.0, CASE, tsval=1777)
    world.down(3.0002, CASE, 0x12, seq=CASE * 2000, ack=CASE * 1000 + 1, tsval=5, tsecr=777)
    world.up(3.0004, CASE, A, seq=CASE * 1000 + 1, ack=CASE * 2000 + 1, tsval=1777)
    rows = judged(world, tmp_path, server=False).syns
    rows = rows[(rows["sport"] == CASE)].sort_values("time")
    assert set(rows["cause"][rows["tsval"] == 777]) == {"syn_ack_lost"}
    assert set(rows["cause"][rows["tsval"] == 1777]) == {"answered"}


def test_a_refusal_is_prompt(world, tmp_path):
    world.syn(2.0, CASE)
    world.reset(2.0001, CASE)
    world.syn(2.5, CASE + 1, at=("client",))
    world.reset(17.5, CASE + 1, at=("client",))  # the load balancer gives the handshake up after its own 15 s
    world.healthy(range(21_000, 21_200), start=4.0)
    report = judged(world, tmp_path, server=False)
    assert causes_of(report)[:2] == ({"refused"}, {"certain"})
    assert "refused" not in causes_of(report, CASE + 1)[0]


def test_a_swallowed_ack_of_a_time_wait(tmp_path):
    world = World()
    world.served(0.0, CASE, by_client=False)
    world.healthy(range(20_000, 20_040), start=1.0)
    world.up(10.0, CASE, S, seq=777, tsval=5)
    world.down(
        10.0001, CASE, A, at=("server", "lb"), seq=CASE * 2000 + 7, ack=CASE * 1000 + 12, tsval=9, tsecr=1_000_000
    )
    world.healthy(range(21_000, 21_040), start=12.0)
    report = judged(world, tmp_path)
    rows = report.syns[(report.syns["sport"] == CASE) & (report.syns["tsval"] == 5)]
    assert len(rows) == 3
    assert set(rows["cause"]) == {"time_wait_paws"}
    assert set(rows["aggravated_by"]) == {"answer_not_forwarded"}
    finding = report.findings[0]
    assert finding.syns == 1
    assert set(finding.evidence) == {"lb", "server"}
    lanes = {(s.capture, s.lane_from, s.lane_to) for s in finding.story.steps}
    assert ("lb", "client", "lb") in lanes and ("server", "lb", "server") in lanes and ("lb", "server", "lb") in lanes


def jammed(world, silent, waiting):
    """Connections that the application leaves waiting, and *silent* SYNs while *waiting* of them do."""
    for number in range(waiting):
        world.opened(10 + number * 0.1, 40_000 + number)
    for number in range(silent):
        world.syn(12 + number * 0.1, 41_000 + number)
    for number in range(waiting):
        world.answered(14 + number * 0.001, 40_000 + number)
    world.healthy(range(22_000, 22_040), start=15.0)


def test_silence_that_follows_the_load_is_a_full_accept_queue(world, tmp_path):
    jammed(world, silent=6, waiting=5)
    report = judged(world, tmp_path)
    assert causes_of(report, 41_003)[:2] == ({"accept_queue_full"}, {"likely"})
    assert "5 or more connections waiting 6 SYNs got nothing" in report.findings[0].statement


def test_silence_by_chance_is_no_queue(world, tmp_path):
    for number in range(8):
        world.syn(0.05 + number * 0.4, 41_000 + number)
    report = judged(world, tmp_path)
    assert {f.cause for f in report.findings} == {"server_silent"}


def test_counters_that_stood_still_acquit_the_queue(world, tmp_path):
    jammed(world, silent=6, waiting=5)
    for name in ("before", "after"):
        (tmp_path / name).write_text("TcpExt: ListenOverflows ListenDrops\nTcpExt: 7 7\n")
    report = judged(world, tmp_path, netstat=[(str(tmp_path / "before"), str(tmp_path / "after"))])
    assert causes_of(report, 41_003)[0] == {"server_silent"}


def test_half_open_requests_fill_the_syn_queue(world, tmp_path):
    for number in range(8):
        world.syn(10 + number * 0.05, 40_000 + number)
        world.syn_ack(10.0002 + number * 0.05, 40_000 + number, at=("server", "lb", "client"))
    for number in range(8):
        world.syn(11 + number * 0.1, 41_000 + number)
    world.healthy(range(22_000, 22_020), start=90.0)
    report = judged(world, tmp_path, lb=False, sysctls={"net.ipv4.tcp_syncookies": 0})
    assert causes_of(report, 41_003)[0] == {"syn_queue_full"}
    cookies = judged(world, tmp_path, lb=False, sysctls={"net.ipv4.tcp_syncookies": 1})
    assert causes_of(cookies, 41_003)[0] == {"server_silent"}


def test_a_third_ack_that_is_not_taken(world, tmp_path):
    world.opened(2.0, CASE)
    world.syn_ack(3.0, CASE)
    world.syn_ack(5.0, CASE)
    report = judged(world, tmp_path, lb=False)
    assert causes_of(report) == ({"answered"}, {"certain"}, {"accept_queue_full"})
    assert "1 handshake had the last ACK ignored" in report.findings[0].statement


def test_a_frame_captured_twice_counts_once(world, tmp_path):
    world.syn(2.0, CASE)
    world.syn(2.0000001, CASE)
    world.syn_ack(2.0002, CASE)
    world.up(2.0004, CASE, A, seq=CASE * 1000 + 1, ack=CASE * 2000 + 1, tsval=1_002_000)
    report = judged(world, tmp_path, lb=False)
    assert report.findings == []
    assert report.summary["syns"] == 41
    assert "duplicates" in {note.kind for note in report.parts.diagnosis.quality}


def test_one_direction_only_hides_answers_and_accuses_nobody(world, tmp_path):
    world.seen["server"] = [s for s in world.seen["server"] if s.dport == 80]
    world.seen["server"] = [s for s in world.seen["server"] if s.sport != 20_010 or s.flags == 2]
    report = judged(world, tmp_path, lb=False)
    assert causes_of(report, 20_001) == ({"answered"}, {"likely"}, set())
    assert causes_of(report, 20_010)[0] == {"no_evidence"}
    assert "one_direction" in {note.kind for note in report.parts.diagnosis.quality}


def test_a_flags_only_capture_hides_the_bare_ack(tmp_path):
    world = World()
    world.served(0.0, CASE, by_client=False)
    world.healthy(range(20_000, 20_040), start=1.0)
    world.up(10.0, CASE, S, seq=777, tsval=5)
    world.down(10.0001, CASE, A, seq=CASE * 2000 + 7, ack=CASE * 1000 + 12, tsval=9, tsecr=1_000_000)
    world.healthy(range(21_000, 21_010), start=12.0)
    world.seen["server"] = [s for s in world.seen["server"] if s.flags & 7]
    report = judged(world, tmp_path, lb=False)
    rows = report.syns[(report.syns["sport"] == CASE) & (report.syns["tsval"] == 5)]
    assert set(rows["cause"]) == {"time_wait_paws"}
    assert "filter" in {note.kind for note in report.parts.diagnosis.quality}


def test_repeats_without_timestamps_are_never_certain(world, tmp_path):
    world.syn(2.0, CASE, at=("client", "lb"), tsval=None)
    world.syn(3.0, CASE, at=("client", "lb"), tsval=None)
    assert causes_of(judged(world, tmp_path))[:2] == ({"lost_before_server"}, {"likely"})


def test_removed_in_4_12_not_4_1():
    remedy = BY_WORD["peer_timestamp"].remedy
    assert "from kernel 4.12 on" in remedy and "4.11 still has it" in remedy


def test_blast_radius(world, tmp_path):
    world.syn(2.0, CASE, at=("client", "lb"))
    blast = judged(world, tmp_path).parts.diagnosis.blast
    assert blast.clients == (("10.0.0.5", "10.2.0.9", 41, 1),)
    assert np.isclose(blast.began / 1e9 % 1000, (1_500_000_000 + 2.0) % 1000, atol=0.01)
    assert blast.ports[0][:4] == ("10.2.0.9", "10.2.0.1", 40, 1)
