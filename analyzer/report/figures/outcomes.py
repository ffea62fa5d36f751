"""SYN outcomes over time by cause."""

import numpy as np
from matplotlib.figure import Figure

from analyzer.diagnosis.model import Analysis
from analyzer.report.figures.data import points
from analyzer.report.figures.style import dress, new_figure
from analyzer.report.words import CAUSE_TITLES
from analyzer.schema import CAUSES
from analyzer.units import NS

NAME = "outcomes"
ALT = "SYNs per interval, stacked by what became of them."
LOOKS = (
    ("#9ecae1", ""),
    ("#D55E00", "xx"),
    ("#009E73", "//"),
    ("#CC79A7", ".."),
    ("#56B4E9", "\\\\"),
    ("#777777", "++"),
)


def draw(analysis: Analysis) -> Figure | None:
    """Stacked bars per interval (1 s or a sixtieth of the capture); None without SYNs."""
    data = points(analysis)
    if not len(data.syns):
        return None
    start = int(analysis.main.tracked.first_time)
    times = (data.syns["time"] - start) / NS
    width = max(1.0, float(np.ceil(times.max() / 90))) if len(times) else 1.0
    edges = np.arange(0, times.max() + 2 * width, width)
    figure = new_figure(9.0, 3.8)
    axes = figure.add_subplot(1, 1, 1)
    base = np.zeros(len(edges) - 1)
    present = [c for c in range(len(CAUSES)) if (data.causes == c).any()]
    for cause, (colour, hatch) in zip(present, LOOKS * 3, strict=False):
        height = np.histogram(times[data.causes == cause], edges)[0]
        axes.bar(
            edges[:-1],
            height,
            width,
            bottom=base,
            align="edge",
            color=colour,
            hatch=hatch,
            edgecolor="#1a1a1a",
            linewidth=0.3,
            label=CAUSE_TITLES[CAUSES[cause]],
        )
        base += height
    failed = int(np.count_nonzero(data.causes))
    total = analysis.diagnosis.summary.syns
    dress(
        axes,
        f"{failed:,} of {total:,} SYNs went wrong" if failed else f"All {total:,} SYNs were answered",
        "time since the capture began (s)",
        f"SYNs per {width:g} s",
    )
    axes.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2, frameon=False)
    return figure
