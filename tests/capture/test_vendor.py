"""F5 trailers, NetScaler traces, and what travels in segments: who is on the other side."""

import shutil
import struct
import subprocess

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from analyzer.capture import open_capture
from analyzer.capture.identity import client_option, proxy_header
from analyzer.errors import InputError
from analyzer.schema import IDENTITY_SOURCES
from tests.capture.vendors import FIRST, dpt, element, high, low, mapped, medium, record, segments, trace
from tests.capture.vendors import block as part_of_trailer
from tests.conftest import FIXTURES
from tests.frames import A, P, Segment, pcap

NS = 1_000_000_000
FILES = ("f5_legacy.pcap", "f5_dpt.pcap", "ns30.cap", "ns35.cap")
PLAIN = {name: zstandard.decompress((FIXTURES / "vendor" / f"{name}.zst").read_bytes(), 1 << 20) for name in FILES}
needs_tshark = pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed")


def read(path):
    capture = open_capture([str(path)], "lb")
    blocks = [block.copy() for block in capture.blocks()]
    return np.concatenate(blocks) if blocks else np.zeros(0), capture


def put(tmp_path, data, name="trace.cap"):
    path = tmp_path / name
    path.write_bytes(data)
    return path


def tshark(path, *fields):
    words = ["tshark", "-r", str(path), "-T", "fields"]
    for field in fields:
        words += ["-e", field]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    return [line.split("\t") for line in done.stdout.splitlines()]


def nanoseconds(text):
    seconds, _, fraction = text.partition(".")
    return int(seconds) * NS + int(fraction.ljust(9, "0")[:9])


def same_as_tshark(path, rows):
    """Frame, time, ports, sequence number and TSval of every TCP frame."""
    fields = (
        "frame.number",
        "frame.time_epoch",
        "tcp.srcport",
        "tcp.dstport",
        "tcp.seq_raw",
        "tcp.options.timestamp.tsval",
    )
    theirs = [
        (int(frame), nanoseconds(time), *map(int, rest)) for frame, time, *rest in tshark(path, *fields) if rest[0]
    ]
    ours = [tuple(map(int, row[["frame", "time", "sport", "dport", "seq", "tsval"]])) for row in rows]
    return ours == theirs and len(ours) > 0


@needs_tshark
@pytest.mark.parametrize("name", FILES)
def test_packets_of_each_vendor_file_as_tshark_sees_them(tmp_path, name):
    path = put(tmp_path, PLAIN[name], name)
    rows, capture = read(path)
    assert same_as_tshark(path, rows)
    assert not capture.problems


def test_f5_trailers_name_both_legs():
    for name in ("f5_legacy.pcap", "f5_dpt.pcap"):
        _, capture = read(FIXTURES / "vendor" / f"{name}.zst")
        server_leg, client_leg = capture.identities.to_array()
        assert (server_leg["flow"], server_leg["peer_flow"]) == (0x400000001200, 0x400000001100)
        assert (client_leg["flow"], client_leg["peer_flow"]) == (0x400000001100, 0x400000001200)
        assert (server_leg["remote_lo"] & 0xFFFFFFFF, server_leg["remote_p"]) == (0xC000020A, 40000)
        assert (client_leg["local_lo"] & 0xFFFFFFFF, client_leg["local_p"]) == (0x0A140009, 1120)
        assert server_leg["vip"] == b"/Common/cal"
        assert (server_leg["frame"], client_leg["frame"]) == (3, 6)


@needs_tshark
@pytest.mark.parametrize("name", ["ns30.cap", "ns35.cap"])
def test_netscaler_ids_as_tshark_sees_them(tmp_path, name):
    path = put(tmp_path, PLAIN[name], name)
    _, capture = read(path)
    theirs = {
        int(f): (int(a, 16), int(b, 16))
        for f, a, b in tshark(path, "frame.number", "nstrace.pdevno", "nstrace.l_pdevno")
    }
    ours = capture.identities.to_array()
    assert len(ours) >= 2
    assert all(theirs[int(row["frame"])] == (int(row["flow"]), int(row["peer_flow"])) for row in ours)


