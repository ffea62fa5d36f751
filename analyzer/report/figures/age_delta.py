"""Age against TSval difference: where the rule rejects, and where the SYNs lie."""

import numpy as np
from matplotlib.figure import Figure

from analyzer.diagnosis.model import Analysis
from analyzer.report.figures.data import points, with_timestamps
from analyzer.report.figures.style import WINDOW, dress, marks, new_figure
from analyzer.schema import CAUSES
from analyzer.units import NS

NAME = "age-delta"
ALT = "Age of the timestamp that the server kept against how far each SYN's TSval lies behind or ahead of it."
PEER, PAWS = CAUSES.index("peer_timestamp"), CAUSES.index("time_wait_paws")
OTHER_RULES = [CAUSES.index("time_wait_sequence"), CAUSES.index("established_collision")]


def draw(analysis: Analysis) -> Figure | None:
    """Every SYN that was compared with a kept TSval; None if none was.

    Where the server remembers peers, the region is that of the per-peer check (two ticks behind or more,
    under 60 s); elsewhere that of TIME-WAIT (one tick behind or more).
    """
    data = with_timestamps(points(analysis))
    remembers = analysis.main.replayed is not None and analysis.main.replayed.hypothesis.remembers
    hidden = [*OTHER_RULES, PAWS] if remembers else OTHER_RULES
    keep = (data.verdicts["compared"] == 1) & ~np.isin(data.causes, hidden)
    if not keep.any():
        return None
    delta = data.verdicts["tsval_delta"][keep].astype(np.float64)
    age = data.verdicts["stamp_age"][keep] / NS
    lost = data.causes[keep] == (PEER if remembers else PAWS)
    least = 2 if remembers else 1
    what = "dropped by the timestamp check" if remembers else "refused by a TIME-WAIT with a newer timestamp"
    figure = new_figure(9.0, 4.8)
    axes = figure.add_subplot(1, 1, 1)
    axes.set_xscale("symlog", linthresh=10)
    axes.set_xlim(-3e9, 3e9)
    axes.set_ylim(0, min(max(75.0, float(age.max()) * 1.05), 300.0))
    words = f"the rule rejects: ≥ {least} tick{'s' if least > 1 else ''} behind, < 60 s"
    axes.fill_between([-3e9, -least], 0, 60, color=WINDOW, alpha=0.28, linewidth=0, label=words)
    axes.axvline(0.5 - least, color="#1a1a1a", linestyle="--", linewidth=1)
    axes.axhline(60, color="#1a1a1a", linestyle=":", linewidth=1)
    shown = age <= axes.get_ylim()[1]
    marks(axes, delta[~lost & shown], age[~lost & shown], False, f"not {what}")
    if lost.any():
        marks(axes, delta[lost & shown], age[lost & shown], True, what)
    within = (delta <= -least) & (age < 60)
    counts = (int(np.count_nonzero(lost)), int(np.count_nonzero(lost & within)), int(np.count_nonzero(~lost & within)))
    dress(
        axes,
        _title(what, *counts),
        "SYN's TSval − kept TSval (ticks, symmetric log scale)",
        "age of the kept value (s)",
    )
    axes.set_xticks([-1e9, -1e6, -1e3, 0, 1e3, 1e6, 1e9])
    axes.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2, frameon=False)
    return figure


def _title(what: str, lost: int, inside: int, others: int) -> str:
    if not lost:
        return f"No SYN was {what}"
    where = "all" if inside == lost else f"{inside:,}"
    rest = "no other SYN lay in it" if not others else f"{others:,} other{'s' if others > 1 else ''} lay in it"
    return f"{lost:,} SYNs were {what}, {where} of them inside the rule's region; {rest}"
