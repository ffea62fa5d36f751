"""TSval against time per peer: clients' clocks, what the server remembered, and what it rejected."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from analyzer.report.figures.data import Points, Records, View
from analyzer.report.figures.style import CLOCK, MEMORY, WINDOW, Picture, dress, marks, new_figure, others
from analyzer.report.words import count
from analyzer.schema import CAUSES

NAME = "tsval-time"
SECTION = "causes"
ALT = (
    "TSval of each SYN against time, one panel per source address: crosses are SYNs that a timestamp rule rejected, "
    "the step is the value that the server remembered, shaded while it rejects, straight lines are the hosts' clocks."
)
MOST_PANELS = 3
MOST_STEPS = 2_000
MOST_CLOCKS = 24
WINDOW_SECONDS = 60
BY_TIMESTAMP = [CAUSES.index("peer_timestamp"), CAUSES.index("time_wait_paws")]
CIRCLE = 1 << 32


@dataclass(frozen=True)
class _Scale:
    """Clocks that span little of the circle are drawn from their own base."""

    base: int
    unit: float
    label: str

    def __call__(self, tsval: Any) -> Any:
        return (np.asarray(tsval, np.int64) - self.base) / self.unit


def draw(view: View) -> Picture | None:
    """One panel for each of the worst addresses; None where no timestamp rule rejected a SYN."""
    data = view.servers.with_timestamps
    lost = np.isin(data.causes, BY_TIMESTAMP)
    if not lost.any():
        return None
    worst = _worst(data, lost)
    figure = new_figure(9.0, 0.9 + 2.9 * len(worst))
    for place, (vantage, source) in enumerate(worst):
        axes = figure.add_subplot(len(worst), 1, place + 1)
        mine = (data.vantage == vantage) & (data.source == source)
        _panel(axes, view, data.where(mine), lost[mine])
    hit = len(np.unique(data.source[lost]))
    where = "from 1 address" if hit == 1 else f"from {hit} addresses"
    return Picture(figure, f"{count(int(lost.sum()), 'SYN')} {where} lay behind a timestamp that the server kept")


def _worst(data: Points, lost: Any) -> list[tuple[int, int]]:
    """(vantage, source) pairs with most rejected SYNs."""
    pairs, inverse = np.unique(np.column_stack([data.vantage, data.source]), axis=0, return_inverse=True)
    counts = np.bincount(inverse.ravel(), lost, minlength=len(pairs))
    order = np.argsort(-counts, kind="stable")[:MOST_PANELS]
    return [(int(pairs[i, 0]), int(pairs[i, 1])) for i in order if counts[i]]


def _scale(values: Any) -> _Scale:
    low, high = int(values.min()), int(values.max())
    if high - low > 1 << 28:
        return _Scale(0, 1e9, "TSval (10⁹ ticks)")
    base = low - low % 1000
    return _Scale(base, 1e3, f"TSval − {base:,}\n(10³ ticks)")


def _panel(axes: Axes, view: View, mine: Points, lost: Any) -> None:
    scale = _scale(mine.syns["tsval"])
    values = scale(mine.syns["tsval"])
    span = max(float(mine.seconds.max()), 1.0)
    margin = max(float(np.ptp(values)) * 0.07, 1e-3)
    bottom, top = float(values.min()) - margin, float(values.max()) + margin
    _memory(axes, view, mine, scale, bottom)
    _clocks(axes, view, mine, scale, (bottom, top, span))
    other = (mine.causes != 0) & ~lost
    fine = ~lost & ~other
    if fine.any():
        marks(axes, mine.seconds[fine], values[fine], False, "SYN answered")
    if other.any():
        others(axes, mine.seconds[other], values[other], "SYN failed, other cause")
    marks(axes, mine.seconds[lost], values[lost], True, "SYN rejected for its timestamp")
    address = mine.sources[int(mine.source[0])]
    captures = f" in {view.analysis.vantages[int(mine.vantage[0])].name}" if len(view.judged) > 1 else ""
    title = f"{address}{captures}: {int(lost.sum()):,} of {count(len(lost), 'SYN')} lay behind the kept timestamp"
    dress(axes, title, "time since the capture began (s)", scale.label)
    axes.set_ylim(bottom, top)
    axes.set_xlim(-0.02 * span, 1.02 * span)
    axes.legend(fontsize=7.5, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)


def _memory(axes: Axes, view: View, mine: Points, scale: _Scale, bottom: float) -> None:
    """The remembered value as a step, with the minute in which it rejects."""
    writes = _writes(view, mine)
    if not len(writes):
        return
    vantage = view.analysis.vantages[int(mine.vantage[0])]
    times, values = view.since_start(vantage, writes["time"]), scale(writes["tsval"])
    ends = np.append(times[1:], times[-1] + WINDOW_SECONDS)
    keep = np.unique(np.linspace(0, len(times) - 1, min(len(times), MOST_STEPS)).astype(int))
    until = np.minimum(ends, times + WINDOW_SECONDS)
    edges = np.column_stack([times, until, until, ends])[keep].ravel()
    heights = np.column_stack([values, values, np.full(len(values), bottom), np.full(len(values), bottom)])[keep]
    axes.fill_between(edges, bottom, heights.ravel(), color=WINDOW, alpha=0.28, linewidth=0, label="its 60 s window")
    steps = (np.append(times[keep], ends[-1]), np.append(values[keep], values[-1]))
    axes.step(*steps, where="post", color=MEMORY, linewidth=1.4, label="TSval the server remembers")


def _writes(view: View, mine: Points) -> Records:
    """Writes that replaced this peer's remembered value, as the server that saw its SYNs files them."""
    replayed = view.analysis.vantages[int(mine.vantage[0])].replayed
    assert replayed is not None
    writes = replayed.peer_states
    keep = (writes["peer"] == mine.syns["orig"][0]) & (writes["stored"] != 0)
    if replayed.hypothesis.profile.key == "local_remote":
        servers, counts = np.unique(mine.syns["resp"], return_counts=True)
        keep &= writes["server"] == servers[np.argmax(counts)]
    return writes[keep]


def _clocks(axes: Axes, view: View, mine: Points, scale: _Scale, box: tuple[float, float, float]) -> None:
    """Clocks found behind the address, as lines that wrap at 2**32."""
    index = int(mine.vantage[0])
    clocks = view.analysis.joined.clocks
    bottom, top, span = box
    mine_ = clocks[(clocks["vantage"] == index) & (clocks["host"] == mine.syns["orig"][0]) & (clocks["hz"] > 0)]
    if not len(mine_):
        return
    vantage = view.analysis.vantages[index]
    began = float(view.since_start(vantage, np.array([vantage.tracked.first_time]))[0])
    local = np.linspace(0, max(span - began, 1.0), 400)
    label: str | None = "clock of a host behind it" if len(mine_) == 1 else f"clocks of {len(mine_)} hosts behind it"
    for clock in mine_[np.argsort(-mine_["packets"].astype(np.int64), kind="stable")][:MOST_CLOCKS]:
        ticks = int(clock["offset"]) + float(clock["hz"]) * (1 + float(np.nan_to_num(clock["skew_ppm"])) * 1e-6) * local
        shown = scale(np.mod(ticks, CIRCLE))
        shown = np.where((shown < bottom) | (shown > top), np.nan, shown)
        shown[1:][np.abs(np.diff(np.mod(ticks, CIRCLE))) > CIRCLE / 2] = np.nan
        if np.isfinite(shown).any():
            axes.plot(began + local, shown, color=CLOCK, linewidth=0.8, zorder=2, label=label)
            label = None