@needs_tshark
@pytest.mark.parametrize("part", [False, True])
@pytest.mark.parametrize("generation", sorted(FIRST))
def test_second_generation_traces(tmp_path, generation, part):
    frames = [s.frame() for s in segments(200)]  # more than two pages
    records = [
        record(generation, frame, 1000 if generation < 23 else 1000 * i, 16 + i, 500 + i, rx=i % 2 == 0, part=part)
        for i, frame in enumerate(frames)
    ]
    path = put(tmp_path, trace(b"V20", records))
    rows, capture = read(path)
    assert same_as_tshark(path, rows)
    assert len(rows) == 200
    ids = capture.identities.to_array()
    assert len(ids) == (200 if generation > 20 else 0)
    assert ids["flow"].tolist() == [16 + i for i in range(len(ids))]


def test_long_traces_keep_every_id(tmp_path):
    frame = segments(1)[0].frame()
    junk = frame[:12] + b"\x08\x06" + bytes(46)  # ARP: a frame without a row, and with ids of its own
    records = [record(24, junk if i % 3 else frame, i, i + 1, i + 70000, rx=True) for i in range(30000)]
    rows, capture = read(put(tmp_path, trace(b"V20", records)))
    assert rows["frame"].tolist() == list(range(1, 30001, 3))
    assert capture.identities.to_array()["flow"].tolist() == list(range(1, 30001, 3))


def test_a_damaged_page_costs_no_more_than_itself(tmp_path):
    records = [record(23, s.frame(), 1000 * i, 1, 2, rx=True) for i, s in enumerate(segments(300))]
    data = bytearray(trace(b"V20", records))
    whole = len(read(put(tmp_path, bytes(data)))[0])
    at = data.find(bytes([FIRST[23] + 2]), 8192)
    data[at : at + 3] = bytes([FIRST[23] + 2, 0x01, 0x00])
    rows, capture = read(put(tmp_path, bytes(data)))
    assert whole == 300
    assert 200 < len(rows) < 300
    assert capture.problems[0].kind == "damaged"
    assert capture.problems[0].offset == at


def test_a_cut_trace_keeps_what_came_before(tmp_path):
    rows, capture = read(put(tmp_path, PLAIN["ns30.cap"][:3000]))
    assert 3 <= len(rows) < 33
    assert capture.problems[0].kind == "cut"


def test_the_first_generation_is_refused_in_one_line(tmp_path):
    with pytest.raises(InputError, match=r"version 1\.0"):
        open_capture([str(put(tmp_path, b"\x01\x01\x40\x00NetScaler Performance Data\0" + bytes(100)))], "lb")


# ---- each form of F5's trailer --------------------------------------------------------------------

