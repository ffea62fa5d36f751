"""Age against TSval difference: where the rule rejects, and where the SYNs lie."""

import numpy as np
from matplotlib.figure import Figure

from analyzer.diagnosis.model import Analysis
from analyzer.report.figures.data import points, with_timestamps
from analyzer.report.figures.style import WINDOW, dress, marks, new_figure
from analyzer.schema import CAUSES
from analyzer.units import NS

NAME = "age-delta"
ALT = "Age of the remembered timestamp against how far each SYN's TSval lies behind or ahead of it."
WAITING = [CAUSES.index("time_wait_paws"), CAUSES.index("time_wait_sequence"), CAUSES.index("established_collision")]


def draw(analysis: Analysis) -> Figure | None:
    """Every SYN that was compared with a remembered TSval; None if none was.

    Left of the dashed line a SYN is more than one tick behind; under 60 s of age that region rejects.
    """
    data = with_timestamps(points(analysis))
    keep = (data.verdicts["compared"] == 1) & ~np.isin(data.causes, WAITING)
    if not keep.any():
        return None
    delta = data.verdicts["tsval_delta"][keep].astype(np.float64)
    age = data.verdicts["stamp_age"][keep] / NS
    lost = data.causes[keep] == CAUSES.index("peer_timestamp")
    figure = new_figure(9.0, 4.8)
    axes = figure.add_subplot(1, 1, 1)
    axes.set_xscale("symlog", linthresh=10)
    axes.set_xlim(-3e9, 3e9)
    top = max(75.0, float(age.max()) * 1.05) if len(age) else 75.0
    axes.set_ylim(0, min(top, 300.0))
    remembers = analysis.main.replayed is not None and analysis.main.replayed.hypothesis.remembers
    if remembers:
        axes.fill_between(
            [-3e9, -2], 0, 60, color=WINDOW, alpha=0.28, linewidth=0, label="the rule rejects: ≥ 2 ticks behind, < 60 s"
        )
    axes.axvline(-1.5, color="#1a1a1a", linestyle="--", linewidth=1)
    axes.axhline(60, color="#1a1a1a", linestyle=":", linewidth=1)
    shown = age <= axes.get_ylim()[1]
    marks(axes, delta[~lost & shown], age[~lost & shown], False, "not dropped by the timestamp check")
    if lost.any():
        marks(axes, delta[lost & shown], age[lost & shown], True, "dropped by the timestamp check")
    within = (delta <= -2) & (age < 60)
    title = _title(
        int(np.count_nonzero(lost)), int(np.count_nonzero(lost & within)), int(np.count_nonzero(~lost & within))
    )
    dress(axes, title, "SYN's TSval − remembered TSval (ticks, symmetric log scale)", "age of the remembered value (s)")
    axes.set_xticks([-1e9, -1e6, -1e3, 0, 1e3, 1e6, 1e9])
    axes.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=3, frameon=False)
    return figure


def _title(lost: int, inside: int, others: int) -> str:
    if not lost:
        return "No SYN was dropped by the timestamp check"
    where = "all" if inside == lost else f"{inside:,}"
    rest = "no other SYN lay in it" if not others else f"{others:,} other{'s' if others > 1 else ''} lay in it"
    return f"{lost:,} SYNs were dropped, {where} inside the rule's region; {rest}"
