"""``--anonymize``: nothing that leaves names an address, and everything else stays as it was."""

import json
import shutil
import socket
import struct
import subprocess

import numpy as np
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from analyzer.anonymize import Anonymizer
from analyzer.capture import open_capture
from analyzer.capture.frames import Frame
from analyzer.connections import track
from analyzer.connections.names import host_texts
from analyzer.report.scrub import Scrubber
from tests.capture.vendors import mapped
from tests.conftest import FIXTURES
from tests.frames import A, P, S, Segment, enhanced, interface, pcap, section

PAIR = FIXTURES / "v6.18-lb-drops-ack"
KEY = ("--anonymize", "--anonymize-key", "for the test")
NS = 1_000_000_000


def inputs(folder):
    """The pair's captures under telling names: the load balancer's as pcapng with a telling interface."""
    plain = zstandard.decompress((PAIR / "lb_client.pcap.zst").read_bytes(), 1 << 27)
    out = [section(), interface(resolution=9, name="eth0-10.10.100.1")]
    at = 24
    nanos = plain[:4] == b"\x4d\x3c\xb2\xa1"
    while at < len(plain):
        seconds, fraction, size, wire = struct.unpack_from("<IIII", plain, at)
        assert size == wire or size < wire
        out.append(enhanced(seconds * NS + fraction * (1 if nanos else 1000), plain[at + 16 : at + 16 + size]))
        at += 16 + size
    client = folder / "client-side-of-10.10.100.1.pcapng"
    client.write_bytes(b"".join(out))
    names = {"lb_server": "back", "s1": "host-10.20.0.11", "s2": "host-10.20.0.12"}
    for name, new in names.items():
        shutil.copy(PAIR / f"{name}.pcap.zst", folder / f"{new}.pcap.zst")
    words = ["--lb", client, "--lb", folder / "back.pcap.zst"]
    for name in ("host-10.20.0.11", "host-10.20.0.12"):
        words += ["--server", folder / f"{name}.pcap.zst"]
    return [*words, "--kernel", "6.18"]


def addresses(words):
    """Every host of the captures as text."""
    files = [str(word) for word in words if str(word).startswith("/")]
    found = set()
    for path in files:
        found |= set(host_texts(track(open_capture([path], "x")).hosts))
    return found


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    folder = tmp_path_factory.mktemp("telling")
    words = inputs(folder)
    return words, addresses(words), folder


def contents(folder):
    """(name, bytes) of every file of a report; Parquet tables as the text of their rows."""
    for path in folder.rglob("*"):
        if path.is_file():
            yield path.relative_to(folder), path.read_bytes()
            if path.suffix == ".parquet":
                yield path.name, str(pq.read_table(path).to_pylist()).encode()


def traces(name, data, hosts, folder):
    """What of the originals is found in *data*."""
    found = [host for host in hosts if host.encode() in data]
    if str(name).endswith("pcapng"):
        found += [host for host in hosts if socket.inet_aton(host) in data]
    return found + [word for word in ("eth0-", str(folder), "client-side-of", "host-10") if word.encode() in data]


def test_no_output_holds_an_original_address(synquest, told, tmp_path):
    words, hosts, folder = told
    assert len(hosts) > 10
    done = synquest("analyze", *words, *KEY, "-o", tmp_path / "r", COLUMNS="200")
    assert done.returncode == 0, done.stderr
    assert traces("terminal", done.stdout.replace(str(tmp_path).encode(), b""), hosts, folder) == []
    assert traces("warnings", done.stderr, hosts, folder) == []
    seen = dict(contents(tmp_path / "r"))
    assert {"evidence.pcapng", "report.html", "report.md", "findings.json"} <= {str(name) for name in seen}
    assert {name: found for name, data in seen.items() if (found := traces(name, data, hosts, folder))} == {}
    for form in ("csv", "jsonl"):
        synquest("analyze", *words, *KEY, "-o", tmp_path / form, "--tables", form, "--no-figures")
        rest = dict(contents(tmp_path / form))
        assert len(rest) >= 5
        assert {name: found for name, data in rest.items() if (found := traces(name, data, hosts, folder))} == {}