REMOTE, LOCAL = mapped("10.1.1.1"), mapped("10.2.2.2")
ROUTE_DOMAIN = bytes.fromhex("2620 0000 0c10 f501 0000 0007 0a01 0101")
PEER = high(REMOTE, 1111, LOCAL, 2222)
NAMED = b"/Common/vip"
FORMS = {
    "11.2": low() + medium(5, 6) + PEER,
    "padding before": bytes(6) + low() + medium(5, 6) + PEER,
    "9.4": part_of_trailer(1, 0, struct.pack(">BBBIIIB", 1, 0, 0, 5, 6, 0, 0) + b"vip".ljust(16, b"\0")) + PEER,
    "10.x": part_of_trailer(1, 0, b"\1\0\0" + b"vip".ljust(16, b"\0"))
    + part_of_trailer(2, 0, struct.pack(">IIIBBHH", 5, 6, 0, 0, 0, 0, 0))
    + PEER,
    "11.0": low() + part_of_trailer(2, 0, struct.pack(">QQIBBHH", 5, 6, 0, 0, 0, 0, 0)) + PEER,
    "11.4": low() + part_of_trailer(2, 1, struct.pack(">QQIBBHHB", 5, 6, 0, 0, 0, 0, 0, 0)) + PEER,
    "route domain": low() + medium(5, 6) + high(ROUTE_DOMAIN, 1111, LOCAL, 2222),
    "14.0": dpt(
        element(3, 1, PEER[3:]),
        element(2, 4, struct.pack(">QQIIBBIBB", 5, 6, 0, 0, 0, 0, 0, 3, 0)),
        element(1, 3, b"\1\0\0\3vip"),
    ),
    "15.0 with names and secrets": dpt(
        element(1, 4, b"\1\0\0\x09" + b"\1\2p1" + b"\0\3vip"),
        element(2, 4, struct.pack(">QQIIBBIBB", 5, 6, 0, 0, 0, 0, 0, 3, 0)),
        element(0, 0, b"s" * 48, provider=2),
        element(3, 1, PEER[3:]),
    ),
    "frame check sequence before": bytes.fromhex("00 a1 b2 c3") + dpt(
        element(2, 4, struct.pack(">QQIIBBIBB", 5, 6, 0, 0, 0, 0, 0, 3, 0)), element(3, 1, PEER[3:])
    ),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_each_form_of_the_trailer(tmp_path, form):
    frame = segments(1)[0].frame() + FORMS[form]
    _, capture = read(put(tmp_path, pcap([(NS, frame)])))
    (row,) = capture.identities.to_array()
    assert (row["flow"], row["peer_flow"]) == (5, 6)
    assert (row["remote_hi"], row["remote_lo"]) == (0, 0xFFFF0A010101)
    assert (row["remote_p"], row["local_p"]) == (1111, 2222)
    assert IDENTITY_SOURCES[row["source"]] == "f5"
    assert row["vip"] == (b"" if form.startswith("frame check") else b"/Common/vip" if NAMED in FORMS[form] else b"vip")


def test_a_cut_frame_and_a_peerless_one_say_nothing(tmp_path):
    frame = segments(1)[0].frame()
    cut = pcap([(NS, frame + FORMS["11.2"])], snaplen=len(frame) + 60)
    assert not len(read(put(tmp_path, cut))[1].identities)
    alone = pcap([(NS, frame + low() + medium(5, 0) + PEER)])
    (row,) = read(put(tmp_path, alone))[1].identities.to_array()
    assert (row["peer_flow"], row["remote_lo"], row["remote_p"]) == (0, 0, 0)


def test_what_repeats_is_kept_once(tmp_path):
    frame = segments(1)[0].frame() + FORMS["11.2"]
    _, capture = read(put(tmp_path, pcap([(NS * i, frame) for i in range(1, 20000)])))
    assert len(capture.identities) == 1


# ---- in the segment -----------------------------------------------------------------------------

V2 = b"\r\n\r\n\0\r\nQUIT\n\x21"
PROXIES = {
    "v1": b"PROXY TCP4 192.0.2.9 198.51.100.1 56324 443\r\nGET /",
    "v2": V2 + b"\x11\0\x0c" + bytes([192, 0, 2, 9, 198, 51, 100, 1]) + struct.pack(">HH", 56324, 443) + b"GET /",
}


@pytest.mark.parametrize("form", PROXIES)
@pytest.mark.parametrize("tunnel", [False, True])
def test_a_proxy_header_tells_the_client(tmp_path, form, tunnel):
    segment = Segment(1, "10.0.0.1", 30000, "10.0.0.2", 80, A | P, 5, 6, tsval=1, payload=PROXIES[form])
    frame = segment.frame()
    if tunnel:
        inner = segment.ip()
        head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(inner), 0, 0, 64, 4, 0)
        frame = frame[:14] + head + bytes([172, 16, 0, 1, 172, 16, 0, 2]) + inner
    _, capture = read(put(tmp_path, pcap([(NS, frame)])))
    (row,) = capture.identities.to_array()
    assert IDENTITY_SOURCES[row["source"]] == "proxy"
    assert (row["remote_lo"], row["remote_p"]) == (0xFFFFC0000209, 56324)
    assert (row["local_lo"], row["local_p"]) == (0xFFFFC6336401, 443)
    assert (row["sport"], row["dport"]) == (30000, 80)


