"""Straight lines between two sets of points: what two clocks can be to each other, exactly.

A packet that goes from the first capture to the second shows an apparent offset that is too high by
its delay, one that comes back shows one too low.  If neither clock steps, the true offset is a line under
all points of the first kind and above all of the second.  The lines that do so form a convex polygon in
the plane of (slope, intercept), found here from the two hulls without any search
(Moon, Skelly, Towsley: "Estimation and removal of clock skew from network delay measurements", INFOCOM 1999;
Zhang, Liu, Xia: "Clock synchronization algorithms for network measurements", INFOCOM 2002).

Points are (x, y): x in seconds, y in nanoseconds; a slope of 1000 is one part per million.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit

Floats = np.ndarray[Any, np.dtype[np.float64]]

PPM = 1000.0
"""Slope, ns per s, of one part per million."""


@dataclass(frozen=True)
class Lines:
    """All lines that fit: for each of the slopes, ascending, the lowest and highest intercept.

    Between two neighbouring slopes both are linear, so these are the polygon's corners.
    """

    slope: Floats
    low: Floats
    high: Floats

    def bounds(self, x: float) -> tuple[float, float]:
        """Lowest and highest value of any fitting line at *x*."""
        return float((self.low + self.slope * x).min()), float((self.high + self.slope * x).max())


def _chain(x: Floats, y: Floats, sign: float) -> Any:
    """Andrew's monotone chain over points sorted by x: indices of the lower hull of ``sign * y``."""
    kept = np.empty(len(x), np.int64)
    count = 0
    for i in range(len(x)):
        while count >= 2:
            a, b = kept[count - 2], kept[count - 1]
            turn = (x[b] - x[a]) * (y[i] - y[a]) - (y[b] - y[a]) * (x[i] - x[a])
            if turn * sign > 0:
                break
            count -= 1
        kept[count] = i
        count += 1
    return kept[:count].copy()


_compiled_chain = njit(cache=True)(_chain)


def hull(x: Floats, y: Floats, upper: bool) -> tuple[Floats, Floats]:
    """Corners of the upper or lower convex hull, left to right."""
    order = np.lexsort((-y if upper else y, x))
    x, y = x[order], y[order]
    outermost = np.concatenate(([True], x[1:] != x[:-1]))
    x, y = x[outermost], y[outermost]
    at = _compiled_chain(x, y, -1.0 if upper else 1.0)
    return x[at], y[at]


def fitting(
    above: tuple[Floats, Floats], below: tuple[Floats, Floats], steepest: float, slack: float = 0.0
) -> Lines | None:
    """Lines under every point of *above* and over every point of *below*.

    Args:
        above: x, y of points that no line may exceed; at least one.
        below: x, y of points that no line may undercut; at least one.
        steepest: Largest magnitude of a slope, ns per s.
        slack: By how much each point may be off, ns.

    Returns:
        The lines, or None if there are none.
    """
    corners = _Corners.of(above, below)
    best = corners.best_slope(steepest)
    if corners.room(best) + 2 * slack < 0:
        return None
    left = corners.edge(best, -steepest, slack)
    right = corners.edge(best, steepest, slack)
    inner = corners.slopes
    slope = np.concatenate(([left], inner[(inner > left) & (inner < right)], [right]))
    low, high = corners.low(slope) - slack, corners.high(slope) + slack
    return Lines(slope, np.minimum(low, high), high)


def contradiction(above: tuple[Floats, Floats], below: tuple[Floats, Floats], steepest: float) -> float:
    """By how much, in ns, every point must give way before any line fits; 0 if one does."""
    corners = _Corners.of(above, below)
    return max(0.0, -corners.room(corners.best_slope(steepest)) / 2)


@dataclass(frozen=True)
class _Corners:
    """Hull corners, and the intercepts that they leave for a slope."""

    above: tuple[Floats, Floats]
    below: tuple[Floats, Floats]

    @classmethod
    def of(cls, above: tuple[Floats, Floats], below: tuple[Floats, Floats]) -> "_Corners":
        return cls(hull(*above, upper=False), hull(*below, upper=True))

    @property
    def slopes(self) -> Floats:
        """Slopes where another corner takes over, ascending."""
        parts = [np.diff(y) / np.diff(x) for x, y in (self.above, self.below) if len(x) > 1]
        return np.sort(np.concatenate(parts)) if parts else np.zeros(0)

    def high(self, slope: Floats) -> Floats:
        """Highest intercept per slope: concave."""
        x, y = self.above
        at = np.searchsorted(np.diff(y) / np.diff(x), slope)
        return y[at] - slope * x[at]

    def low(self, slope: Floats) -> Floats:
        """Lowest intercept per slope: convex."""
        x, y = self.below
        at = np.searchsorted(-np.diff(y) / np.diff(x), -slope)
        return y[at] - slope * x[at]

    def room(self, slope: float) -> float:
        """Highest minus lowest intercept of one slope."""
        one = np.array([slope])
        return float((self.high(one) - self.low(one))[0])

    def best_slope(self, steepest: float) -> float:
        """The slope that leaves most room: it is a corner's, for room is concave and piecewise linear."""
        inner = self.slopes
        candidates = np.concatenate(([-steepest, 0.0, steepest], inner[np.abs(inner) < steepest]))
        room = self.high(candidates) - self.low(candidates)
        return float(candidates[int(np.argmax(room))])

    def edge(self, best: float, limit: float, slack: float) -> float:
        """The slope farthest from *best* towards *limit* that still leaves room."""
        if self.room(limit) + 2 * slack >= 0:
            return limit
        inner = self.slopes
        between = inner[(inner > min(best, limit)) & (inner < max(best, limit))]
        steps = np.concatenate(([best], between if limit > best else between[::-1], [limit]))
        room = self.high(steps) - self.low(steps) + 2 * slack
        first = int(np.argmax(room < 0))
        inside, outside = steps[first - 1], steps[first]
        return float(inside + (outside - inside) * room[first - 1] / (room[first - 1] - room[first]))
