"""The evidence file, judged by tshark and by the tables beside it."""

import re
import shutil
import struct
import subprocess

import pytest

from analyzer.pipeline import AnalyzeOptions, analyze
from analyzer.report.evidence import write_evidence
from analyzer.report.tables import syn_batches
from analyzer.report.wireshark import colour_filters, display_filters, write_filters
from analyzer.schema import CAUSES
from tests.conftest import FIXTURES

needs_tshark = pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed")
WITH_STAMPS = "tcp.flags.ack == 0 && tcp.options.timestamp.tsval"
CASE = FIXTURES / "el7-recycle"
PAIR = FIXTURES / "v6.18-lb-drops-ack"


@pytest.fixture(scope="module")
def recycle():
    return analyze(
        AnalyzeOptions(
            servers=[str(CASE / "server.pcap.zst")], kernel="el7.9", sysctl_file=str(CASE / "sysctl.txt"), backlog=128
        )
    )


@pytest.fixture(scope="module")
def joined():
    return analyze(
        AnalyzeOptions(
            lbs=[str(PAIR / "lb_client.pcap.zst"), str(PAIR / "lb_server.pcap.zst")],
            servers=[str(PAIR / "s1.pcap.zst"), str(PAIR / "s2.pcap.zst")],
            kernel="6.18",
            sysctl_file=str(PAIR / "sysctl.txt"),
        )
    )


def syns(analysis):
    """Rows of the public table as dictionaries."""
    return [row for batch in syn_batches(analysis) for row in batch.to_pylist()]


def tshark(path, *fields, rule=""):
    words = ["tshark", "-r", str(path), "-T", "fields", "-E", "aggregator=|"]
    words += ["-Y", rule] if rule else []
    for field in fields:
        words += ["-e", field]
    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=60)
    warnings = [line for line in done.stderr.splitlines() if "Running as user" not in line]
    assert warnings == []
    return [tuple(line.split("\t")) for line in done.stdout.splitlines()]


def options(data):
    """(block type, option codes) of a little-endian pcapng, block by block."""
    at, found = 0, []
    while at < len(data):
        kind, size = struct.unpack_from("<II", data, at)
        assert size % 4 == 0
        assert struct.unpack_from("<I", data, at + size - 4)[0] == size
        found.append((kind, data[at : at + size]))
        at += size
    return found


@needs_tshark
def test_the_filter_on_a_cause_selects_exactly_its_syns(recycle, tmp_path):
    path = tmp_path / "evidence.pcapng"
    write_evidence(recycle, path)
    expected = {
        (f"{row['time'].value}", row["sport"], row["isn"]) for row in syns(recycle) if row["cause"] == "peer_timestamp"
    }
    fields = ("frame.time_epoch", "tcp.srcport", "tcp.seq_raw")
    selected = tshark(path, *fields, rule='frame.comment contains "peer_timestamp"')
    found = {(time.replace(".", ""), int(port), int(seq)) for time, port, seq in selected}
    assert len(selected) == 706
    assert found == expected


@needs_tshark
def test_comments_tell_the_numbers_and_who_wrote_the_memory(recycle, tmp_path):
    path = tmp_path / "evidence.pcapng"
    write_evidence(recycle, path)
    row = next(r for r in syns(recycle) if r["cause"] == "peer_timestamp" and r["peer_stamp_frame"])
    fields = ("tcp.seq_raw", "tcp.options.timestamp.tsval", "frame.comment")
    said = {(int(seq), int(tsval)): text for seq, tsval, text in tshark(path, *fields, rule=WITH_STAMPS)}
    comment = said[row["isn"], row["tsval"]]
    assert f"TSval {row['tsval']} is {-row['tsval_delta']} ticks behind {row['peer_tsval']}" in comment
    assert f"(frame {row['peer_stamp_frame']})" in comment
    wrote = tshark(
        path,
        "tcp.options.timestamp.tsval",
        "tcp.flags.syn",
        rule=f'frame.comment contains "wrote TSval {row["peer_tsval"]},"',
    )
    assert wrote == [(str(row["peer_tsval"]), "0")]


