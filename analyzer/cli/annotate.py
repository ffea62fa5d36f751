"""``synquest annotate``: the evidence, for Wireshark."""

import sys
from typing import Annotated

import typer

from analyzer.cli.inputs import Backlog, Captures, Kernel, LoadBalancer, Server, Sysctl, SysctlFile, analysed
from analyzer.cli.privacy import Anonymize, AnonymizeKey, anonymizer


def annotate(
    captures: Captures = None,
    server: Server = None,
    lb: LoadBalancer = None,
    *,
    out: Annotated[str, typer.Option("-o", "--out", metavar="OUT.pcapng", help="The file to write.")],
    everything: Annotated[
        bool, typer.Option("--all", help="Every frame of the captures, not only those that matter.")
    ] = False,
    anonymize: Anonymize = False,
    anonymize_key: AnonymizeKey = None,
    kernel: Kernel = "auto",
    sysctl: Sysctl = None,
    sysctl_file: SysctlFile = None,
    backlog: Backlog = None,
) -> None:
    """Write one pcapng: each judged SYN carries its verdict as a packet comment."""
    from pathlib import Path

    from analyzer.cli.stdin import saved
    from analyzer.report.evidence import write_evidence

    with saved(captures, server, lb) as inputs:
        analysis = analysed(
            *inputs, kernel=kernel, sysctls=sysctl, sysctl_file=sysctl_file, backlog=backlog,
            anonymizer=anonymizer(anonymize, anonymize_key),
        )  # fmt: skip
        _not_an_input(analysis, out)
        written = write_evidence(analysis, Path(out), everything=everything)
    for problem in written.problems:
        print(f"synquest: warning: {problem}", file=sys.stderr)
    if written.left_out:
        print(f"synquest: warning: {written.left_out:,} SYNs found no room and carry no comment", file=sys.stderr)
    print(f"{out}: {written.frames:,} frames, {written.comments:,} with a comment")


def _not_an_input(analysis: object, out: str) -> None:
    """Refuse to write over what is still to be read."""
    from pathlib import Path

    from analyzer.diagnosis.model import Analysis
    from analyzer.errors import UsageError

    assert isinstance(analysis, Analysis)
    target = Path(out)
    for vantage in analysis.vantages:
        for info in vantage.tracked.files:
            if target.exists() and Path(info.place).exists() and target.samefile(info.place):
                raise UsageError(f"-o {out}: that is one of the captures; choose another name")
