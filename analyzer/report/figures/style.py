"""One look for all figures: readable in grey, by colour-blind eyes, and on a dark page."""

import io
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure

if TYPE_CHECKING:
    from analyzer.report.figures import Drawn

INK = "#1a1a1a"
ACCEPTED = "#0072B2"
REJECTED = "#D55E00"
OTHER = "#555555"
MEMORY = "#1a1a1a"
CLOCK = "#8a5a9e"
WINDOW = "#E6C229"
GRID = "#d0d0d0"
RASTER_ABOVE = 3_000
TITLE_CHARS = 104


@dataclass(frozen=True)
class Picture:
    """A finished figure and the finding that it shows."""

    figure: Figure
    title: str


def new_figure(width: float = 9.0, height: float = 4.6) -> Figure:
    """An empty white figure with constrained layout."""
    return Figure(figsize=(width, height), dpi=120, layout="constrained", facecolor="white")


def dress(axes: Any, title: str, xlabel: str, ylabel: str) -> None:
    """Title with the finding, labelled axes with units, a light grid."""
    axes.set_title(textwrap.fill(title, TITLE_CHARS), loc="left", fontsize=10.5, color=INK)
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    axes.grid(True, color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def whole_numbers(axis: Any) -> None:
    """Ticks at whole numbers only: what is counted has no half."""
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(nbins=6, integer=True))


def legend_below(axes: Any, columns: int = 3) -> None:
    """Legend under the axes, where it covers no point."""
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        axes.figure.legend(handles, labels, fontsize=8, loc="outside lower center", ncols=columns, frameon=False)


def marks(axes: Any, x: Any, y: Any, rejected: bool, label: str) -> None:
    """Points: crosses for rejected SYNs, open circles for the others; rasterised where there are many."""
    style: dict[str, Any] = (
        {"marker": "x", "s": 26, "color": REJECTED, "linewidths": 1.2, "zorder": 4}
        if rejected
        else {"marker": "o", "s": 16, "facecolors": "none", "edgecolors": ACCEPTED, "linewidths": 0.9, "zorder": 3}
    )
    axes.scatter(x, y, label=label, rasterized=len(x) > RASTER_ABOVE, **style)


def others(axes: Any, x: Any, y: Any, label: str) -> None:
    """Grey squares: SYNs that failed for another cause."""
    looks: dict[str, Any] = {"marker": "s", "s": 18, "facecolors": "none", "edgecolors": OTHER, "linewidths": 0.9}
    axes.scatter(x, y, label=label, rasterized=len(x) > RASTER_ABOVE, **looks)


def save(drawn: "Drawn", folder: Path) -> str:
    """Write ``NAME.png`` and ``NAME.svg``; the same data give the same bytes.

    Returns:
        The SVG's text.
    """
    from matplotlib import rc_context

    drawn.figure.savefig(folder / f"{drawn.name}.png", metadata={"Software": None})
    drawn.figure.set_layout_engine("none")
    out = io.StringIO()
    with rc_context({"svg.hashsalt": drawn.name}):
        drawn.figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    (folder / f"{drawn.name}.svg").write_text(out.getvalue(), encoding="utf-8")
    return out.getvalue()
