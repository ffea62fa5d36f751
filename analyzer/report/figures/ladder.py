"""The worked example as a ladder between client, load balancer and server."""

import textwrap
from dataclasses import dataclass, replace
from typing import Any

from analyzer.diagnosis.model import Step, Story
from analyzer.report.figures.data import View
from analyzer.report.figures.style import ACCEPTED, INK, REJECTED, TITLE_CHARS, Picture, new_figure
from analyzer.report.verdict import SAME_PACKET, meaning, sighting
from analyzer.report.words import clock, span
from analyzer.units import NS

NAME = "ladder"
SECTION = "story"
ALT = "Packets of the worked example between the hosts, in order of time, with capture, frame number and meaning."
LANES = ("client", "lb", "server")
LANE_TITLES = {"client": "client", "lb": "load balancer"}
FROM_SERVER = ("fin", "answer")
MOST_ROWS = 18
LAST_ROWS = 4
TEXT_CHARS = 46
GAP = NS
INCHES = 0.3


@dataclass(frozen=True)
class _Row:
    """One packet: the step, where it was seen, where its arrow starts and ends, and what stands above it."""

    step: Step
    seen: tuple[str, ...]
    start: float
    end: float
    gap: str = ""

    @property
    def lines(self) -> list[str]:
        """Its meaning, wrapped."""
        return textwrap.wrap(self.step.text, TEXT_CHARS)[:3]

    @property
    def height(self) -> float:
        """Room that it needs, in units of the vertical axis."""
        lines = max(len(self.lines), 1 + len(self.seen))
        return max(1.0, 0.42 * lines + 0.3) + (0.55 if self.gap else 0.0)


def draw(view: View) -> Picture | None:
    """One arrow per packet, in order of time, with a gap where time passes; None without a story."""
    story = next((f.story for f in view.analysis.diagnosis.findings if f.story is not None), None)
    if story is None or not story.steps:
        return None
    lanes = _lanes(story.steps)
    rows = _with_gaps(_rows(story.steps, lanes))
    bottom = -sum(row.height for row in rows) - 0.3
    figure = new_figure(10.0, 0.9 - INCHES * bottom)
    axes = figure.add_subplot(1, 1, 1)
    for name, x in lanes.items():
        axes.plot([x, x], [bottom, 0.2], color=INK, linewidth=1.1, zorder=1)
        axes.text(x, 0.4, _lane_title(name, story, lanes, view.clients), ha="center", va="bottom", fontsize=8.5)
    y = 0.0
    for row in rows:
        _arrow(axes, row, y, rows[0].step.time)
        y -= row.height
    axes.set_xlim(-0.62, 1.85)
    axes.set_ylim(bottom, 1.5)
    axes.axis("off")
    title = f"One case: {story.title}"
    axes.set_title(textwrap.fill(title, TITLE_CHARS), loc="left", fontsize=10.5, color=INK)
    return Picture(figure, title)


def _lanes(steps: tuple[Step, ...]) -> dict[str, float]:
    """Lane name → x between 0 and 1: those that the packets name, else the peer and the server."""
    named = [lane for lane in LANES if any(lane in (s.lane_from, s.lane_to) for s in steps)]
    names = named if len(named) > 1 else ["peer", "server"]
    return {name: i / (len(names) - 1) for i, name in enumerate(names)}


def _lane_title(name: str, story: Story, lanes: dict[str, float], clients: set[str]) -> str:
    """The host with its address: the story's peer is the client itself where it is told of the client's leg."""
    ends = ("client", "lb") if "lb" in lanes and story.peer in clients else ("lb", "server")
    if "lb" not in lanes:
        ends = (next(iter(lanes)), "server")
    where = dict(zip(ends, (story.peer, story.server), strict=True)).get(name, "")
    word = LANE_TITLES.get(name, name)
    return f"{word}\n{where}" if where else word


def _rows(steps: tuple[Step, ...], lanes: dict[str, float]) -> list[_Row]:
    """Steps in order; the same packet of two captures becomes one row."""
    rows: list[_Row] = []
    for step in steps:
        where = sighting(step)
        twin = next((i for i, row in enumerate(rows[-6:]) if _same(row, step)), None)
        if twin is not None:
            at = len(rows[:-6]) + twin
            rows[at] = replace(rows[at], seen=(*rows[at].seen, where))
            continue
        start, end = (1.0, 0.0) if step.role in FROM_SERVER else (0.0, 1.0)
        rows.append(_Row(step, (where,), lanes.get(step.lane_from, start), lanes.get(step.lane_to, end)))
    return rows


def _same(row: _Row, step: Step) -> bool:
    known = row.step
    alike = (known.lane_from, known.lane_to, meaning(known)) == (step.lane_from, step.lane_to, meaning(step))
    return alike and known.capture != step.capture and abs(known.time - step.time) < SAME_PACKET


def _with_gaps(rows: list[_Row]) -> list[_Row]:
    """Say where time passes, and leave the middle of a long story out."""
    out: list[_Row] = []
    hidden = len(rows) - MOST_ROWS
    for place, row in enumerate(rows):
        if hidden > 0 and MOST_ROWS - LAST_ROWS <= place < len(rows) - LAST_ROWS:
            continue
        gap = ""
        if out and hidden > 0 and place == len(rows) - LAST_ROWS:
            gap = f"{hidden} more packets"
        elif out and row.step.time - out[-1].step.time > GAP:
            gap = f"{span((row.step.time - out[-1].step.time) / NS)} later"
        out.append(replace(row, gap=gap))
    return out


def _arrow(axes: Any, row: _Row, top: float, origin: int) -> None:
    if row.gap:
        box = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}
        axes.text(
            0.5, top - 0.3, f"· · ·  {row.gap}  · · ·", ha="center", va="center", fontsize=7.5, color="#444444",
            bbox=box, zorder=3,
        )  # fmt: skip
    y = top - row.height / 2 - (0.28 if row.gap else 0.0)
    lost = row.step.role == "syn"
    style = {
        "arrowstyle": "-|>", "color": REJECTED if lost else ACCEPTED, "linewidth": 1.3,
        "linestyle": "--" if lost else "-", "shrinkA": 0, "shrinkB": 0,
    }  # fmt: skip
    axes.annotate("", xy=(row.end, y), xytext=(row.start, y), arrowprops=style, zorder=2)
    when = f"{clock(row.step.time)}  +{(row.step.time - origin) / NS:.3f} s"
    looks: dict[str, Any] = {"va": "center", "linespacing": 1.2}
    beside = "\n".join([when, *row.seen])
    axes.text(-0.06, y, beside, ha="right", fontsize=7, family="monospace", **looks)
    axes.text(1.05, y, "\n".join(row.lines), ha="left", fontsize=8, **looks)
