"""``synquest annotate`` as a user types it."""

import struct

import zstandard

from tests.conftest import FIXTURES

CASE = FIXTURES / "el7-recycle"
GIVEN = ("--kernel", "el7.9", "--sysctl-file", CASE / "sysctl.txt", "--backlog", 128)


def packets(data):
    """How many enhanced packet blocks a little-endian pcapng holds."""
    at = count = 0
    while at < len(data):
        kind, size = struct.unpack_from("<II", data, at)
        count += kind == 6
        at += size
    return count


def test_the_evidence_of_a_capture(synquest, tmp_path):
    out = tmp_path / "evidence.pcapng"
    done = synquest("annotate", "--server", CASE / "server.pcap.zst", *GIVEN, "-o", out)
    assert done.returncode == 0, done.stderr
    assert b"cause=peer_timestamp (certain)" in out.read_bytes()
    assert f"{packets(out.read_bytes()):,} frames" in done.stdout.decode()


def test_standard_input_is_kept_for_the_second_pass(synquest, tmp_path):
    plain = zstandard.decompress((CASE / "server.pcap.zst").read_bytes(), 1 << 25)
    out = tmp_path / "all.pcapng"
    done = synquest("annotate", "-", *GIVEN, "--all", "-o", out, stdin=plain)
    assert done.returncode == 0, done.stderr
    assert packets(out.read_bytes()) == 6343


def test_a_report_has_its_evidence(synquest, tmp_path):
    done = synquest("analyze", "--server", CASE / "server.pcap.zst", *GIVEN, "-o", tmp_path / "r")
    assert done.returncode == 0, done.stderr
    names = {path.name for path in (tmp_path / "r").iterdir()}
    assert {"evidence.pcapng", "wireshark-colorfilters", "wireshark-dfilters"} <= names


def test_refusals_are_one_line(synquest, tmp_path):
    copy = tmp_path / "server.pcap.zst"
    copy.write_bytes((CASE / "server.pcap.zst").read_bytes())
    for out in (copy, tmp_path / "no" / "where.pcapng", tmp_path):
        done = synquest("annotate", "--server", copy, "-o", out)
        assert done.returncode in (1, 2)
        assert done.stderr.count(b"\n") == 1
        assert str(out).encode() in done.stderr
    assert copy.read_bytes() == (CASE / "server.pcap.zst").read_bytes()
