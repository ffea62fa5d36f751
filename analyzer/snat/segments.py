"""Stretches between the steps of a clock: each as long as one straight line fits.

A step shows as a contradiction: no line with a possible drift lies between the two sets of points any more.
Cutting as late as possible from the front and as early as possible from the back leaves, around each
step, the points that could belong to either side; they are given to neither.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from analyzer.snat.hulls import PPM, Floats, Lines, contradiction, fitting

Bools = np.ndarray[Any, np.dtype[np.bool_]]
Ints = np.ndarray[Any, np.dtype[np.int64]]

STEEPEST = 1000 * PPM
"""No clock runs faster or slower than this against another (crystals: 200 ppm; NTP slews by 500)."""
MOST_SEGMENTS = 16
FEWEST_PAIRS = 5
SHORT = 20
"""A piece of fewer pairs whose neighbours fit together is a handful of wrong pairs, not two steps."""
RAGGED = 50_000.0
"""Contradictions up to this, ns, are stamps taken late, not steps."""
RAGGED_AT_MOST = 10_000_000.0
"""Beyond this, ns, stamps that contradict each other all over are worth no line at all."""
FIRST_REACH = 64


@dataclass(frozen=True)
class Points:
    """Apparent offsets in order of arrival.

    Attributes:
        x: Seconds on the first clock.
        y: Apparent offset, ns; resolution of the stamps already allowed for.
        above: Whether the true offset is no higher than y (else: no lower).
    """

    x: Floats
    y: Floats
    above: Bools

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, at: Any) -> "Points":
        return Points(self.x[at], self.y[at], self.above[at])

    @property
    def two_sided(self) -> bool:
        """Whether both directions are there."""
        return bool(self.above.any() and not self.above.all())

    def sides(self) -> tuple[tuple[Floats, Floats], tuple[Floats, Floats]]:
        """Points that bound from above and from below."""
        a = self.above
        return (self.x[a], self.y[a]), (self.x[~a], self.y[~a])

    def lines(self, slack: float = 0.0) -> Lines | None:
        """The lines that fit; None if none does."""
        return fitting(*self.sides(), STEEPEST, slack)

    def fit(self) -> bool:
        """Whether one line fits."""
        return not self.two_sided or self.lines() is not None


@dataclass(frozen=True)
class Pieces:
    """How the points fall into stretches.

    Attributes:
        spans: Indices of each stretch's points.
        removed: Points that fit no stretch.
        slack: By how much each stamp may be off, ns; 0 where all fit exactly.
    """

    spans: list[Ints]
    removed: int
    slack: float = 0.0


def pieces(points: Points) -> Pieces:
    """Cut *points* into stretches of one line each."""
    everything = np.arange(len(points))
    if points.fit():
        return Pieces([everything], 0)
    ragged = contradiction(*points.sides(), STEEPEST)
    if ragged > RAGGED:
        cut = _cut(points, everything)
        if cut is not None:
            return cut
    if ragged > RAGGED_AT_MOST:
        return Pieces([], len(points))
    return Pieces([everything], 0, 2 * ragged)


def _cut(points: Points, kept: Ints) -> Pieces | None:
    """Stretches and strays; None where there is no end of contradictions."""
    allowed = 10 + len(points) // 50
    while len(points) - len(kept) <= allowed:
        starts = _starts(points[kept])
        if starts is None:
            return None
        bad = _strays(points[kept], starts)
        if not bad.any():
            return Pieces(_cores(points, kept, starts), len(points) - len(kept))
        kept = kept[~bad]
    return None


def _starts(points: Points) -> list[int] | None:
    """Where stretches begin, each as long as possible; None if there are too many."""
    starts, at = [0], 0
    while True:
        at += _reach(points[at:])
        if at >= len(points):
            return starts
        starts.append(at)
        if len(starts) > MOST_SEGMENTS + len(points) // 100:
            return None


def _reach(points: Points) -> int:
    """How many points from the first on one line fits: doubled, then halved."""
    low, high = 1, min(FIRST_REACH, len(points))
    while points[:high].fit():
        if high == len(points):
            return high
        low, high = high, min(2 * high, len(points))
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if points[:middle].fit() else (low, middle)
    return low


def _strays(points: Points, starts: list[int]) -> Bools:
    """Points of stretches too small to be any."""
    bad = np.zeros(len(points), np.bool_)
    ends = [*starts[1:], len(points)]
    for number, (start, end) in enumerate(zip(starts, ends, strict=True)):
        inner = 0 < number < len(starts) - 1
        if end - start < FEWEST_PAIRS:
            bad[start:end] = True
        elif end - start < SHORT and inner:
            around = np.r_[starts[number - 1] : start, end : ends[number + 1]]
            bad[start:end] = points[around].fit()
    if len(starts) - 1 > MOST_SEGMENTS and not bad.any():
        bad[:] = True
    return bad


def _cores(points: Points, kept: Ints, starts: list[int]) -> list[Ints]:
    """Each stretch without the points that may belong to its neighbour."""
    backwards = _starts(points[kept][::-1])
    ends = [*starts[1:], len(kept)]
    if backwards is not None and len(backwards) == len(starts):
        ends = [len(kept) - start for start in backwards][::-1]
    spans = [kept[start:end] for start, end in zip(starts, ends, strict=True)]
    return [span for span in spans if len(span) >= FEWEST_PAIRS]
