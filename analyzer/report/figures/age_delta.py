"""Age against TSval difference: where the rule rejects, and where the SYNs lie."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from analyzer.report.figures.data import View
from analyzer.report.figures.style import INK, WINDOW, Picture, dress, legend_below, marks, new_figure
from analyzer.report.words import count
from analyzer.schema import CAUSES
from analyzer.units import NS

NAME = "age-delta"
SECTION = "causes"
ALT = (
    "Age of the timestamp that the server kept against how far each SYN's TSval lies behind or ahead of it; "
    "the region in which the rule rejects is shaded, rejected SYNs are crosses."
)
PEER, PAWS = CAUSES.index("peer_timestamp"), CAUSES.index("time_wait_paws")
OTHER_RULES = [CAUSES.index("time_wait_sequence"), CAUSES.index("established_collision")]
TICKS = [-1e9, -1e6, -1e3, 0, 1e3, 1e6, 1e9]
TICK_LABELS = ["−10⁹", "−10⁶", "−10³", "0", "10³", "10⁶", "10⁹"]


@dataclass(frozen=True)
class _Rule:
    """The rule in force: which cause it is, how many ticks behind it needs, for how long, and its words.

    A TIME-WAIT's time begins anew with each packet that it refuses, so its region has no upper edge.
    """

    cause: int
    least: int
    seconds: float
    region: str
    words: str


def draw(view: View) -> Picture | None:
    """Every SYN that was compared with a kept TSval; None if the rule in force rejected none.

    Where the server remembers peers, the region is that of the per-peer check (two ticks behind or more,
    under 60 s); elsewhere that of TIME-WAIT (one tick behind or more).
    """
    data = view.servers.with_timestamps
    replayed = view.analysis.vantages[view.judged[0]].replayed
    remembers = replayed is not None and replayed.hypothesis.remembers
    rule = (
        _Rule(PEER, 2, 60, "the rule rejects: 2 ticks behind or more, for 60 s", "dropped by the timestamp check")
        if remembers
        else _Rule(
            PAWS,
            1,
            np.inf,
            "the rule refuses: behind, while the TIME-WAIT lives (60 s; a hit may restart them)",
            "refused by a TIME-WAIT with a newer timestamp",
        )
    )
    hidden = [*OTHER_RULES, PAWS] if remembers else OTHER_RULES
    keep = (data.verdicts["compared"] == 1) & ~np.isin(data.causes, hidden)
    lost = data.causes[keep] == rule.cause
    if not lost.any():
        return None
    delta = data.verdicts["tsval_delta"][keep].astype(np.float64)
    return _plot(rule, delta, data.verdicts["stamp_age"][keep] / NS, lost)


def _plot(rule: _Rule, delta: Any, age: Any, lost: Any) -> Picture:
    figure = new_figure(9.0, 4.8)
    axes = figure.add_subplot(1, 1, 1)
    axes.set_xscale("symlog", linthresh=10)
    axes.set_xlim(-3e9, 3e9)
    axes.set_ylim(0, min(max(75.0, float(age.max()) * 1.05), 300.0))
    top = min(rule.seconds, axes.get_ylim()[1])
    axes.fill_between([-3e9, -rule.least], 0, top, color=WINDOW, alpha=0.28, linewidth=0, label=rule.region)
    axes.axvline(0.5 - rule.least, color=INK, linestyle="--", linewidth=1)
    axes.axhline(60, color=INK, linestyle=":", linewidth=1)
    shown = age <= axes.get_ylim()[1]
    if (~lost & shown).any():
        marks(axes, delta[~lost & shown], age[~lost & shown], False, "not rejected by it")
    marks(axes, delta[lost & shown], age[lost & shown], True, rule.words)
    within = (delta <= -rule.least) & (age < rule.seconds)
    counts = (int(np.count_nonzero(lost)), int(np.count_nonzero(lost & within)), int(np.count_nonzero(~lost & within)))
    title = _title(rule.words, *counts)
    dress(axes, title, "SYN's TSval − kept TSval (ticks, log scale both ways)", "age of the kept TSval (s)")
    axes.set_xticks(TICKS, TICK_LABELS)
    legend_below(axes, 2)
    return Picture(figure, title)


def _title(what: str, lost: int, inside: int, rest: int) -> str:
    who = f"{count(lost, 'SYN')} {'were' if lost != 1 else 'was'} {what}"
    where = "all of them" if inside == lost else f"{inside:,} of them"
    other = "no other SYN lay there" if not rest else f"{count(rest, 'other SYN')} lay there too"
    return f"{who}, {where} inside the rule's region; {other}"
