"""The worked example as a ladder between client side and server."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analyzer.diagnosis.model import Analysis, Step
from analyzer.report.figures.style import ACCEPTED, INK, REJECTED, dress, new_figure
from analyzer.report.words import clock

NAME = "ladder"
ALT = "Packets of the worked example between the peer address and the server, in order of time."
FROM_SERVER = ("fin", "answer")


def draw(analysis: Analysis) -> Figure | None:
    """One arrow per packet, evenly spaced, with its time, frame and meaning; None without a story."""
    story = next((f.story for f in analysis.diagnosis.findings if f.story is not None), None)
    if story is None or not story.steps:
        return None
    steps = story.steps
    figure = new_figure(9.0, 1.6 + 0.55 * len(steps))
    axes = figure.add_subplot(1, 1, 1)
    for row, step in enumerate(steps):
        _arrow(axes, step, -row)
    for x, name in ((0.0, f"peer {story.peer}"), (1.0, f"server {story.server}")):
        axes.plot([x, x], [0.55 - len(steps), 0.62], color=INK, linewidth=1.2)
        axes.text(x, 0.8, name, ha="center", fontsize=9)
    axes.set_xlim(-0.45, 1.12)
    axes.set_ylim(-len(steps) + 0.4, 1.2)
    dress(axes, f"One case: {story.title}", "", "")
    axes.grid(False)
    axes.set_xticks([])
    axes.set_yticks([])
    for side in ("left", "bottom"):
        axes.spines[side].set_visible(False)
    return figure


def _arrow(axes: Axes, step: Step, y: float) -> None:
    start, end = (1.0, 0.0) if step.role in FROM_SERVER else (0.0, 1.0)
    colour = REJECTED if step.role == "syn" else ACCEPTED
    style = {"arrowstyle": "->", "color": colour, "linewidth": 1.4, "linestyle": "-" if step.role != "syn" else "--"}
    axes.annotate("", xy=(end, y), xytext=(start, y), arrowprops=style)
    axes.text(0.5, y + 0.12, step.text, ha="center", va="bottom", fontsize=8)
    axes.text(
        -0.03, y, f"{clock(step.time)}  frame {step.frame}", ha="right", va="center", fontsize=7.5, family="monospace"
    )
