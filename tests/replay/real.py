"""Captures of real kernels with the kernel's own verdict for every SYN, from ``fixtures/``."""

import csv
import io
import re
from dataclasses import replace
from functools import cache

import zstandard

from analyzer.capture import open_capture
from analyzer.connections import Tracked, track
from analyzer.kernel.settings import Settings, parse_sysctls
from analyzer.schema import CERTAINTIES, VERDICTS
from tests.conftest import FIXTURES

RIGHT = {"accepted": {"accept", "cookie"}, "rejected": {"drop"}, "ack": {"ack"}, "rst": {"rst"}}


@cache
def capture(name: str) -> Tracked:
    return track(open_capture([str(FIXTURES / name / "server.pcap.zst")], "server"))


def settings(name: str) -> Settings:
    values, _ = parse_sysctls((FIXTURES / name / "sysctl.txt").read_text())
    backlog = re.search(r"backlog (\d+)", (FIXTURES / name / "listen.txt").read_text())
    assert backlog is not None
    return replace(Settings().override(values), backlog=int(backlog[1]))


@cache
def truth(name: str) -> list[str]:
    raw = zstandard.ZstdDecompressor().stream_reader((FIXTURES / name / "truth.csv.zst").open("rb")).read()
    return [row["verdict"] for row in csv.DictReader(io.StringIO(raw.decode()))]


def tally(replayed, words):
    """Counts of (certainty, right or wrong)."""
    count = {}
    for row, said in zip(replayed.verdicts.to_array(), words, strict=True):
        right = VERDICTS[int(row["verdict"])] in RIGHT[said]
        key = (CERTAINTIES[int(row["certainty"])], right)
        count[key] = count.get(key, 0) + 1
    return count
