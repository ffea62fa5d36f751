"""The live server against real kernels: the same packets in, the kernel's own verdict out."""

import bisect
import socket

import numpy as np
import pytest

from analyzer.capture import open_capture
from analyzer.kernel.events import ACK, FIN, RST, SYN, Accept, Close, Segment, Send, Shutdown
from analyzer.kernel.model import Machine, Server
from analyzer.kernel.profiles import find_profile
from analyzer.schema import OPT_TS
from tests.conftest import FIXTURES
from tests.replay.real import RIGHT, settings, truth

PORT = 1120
COLUMNS = (
    "time", "src_hi", "src_lo", "sport", "dst_hi", "dst_lo", "dport", "flags", "seq", "ack", "tsval", "tsecr",
    "length", "opts", "ipid",
)  # fmt: skip


PORTS = (PORT, PORT + 1)


def read_rows(path):
    """The TCP packets of a capture to and from the server's ports, as dictionaries."""
    rows = np.concatenate([b.copy() for b in open_capture([str(path)], "server").blocks()])
    rows = rows[np.isin(rows["sport"], PORTS) | np.isin(rows["dport"], PORTS)]
    return [dict(zip(COLUMNS, row, strict=True)) for row in rows[list(COLUMNS)].tolist()]


def key_of(p, ours):
    local, remote = (p["src_hi"], p["src_lo"]), (p["dst_hi"], p["dst_lo"])
    return (local, p["sport"], remote, p["dport"]) if ours else (remote, p["dport"], local, p["sport"])


class Recorder:
    """Initial sequence numbers as the real server chose them: the model cannot know its secret."""

    def __init__(self, rows):
        self.times, self.numbers = {}, {}
        for p in rows:
            if p["sport"] in PORTS and p["flags"] & (SYN | ACK) == SYN | ACK:
                self.times.setdefault(key_of(p, True), []).append(p["time"])
                self.numbers.setdefault(key_of(p, True), []).append(p["seq"])

    def __call__(self, key, now):
        at = bisect.bisect_left(self.times.get(key, []), now)
        return self.numbers[key][at] if at < len(self.times.get(key, [])) else 1


def half_closed(name):
    """Server FINs that were a shutdown, not a close: (peer, port, number after the FIN)."""
    path = FIXTURES / name / "half-closed.txt"
    lines = path.read_text().split("\n") if path.exists() else []
    return {(peer, int(port), int(end)) for peer, port, end in (line.split() for line in lines if line)}


def fin(key, p):
    return socket.inet_ntoa(key[2][1].to_bytes(8, "big")[4:]), key[3], p["seq"] + p["length"] + 1 & 0xFFFFFFFF


def drive(rows, kernel, known, only_shut):
    """Feed a capture's inbound packets and the application's acts; returns the SYNs' decisions.

    *only_shut* tells of one of the server's FINs whether the descriptor stayed open.
    """
    server = Server(find_profile(kernel), known, Machine(isn=Recorder(rows), second_lag=1_000_000))
    for port in PORTS:
        server.listen(port, known.backlog)
    decisions = []
    for p in rows:
        ours = p["sport"] in PORTS
        key = key_of(p, ours)
        if ours:
            if p["flags"] & RST and p["flags"] & ACK:
                server.feed(Close(p["time"], key, reset=True))
            elif p["length"] and p["seq"] == getattr(getattr(server.table.get(key), "sender", None), "nxt", None):
                server.feed(Send(p["time"], key, p["length"]))
            if p["flags"] & FIN:
                server.feed((Shutdown if only_shut(key, p) else Close)(p["time"], key))
            continue
        tsval = p["tsval"] if p["opts"] & OPT_TS else None
        numbers = (p["flags"], p["seq"], p["ack"], tsval, p["tsecr"], p["length"])
        said = server.feed(Segment(p["time"], key[2], key[3], key[0], key[1], *numbers))
        if p["flags"] & (SYN | ACK | RST) == SYN:
            decisions.append((p, key, said))
        if any(word == "ready" for word, *_ in said.notices):
            server.feed(Accept(p["time"], key[1]))
    return server, decisions


CASES = [
    ("el7-recycle", "el7.9", {"PAWSPassive": 706, "PAWSEstab": 4, "ListenDrops": 706, "TWKilled": 293}),
    ("v4.9-recycle", "4.9.337", {"PAWSPassive": 706, "PAWSEstab": 4, "TWKilled": 292, "TCPChallengeACK": 17}),
    ("v3.10-recycle", "3.10.108", {"PAWSPassive": 678, "PAWSEstab": 1, "ListenDrops": 678, "TWKilled": 276}),
    ("el7-norecycle", "el7.9", {"PAWSPassive": 0, "PAWSEstab": 57, "TWKilled": 0}),
    ("v6.1-timewait", "6.1", {"PAWSEstab": 59, "PAWSPassive": 0, "ListenDrops": 0}),
]


@pytest.mark.parametrize(("name", "kernel", "counters"), CASES)
def test_it_decides_and_counts_as_the_real_kernel_did(name, kernel, counters):
    """Every SYN's verdict, and the kernel's own counters over the whole capture."""
    kept = half_closed(name)
    rows = read_rows(FIXTURES / name / "server.pcap.zst")
    server, decisions = drive(rows, kernel, settings(name), lambda key, packet: fin(key, packet) in kept)
    words = truth(name)
    assert len(words) == len(decisions)
    wrong = [
        (i, word, said.verdict, said.rule)
        for i, ((*_, said), word) in enumerate(zip(decisions, words, strict=True))
        if said.verdict not in RIGHT[word]
    ]
    assert not wrong
    assert {name: server.counters[name] for name in counters} == counters
