"""Clock offsets between captures: packets one way bound it from above, the other way from below."""

from typing import Any

import numpy as np

from analyzer.report.figures.data import View
from analyzer.report.figures.style import ACCEPTED, INK, REJECTED, WINDOW, Picture, dress, new_figure
from analyzer.report.findings import longest
from analyzer.report.words import span
from analyzer.snat.model import ClockOffset
from analyzer.units import NS

NAME = "clock-offset"
SECTION = "method"
ALT = (
    "Apparent offset between two captures' clocks for packets seen in both, less the fitted line: packets one way lie "
    "above the true offset, packets the other way below it; the band between them is the hard bound."
)
MOST_PANELS = 4


def draw(view: View) -> Picture | None:
    """One panel per pair of captures; None where no two were aligned."""
    offsets = [o for o in view.analysis.joined.offsets if o.segments and len(o.forward) + len(o.backward)]
    offsets = offsets[:MOST_PANELS]
    if not offsets:
        return None
    figure = new_figure(9.0, 0.6 + 2.5 * len(offsets))
    titles = []
    for place, offset in enumerate(offsets):
        axes = figure.add_subplot(len(offsets), 1, place + 1)
        titles.append(_panel(axes, view, offset))
    return Picture(figure, titles[0])


def sentence(offset: ClockOffset) -> str:
    """The offset with its bound and drift."""
    best = longest(offset)
    bound = f" ± {span(best.half_width)}" if np.isfinite(best.half_width) else ""
    if abs(best.seconds) <= best.half_width < np.inf:
        text = f"The clocks of {offset.second} and {offset.first} agree within {span(best.half_width)}"
    else:
        way = "ahead of" if best.seconds >= 0 else "behind"
        text = f"The clock of {offset.second} is {abs(best.seconds):.6f} s{bound} {way} that of {offset.first}"
    if np.isfinite(best.drift_ppm) and np.isfinite(best.drift_bound):
        text += f", drift {best.drift_ppm:+.2f} ± {best.drift_bound:.2f} ppm"
    steps = len(offset.segments) - 1
    return text + (f"; it steps {'once' if steps == 1 else f'{steps} times'}" if steps else "")


def _panel(axes: Any, view: View, offset: ClockOffset) -> str:
    first = next((v for v in view.analysis.vantages if v.name == offset.first), view.analysis.main)
    began = int(first.tracked.first_time)
    starts = np.array([(s.start - began) / NS for s in offset.segments])
    for points, colour, mark, label in (
        (offset.forward, REJECTED, "v", f"{offset.first} → {offset.second}: no higher"),
        (offset.backward, ACCEPTED, "^", f"{offset.second} → {offset.first}: no lower"),
    ):
        if len(points):
            rest = (points[:, 1] - _line(offset, starts, points[:, 0])) * 1e6
            axes.scatter(
                points[:, 0], rest, s=14, marker=mark, facecolors="none", edgecolors=colour, linewidths=0.8,
                label=label, rasterized=len(points) > 3000,
            )  # fmt: skip
    for number, segment in enumerate(offset.segments):
        ends = ((segment.start - began) / NS, (segment.end - began) / NS)
        end = segment.half_width_end if np.isfinite(segment.half_width_end) else segment.half_width
        width = np.array([segment.half_width, end]) * 1e6
        if np.isfinite(width).all():
            axes.fill_between(
                ends, -width, width, color=WINDOW, alpha=0.35, linewidth=0, label="hard bound" if not number else None
            )
        axes.plot(ends, (0, 0), color=INK, linewidth=1.2)
    _limits(axes, offset)
    title = sentence(offset)
    dress(axes, title, f"time since {offset.first} began (s)", "offset − line (µs)")
    axes.legend(fontsize=7.5, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    return title


def _line(offset: ClockOffset, starts: Any, at: Any) -> Any:
    which = np.clip(np.searchsorted(starts, at, side="right") - 1, 0, len(starts) - 1)
    seconds = np.array([s.seconds for s in offset.segments])[which]
    drift = np.array([s.drift_ppm if np.isfinite(s.drift_ppm) else 0.0 for s in offset.segments])[which]
    return seconds + drift * 1e-6 * (at - starts[which])


def _limits(axes: Any, offset: ClockOffset) -> None:
    """Late packets say nothing: the picture stays near the hulls."""
    widths = [s.half_width * 1e6 for s in offset.segments if np.isfinite(s.half_width)]
    low, high = axes.get_ylim()
    if widths:
        room = max(8 * max(widths), 5.0)
        axes.set_ylim(max(low, -room), min(high, room))
