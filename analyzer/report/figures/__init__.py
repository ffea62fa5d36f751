"""All figures, in report order; each module answers one question with ``draw(view)``.

A module has NAME (of its files), SECTION (of the page) and ALT (what is drawn, for those who cannot see it);
``draw`` returns None where the data have no answer to its question.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from analyzer.diagnosis.model import Analysis


@dataclass(frozen=True)
class Drawn:
    """One figure of a report.

    Attributes:
        name: Stem of its file names.
        section: Part of the page that it belongs to.
        title: The finding that it shows.
        alt: What is drawn, in words.
        figure: The figure itself.
    """

    name: str
    section: str
    title: str
    alt: str
    figure: "Figure"


def modules() -> tuple[Any, ...]:
    """The figures' modules in report order."""
    from analyzer.report.figures import (
        age_delta,
        closing,
        counters,
        hit,
        ladder,
        offsets,
        outcomes,
        retries,
        reuse,
        tsval_time,
    )

    return ladder, tsval_time, age_delta, closing, reuse, hit, outcomes, retries, counters, offsets


def draw_all(analysis: "Analysis") -> Iterator[Drawn]:
    """Yield every figure that the data allow, in report order."""
    from analyzer.report.figures.data import View

    view = View(analysis)
    for module in modules():
        picture = module.draw(view)
        if picture is not None:
            yield Drawn(module.NAME, module.SECTION, picture.title, module.ALT, picture.figure)


def draw_one(analysis: "Analysis", name: str) -> "Figure | None":
    """One figure by its name; None where the data do not allow it.

    Raises:
        KeyError: No such figure; the message lists those there are.
    """
    from analyzer.report.figures.data import View

    known = {module.NAME: module for module in modules()}
    if name not in known:
        raise KeyError(f"{name}: figures are {', '.join(known)}")
    picture = known[name].draw(View(analysis))
    return None if picture is None else picture.figure
