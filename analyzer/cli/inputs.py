"""Options that say what to read and what is known of the server, for commands that analyse first."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from analyzer.diagnosis.model import Analysis

Captures = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[CAPTURE]...",
        help="Captures whose vantage is found out: files, folders, globs, or -.",
        show_default=False,
    ),
]
Server = Annotated[
    list[str] | None,
    typer.Option("--server", metavar="CAPTURE", help="Capture taken on the server (repeatable).", show_default=False),
]
LoadBalancer = Annotated[
    list[str] | None,
    typer.Option(
        "--lb", metavar="CAPTURE", help="Capture taken at the load balancer (repeatable).", show_default=False
    ),
]
Kernel = Annotated[
    str, typer.Option(metavar="PROFILE", help="The server's kernel: a version, uname -r output, or auto.")
]
Sysctl = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME=VALUE", help="A setting of the server (repeatable).", show_default=False),
]
SysctlFile = Annotated[
    list[str] | None,
    typer.Option(
        metavar="FILE",
        help="Output of sysctl -a on the server, where a line may name its kernel. One for all servers, or one per "
        "--server, in their order.",
        show_default=False,
    ),
]
Backlog = Annotated[
    list[int] | None,
    typer.Option(
        metavar="N",
        min=0,
        help="The listener's backlog: Send-Q of ss -ltn. One for all servers, or one per --server.",
        show_default=False,
    ),
]


def analysed(
    captures: Sequence[str] | None,
    server: Sequence[str] | None,
    lb: Sequence[str] | None,
    **known: Any,
) -> "Analysis":
    """Run the analysis with a progress bar and its warnings on standard error.

    Args:
        captures: Inputs whose vantage is found out.
        server: Inputs taken on a server, one vantage each.
        lb: Inputs taken at the load balancer.
        **known: Further fields of ``AnalyzeOptions``; ``sysctls`` as the NAME=VALUE texts typed.
    """
    import sys

    from analyzer.cli.analyze import parse_settings
    from analyzer.cli.progress import reading
    from analyzer.cli.stdin import call_by_name
    from analyzer.pipeline import AnalyzeOptions, analyze

    typed = known.pop("sysctls", None) or []
    options = AnalyzeOptions(
        captures=captures or [], servers=server or [], lbs=lb or [], sysctls=parse_settings(typed), **known
    )
    with reading() as progress:
        analysis = analyze(options, progress)
    call_by_name(analysis)
    for problem in analysis.problems:
        print(f"synquest: warning: {problem}", file=sys.stderr)
    return analysis
