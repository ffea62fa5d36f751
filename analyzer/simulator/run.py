"""A scenario in, a folder out: captures, truth, and what an administrator would have beside them."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from analyzer.errors import UsageError
from analyzer.simulator import papers
from analyzer.simulator.estate import Estate, build
from analyzer.simulator.scenario import Scenario, toml_value
from analyzer.simulator.truth import write_rows
from analyzer.simulator.world import NS


@dataclass(frozen=True)
class Simulated:
    """What was written.

    Attributes:
        folder: Where.
        files: Captures, with the packets in each.
        syns: SYN packets that clients sent.
    """

    folder: Path
    files: dict[str, int]
    syns: int

    @property
    def packets(self) -> int:
        """Packets in all captures."""
        return sum(self.files.values())


def simulate(scenario: Scenario, folder: str | Path) -> Simulated:
    """Run *scenario* and write its folder.

    Raises:
        UsageError: The scenario names what is not there, or the folder cannot be written.
    """
    out = Path(folder)
    try:
        out.mkdir(parents=True, exist_ok=True)
        estate = build(scenario, out)
    except OSError as error:
        raise UsageError(f"{folder}: cannot be written: {error.strerror}") from None
    counters = {name: papers.Counters(member.host) for name, member in estate.members.items()}
    for name, counter in counters.items():
        papers.write(out / f"netstat-{name}-before.txt", counter.text())
    world = estate.world
    world.run(world.start + round(scenario.duration_s * NS))
    for point in world.points:
        point.flush(world.now)
        point.rows, point.blocks = [], []
        point.close()
    estate.ledger.close(world.now, [f for b in estate.balancers for f in list(b.by_server.values())])
    for name, counter in counters.items():
        papers.write(out / f"netstat-{name}-after.txt", counter.text())
    _papers(estate)
    return Simulated(out, {p.path.name: p.packets for p in world.points}, estate.ledger.syns)


def _papers(estate: Estate) -> None:
    out = estate.out
    listens = []
    for index, (name, member) in enumerate(estate.members.items()):
        text = papers.sysctl_text(member.host, member.group.kernel)
        papers.write(out / f"sysctl-{name}.txt", text)
        if not index:
            papers.write(out / "sysctl.txt", text)
        listens += [
            f"{name}: tcp *:{port} backlog {heard.backlog}\n" for port, heard in member.host.kernel.listeners.items()
        ]
    papers.write(out / "listen.txt", "".join(listens))
    estate.probe.close()
    if estate.netcat is not None:
        papers.write(out / "nc.log", "".join(line + "\n" for line in estate.netcat.lines))
    columns = ("kind", "name", "offset_s", "drift_ppm", "hz", "era", "tsval_at_start")
    write_rows(out / "truth" / "clocks.csv", columns, estate.clocks)
    papers.write(out / "scenario.toml", as_toml(estate.scenario))


def as_toml(scenario: Scenario) -> str:
    """A scenario as a TOML file that says everything."""
    lines: list[str] = []
    _table(asdict(scenario), "", lines)
    return "\n".join(lines) + "\n"


def _table(values: dict[str, Any], name: str, lines: list[str]) -> None:
    nested = {}
    for key, value in values.items():
        if value is None:
            continue
        if isinstance(value, dict) or (isinstance(value, tuple) and value and isinstance(value[0], dict)):
            nested[key] = value
        elif not (isinstance(value, tuple) and not value and key in ("script", "firewall", "flood")):
            lines.append(f"{_key(key)} = {toml_value(value)}")
    for key, value in nested.items():
        full = f"{name}.{_key(key)}" if name else _key(key)
        for item in value if isinstance(value, tuple) else (value,):
            lines.append("")
            lines.append(f"[[{full}]]" if isinstance(value, tuple) else f"[{full}]")
            _table(item, full, lines)


def _key(key: str) -> str:
    return key if key.replace("_", "").isalnum() else f'"{key}"'
