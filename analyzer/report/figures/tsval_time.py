"""TSval against time per peer: clients' clocks, what the server remembered, and what it rejected."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analyzer.diagnosis.model import Analysis
from analyzer.report.figures.data import Points, points, with_timestamps
from analyzer.report.figures.style import MEMORY, WINDOW, dress, marks, new_figure
from analyzer.schema import CAUSES
from analyzer.units import NS

NAME = "tsval-time"
ALT = "TSval of each SYN against time, one panel per client address, with the value the server remembered."
MOST_PANELS = 3
MOST_STEPS = 2_000
PEER_TIMESTAMP = CAUSES.index("peer_timestamp")


def draw(analysis: Analysis) -> Figure | None:
    """One panel for each of the worst addresses; None without timestamps.

    The vertical axis is TSval in 10^9 ticks (0 to 2^32); the step is the remembered value, its shade the
    60 s during which it rejects anything more than one tick behind it.
    """
    data = with_timestamps(points(analysis))
    if not len(data.syns):
        return None
    peers = _worst_peers(data)
    figure = new_figure(9.0, 1.2 + 2.9 * len(peers))
    start = int(analysis.main.tracked.first_time)
    for index, peer in enumerate(peers):
        axes = figure.add_subplot(len(peers), 1, index + 1)
        _panel(axes, data, peer, start)
    return figure


def _worst_peers(data: Points) -> list[int]:
    size = int(data.syns["orig"].max()) + 1
    lost = np.bincount(data.syns["orig"], data.causes != 0, minlength=size)
    seen = np.bincount(data.syns["orig"], minlength=size)
    order = np.lexsort((-seen, -lost))
    best = [int(p) for p in order if seen[p]]
    failing = [p for p in best if lost[p]]
    return (failing or best)[:MOST_PANELS]


def _scale(values: Any) -> tuple[int, float, str]:
    """(base, unit, axis label): clocks that span little of the circle are drawn from their own base."""
    low, high = int(values.min()), int(values.max())
    if high - low > 1 << 28:
        return 0, 1e9, "TSval (10⁹ ticks)"
    base = low - low % 1000
    return base, 1e3, f"TSval − {base:,}\n(10³ ticks)"


def _panel(axes: Axes, data: Points, peer: int, start: int) -> None:
    mine = data.syns["orig"] == peer
    raw = data.syns["tsval"][mine].astype(np.int64)
    base, unit, label = _scale(raw)
    times, values = (data.syns["time"][mine] - start) / NS, (raw - base) / unit
    lost = data.causes[mine] == PEER_TIMESTAMP
    other = (data.causes[mine] != 0) & ~lost
    margin = max(float(values.max() - values.min()) * 0.07, 1e-3)
    bottom, top = float(values.min()) - margin, float(values.max()) + margin
    _memory(axes, _Memory(data, peer, start, base, unit, bottom))
    fine = ~lost & ~other
    marks(axes, times[fine], values[fine], False, "SYN answered")
    if other.any():
        looks: dict[str, Any] = {"marker": "s", "s": 18, "facecolors": "none", "edgecolors": "#555555"}
        axes.scatter(times[other], values[other], label="SYN failed, other cause", **looks)
    if lost.any():
        marks(axes, times[lost], values[lost], True, "SYN dropped by the timestamp check")
    address, count = data.address(peer), int(lost.sum())
    title = f"{address}: {len(lost):,} SYNs, none dropped for its timestamp"
    if count:
        title = f"{address}: {count:,} of {len(lost):,} SYNs lay behind the remembered timestamp"
    dress(axes, title, "time since the capture began (s)", label)
    axes.set_ylim(bottom, top)
    span = max(float(times.max()), 1.0)
    axes.set_xlim(-0.02 * span, 1.02 * span)
    axes.legend(fontsize=7.5, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)


@dataclass(frozen=True)
class _Memory:
    """What the step of one panel is drawn from."""

    data: Points
    peer: int
    start: int
    base: int
    unit: float
    bottom: float


def _memory(axes: Axes, what: _Memory) -> None:
    """The remembered value as a step, with the minute in which it rejects."""
    replayed = what.data.analysis.main.replayed
    assert replayed is not None
    writes = replayed.peer_states
    mine = writes[(writes["peer"] == what.peer) & (writes["stored"] != 0)]
    if not len(mine):
        return
    times = (mine["time"] - what.start) / NS
    values = (mine["tsval"].astype(np.int64) - what.base) / what.unit
    ends = np.append(times[1:], times[-1] + 60)
    keep = np.unique(np.linspace(0, len(times) - 1, min(len(times), MOST_STEPS)).astype(int))
    label: str | None = "its 60 s window"
    for index in keep.tolist():
        span = [times[index], min(ends[index], times[index] + 60)]
        axes.fill_between(span, what.bottom, values[index], color=WINDOW, alpha=0.28, linewidth=0, label=label)
        label = None
    steps = (np.append(times, ends[-1]), np.append(values, values[-1]))
    axes.step(*steps, where="post", color=MEMORY, linewidth=1.4, label="TSval remembered for the address")
