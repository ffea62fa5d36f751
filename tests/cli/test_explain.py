"""The chain behind one SYN, on the terminal and as an object."""

from dataclasses import replace

import pytest

from analyzer.connections.names import host_texts
from analyzer.diagnosis.explain import explain
from analyzer.errors import UsageError
from analyzer.pipeline import AnalyzeOptions, analyze
from analyzer.report.tables import syn_batches
from tests.conftest import FIXTURES

CASE = FIXTURES / "el7-recycle"
PAIR = FIXTURES / "v6.18-lb-drops-ack"
LINKS = ["packet", "connection", "pair", "memory", "rule", "verdict", "cause"]


@pytest.fixture(scope="module")
def recycle():
    return analyze(
        AnalyzeOptions(
            servers=[str(CASE / "server.pcap.zst")], kernel="el7.9", sysctl_file=str(CASE / "sysctl.txt"), backlog=128
        )
    )


def rows(analysis):
    return [row for batch in syn_batches(analysis) for row in batch.to_pylist()]


def test_the_chain_says_what_the_tables_say(recycle):
    row = next(r for r in rows(recycle) if r["cause"] == "peer_timestamp" and r["peer_stamp_frame"])
    found = explain(recycle, row["frame"])
    assert [link.name for link in found.links] == LINKS
    assert (found.verdict, found.rule, found.cause) == ("drop", "peer_timestamp", "peer_timestamp")
    packet, memory = found["packet"].facts, found["memory"].facts
    assert (packet["isn"], packet["tsval"], packet["attempt"]) == (row["isn"], row["tsval"], row["attempt"])
    assert memory["peer_tsval"] == row["peer_tsval"]
    assert memory["tsval_delta"] == row["tsval_delta"]
    assert memory["peer_stamp_frame"] == row["peer_stamp_frame"]
    assert found["connection"].facts["uid"] == row["uid"]
    assert "PAWSPassive" in str(found["rule"].facts["counters"])


def test_every_syn_can_be_explained(recycle):
    for row in rows(recycle)[::50]:
        found = explain(recycle, row["frame"], "server")
        assert (found.verdict, found.cause) == (row["verdict"], row["cause"])
        assert str(found).count("\n") == len(LINKS) - 1


def test_a_frame_that_is_no_syn_names_the_nearest(recycle):
    row = next(r for r in rows(recycle) if r["answer"] == "syn_ack")
    with pytest.raises(UsageError, match=rf"is no SYN; the nearest SYN of its connection is frame {row['frame']}$"):
        explain(recycle, row["answer_frame"])


@pytest.mark.parametrize(
    ("frame", "capture", "said"),
    [(10**7, None, "frames 1 to 6343"), (0, None, "frames 1 to 6343"), (1, "lb", "captures here are server")],
)
def test_wrong_questions(recycle, frame, capture, said):
    with pytest.raises(UsageError, match=said):
        explain(recycle, frame, capture)


def test_a_file_names_its_capture(recycle):
    row = rows(recycle)[0]
    assert explain(recycle, row["frame"], "server.pcap.zst").frame == row["frame"]


def test_html_is_escaped(recycle):
    row = rows(recycle)[0]
    found = explain(recycle, row["frame"])
    hostile = replace(found, links=(replace(found.links[0], text="<script>alert(1)</script>"), *found.links[1:]))
    assert "<script>" not in hostile._repr_html_()
    assert "&lt;script&gt;" in hostile._repr_html_()


def test_through_the_load_balancer():
    analysis = analyze(
        AnalyzeOptions(
            lbs=[str(PAIR / "lb_client.pcap.zst"), str(PAIR / "lb_server.pcap.zst")],
            servers=[str(PAIR / "s1.pcap.zst"), str(PAIR / "s2.pcap.zst")],
            kernel="6.18",
        )
    )
    row = next(r for r in rows(analysis) if r["capture"] == "server1" and r["flow"] is not None)
    pair = explain(analysis, row["frame"], "server1")["pair"]
    assert pair.facts["snat"] == f"{row['src']}:{row['sport']}"
    assert pair.facts["server"] == f"{row['dst']}:{row['dport']}"
    assert str(pair.facts["vip"]).startswith("10.10.100.1:")
    assert str(pair.facts["client"]).rpartition(":")[0] in host_texts(analysis.vantages[-1].tracked.hosts)


def test_on_the_terminal(synquest, recycle):
    row = next(r for r in rows(recycle) if r["cause"] == "peer_timestamp")
    given = ("--server", CASE / "server.pcap.zst", "--kernel", "el7.9", "--sysctl-file", CASE / "sysctl.txt")
    done = synquest("explain", *given, "--frame", row["frame"])
    text = done.stdout.decode()
    assert done.returncode == 0, done.stderr
    assert all(any(line.startswith(name) for line in text.splitlines()) for name in LINKS)
    assert max(map(len, text.splitlines())) <= 80
    assert f"peer_tsval={row['peer_tsval']}" in " ".join(text.split())
    wrong = synquest("explain", *given, "--frame", 2)
    assert wrong.returncode == 2
    assert wrong.stderr.count(b"\n") == 1
