"""``synquest simulate``: an estate with a known truth."""

from typing import Annotated

import typer

from analyzer.errors import UsageError


def simulate(
    scenario: Annotated[
        str | None, typer.Argument(metavar="[SCENARIO]", help="A name of --list, or a .toml file.", show_default=False)
    ] = None,
    out: Annotated[
        str | None, typer.Option("-o", "--out", metavar="DIR", help="Write everything here.", show_default=False)
    ] = None,
    seed: Annotated[
        int | None, typer.Option(metavar="N", help="Another course of chance; the same seed gives the same bytes.")
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Change a value of the scenario (repeatable).", show_default=False
        ),
    ] = None,
    list_: Annotated[bool, typer.Option("--list", help="Name the scenarios and what each shows.")] = False,
) -> None:
    """Write captures of a simulated estate, with the truth about every SYN."""
    from analyzer.simulator.scenario import load, shipped

    if list_:
        from rich.console import Console
        from rich.table import Table

        table = Table(box=None, pad_edge=False, show_header=False)
        table.add_column(no_wrap=True)
        table.add_column(overflow="fold")
        for name in shipped():
            table.add_row(name, load(name).shows)
        Console(highlight=False).print(table)
        return
    if scenario is None or out is None:
        raise UsageError("simulate: say which scenario (--list names them) and where to write it (-o DIR)")
    from analyzer.simulator.run import simulate as run

    done = run(load(scenario, changes, seed), out)
    print(f"{done.folder}: {done.packets:,} packets in {len(done.files)} captures, {done.syns:,} SYNs with their truth")