def test_json_and_annotate_too_and_verdicts_stay(synquest, told, tmp_path):
    words, hosts, folder = told
    hidden = synquest("analyze", *words, *KEY, "--json").stdout
    plain = synquest("analyze", *words, "--json").stdout
    assert traces("json", hidden, hosts, folder) == []
    assert traces("json", plain, hosts, folder)
    assert json.loads(hidden)["summary"] == json.loads(plain)["summary"]
    out = tmp_path / "all.pcapng"
    done = synquest("annotate", *words, *KEY, "--all", "-o", out)
    assert done.returncode == 0, done.stderr
    assert traces("all.pcapng", out.read_bytes(), hosts, folder) == []


def test_a_key_without_the_option_is_wrong_usage(synquest):
    done = synquest("analyze", "--server", PAIR / "s1.pcap.zst", "--anonymize-key", "x")
    assert done.returncode == 2
    assert b"--anonymize" in done.stderr


# ---- the mapping --------------------------------------------------------------------------------


def shared_bits(a, b):
    """Leading bits that two packed addresses have in common."""
    return len(a) * 8 - (int.from_bytes(a, "big") ^ int.from_bytes(b, "big")).bit_length()


@given(
    st.sampled_from([4, 16]).flatmap(
        lambda n: st.tuples(st.binary(min_size=n, max_size=n), st.binary(min_size=n, max_size=n), st.integers(0, 8 * n))
    )
)
@settings(max_examples=300, deadline=None)
def test_prefixes_are_preserved_exactly(pair):
    a, other, keep = pair
    bits = len(a) * 8
    low = (1 << (bits - keep)) - 1
    b = (int.from_bytes(a, "big") & ~low | int.from_bytes(other, "big") & low).to_bytes(len(a), "big")
    mapping = Anonymizer("k")
    assert shared_bits(mapping.packed(a), mapping.packed(b)) == shared_bits(a, b)


def test_keys_differ_and_repeat():
    one, again, other = Anonymizer("a"), Anonymizer("a"), Anonymizer("b")
    address = socket.inet_aton("10.1.2.3")
    assert one.packed(address) == again.packed(address) != other.packed(address)
    assert Anonymizer().packed(address) != Anonymizer().packed(address)
    assert one.packed(mapped("10.1.2.3"))[12:] == one.packed(address)


def test_addresses_in_text():
    mapping = Anonymizer("k")
    v4, v6 = (str(mapping.text(a)) for a in ("10.1.2.3", "2001:db8::1"))
    assert {v4, v6}.isdisjoint({"10.1.2.3", "2001:db8::1"})
    text = "SYN 10.1.2.3:80 > [2001:db8::1]:443 saddr=10.1.2.3, at 12:34:56 kernel 3.10.0-1160"
    assert mapping.text(text) == f"SYN {v4}:80 > [{v6}]:443 saddr={v4}, at 12:34:56 kernel 3.10.0-1160"


# ---- frames -------------------------------------------------------------------------------------


def scrub(data, link=1, length=None):
    return Scrubber(Anonymizer("k"))(Frame(0, 1, 0, link, 0, length or len(data), data))


SECRET = b"secret-payload-"


@pytest.mark.parametrize("hosts", [("10.9.8.7", "10.9.8.6"), ("2001:db8::7", "2001:db8::6")])
def test_a_frame_keeps_its_tcp_and_nothing_else(hosts):
    toa = Segment(1, hosts[0], 1234, hosts[1], 80, A | P, 99, 7, tsval=55, tsecr=44, payload=SECRET * 4)
    data, length = scrub(toa.frame())
    assert length == len(toa.frame())
    assert data[:12] == bytes(12)
    assert SECRET not in data
    family = socket.AF_INET if "." in hosts[0] else socket.AF_INET6
    assert all(socket.inet_pton(family, host) not in data for host in hosts)
    assert struct.pack(">HHII", 1234, 80, 99, 7) in data
    assert struct.pack(">II", 55, 44) in data