@pytest.mark.parametrize(
    "payload",
    [
        b"PROXY UNKNOWN\r\n",
        b"PROXY TCP4 1.2.3.4 5.6.7.8 99999 1\r\n",
        b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2",
        b"PROXY TCP4 nonsense 5.6.7.8 1 2\r\n",
        V2 + b"\x11\0\x04abcd",
        V2[:12] + b"\x20\x11\0\x0c" + bytes(12),
    ],
)
def test_proxy_headers_that_tell_nobody(payload):
    assert proxy_header(payload) is None


def test_client_address_options():
    v4 = struct.pack(">BBH", 254, 8, 4711) + bytes([192, 0, 2, 9])
    v6 = struct.pack(">BBH", 253, 20, 4712) + mapped("2001:db8::9")
    assert client_option(b"\1\1" + v4)[:2] == (mapped("192.0.2.9"), 4711)
    assert client_option(v6 + b"\0\0")[:2] == (mapped("2001:db8::9"), 4712)
    assert client_option(bytes([254, 3, 9])) is None
    assert client_option(b"\x02\x00" + v4) is None


# ---- hostile inputs -----------------------------------------------------------------------------


@given(data=st.data(), name=st.sampled_from(FILES))
@settings(max_examples=120, deadline=None)
def test_mutated_files_give_warnings_and_nothing_worse(tmp_path_factory, data, name):
    raw = bytearray(PLAIN[name])
    for _ in range(data.draw(st.integers(1, 12))):
        at = data.draw(st.integers(0, min(len(raw), 6000) - 1))
        raw[at] = data.draw(st.sampled_from((0, 1, 2, 3, 0x7F, 0x80, 0xAC, 0xF5, 0xFF)))
    cut = data.draw(st.integers(60, len(raw)))
    path = put(tmp_path_factory.mktemp("m"), bytes(raw[:cut]), name)
    try:
        rows, capture = read(path)
    except InputError:
        return
    assert len(rows) <= capture.files[0].packets <= len(raw)
    capture.identities.to_array()


@given(st.binary(max_size=120), st.sampled_from([b"", b"PROXY TCP4 ", b"PROXY TCP6 ", V2, V2 + b"\x21"]))
@settings(max_examples=300, deadline=None)
def test_any_bytes_as_header_or_option(body, start):
    found = proxy_header(start + body)
    assert found is None or (len(found[0]), len(found[2])) == (16, 16)
    option = client_option(body)
    assert option is None or len(option[0]) == 16


@given(st.binary(max_size=160), st.sampled_from([b"", dpt()[:6], bytes([1, 14, 1]), bytes([2, 33, 3])]))
@settings(max_examples=300, deadline=None)
def test_any_bytes_as_trailer(body, start):
    from analyzer.capture import f5

    buffer = np.frombuffer(start + body + b"\xaa" * 8, np.uint8).copy()
    values, name = np.zeros(f5.VALUES, np.uint64), np.zeros(f5.NAME_BYTES, np.uint8)
    end = len(start + body)
    found = f5.parse(buffer, 0, end, values, name)
    untouched = values.copy()
    buffer[end:] = 0x55  # what lies behind the frame is never read
    values[:], name[:] = 0, 0
    assert f5.parse(buffer, 0, end, values, name) == found
    assert values.tolist() == untouched.tolist()
