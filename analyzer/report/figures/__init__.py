"""All figures, in report order; each module answers one question with ``draw(analysis)``."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from analyzer.diagnosis.model import Analysis


def draw_all(analysis: "Analysis") -> Iterator[tuple[str, str, "Figure"]]:
    """Yield (name, alternative text, figure) of every figure that the data allow."""
    from analyzer.report.figures import age_delta, ladder, outcomes, tsval_time

    for module in (tsval_time, age_delta, ladder, outcomes):
        figure = module.draw(analysis)
        if figure is not None:
            yield module.NAME, module.ALT, figure