def test_tunnels_options_and_icmp_leave_no_address():
    inner = Segment(1, "10.9.8.7", 1, "10.9.8.6", 80, S, 5, tsval=6)
    outer = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(inner.ip()), 0, 0, 64, 4, 0) + bytes(
        [172, 16, 0, 1, 172, 16, 0, 2]
    )
    quoting = struct.pack(">BBHI", 3, 1, 0, 0) + inner.ip()
    error = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(quoting), 0, 0, 64, 1, 0) + bytes([172, 16, 0, 1, 172, 16, 0, 2])
    record_route = bytes([0x46]) + inner.ip()[1:20] + bytes([7, 7, 4, 172, 16, 0, 3, 0])[:4] + inner.ip()[20:]
    ethernet = bytes([2] * 12) + b"\x08\x00"
    for packet in (outer + inner.ip(), error + quoting, record_route):
        data, _ = scrub(ethernet + packet)
        for address in ("10.9.8.7", "10.9.8.6"):
            assert socket.inet_aton(address) not in data
        assert bytes([172, 16, 0]) not in data
        assert bytes([2] * 6) not in data
    assert scrub(bytes([2] * 12) + b"\x08\x06" + bytes(28)) is None  # ARP


def test_a_client_address_option_is_emptied():
    segment = bytearray(Segment(1, "10.9.8.7", 1, "10.9.8.6", 80, A, 5, 6).ip())
    option = bytes([254, 8, 0x12, 0x34, 192, 0, 2, 9])
    segment[2:4], segment[32] = b"\0\x30", 7 << 4
    data, _ = scrub(bytes(12) + b"\x08\x00" + bytes(segment) + option, length=62)
    assert bytes([192, 0, 2, 9]) not in data
    assert bytes([254, 8, 0, 0, 0, 0, 0, 0]) in data


@pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed")
@pytest.mark.parametrize("hosts", [("10.9.8.7", "10.9.8.6"), ("2001:db8::7", "2001:db8::6")])
def test_checksums_are_right_where_they_were(tmp_path, hosts):
    frames = []
    for payload, wrong in ((b"", False), (b"", True), (SECRET, False)):
        raw = bytearray(Segment(1, hosts[0], 1234, hosts[1], 80, A, 99, 7, tsval=5, payload=payload).frame())
        if wrong:
            raw[-16 - len(payload)] ^= 1
        frames.append(scrub(bytes(raw)))
    path = tmp_path / "scrubbed.pcap"
    path.write_bytes(pcap([(NS, data) for data, _ in frames]))
    words = ["tshark", "-r", str(path), "-o", "tcp.check_checksum:TRUE", "-o", "ip.check_checksum:TRUE"]
    words += ["-T", "fields", "-e", "ip.checksum.status", "-e", "tcp.checksum.status"]
    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=60)
    lines = [line.split("\t") for line in done.stdout.splitlines()]
    assert [line[1] for line in lines[:2]] == ["1", "0"]
    assert all(line[0] in ("", "1") for line in lines)


@given(st.binary(max_size=120), st.sampled_from([0, 1, 101, 113, 276, 12345]))
@settings(max_examples=300, deadline=None)
def test_any_bytes_as_a_frame(body, link):
    start = np.random.default_rng(len(body)).integers(0, 2)
    data = (Segment(1, "10.9.8.7", 1, "10.9.8.6", 80, S, 5, tsval=6).frame()[:40] if start else b"") + body
    found = scrub(data, link)
    assert found is None or len(found[0]) <= found[1] + len(data)
