"""What the analyzer rebuilds of a simulated estate, held against the simulator's truth.

``python -m benchmarks.reconstruct`` prints the figures of whole scenarios.
"""

import csv
import tomllib
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from pathlib import Path

from analyzer.pipeline import AnalyzeOptions, analyze
from analyzer.schema import CAUSE_CERTAINTIES, CAUSES, CERTAINTIES, ERAS, OPT_TS, VERDICTS
from analyzer.seqnum import d32
from analyzer.units import NS

NEAR = NS // 20
"""How far a SYN's time in a capture may lie from its true one, on the capture's clock."""
TRUE = {"offset_s": "0", "drift_ppm": "0"}
ERA_OF = {"host": "per host", "pair": "per address pair", "connection": "per connection"}
SMALL = {"scale": ("duration_s=60", "clients.count=12", "clients.app.interval_ms=1000")}
"""Changes that make a scenario fit for a check."""


@dataclass
class Reconstruction:
    """Counts of what is right and wrong, and the wrong ones themselves.

    Attributes:
        verdicts, causes: By (certainty, right).
        flows: Flows reported, and those of them that never were.
        counters: Residuals of counters that are not 0, by (host, counter).
        outside: Counters outside of the predicted bounds.
        clocks: Clocks compared, and sentences on those outside of their bounds.
    """

    verdicts: Counter[tuple[str, bool]] = field(default_factory=Counter)
    causes: Counter[tuple[str, bool]] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    flows: int = 0
    false_flows: int = 0
    true_flows: int = 0
    found_flows: int = 0
    counters: dict[tuple[str, str], int] = field(default_factory=dict)
    outside: list[str] = field(default_factory=list)
    clocks: int = 0
    wrong_clocks: list[str] = field(default_factory=list)
    disagreements: list[str] = field(default_factory=list)
    unmatched: int = 0

    def cause_share(self) -> float:
        right = sum(n for (_, ok), n in self.causes.items() if ok)
        return right / max(1, sum(self.causes.values()))


def options(folder: Path) -> AnalyzeOptions:
    """Everything that the estate's people would hand in, each server's own settings too."""
    names, backlogs = [], []
    for line in (folder / "listen.txt").read_text().splitlines():
        names.append(line.partition(":")[0])
        backlogs.append(int(line.split()[-1]))
    return AnalyzeOptions(
        servers=[str(folder / f"server-{name}.pcap") for name in names],
        lbs=sorted(str(path) for path in folder.glob("*.pcapng")),
        sysctl_file=[str(folder / f"sysctl-{name}.txt") for name in names],
        backlog=backlogs,
        netstat=[(str(folder / f"netstat-{n}-before.txt"), str(folder / f"netstat-{n}-after.txt")) for n in names],
        probe_log=str(folder / "probe.log") if (folder / "probe.log").stat().st_size else None,
    )


