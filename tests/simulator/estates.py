"""Simulated estates, made once for all tests, and the analyzer's verdicts held against their truth."""

import atexit
import csv
import shutil
import tempfile
from collections import Counter, defaultdict
from dataclasses import dataclass
from functools import cache
from ipaddress import IPv4Address
from pathlib import Path

from analyzer.pipeline import AnalyzeOptions, analyze
from analyzer.schema import CERTAINTIES, OPT_TS, VERDICTS
from analyzer.simulator.run import simulate
from analyzer.simulator.scenario import load


@cache
def estate(name: str, *changes: str, seed: int | None = None) -> Path:
    """The folder of a simulated scenario."""
    folder = Path(tempfile.mkdtemp(prefix="estate-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    simulate(load(name, list(changes), seed), folder)
    return folder


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def syn_rows(folder: Path) -> list[dict[str, str]]:
    return rows(folder / "truth" / "syns.csv")


@dataclass
class Score:
    """How the analyzer's verdicts agree with the truth: (certainty, right) counts, and what was wrong."""

    counts: Counter[tuple[str, bool]]
    wrong: list[tuple[object, ...]]

    def share(self) -> float:
        right = sum(n for (_, ok), n in self.counts.items() if ok)
        return right / max(1, sum(self.counts.values()))


def arrived(folder: Path) -> dict[tuple[object, ...], list[dict[str, str]]]:
    """Truth of the SYNs that reached a server's TCP, by what the server's capture shows of them."""
    truth = defaultdict(list)
    for row in syn_rows(folder):
        if row["time_server"] and row["snat_h"]:
            key = (row["snat_h"], int(row["snat_p"]), row["server_h"], int(row["server_isn"]), row["server_tsval"])
            truth[key].append(row)
    for group in truth.values():
        group.sort(key=lambda row: row["time_server"])
    return truth


def judged(folder: Path, server: str):
    """(truth row, verdict, certainty) of every SYN in one server's capture."""
    listen = next(x for x in (folder / "listen.txt").read_text().splitlines() if x.startswith(f"{server}:"))
    options = AnalyzeOptions(
        servers=[str(folder / f"server-{server}.pcap")],
        sysctl_file=str(folder / f"sysctl-{server}.txt"),
        backlog=int(listen.split()[-1]),
    )
    vantage = analyze(options).vantages[0]
    truth, seen = arrived(folder), Counter()

    def ip(host):
        return str(IPv4Address(int(vantage.tracked.hosts[host]["lo"]) & 0xFFFFFFFF))

    for syn, said in zip(vantage.tracked.syns.to_array(), vantage.replayed.verdicts.to_array(), strict=True):
        tsval = str(int(syn["tsval"])) if syn["opts"] & OPT_TS else ""
        key = (ip(syn["orig"]), int(syn["orig_p"]), ip(syn["resp"]), int(syn["isn"]), tsval)
        found = truth.get(key, [])
        if seen[key] < len(found):
            yield found[seen[key]], VERDICTS[said["verdict"]], CERTAINTIES[said["certainty"]]
        seen[key] += 1


def score(folder: Path) -> Score:
    """The analyzer on every server capture of *folder*, its kernel and settings given."""
    result = Score(Counter(), [])
    for capture in sorted(folder.glob("server-*.pcap")):
        for truth, verdict, certainty in judged(folder, capture.stem.removeprefix("server-")):
            if truth["rule"] == "firewall":
                continue
            right = verdict == truth["verdict"] or {verdict, truth["verdict"]} == {"accept", "cookie"}
            result.counts[certainty, right] += 1
            if not right:
                result.wrong.append((capture.name, certainty, verdict, truth["rule"], truth["time_server"]))
    return result
