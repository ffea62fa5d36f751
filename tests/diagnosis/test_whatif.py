"""What-if, held against reality: the same traffic on the real kernel under the other setting."""

import csv
import io
import json
from functools import cache

import pytest
import zstandard

from analyzer.diagnosis.whatif import predict
from analyzer.diagnosis.whatif.changes import read_change, split_changes
from analyzer.errors import UsageError
from analyzer.pipeline import AnalyzeOptions, analyze
from tests.conftest import FIXTURES

KERNELS = {"el7-recycle": "el7.9", "el7-norecycle": "el7.9", "v4.9-recycle": "4.9.337", "v3.10-recycle": "3.10.108"}
ONLY_THERE = "172.16.11."
"""Peers of the recording without tcp_tw_recycle that the other one does not have."""


@cache
def analysis(name):
    folder = FIXTURES / name
    return analyze(
        AnalyzeOptions(
            servers=[str(folder / "server.pcap.zst")],
            kernel=KERNELS[name],
            sysctl_file=str(folder / "sysctl.txt"),
            backlog=128,
        )
    )


def one(name, **changes):
    (case,) = predict(analysis(name), {key.replace("__", "."): value for key, value in changes.items()})
    return case


@cache
def real(name):
    """(SYNs refused by TIME-WAIT or a live connection, dropped by the per-peer check, attempts that failed)."""
    raw = zstandard.ZstdDecompressor().stream_reader((FIXTURES / name / "truth.csv.zst").open("rb")).read()
    rows = [r for r in csv.DictReader(io.StringIO(raw.decode())) if not r["src"].startswith(ONLY_THERE)]
    dropped = sum(r["kernel_reason"] == "paws_passive" for r in rows)
    refused = sum(r["verdict"] != "accepted" for r in rows) - dropped
    attempts = {r["conn_id"] for r in rows}
    return refused, dropped, len(attempts - {r["conn_id"] for r in rows if r["verdict"] == "accepted"})


def test_recycle_off_as_the_real_kernel_without_it():
    case = one("el7-recycle", tcp_tw_recycle=0)
    refused, _, failed = real("el7-norecycle")
    assert "peer_timestamp" not in case.after
    assert sum(case.after.values()) == pytest.approx(refused, rel=0.15)
    assert case.failed_before == real("el7-recycle")[2] == 130
    assert case.failed_after <= failed


def test_recycle_on_as_the_real_kernel_with_it():
    case = one("el7-norecycle", tcp_tw_recycle=1)
    _, dropped, failed = real("el7-recycle")
    assert case.before.get("peer_timestamp", 0) == 0
    assert case.after["peer_timestamp"] == pytest.approx(dropped, rel=0.15)
    assert case.failed_after == pytest.approx(failed, rel=0.3)
    assert case.warnings[0].startswith("This makes it worse")


@pytest.mark.parametrize("name", KERNELS)
def test_with_nothing_changed_the_model_loses_what_was_lost(name):
    case = one(name, tcp_fin_timeout=60)
    assert sum(case.after.values()) == pytest.approx(sum(case.before.values()), rel=0.03, abs=4)
    assert case.syns_after == pytest.approx(case.syns_before, rel=0.03)


def test_a_kernel_that_forgets_peers_cures_it():
    case = one("el7-recycle", kernel="6.1")
    assert "peer_timestamp" not in case.after and sum(case.after.values()) < 100


def test_timestamps_off_while_recycle_stays_on_is_called_a_bad_cure():
    case = one("el7-recycle", tcp_timestamps=0)
    (warning,) = [w for w in case.warnings if "switching tcp_timestamps off" in w]
    lost, sent = (int(word.replace(",", "")) for word in warning.split("after it ")[1].split(" SYNs")[0].split(" of "))
    assert lost > 0.8 * sent > 100
    assert not [w for w in one("v3.10-recycle", tcp_timestamps=0).warnings if "switching" in w]


def test_timestamps_off_together_with_recycle_off_is_not():
    case = predict(analysis("el7-recycle"), {"tcp_timestamps": 0, "tcp_tw_recycle": 0})[-1]
    assert case.change == "tcp_timestamps=0 tcp_tw_recycle=0"
    assert not [w for w in case.warnings if "switching" in w]


def test_timestamps_stripped_from_half_of_the_flows_make_it_worse():
    case = one("el7-recycle", lb__timestamps="strip", lb__share=0.5)
    assert sum(case.after.values()) > 1.5 * sum(case.before.values())
    assert case.warnings[0].startswith("This makes it worse")
    assert any("only part of the flows" in w for w in case.warnings)


