"""Who is hit: client against SNAT address."""

from collections import defaultdict
from typing import Any

import numpy as np

from analyzer.report.figures.data import View
from analyzer.report.figures.style import Picture, new_figure
from analyzer.report.verdict import forwarded, named
from analyzer.report.words import count

NAME = "who-is-hit"
SECTION = "who"
ALT = "Failed SYNs of all SYNs for each client (row) and address that the server sees (column), darker where more fail."
MOST_ROWS = 20
MOST_COLUMNS = 8

Cells = dict[tuple[str, str], tuple[int, int]]


def draw(view: View) -> Picture | None:
    """The worst clients and source addresses; the others in one row and column.  None with fewer than two pairs."""
    blast = view.analysis.diagnosis.blast
    if blast is None or len(blast.clients) < 2 or not any(failed for *_, failed in blast.clients):
        return None
    clients = named(blast.clients)
    rows = _ranked(clients, 0, MOST_ROWS)
    columns = _ranked(clients, 1, MOST_COLUMNS)
    cells = _cells(clients, rows, columns)
    figure = new_figure(9.0, 1.7 + 0.26 * len(rows))
    axes = figure.add_subplot(1, 1, 1)
    _shade(axes, cells, rows, columns)
    known = forwarded(blast.clients)
    title = _title(blast.clients, known)
    axes.set_title(title, loc="left", fontsize=10.5)
    axes.set_xlabel("source address that the server sees")
    axes.set_ylabel("client" if known else "source address")
    return Picture(figure, title)


def _ranked(clients: Any, field: int, most: int) -> list[str]:
    """Names by failed SYNs, then by SYNs; what is left over becomes one name."""
    failed: dict[str, int] = defaultdict(int)
    seen: dict[str, int] = defaultdict(int)
    for row in clients:
        seen[row[field]] += row[2]
        failed[row[field]] += row[3]
    names = sorted(seen, key=lambda n: (-failed[n], -seen[n], n))
    if len(names) <= most:
        return names
    return [*names[: most - 1], f"{len(names) - most + 1:,} others"]


def _cells(clients: Any, rows: list[str], columns: list[str]) -> Cells:
    known_rows, known_columns = set(rows), set(columns)
    cells: Cells = {}
    for client, snat, syns, failed in clients:
        key = (client if client in known_rows else rows[-1], snat if snat in known_columns else columns[-1])
        before = cells.get(key, (0, 0))
        cells[key] = (before[0] + failed, before[1] + syns)
    return cells


def _shade(axes: Any, cells: Cells, rows: list[str], columns: list[str]) -> None:
    share = np.full((len(rows), len(columns)), np.nan)
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            if (row, column) in cells:
                failed, syns = cells[row, column]
                share[i, j] = failed / syns if syns else 0.0
                ink = "white" if share[i, j] > 0.6 else "#1a1a1a"
                axes.text(j, i, f"{failed:,} of {syns:,}", ha="center", va="center", fontsize=8, color=ink)
    axes.imshow(share, cmap="Oranges", vmin=0, vmax=1, aspect="auto")
    axes.set_xticks(range(len(columns)), columns, rotation=0 if len(columns) < 7 else 25, fontsize=8)
    axes.set_yticks(range(len(rows)), rows, fontsize=8)
    axes.set_xticks(np.arange(len(columns) + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(len(rows) + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=2)
    axes.tick_params(which="both", length=0)
    for side in axes.spines.values():
        side.set_visible(False)


def _title(clients: Any, known: bool) -> str:
    failed: dict[str, int] = defaultdict(int)
    seen: dict[str, int] = defaultdict(int)
    for client, _, syns, lost in clients:
        failed[client] += lost
        seen[client] += syns
    worst = max(failed, key=lambda c: (failed[c], c))
    hit = sum(1 for n in failed.values() if n)
    noun = "client" if known else "source address"
    return (
        f"{hit:,} of {count(len(seen), noun)} {'is' if hit == 1 else 'are'} hit; "
        f"worst {worst}: {failed[worst]:,} of {count(seen[worst], 'SYN')} failed"
    )
