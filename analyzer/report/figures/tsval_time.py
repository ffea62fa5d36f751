"""TSval against time per peer: clients' clocks, what the server remembered, and what it rejected."""

import numpy as np
from matplotlib.figure import Figure

from analyzer.diagnosis.model import Analysis
from analyzer.report.figures.data import Points, points, with_timestamps
from analyzer.report.figures.style import MEMORY, WINDOW, dress, marks, new_figure
from analyzer.schema import CAUSES
from analyzer.units import NS

NAME = "tsval-time"
ALT = "TSval of each SYN against time, one panel per client address, with the value the server remembered."
MOST_PANELS = 3
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


def _panel(axes: object, data: Points, peer: int, start: int) -> None:
    from matplotlib.axes import Axes

    assert isinstance(axes, Axes)
    mine = data.syns["orig"] == peer
    times = (data.syns["time"][mine] - start) / NS
    values = data.syns["tsval"][mine] / 1e9
    lost = data.causes[mine] == PEER_TIMESTAMP
    other = (data.causes[mine] != 0) & ~lost
    _memory(axes, data, peer, start)
    marks(axes, times[~lost & ~other], values[~lost & ~other], False, "SYN answered")
    if other.any():
        axes.scatter(times[other], values[other], marker="s", s=16, facecolors="none", edgecolors="#555555", label="SYN failed, other cause")
    if lost.any():
        marks(axes, times[lost], values[lost], True, "SYN dropped by the timestamp check")
    address = data.address(peer)
    count = int(lost.sum())
    title = (
        f"{address}: {count:,} of {len(lost):,} SYNs lay behind the remembered timestamp"
        if count
        else f"{address}: {len(lost):,} SYNs, none dropped for its timestamp"
    )
    dress(axes, title, "time since the capture began (s)", "TSval (10⁹ ticks)")
    handles, labels = axes.get_legend_handles_labels()
    axes.legend(handles, labels, fontsize=7.5, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)


def _memory(axes: object, data: Points, peer: int, start: int) -> None:
    """The remembered value as a step, with the minute in which it rejects."""
    from matplotlib.axes import Axes

    assert isinstance(axes, Axes)
    replayed = data.analysis.main.replayed
    assert replayed is not None
    writes = replayed.peer_states
    mine = writes[(writes["peer"] == peer) & (writes["stored"] != 0)]
    if not len(mine):
        return
    times = (mine["time"] - start) / NS
    values = mine["tsval"] / 1e9
    ends = np.append(times[1:], times[-1] + 60)
    for time, end, value in zip(times, ends, values, strict=True):
        axes.fill_between([time, min(end, time + 60)], 0, value, color=WINDOW, alpha=0.28, linewidth=0)
    axes.step(np.append(times, ends[-1]), np.append(values, values[-1]), where="post", color=MEMORY, linewidth=1.4, label="TSval remembered for the address")
    axes.fill_between([], [], color=WINDOW, alpha=0.28, label="its 60 s window")
