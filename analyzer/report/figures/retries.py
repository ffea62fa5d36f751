"""Retransmission delays: how long clients waited, and which try got through."""

from typing import Any

import numpy as np

from analyzer.report.figures.data import View
from analyzer.report.figures.style import Picture, dress, legend_below, marks, new_figure
from analyzer.report.words import count

NAME = "retries"
SECTION = "timeline"
ALT = (
    "Each repeated SYN: its delay after the first SYN of its attempt against the number of the try; "
    "crosses went wrong too, circles were answered."
)
MOST_TRIES = 12
MOST_NAMED = 5


def draw(view: View) -> Picture | None:
    """One mark per retransmitted SYN; None where none was retransmitted."""
    data = view.outcomes
    if not len(data) or not (data.syns["attempt"] > 1).any():
        return None
    key = data.vantage.astype(np.int64) << 40 | data.syns["conn"].astype(np.int64)
    _, inverse = np.unique(key, return_inverse=True)
    first = np.full(inverse.max() + 1, np.inf)
    began = data.syns["attempt"] == 1
    np.minimum.at(first, inverse[began], data.seconds[began])
    delay = data.seconds - first[inverse]
    keep = (data.syns["attempt"] > 1) & np.isfinite(delay) & (delay > 0) & (data.syns["attempt"] <= MOST_TRIES)
    if not keep.any():
        return None
    tries, delay, lost = data.syns["attempt"][keep].astype(int), delay[keep], data.causes[keep] != 0
    return _plot(tries, delay, lost)


def _plot(tries: Any, delay: Any, lost: Any) -> Picture:
    figure = new_figure(9.0, 1.9 + 0.34 * int(tries.max()))
    axes = figure.add_subplot(1, 1, 1)
    spread = ((np.arange(len(tries)) * 0.618034) % 1.0 - 0.5) * 0.6
    axes.set_xscale("log")
    if (~lost).any():
        marks(axes, delay[~lost], (tries + spread)[~lost], False, "this try was answered")
    if lost.any():
        marks(axes, delay[lost], (tries + spread)[lost], True, "this try went wrong too")
    medians = [float(np.median(delay[tries == n])) for n in np.unique(tries).tolist()]
    when = ", ".join(_seconds(m) for m in medians[:MOST_NAMED]) + (" …" if len(medians) > MOST_NAMED else "")
    saved = int(np.count_nonzero(~lost))
    title = f"SYNs were repeated after {when} (medians); {saved:,} of {count(len(tries), 'repeat')} got through"
    dress(axes, title, "time since the first SYN of the attempt (s, log scale)", "number of the try")
    axes.set_yticks(range(2, int(tries.max()) + 1))
    axes.set_ylim(int(tries.max()) + 0.6, 1.4)
    _plain_ticks(axes, float(delay.min()), float(delay.max()))
    legend_below(axes, 2)
    return Picture(figure, title)


def _seconds(value: float) -> str:
    return f"{value:.1f} s" if value >= 0.1 else f"{value * 1000:.1f} ms"


def _plain_ticks(axes: Any, low: float, high: float) -> None:
    """Ticks as people say them: 1 ms, 1 s, 7 s, 1 min."""
    steps = {
        1e-5: "10 µs", 1e-4: "0.1 ms", 1e-3: "1 ms", 1e-2: "10 ms", 0.1: "0.1 s", 1: "1 s", 2: "2 s", 3: "3 s",
        5: "5 s", 7: "7 s",
        15: "15 s", 31: "31 s", 63: "1 min", 127: "2 min",
    }  # fmt: skip
    low, high = low / 1.6, high * 1.6
    shown = {at: word for at, word in steps.items() if low <= at <= high}
    axes.set_xlim(low, high)
    axes.set_xticks(list(shown), list(shown.values()))
    axes.set_xticks([], minor=True)
