"""``synquest explain``: the chain behind one SYN."""

from typing import Annotated

import typer

from analyzer.cli.inputs import Backlog, Captures, Kernel, LoadBalancer, Server, Sysctl, SysctlFile, analysed


def explain(
    captures: Captures = None,
    server: Server = None,
    lb: LoadBalancer = None,
    *,
    frame: Annotated[
        int, typer.Option("--frame", metavar="N", min=1, help="Frame number of the SYN, as Wireshark counts.")
    ],
    capture: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Which capture (lb, server, …) or file the frame is in.", show_default=False),
    ] = None,
    kernel: Kernel = "auto",
    sysctl: Sysctl = None,
    sysctl_file: SysctlFile = None,
    backlog: Backlog = None,
) -> None:
    """Show the chain for one SYN: packet, connection, SNAT pair, the peer's memory, rule, verdict, cause."""
    from rich.console import Console

    from analyzer.diagnosis.explain import explain as chain

    analysis = analysed(captures, server, lb, kernel=kernel, sysctls=sysctl, sysctl_file=sysctl_file, backlog=backlog)
    _show(chain(analysis, frame, capture), Console(highlight=False))


def _show(explanation: object, console: object) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from analyzer.diagnosis.explain import Explanation

    assert isinstance(explanation, Explanation)
    assert isinstance(console, Console)
    table = Table(box=None, pad_edge=False, padding=(0, 1, 1, 0), show_header=False)
    table.add_column(no_wrap=True, style="bold cyan")
    table.add_column(overflow="fold")
    for link in explanation.links:
        facts = ", ".join(f"{name}={value}" for name, value in link.facts.items() if value not in (None, ""))
        text = Text(link.text)
        if facts:
            text.append(f"\n{facts}", style="dim")
        table.add_row(link.name, text)
    console.print(Text(f"SYN in frame {explanation.frame} of {explanation.capture}", style="bold"))
    console.print(table)