def table(folder: Path, name: str) -> list[dict[str, str]]:
    with (folder / "truth" / f"{name}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def reconstruct(folder: Path) -> Reconstruction:
    """Analyse one simulated folder and compare."""
    analysis = analyze(options(folder))
    done = Reconstruction()
    names = [line.partition(":")[0] for line in (folder / "listen.txt").read_text().splitlines()]
    start = _start(folder)
    captures = {row["name"]: row for row in table(folder, "clocks") if row["kind"] == "capture"}
    balancer = next(row for name, row in captures.items() if not name.startswith("server-"))
    truth = table(folder, "syns")
    servers = iter(names)
    shown = {v.name: captures[f"server-{next(servers)}"] if v.side == "server" else balancer for v in analysis.vantages}
    for vantage in analysis.vantages:
        clock = None if vantage.side == "server" else (balancer, start)
        _syns(vantage, truth, clock, done)
    _flows(analysis, table(folder, "snat_truth"), done)
    _offsets(analysis, shown, start, done)
    _hosts(analysis, folder, shown, start, done)
    for row in analysis.diagnosis.counters:
        if row.seen is not None and row.residual:
            done.counters[row.host, row.name] = row.residual
        if row.seen is not None and not row.predicted_low <= row.seen <= row.predicted_high:
            done.outside.append(f"{row.host} {row.name}: {row.seen} not in {row.predicted_low}-{row.predicted_high}")
    probe = analysis.diagnosis.probe
    if probe is not None:
        done.unmatched = probe.unmatched_lines
        done.disagreements = [f"frame {f}: {line} | {said}" for f, line, said, why in probe.disagreements if not why]
    return done


def _start(folder: Path) -> int:
    with (folder / "scenario.toml").open("rb") as file:
        return round(tomllib.load(file)["start"] * NS)


def _ns(text: str) -> int:
    second, _, part = text.partition(".")
    return int(second) * NS + int(part or 0)


def _on(clock: dict[str, str], start: int, time: int) -> int:
    """A true time as a capture's clock shows it."""
    return time + round(float(clock["offset_s"]) * NS) + round((time - start) * float(clock["drift_ppm"]) / 1e6)


def _ip(hosts, host: int) -> str:
    return str(IPv4Address(int(hosts[host]["lo"]) & 0xFFFFFFFF))


def _syns(vantage, truth, clock, done: Reconstruction) -> None:
    """Verdict and cause of each SYN row whose truth is known."""
    known = _at_balancer(truth, *clock) if clock else _at_server(truth)
    hosts = vantage.tracked.hosts
    rows = vantage.tracked.syns.to_array()
    verdicts, causes = vantage.replayed.verdicts.to_array(), vantage.causes.to_array()
    for syn, said, why in zip(rows, verdicts, causes, strict=True):
        tsval = str(int(syn["tsval"])) if syn["opts"] & OPT_TS else ""
        key = (_ip(hosts, syn["orig"]), int(syn["orig_p"]), _ip(hosts, syn["resp"]), int(syn["isn"]), tsval)
        near = [pair for pair in known.get(key, []) if abs(pair[0] - int(syn["time"])) < NEAR]
        if not near:
            continue
        row = min(near, key=lambda pair: abs(pair[0] - int(syn["time"])))[1]
        at = f"{vantage.name} frame {int(syn['frame'])} time {row['time_client']} {key}"
        verdict, sure = VERDICTS[said["verdict"]], CERTAINTIES[said["certainty"]]
        if row["verdict"] and row["rule"] != "firewall" and verdict != "unknown":
            right = verdict == row["verdict"] or {verdict, row["verdict"]} == {"accept", "cookie"}
            done.verdicts[sure, right] += 1
            if not right:
                done.wrong.append(f"verdict {sure}: {verdict}, truth {row['verdict']} {row['rule']}: {at}")
        cause, sure = CAUSES[why["cause"]], CAUSE_CERTAINTIES[why["certainty"]]
        cut = cause == "no_evidence" and int(syn["time"]) > vantage.tracked.last_time - NS  # no time left for an answer
        if row["causes"] and not cut:
            right = cause in row["causes"].split("|")
            done.causes[sure, right] += 1
            if not right:
                done.wrong.append(f"cause {sure}: {cause}, truth {row['causes']} ({row['rule']}): {at}")


def _at_server(truth):
    found = defaultdict(list)
    for row in truth:
        if row["time_server"] and row["snat_h"]:
            key = (row["snat_h"], int(row["snat_p"]), row["server_h"], int(row["server_isn"]), row["server_tsval"])
            found[key].append((_ns(row["server_clock"]), row))
    return found


def _at_balancer(truth, clock, start: int):
    found = defaultdict(list)
    for row in truth:
        if row["time_lb_in"]:
            key = (row["client_h"], int(row["client_p"]), row["vip_h"], int(row["isn"]), row["tsval"])
            found[key].append((_on(clock, start, _ns(row["time_lb_in"])), row))
        if row["time_lb_out"]:
            key = (row["snat_h"], int(row["snat_p"]), row["server_h"], int(row["server_isn"]), row["server_tsval"])
            found[key].append((_on(clock, start, _ns(row["time_lb_out"])), row))
    return found


def _flows(analysis, truth, done: Reconstruction) -> None:
    ends = ("client", "vip", "snat", "server")
    columns = ("client_ip", "client_port", "vip", "vport", "snat_ip", "snat_port", "server_ip", "server_port")
    real = {tuple(row[c] for c in columns) for row in truth}
    told = set()
    for flow in analysis.joined.flows:
        four = [(str(IPv4Address(int(flow[f"{e}_lo"]) & 0xFFFFFFFF)), str(int(flow[f"{e}_p"]))) for e in ends]
        told.add(tuple(word for pair in four for word in pair))
    done.flows, done.true_flows = len(told), len(real)
    done.false_flows, done.found_flows = len(told - real), len(told & real)
    done.wrong += [f"flow {flow}" for flow in sorted(told - real)]


def _offsets(analysis, shown, start: int, done: Reconstruction) -> None:
    """Offsets of capture clocks, at both ends of every segment."""
    for offset in analysis.joined.offsets:
        first, second = shown[offset.first], shown[offset.second]
        for part in offset.segments:
            done.clocks += 1
            at_end = part.seconds + part.drift_ppm / 1e6 * (part.end - part.start) / NS
            for time, told, bound in (
                (part.start, part.seconds, part.half_width),
                (part.end, at_end, part.half_width_end),
            ):
                true = time - (_on(first, start, time) - time)  # within the drift of an offset: far below 1 ns
                real = (_on(second, start, true) - _on(first, start, true)) / NS
                if abs(told - real) > bound + 2e-9:
                    done.wrong_clocks.append(f"{offset.first}-{offset.second}: {told} ± {bound}, truth {real}")


def _hosts(analysis, folder: Path, shown, start: int, done: Reconstruction) -> None:
    """Host clocks whose owner the truth names: era, rate, offset and skew."""
    owners = _owners(folder)
    shown_by = {capture["name"]: capture for capture in shown.values()}
    for clock in analysis.joined.clocks:
        vantage = analysis.vantages[int(clock["vantage"])]
        host = _ip(vantage.tracked.hosts, int(clock["host"]))
        row, capture = owners.get(host), shown[vantage.name]
        if row is None or not clock["era"] or not clock["number"]:
            continue
        done.clocks += 1
        at = f"{vantage.name} {host}"
        told = ERAS[clock["era"]]
        alike = ERA_OF[row["era"]], "per address pair" if clock["peer"] >= 0 and row["era"] == "host" else ""
        if told not in alike:  # one peer does not tell a clock of the host from one of the pair
            done.wrong_clocks.append(f"{at}: {told}, truth {row['era']}")
            continue
        if not clock["hz"]:
            continue
        if float(row["hz"]) != clock["hz"]:
            done.wrong_clocks.append(f"{at}: {clock['hz']} Hz, truth {row['hz']}")
            continue
        wall = shown_by.get(f"server-{row['name']}", TRUE)  # a server's TSval runs with its wall clock
        skew = float(row["drift_ppm"]) + float(wall["drift_ppm"]) - float(capture["drift_ppm"])
        if abs(float(clock["skew_ppm"]) - skew) > float(clock["skew_bound"]) + 0.1:
            done.wrong_clocks.append(f"{at}: {clock['skew_ppm']} ± {clock['skew_bound']} ppm, truth {skew}")
        if row["era"] == "host":
            since = vantage.tracked.first_time - _on(capture, start, start) + _on(wall, start, start) - start
            ticks = int(row["tsval_at_start"]) + round(float(row["hz"]) * since / NS)
            away = d32(int(clock["offset"]), ticks & 0xFFFFFFFF)
            if abs(away) > 2 + float(row["hz"]) / 100:
                done.wrong_clocks.append(f"{at}: offset {away} ticks away")


def _owners(folder: Path) -> dict[str, dict[str, str]]:
    """TSval clocks by address: clients in the order of their addresses, servers by name."""
    with (folder / "scenario.toml").open("rb") as file:
        scenario = tomllib.load(file)
    clocks = {(row["kind"], row["name"]): row for row in table(folder, "clocks")}
    found = {}
    for kind, groups in (("client", scenario.get("clients", [])), ("server", scenario.get("server", []))):
        for group in groups:
            for i in range(group["count"]):
                row = clocks.get((kind, f"{group['name']}{i + 1}"))
                if row is not None:
                    found[str(IPv4Address(group["address"]) + i)] = row
    return found