def test_timestamps_stripped_or_rewritten_for_all_cure_the_check():
    for word in ("strip", "rewrite"):
        assert "peer_timestamp" not in one("el7-recycle", lb__timestamps=word).after


def test_ports_at_random_leave_no_time_wait_to_meet():
    case = one("el7-norecycle", lb__source_ports="random")
    assert sum(case.before.values()) > 80
    assert not {"time_wait_paws", "time_wait_sequence"} & case.after.keys()


def test_hold_down_cures_time_wait_and_says_what_it_costs():
    case = one("el7-norecycle", lb__hold_down=61)
    assert not {"time_wait_paws", "time_wait_sequence"} & case.after.keys()
    assert any("source ports" in w for w in case.warnings)


def test_recycle_on_a_kernel_without_it():
    case = predict(analysis("el7-norecycle"), [("kernel", "6.1"), ("tcp_tw_recycle", 1)])[-1]
    assert any("removed in 4.12" in w for w in case.warnings)
    assert "peer_timestamp" not in case.after


def test_the_same_question_gets_the_same_answer():
    assert one("el7-norecycle", lb__source_ports="random") == one("el7-norecycle", lb__source_ports="random")


def test_each_change_alone_then_all_together():
    (both,) = split_changes([("lb.timestamps", "strip"), ("lb.share", 0.5)])
    assert read_change(both).text == "lb.timestamps=strip lb.share=0.5"
    assert split_changes([("kernel", "6.1"), ("backlog", 8)])[-1] == [("kernel", "6.1"), ("backlog", 8)]
    assert split_changes([("backlog", 8), ("backlog", 64)]) == [[("backlog", 8)], [("backlog", 64)]]


@pytest.mark.parametrize(
    "pair",
    [("tcp_nothing", 1), ("lb.nothing", 1), ("lb.share", 0.5), ("lb.timestamps", "x"), ("backlog", "many"),
     ("kernel", "no such"), ("lb.snat_addresses", 0), ("lb.hold_down", -1), ("tcp_tw_recycle", "")],
)  # fmt: skip
def test_what_cannot_be_changed(pair):
    with pytest.raises(UsageError):
        read_change([pair])


def test_command(synquest):
    words = ["whatif", "--server", FIXTURES / "el7-recycle" / "server.pcap.zst", "--kernel", "el7.9", "--sysctl-file",
             FIXTURES / "el7-recycle" / "sysctl.txt", "--backlog", "128", "--set"]  # fmt: skip
    run = synquest(*words, "tcp_tw_recycle=0")
    text = run.stdout.decode()
    assert run.returncode == 0 and "peer_timestamp" in text and "What this rests on" in text
    assert max(map(len, text.splitlines())) <= 80
    (case,) = json.loads(synquest(*words, "tcp_tw_recycle=0", "--json").stdout)["whatif"]
    assert case["change"] == "tcp_tw_recycle=0"
    wrong = synquest(*words, "tcp_tw_recycle")
    assert wrong.returncode == 2 and wrong.stderr.count(b"\n") == 1


@pytest.mark.parametrize(
    ("scenario", "changes", "cause", "left"),
    [
        ("M3a_acceptq_abort0", {"backlog": 64}, "accept_queue_full", 0),
        ("M3e_synq_cookies0", {"tcp_syncookies": 1}, "syn_queue_full", 0),
        ("M2d_tw_lb_drops_ack", {"lb.hold_down": 61}, "time_wait_paws", 0),
        ("M2a_tw_reuse", {"lb.source_ports": "random"}, "time_wait_paws", 0),
    ],
)
def test_real_kernel_of_today(shared, scenario, changes, cause, left):
    folder = shared / "captures" / "modern" / scenario
    found = analyze(
        AnalyzeOptions(
            servers=[str(folder / "s1.pcap"), str(folder / "s2.pcap")],
            kernel="6.18",
            sysctl_file=str(folder / "sysctl.txt"),
            backlog=4 if scenario.startswith("M3") else None,
        )
    )
    (case,) = predict(found, changes)
    model = int(case.assumptions[0].split("loses ")[1].split(" ")[0].replace(",", ""))
    assert case.before[cause] > 50 and model == pytest.approx(sum(case.before.values()), rel=0.05)
    assert case.after.get(cause, 0) == left


def test_an_analysis_tries_the_cures_of_what_it_found():
    tried = {case.change: case for case in analysis("el7-recycle").diagnosis.whatif}
    assert list(tried) == ["tcp_tw_recycle=0"]
    assert sum(tried["tcp_tw_recycle=0"].after.values()) < 100
    tried = {case.change for case in analysis("el7-norecycle").diagnosis.whatif}
    assert tried == {"lb.hold_down=60", "lb.source_ports=random"}
