"""``synquest whatif``: the same traffic under another kernel, setting or load balancer."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from analyzer.cli.inputs import Backlog, Captures, Kernel, LoadBalancer, Server, Sysctl, SysctlFile, analysed
from analyzer.cli.privacy import Anonymize, AnonymizeKey, anonymizer
from analyzer.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from analyzer.diagnosis.model import WhatIf

Set = Annotated[
    list[str],
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="What to change (repeatable; each is tried alone, then all together): a sysctl such as tcp_tw_recycle=0, "
        "kernel=PROFILE, backlog=N, lb.timestamps=strip|rewrite (lb.share=0.5: on half of the flows), "
        "lb.snat_addresses=N, lb.source_ports=random, lb.hold_down=SECONDS.",
    ),
]


def parse_set(words: list[str]) -> list[tuple[str, object]]:
    """``KEY=VALUE`` … as pairs.

    Raises:
        UsageError: Not of that form.
    """
    pairs: list[tuple[str, object]] = []
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key.strip() or not value.strip():
            raise UsageError(f"--set {word}: say KEY=VALUE, for example tcp_tw_recycle=0")
        pairs.append((key.strip(), value.strip()))
    return pairs


def whatif(
    captures: Captures = None,
    server: Server = None,
    lb: LoadBalancer = None,
    *,
    change: Set,
    out: Annotated[
        str | None, typer.Option("-o", "--out", metavar="DIR", help="Write the report folder here.", show_default=False)
    ] = None,
    kernel: Kernel = "auto",
    sysctl: Sysctl = None,
    sysctl_file: SysctlFile = None,
    backlog: Backlog = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print findings.json, and nothing else, on standard output.")
    ] = False,
    anonymize: Anonymize = False,
    anonymize_key: AnonymizeKey = None,
) -> None:
    """Replay the same traffic under changed settings: SYNs lost before and after."""
    from analyzer.cli.stdin import saved
    from analyzer.diagnosis.whatif import predict
    from analyzer.diagnosis.whatif.changes import read_change, split_changes
    from analyzer.report import prepare_folder, write_report

    pairs = parse_set(change)
    for one in split_changes(pairs):
        read_change(one)  # a wrong key is said before anything is read
    if out is not None:
        prepare_folder(out)
    with saved(captures, server, lb) as inputs:
        analysis = analysed(
            *inputs, kernel=kernel, sysctls=sysctl, sysctl_file=sysctl_file, backlog=backlog,
            anonymizer=anonymizer(anonymize, anonymize_key),
        )  # fmt: skip
        analysis.diagnosis.whatif = predict(analysis, pairs)
        if out is not None:
            write_report(analysis, out)
    if as_json:
        import json

        from analyzer.report.findings import as_dict

        print(json.dumps(as_dict(analysis), indent=1))
    else:
        from rich.console import Console

        show(analysis.diagnosis.whatif, Console(highlight=False))


def show(cases: "list[WhatIf]", console: "Console") -> None:
    """One small table for each change, and once what all of them rest on."""
    from rich.markup import escape

    told: dict[str, None] = {}
    for case in cases:
        console.print(f"[bold]{escape(case.change)}[/bold]")
        console.print(_table(case))
        for text in case.warnings:
            console.print(f"[yellow]Warning:[/yellow] {escape(text)}")
        console.print()
        told.update(dict.fromkeys(case.assumptions))
    console.print("[bold]What this rests on[/bold]")
    for text in told:
        console.print(f"- {escape(text)}")


def _table(case: "WhatIf") -> Any:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("SYNs lost by cause")
    table.add_column("seen", justify="right")
    table.add_column("predicted", justify="right")
    for cause in dict.fromkeys([*case.before, *case.after]):
        table.add_row(cause, f"{case.before.get(cause, 0):,}", f"{case.after.get(cause, 0):,}")
    table.add_section()
    table.add_row("all", f"{sum(case.before.values()):,}", f"{sum(case.after.values()):,}", style="bold")
    table.add_row("of SYNs sent", f"{case.syns_before:,}", f"{case.syns_after:,}")
    table.add_row("attempts that failed", f"{case.failed_before:,}", f"{case.failed_after:,}")
    return table
