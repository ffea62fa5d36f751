"""The worked example as a ladder between client, load balancer and server."""

import textwrap
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from analyzer.diagnosis.model import Step, Story
from analyzer.report.figures.data import View
from analyzer.report.figures.style import ACCEPTED, INK, REJECTED, Picture, new_figure
from analyzer.report.words import clock, span
from analyzer.units import NS

NAME = "ladder"
SECTION = "story"
ALT = "Packets of the worked example between the hosts, in order of time, with capture, frame number and meaning."
LANES = ("client", "lb", "server")
LANE_TITLES = {"client": "client", "lb": "load balancer", "server": "server"}
FROM_SERVER = ("fin", "answer")
SHORT = {"fin": "FIN", "stamp": "its TSval is kept"}
MOST_STEPS = 24
TEXT_CHARS = 46
GAP = NS
LANES_AT = (0.0, 1.0)
"""Left and right end of the lanes; times stand left of them, meanings right."""


@dataclass(frozen=True)
class _Row:
    """One packet: where its arrow starts and ends, and the lines of text beside it."""

    step: Step
    start: float
    end: float
    lines: list[str]
    height: float


def draw(view: View) -> Picture | None:
    """One arrow per packet, in order of time, with a gap where time passes; None without a story."""
    story = next((f.story for f in view.analysis.diagnosis.findings if f.story is not None), None)
    if story is None or not story.steps:
        return None
    steps = story.steps[:MOST_STEPS]
    lanes = _lanes(steps)
    rows = [_row(step, lanes) for step in steps]
    total = sum(r.height for r in rows) + sum(0.5 for a, b in pairwise(steps) if b.time - a.time > GAP)
    figure = new_figure(10.5, 1.1 + 0.3 * total)
    axes = figure.add_subplot(1, 1, 1)
    bottom = _arrows(axes, rows)
    for name, x in lanes.items():
        axes.plot([x, x], [bottom, 0.2], color=INK, linewidth=1.1, zorder=1)
        axes.text(x, 0.4, _lane_title(name, story), ha="center", va="bottom", fontsize=8.5)
    axes.set_xlim(-0.75, 1.95)
    axes.set_ylim(bottom, 1.6)
    axes.axis("off")
    title = f"One case: {story.title}"
    axes.set_title(textwrap.fill(title, 100), loc="left", fontsize=10.5, color=INK)
    return Picture(figure, title)


def _lanes(steps: tuple[Step, ...]) -> dict[str, float]:
    """Lane name → x: those that the packets name, else the peer and the server."""
    named = [lane for lane in LANES if any(lane in (s.lane_from, s.lane_to) for s in steps)]
    names = named if len(named) > 1 else ["peer", "server"]
    width = (LANES_AT[1] - LANES_AT[0]) / (len(names) - 1)
    return {name: LANES_AT[0] + i * width for i, name in enumerate(names)}


def _lane_title(name: str, story: Story) -> str:
    where = {"peer": story.peer, "server": story.server}.get(name, "")
    word = LANE_TITLES.get(name, name)
    return f"{word}\n{where}" if where else word


def _row(step: Step, lanes: dict[str, float]) -> _Row:
    first, last = min(lanes.values()), max(lanes.values())
    start, end = (last, first) if step.role in FROM_SERVER else (first, last)
    start, end = lanes.get(step.lane_from, start), lanes.get(step.lane_to, end)
    lines = textwrap.wrap(step.text, TEXT_CHARS)[:3]
    return _Row(step, start, end, lines, max(1.0, 0.55 * len(lines) + 0.25))


def _arrows(axes: Any, rows: list[_Row]) -> float:
    """Draw from the top; return where the last row ends."""
    y, before, origin = 0.0, None, rows[0].step.time
    for row in rows:
        if before is not None and row.step.time - before > GAP:
            axes.text(0.5, y - 0.3, f"· · ·  {span((row.step.time - before) / NS)} later  · · ·", ha="center",
                      va="center", fontsize=7.5, color="#444444", backgroundcolor="white", zorder=3)  # fmt: skip
            y -= 0.5
        y -= row.height
        _arrow(axes, row, y + row.height / 2 - 0.25, origin)
        before = row.step.time
    return y - 0.3


def _arrow(axes: Any, row: _Row, y: float, origin: int) -> None:
    lost = row.step.role == "syn"
    colour = REJECTED if lost else ACCEPTED
    style = {"arrowstyle": "-|>", "color": colour, "linewidth": 1.3, "linestyle": "--" if lost else "-",
             "shrinkA": 0, "shrinkB": 0}  # fmt: skip
    axes.annotate("", xy=(row.end, y), xytext=(row.start, y), arrowprops=style, zorder=2)
    when = f"{clock(row.step.time)}  +{(row.step.time - origin) / NS:.3f} s"
    axes.text(-0.07, y, f"{when}\n{row.step.capture} frame {row.step.frame}", ha="right", va="center", fontsize=7,
              family="monospace", linespacing=1.25)  # fmt: skip
    axes.text(1.06, y, "\n".join(row.lines), ha="left", va="center", fontsize=8, linespacing=1.2)