@needs_tshark
def test_only_what_matters_or_all(recycle, tmp_path):
    some, everything = tmp_path / "some.pcapng", tmp_path / "all.pcapng"
    few, all_ = write_evidence(recycle, some), write_evidence(recycle, everything, everything=True)
    assert all_.frames == recycle.main.tracked.packets == len(tshark(everything, "frame.number"))
    assert 731 < few.frames < all_.frames
    judged = tshark(everything, "frame.number", rule='frame.comment contains "cause="')
    assert len(judged) == 1265


@needs_tshark
def test_packet_ids_join_the_same_syn_at_each_point(joined, tmp_path):
    path = tmp_path / "evidence.pcapng"
    write_evidence(joined, path)
    places = {}
    rows = tshark(
        path, "frame.packet_id", "frame.interface_name", "tcp.seq_raw", "tcp.options.timestamp.tsval",
        rule="frame.packet_id && tcp.flags.syn == 1 && tcp.flags.ack == 0",
    )  # fmt: skip
    for number, place, isn, tsval in rows:
        places.setdefault(number, []).append((place, isn, tsval))
    several = [seen for seen in places.values() if len(seen) > 1]
    assert len(several) > 20
    assert all(len({packet[1:] for packet in seen}) == 1 for seen in several)
    assert any({"lb client side", "lb server side", "server1"} <= {place for place, *_ in seen} for seen in several)


@needs_tshark
def test_one_interface_per_point_with_its_clock(joined, tmp_path):
    path = tmp_path / "evidence.pcapng"
    write_evidence(joined, path)
    data = path.read_bytes()
    texts = [block.decode("utf-8", "ignore") for kind, block in options(data) if kind == 1]
    names = {name for (name,) in tshark(path, "frame.interface_name")}
    assert names == {"lb client side", "lb server side", "server1", "server2"}
    assert len(texts) == 4
    (text,) = [t for t in texts if "server1" in t]
    offset, bound = re.search(r"clock minus lb's clock: ([+-][\d.]+) s ± ([\d.]+) s", text).groups()
    assert abs(float(offset) - -0.412377) < 0.1
    assert 0 < float(bound) < 0.01
    assert {len(t.split(".")[1]) for (t,) in tshark(path, "frame.time_epoch")} == {9}


def test_blocks_are_whole_and_every_input_is_left_alone(recycle, tmp_path):
    before = (CASE / "server.pcap.zst").read_bytes()
    path = tmp_path / "evidence.pcapng"
    write_evidence(recycle, path)
    blocks = options(path.read_bytes())
    assert [kind for kind, _ in blocks[:2]] == [0x0A0D0D0A, 1]
    assert {kind for kind, _ in blocks[2:]} == {6}
    assert (CASE / "server.pcap.zst").read_bytes() == before


@needs_tshark
def test_filters_for_wireshark_are_valid(recycle, tmp_path):
    path = tmp_path / "evidence.pcapng"
    write_evidence(recycle, path)
    write_filters(recycle, tmp_path)
    assert (tmp_path / "wireshark-colorfilters").read_text() == colour_filters()
    lines = [line for line in colour_filters().splitlines() if not line.startswith("#")]
    parts = [re.fullmatch(r"@([^@]+)@([^@]+)@\[(\d+,\d+,\d+)\]\[(\d+,\d+,\d+)\]", line) for line in lines]
    assert all(parts)
    assert {p.group(1).removeprefix("synquest ") for p in parts} >= set(CAUSES)
    named = dict(re.fullmatch(r'"([^"]+)" (.+)', line).groups() for line in display_filters(recycle).splitlines())
    counts = {name: len(tshark(path, "frame.number", rule=rule)) for name, rule in named.items()}
    for finding in recycle.diagnosis.findings:
        (mine,) = [n for name, n in counts.items() if name.startswith(f"{finding.cause}:")]
        assert mine == finding.syns
