"""How soon the same four numbers were used again, and what became of it."""

from typing import Any

import numpy as np

from analyzer.report.figures.data import View
from analyzer.report.figures.style import (
    INK,
    REJECTED,
    WINDOW,
    Picture,
    dress,
    legend_below,
    new_figure,
    whole_numbers,
)
from analyzer.report.words import count
from analyzer.schema import CAUSES, SEEN_SYN, SEEN_SYN_ACK
from analyzer.units import NO_TIME, NS

NAME = "reuse"
SECTION = "causes"
ALT = (
    "Connections by the time between the last packet of the connection before on the same four numbers and the new "
    "SYN; the 60 s in which the server may still hold the old one are shaded; hatched ones got no SYN-ACK."
)
ABOUT_REUSE = ("peer_timestamp", "time_wait_paws", "time_wait_sequence", "established_collision")
HOLD_SECONDS = 60
SHORTEST = 1e-5
TICKS = {
    1e-4: "0.1 ms",
    1e-3: "1 ms",
    1e-2: "10 ms",
    0.1: "0.1 s",
    1: "1 s",
    3: "3 s",
    10: "10 s",
    30: "30 s",
    60: "60 s",
    600: "10 min",
    3600: "1 h",
}


def draw(view: View) -> Picture | None:
    """A histogram over log time; None where nothing was reused or no cause has to do with reuse."""
    about = any(f.cause in ABOUT_REUSE for f in view.analysis.diagnosis.findings)
    assert set(ABOUT_REUSE) <= set(CAUSES)
    rows = [r[(r["seen"] & SEEN_SYN > 0) & (r["previous_end"] != NO_TIME)] for _, r in view.reused] if about else []
    gaps = np.concatenate([(r["start"] - r["previous_end"]) / NS for r in rows]) if rows else np.zeros(0)
    if not len(gaps):
        return None
    lost = np.concatenate([(r["seen"] & SEEN_SYN_ACK) == 0 for r in rows])
    return _plot(np.maximum(gaps, SHORTEST), lost)


def _plot(gaps: Any, lost: Any) -> Picture:
    figure = new_figure(9.0, 3.6)
    axes = figure.add_subplot(1, 1, 1)
    axes.set_xscale("log")
    high = max(float(gaps.max()) * 1.3, 90.0)
    low = max(SHORTEST, float(gaps.min()) / 2)
    edges = np.geomspace(low, high, 49)
    axes.axvspan(low, HOLD_SECONDS, color=WINDOW, alpha=0.28, linewidth=0, label="the server may still hold it")
    axes.axvline(HOLD_SECONDS, color=INK, linestyle=":", linewidth=1)
    base = np.zeros(len(edges) - 1)
    for part, colour, hatch, label in (
        (gaps[~lost], "#c6dcec", "", "got its SYN-ACK"),
        (gaps[lost], REJECTED, "xxx", "got no SYN-ACK"),
    ):
        height = np.histogram(part, edges)[0]
        axes.bar(
            edges[:-1], height, np.diff(edges), bottom=base, align="edge", color=colour, hatch=hatch,
            edgecolor="#333333", linewidth=0.4, label=label,
        )  # fmt: skip
        base += height
    early = gaps < HOLD_SECONDS
    title = (
        f"{int(early.sum()):,} of {count(len(gaps), 'reuse')} of the same four numbers came within 60 s; "
        f"{int((lost & early).sum()):,} of them got no SYN-ACK, and {int((lost & ~early).sum()):,} of the others"
    )
    dress(axes, title, "time between the last packet before and the new SYN (log scale)", "connections")
    shown = {at: word for at, word in TICKS.items() if low <= at <= high}
    axes.set_xlim(low, high)
    axes.set_xticks(list(shown), list(shown.values()))
    axes.set_xticks([], minor=True)
    whole_numbers(axes.yaxis)
    legend_below(axes, 3)
    return Picture(figure, title)
