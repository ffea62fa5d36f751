"""``synquest demo``: the case it all comes from, simulated, analysed, reported."""

from typing import Annotated

import typer


def demo(
    out: Annotated[str, typer.Option("-o", "--out", metavar="DIR", help="Write captures and report here.")] = "demo",
) -> None:
    """Simulate the eBay CAL incident, analyse it and leave the report."""
    from pathlib import Path

    from rich.console import Console

    from analyzer.pipeline import AnalyzeOptions, analyze
    from analyzer.report import prepare_folder, write_report
    from analyzer.report.terminal import show
    from analyzer.simulator.run import simulate
    from analyzer.simulator.scenario import load

    folder = Path(out)
    report = folder / "report"
    prepare_folder(str(report))
    scenario = load("cal-incident")
    done = simulate(scenario, folder)
    print(f"Simulated {scenario.name}: {done.packets:,} packets in {len(done.files)} captures of {folder}")
    names = [name.removeprefix("server-").removesuffix(".pcap") for name in done.files if name.startswith("server-")]
    options = AnalyzeOptions(
        servers=[str(folder / f"server-{name}.pcap") for name in names],
        lbs=[str(folder / name) for name in done.files if name.startswith("lb")],
        sysctl_file=[str(folder / f"sysctl-{name}.txt") for name in names],
        backlog=[group.backlog for group in scenario.server for _ in range(group.count)],
        netstat=[(str(folder / f"netstat-{n}-before.txt"), str(folder / f"netstat-{n}-after.txt")) for n in names],
        probe_log=str(folder / "probe.log"),
    )
    analysis = analyze(options)
    show(analysis, Console(highlight=False))
    where = write_report(analysis, str(report))
    print(f"Report: {where / 'report.html'}")
