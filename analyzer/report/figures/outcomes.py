"""SYN outcomes over time by cause."""

from typing import Any

import numpy as np

from analyzer.report.figures.data import Points, View
from analyzer.report.figures.style import Picture, dress, legend_below, new_figure, whole_numbers
from analyzer.report.words import CAUSE_TITLES
from analyzer.schema import CAUSES

NAME = "outcomes"
SECTION = "timeline"
ALT = "SYNs per interval of time, stacked by what became of them."
MOST_BARS = 90
WIDTHS = (1, 2, 5, 10, 30, 60, 300, 600, 1800, 3600, 21600, 86400)
LOOKS = (
    ("#D55E00", "xxx"),
    ("#009E73", "///"),
    ("#CC79A7", "..."),
    ("#56B4E9", "\\\\\\"),
    ("#999999", "+++"),
    ("#F0E442", "---"),
)
ANSWERED_LOOK = ("#c6dcec", "")


def draw(view: View) -> Picture | None:
    """Stacked bars per interval (1 s, or longer so that at most 90 fit); None without SYNs."""
    data = view.outcomes
    if not len(data):
        return None
    last = max(float(data.seconds.max()), 1.0)
    width = next((w for w in WIDTHS if last / w <= MOST_BARS), WIDTHS[-1])
    edges = np.arange(0, last + 2 * width, width, dtype=np.float64)
    figure = new_figure(9.0, 3.8)
    axes = figure.add_subplot(1, 1, 1)
    _bars(axes, data, edges)
    title = _title(view, data)
    unit = "s" if width == 1 else f"{width} s" if width < 120 else f"{width // 60} min"
    dress(axes, title, "time since the capture began (s)", f"SYNs per {unit}")
    axes.set_xlim(0, edges[-1])
    axes.set_ylim(0, axes.get_ylim()[1] * 1.03)
    whole_numbers(axes.yaxis)
    legend_below(axes, 2)
    return Picture(figure, title)


def _bars(axes: Any, data: Points, edges: Any) -> None:
    base = np.zeros(len(edges) - 1)
    present = [c for c in range(len(CAUSES)) if (data.causes == c).any()]
    looks = iter(LOOKS * 3)
    for cause in present:
        colour, hatch = ANSWERED_LOOK if cause == 0 else next(looks)
        height = np.histogram(data.seconds[data.causes == cause], edges)[0]
        axes.bar(
            edges[:-1], height, np.diff(edges), bottom=base, align="edge", color=colour, hatch=hatch,
            edgecolor="#333333", linewidth=0.4, label=CAUSE_TITLES[CAUSES[cause]],
        )  # fmt: skip
        base += height


def _title(view: View, data: Points) -> str:
    total = view.analysis.diagnosis.summary.syns
    failed = data.seconds[data.causes != 0]
    if not len(failed):
        return f"All {total:,} SYNs were answered"
    first, last = float(failed.min()), float(failed.max())
    return f"{len(failed):,} of {total:,} SYNs went wrong, the first after {first:.1f} s, the last after {last:.1f} s"
