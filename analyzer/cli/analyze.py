"""``synquest analyze``: captures in, a verdict for every SYN out."""

import sys
from typing import Annotated

import typer

from analyzer.cli.privacy import Anonymize, AnonymizeKey, anonymizer
from analyzer.errors import UsageError


def parse_settings(pairs: list[str]) -> dict[str, int]:
    """``net.ipv4.tcp_tw_recycle=1`` … as a dictionary.

    Raises:
        UsageError: Not of the form NAME=NUMBER.
    """
    values: dict[str, int] = {}
    for pair in pairs:
        name, _, value = pair.partition("=")
        try:
            values[name.strip()] = int(value)
        except ValueError:
            raise UsageError(f"--sysctl {pair}: say NAME=NUMBER, for example net.ipv4.tcp_tw_recycle=1") from None
    return values


def analyze(
    captures: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[CAPTURE]...",
            help="Captures whose vantage is found out: files, folders, globs, or -.",
            show_default=False,
        ),
    ] = None,
    server: Annotated[
        list[str] | None,
        typer.Option(
            "--server", metavar="CAPTURE", help="Capture taken on the server (repeatable).", show_default=False
        ),
    ] = None,
    lb: Annotated[
        list[str] | None,
        typer.Option(
            "--lb", metavar="CAPTURE", help="Capture taken at the load balancer (repeatable).", show_default=False
        ),
    ] = None,
    out: Annotated[
        str | None, typer.Option("-o", "--out", metavar="DIR", help="Write the report folder here.", show_default=False)
    ] = None,
    kernel: Annotated[
        str, typer.Option(metavar="PROFILE", help="The server's kernel: a version, uname -r output, or auto.")
    ] = "auto",
    sysctl: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="A setting of the server (repeatable).", show_default=False),
    ] = None,
    sysctl_file: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE",
            help="Output of sysctl -a on the server, where a line may name its kernel. One for all servers, or one "
            "per --server, in their order.",
            show_default=False,
        ),
    ] = None,
    backlog: Annotated[
        list[int] | None,
        typer.Option(
            metavar="N",
            min=0,
            help="The listener's backlog: Send-Q of ss -ltn. One for all servers, or one per --server.",
            show_default=False,
        ),
    ] = None,
    netstat: Annotated[
        list[str] | None,
        typer.Option(
            metavar="BEFORE AFTER",
            help="Counters of the server before and after: netstat -s, nstat -az, or /proc/net/netstat and snmp. "
            "One pair per --server, in their order.",
            show_default=False,
        ),
    ] = None,
    probe_log: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="Lines of a probe on the server (synquest probe), or of kfree_skb.", show_default=False
        ),
    ] = None,
    port: Annotated[
        int | None, typer.Option(metavar="N", help="Ask about SYNs to this port only.", show_default=False)
    ] = None,
    vip: Annotated[
        str | None,
        typer.Option(metavar="ADDR", help="Ask about SYNs to this virtual or server address only.", show_default=False),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="Ask about SYNs from then on: 2017-03-14T09:00:02 (UTC) or seconds since 1970. What came before still "
            "counts as their past.",
            show_default=False,
        ),
    ] = None,
    until: Annotated[
        str | None, typer.Option(metavar="TIME", help="Ask about SYNs up to then.", show_default=False)
    ] = None,
    tables: Annotated[str, typer.Option(metavar="FORMAT", help="parquet, csv or jsonl.")] = "parquet",
    no_figures: Annotated[bool, typer.Option("--no-figures", help="Tables and findings only.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print findings.json, and nothing else, on standard output.")
    ] = False,
    anonymize: Anonymize = False,
    anonymize_key: AnonymizeKey = None,
    fail_on: Annotated[
        list[str] | None,
        typer.Option(metavar="CAUSE|any", help="Exit with 3 if this was found (repeatable).", show_default=False),
    ] = None,
) -> None:
    """Read captures, print the verdict, and with -o write the report folder."""
    from analyzer.cli.startup import load_numba

    load_numba()
    from analyzer.cli.pairs import pairs
    from analyzer.pipeline import AnalyzeOptions
    from analyzer.pipeline import analyze as run
    from analyzer.report import prepare_folder, write_report
    from analyzer.schema import CAUSES

    if tables not in ("parquet", "csv", "jsonl"):
        raise UsageError(f"--tables {tables}: say parquet, csv or jsonl")
    for word in fail_on or []:
        if word != "any" and word not in CAUSES:
            raise UsageError(f"--fail-on {word}: say any or one of {', '.join(CAUSES)}")
    if out is not None:
        prepare_folder(out)
    options = AnalyzeOptions(
        captures=captures or [],
        servers=server or [],
        lbs=lb or [],
        kernel=kernel,
        sysctls=parse_settings(sysctl or []),
        sysctl_file=sysctl_file,
        backlog=backlog,
        netstat=pairs(netstat),
        probe_log=probe_log,
        port=port,
        vip=vip,
        since=since,
        until=until,
        anonymizer=anonymizer(anonymize, anonymize_key),
    )
    from analyzer.cli.progress import reading

    with reading() as progress:
        analysis = run(options, progress)
    for problem in analysis.problems:
        print(f"synquest: warning: {problem}", file=sys.stderr)
    if as_json:
        from analyzer.report.findings import as_dict, as_text

        print(as_text(as_dict(analysis)))
    else:
        from rich.console import Console

        from analyzer.report.terminal import show

        show(analysis, Console(highlight=False))
    if out is not None:
        once = [info.path for v in analysis.vantages for info in v.tracked.files if not info.readable_again]
        if once and not no_figures:
            print(f"synquest: warning: evidence.pcapng lacks {', '.join(once)}, read only once", file=sys.stderr)
        where = write_report(analysis, out, figures=not no_figures, tables=tables)
        if not as_json:
            print(f"Report: {where / 'report.html' if not no_figures else where}")
    _fail(fail_on or [], analysis.diagnosis.summary.by_cause)


def _fail(wanted: list[str], found: dict[str, int]) -> None:
    wrong = {cause: n for cause, n in found.items() if cause != "answered"}
    hits = wrong if "any" in wanted else {cause: n for cause, n in wrong.items() if cause in wanted}
    if hits:
        print("synquest: failing on " + ", ".join(f"{cause} ({n} SYNs)" for cause, n in hits.items()), file=sys.stderr)
        raise typer.Exit(3)
