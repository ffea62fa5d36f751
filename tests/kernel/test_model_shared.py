"""The live server against more captures of real kernels: random load, floods, cases around the minute."""

import csv
import re
from collections import defaultdict
from dataclasses import replace

import pytest

from analyzer.kernel.settings import Settings, parse_sysctls
from tests.kernel.test_model import drive, fin, read_rows
from tests.replay.real import RIGHT

KERNELS = {"3.10.0-1160.el7": "el7.9", "3.10.108": "3.10.108", "4.9.337": "4.9.337"}
CASES = [
    ("3.10.0-1160.el7", "S3a-interval", 0), ("3.10.0-1160.el7", "S4b-ackoverflow-abort0", 0),
    ("3.10.0-1160.el7", "S6c-mixed-recycle1", 0), ("3.10.108", "S3b-cases", 0), ("3.10.108", "S5c-synflood", 0),
    ("3.10.108", "S6a-mixed-recycle0", 2), ("4.9.337", "S2-recycle0", 0), ("4.9.337", "S3a-interval", 1),
    ("4.9.337", "S4b-ackoverflow-abort1", 0), ("4.9.337", "S5a-synflood", 0), ("4.9.337", "S6a-mixed-recycle1", 0),
]  # fmt: skip
"""Scenario and how many verdicts may differ: a bucket or a second within a tick of its end."""


def text(folder, name):
    import gzip

    path = next(folder.glob(f"{name}*"))
    return gzip.open(path, "rt").read() if path.suffix == ".gz" else path.read_text()


@pytest.mark.corpus
@pytest.mark.parametrize(("kernel", "scenario", "allowed"), CASES)
def test_every_verdict_of_a_real_run(shared, kernel, scenario, allowed):
    folder = shared / "captures" / "kernel" / kernel / scenario
    known, _ = parse_sysctls(text(folder, "sysctl.txt"))
    backlog = int(re.search(r"backlog (\d+)", text(folder, "listen.txt"))[1])
    made = r"TWNEW peer=(\S+) port=(\d+) state=5 .*? snd_nxt=(\d+)"
    closed = {(peer, int(port), int(end)) for peer, port, end in re.findall(made, text(folder, "probe.log"))}
    rows = read_rows(next(folder.glob("server.pcap*")))
    settings = replace(Settings().override(known), backlog=backlog)
    _, decisions = drive(rows, KERNELS[kernel], settings, lambda key, packet: fin(key, packet) not in closed)
    said = defaultdict(list)
    for packet, key, decision in decisions:
        said[(*fin(key, packet)[:2], packet["seq"], packet["tsval"])].append(decision)
    wrong, judged = [], 0
    for row in csv.DictReader(text(folder, "truth.csv").splitlines()):
        tsval = 0 if row["tsval"] == "none" else int(row["tsval"])
        found = said.get((row["src"], int(row["sport"]), int(row["isn"]), tsval))
        if found:
            judged += 1
            decision = found.pop(0)
            if decision.verdict not in RIGHT[row["verdict"]]:
                wrong.append((row["ts"], row["verdict"], row["kernel_reason"], decision.verdict, decision.rule))
    assert judged > 15
    assert len(wrong) <= allowed, wrong[:10]
