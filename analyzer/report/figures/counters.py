"""Counters: what the host counted against what the replay predicts."""

from typing import Any

from analyzer.diagnosis.model import CounterRow
from analyzer.report.figures.data import View
from analyzer.report.figures.style import ACCEPTED, INK, REJECTED, Picture, dress, legend_below, new_figure
from analyzer.report.verdict import telling

NAME = "counters"
SECTION = "counters"
ALT = "Rise of each kernel counter as the host counted it (diamond) against the replay's prediction (bar with bounds)."
MOST_ROWS = 16


def draw(view: View) -> Picture | None:
    """One line per counter of SYNs that moved or should have; None without counters of the host."""
    rows = [row for row in telling(view.analysis.diagnosis.counters) if row.seen is not None]
    if not rows:
        return None
    rows = sorted(rows, key=lambda row: _unexplained(row) == 0)[:MOST_ROWS]
    figure = new_figure(9.0, 1.6 + 0.3 * len(rows))
    axes = figure.add_subplot(1, 1, 1)
    many = len({r.host for r in rows}) > 1
    for place, row in enumerate(rows):
        _row(axes, row, place)
    title = _title(rows)
    dress(axes, title, "rise between the two snapshots (log scale above 10)", "")
    axes.set_yticks(range(len(rows)), [f"{r.host}: {r.name}" if many else r.name for r in rows], fontsize=8)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xscale("symlog", linthresh=10)
    highest = max(max(r.seen or 0, r.predicted_high) for r in rows)
    axes.set_xlim(-1, highest * 6 + 10)
    ticks = [0, 5, *[10**n for n in range(1, 10) if 10**n <= highest * 2]]
    axes.set_xticks(ticks, [f"{t:,}" for t in ticks])
    axes.set_xticks([], minor=True)
    legend_below(axes, 3)
    return Picture(figure, title)


def _unexplained(row: CounterRow) -> int:
    """How far the count lies outside the predicted bounds."""
    seen = row.seen or 0
    return max(row.predicted_low - seen, seen - row.predicted_high, 0)


def _row(axes: Any, row: CounterRow, place: int) -> None:
    first = place == 0
    axes.barh(place, row.predicted, 0.5, color="#c6dcec", edgecolor=ACCEPTED, label="predicted" if first else None)
    if row.predicted_high > row.predicted_low:
        axes.plot([row.predicted_low, row.predicted_high], [place, place], color=ACCEPTED, linewidth=2.2)
    off = _unexplained(row) > 0
    axes.plot(
        [row.seen], [place], "D", color=REJECTED if off else INK, markersize=5, linestyle="none",
        label="counted by the host" if first else None,
    )  # fmt: skip
    residual = row.residual or 0
    end = max(row.seen or 0, row.predicted, row.predicted_high)
    words = f"{row.seen:,}" if not residual else f"{row.seen:,}, predicted {row.predicted:,} ({residual:+,})"
    axes.annotate(words, (end, place), xytext=(8, 0), textcoords="offset points", va="center", fontsize=8)


def _title(rows: list[CounterRow]) -> str:
    off = [r for r in rows if _unexplained(r)]
    if not off:
        best = rows[0]
        exact = sum(1 for r in rows if r.residual == 0)
        text = f"{exact} of {len(rows)} counters rose exactly as predicted, none beyond its bounds"
        return f"{text} ({best.name} {best.seen:+,})"
    worst = max(off, key=_unexplained)
    return f"{len(off)} of {len(rows)} counters rose otherwise than predicted, most {worst.name}: {worst.residual:+,}"
