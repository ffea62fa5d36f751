"""The live server against real kernels: the same packets in, the kernel's own verdict out."""

import bisect
import socket
from functools import cache

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


@cache
def packets(name):
    blocks = [b.copy() for b in open_capture([str(FIXTURES / name / "server.pcap.zst")], "server").blocks()]
    rows = np.concatenate(blocks)
    rows = rows[(rows["sport"] == PORT) | (rows["dport"] == PORT)]
    return [dict(zip(COLUMNS, row, strict=True)) for row in rows[list(COLUMNS)].tolist()]


def key_of(p, ours):
    local, remote = (p["src_hi"], p["src_lo"]), (p["dst_hi"], p["dst_lo"])
    return (local, p["sport"], remote, p["dport"]) if ours else (remote, p["dport"], local, p["sport"])


class Recorder:
    """Initial sequence numbers as the real server chose them: the model cannot know its secret."""

    def __init__(self, rows):
        self.times, self.numbers = {}, {}
        for p in rows:
            if p["sport"] == PORT and p["flags"] & (SYN | ACK) == SYN | ACK:
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


def run(name, kernel):
    """Feed a capture's inbound packets and the application's acts; returns the SYNs' decisions."""
    rows = packets(name)
    known = settings(name)
    server = Server(find_profile(kernel), known, Machine(isn=Recorder(rows), second_lag=1_000_000))
    server.listen(PORT, known.backlog)
    decisions, kept = [], half_closed(name)
    for p in rows:
        ours = p["sport"] == PORT
        key = key_of(p, ours)
        if ours:
            if p["flags"] & RST and p["flags"] & ACK:
                server.feed(Close(p["time"], key, reset=True))
            elif p["length"] and p["seq"] == getattr(getattr(server.table.get(key), "sender", None), "nxt", None):
                server.feed(Send(p["time"], key, p["length"]))
            if p["flags"] & FIN:
                server.feed((Shutdown if fin(key, p) in kept else Close)(p["time"], key))
            continue
        tsval = p["tsval"] if p["opts"] & OPT_TS else None
        said = server.feed(
            Segment(
                p["time"],
                key[2],
                key[3],
                key[0],
                key[1],
                p["flags"],
                p["seq"],
                p["ack"],
                tsval,
                p["tsecr"],
                p["length"],
            )
        )
        if p["flags"] & (SYN | ACK | RST) == SYN:
            decisions.append((p, said))
        if any(word == "ready" for word, *_ in said.notices):
            server.feed(Accept(p["time"], PORT))
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
    server, decisions = run(name, kernel)
    words = truth(name)
    wrong = [
        (i, word, said.verdict, said.rule)
        for i, ((_, said), word) in enumerate(zip(decisions, words, strict=True))
        if said.verdict not in RIGHT[word]
    ]
    assert not wrong
    assert {name: server.counters[name] for name in counters} == counters
