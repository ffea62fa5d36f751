"""``synquest kernels``: the profiles, or what differs between two."""

from typing import Annotated

import typer

from analyzer.errors import UsageError


def kernels(
    first: Annotated[
        str | None, typer.Argument(metavar="[A]", help="A kernel version, or uname -r output.", show_default=False)
    ] = None,
    second: Annotated[
        str | None, typer.Argument(metavar="[B]", help="Another: what differs is shown.", show_default=False)
    ] = None,
) -> None:
    """List the kernel profiles; with two names, what differs; with one, all its rules."""
    from rich.console import Console
    from rich.table import Table

    from analyzer.kernel.profiles import FLAGS, PROFILES, compare, find_profile, meaning

    console = Console(highlight=False)
    try:
        chosen = [find_profile(name) for name in (first, second) if name is not None]
    except ValueError as error:
        raise UsageError(str(error)) from None
    table = Table(box=None, pad_edge=False)
    if not chosen:
        for title in ("profile", "kernels", "tw_recycle", "key", "accept queue full", "SYN on a live connection"):
            table.add_column(title, overflow="fold")
        for p in PROFILES:
            table.add_row(
                p.name,
                p.covers,
                "yes" if p.tw_recycle else "no",
                p.key if p.tw_recycle else "-",
                p.accept_queue,
                p.live_syn,
            )
    elif len(chosen) == 1:
        table.add_column("rule", overflow="fold")
        table.add_column(chosen[0].name)
        for flag in FLAGS:
            table.add_row(meaning(flag), _say(getattr(chosen[0], flag)))
    else:
        a, b = chosen
        for title in ("rule", a.name, b.name):
            table.add_column(title, overflow="fold")
        for _, left, right, text in compare(a, b):
            table.add_row(text, _say(left), _say(right))
        if not compare(a, b):
            console.print(f"{a.name} and {b.name}: the same rules for every SYN.")
            return
    console.print(table)


def _say(value: object) -> str:
    return {True: "yes", False: "no"}.get(value, str(value)) if isinstance(value, bool) else str(value)
