"""One look for all figures: readable in grey, by colour-blind eyes, and on a dark page."""

from typing import Any

from matplotlib.figure import Figure

INK = "#1a1a1a"
ACCEPTED = "#0072B2"
REJECTED = "#D55E00"
MEMORY = "#1a1a1a"
WINDOW = "#E6C229"
GRID = "#d0d0d0"
RASTER_ABOVE = 3_000


def new_figure(width: float = 9.0, height: float = 4.6) -> Figure:
    """An empty white figure with constrained layout."""
    return Figure(figsize=(width, height), dpi=120, layout="constrained", facecolor="white")


def dress(axes: Any, title: str, xlabel: str, ylabel: str) -> None:
    """Title with the finding, labelled axes with units, a light grid."""
    axes.set_title(title, loc="left", fontsize=10.5, color=INK, wrap=True)
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    axes.grid(True, color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def marks(axes: Any, x: Any, y: Any, rejected: bool, label: str) -> None:
    """Points: crosses for rejected SYNs, open circles for the others; rasterised where there are many."""
    style: dict[str, Any] = (
        {"marker": "x", "s": 26, "color": REJECTED, "linewidths": 1.2, "zorder": 4}
        if rejected
        else {"marker": "o", "s": 16, "facecolors": "none", "edgecolors": ACCEPTED, "linewidths": 0.9, "zorder": 3}
    )
    axes.scatter(x, y, label=label, rasterized=len(x) > RASTER_ABOVE, **style)
