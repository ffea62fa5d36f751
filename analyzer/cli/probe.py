"""``synquest probe``: a script that confirms the verdict on the live server."""

from typing import Annotated

import typer


def probe(
    tool: Annotated[
        str, typer.Option(metavar="systemtap|bpftrace", help="systemtap where tcp_tw_recycle exists, bpftrace later.")
    ],
    kernel: Annotated[
        str | None,
        typer.Option(metavar="PROFILE", help="The server's kernel: a version or uname -r output.", show_default=False),
    ] = None,
) -> None:
    """Print a probe script; its comments say how to run it. analyze reads its output with --probe-log."""
    from analyzer.diagnosis.probe_scripts import script

    typer.echo(script(tool, kernel), nl=False)
