"""The polygon of lines (offset, drift) that pass below all upper and above all lower points."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analyzer.snat.views import Ints

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

MAX_DRIFT = 1000.0
"""Steepest drift believed, ppm: twice what NTP would ever correct, five times what quartz does."""


def hull(x: Floats, y: Floats, *, lower: bool) -> tuple[Floats, Floats]:
    """Corners of the lower (or upper) convex hull of points, left to right (Andrew's monotone chain)."""
    sign = 1.0 if lower else -1.0
    order = np.lexsort((sign * y, x))
    xs, ys = x[order], sign * y[order]
    xs, ys = _thin(xs, ys)
    kept: list[int] = []
    for i in range(len(xs)):
        while len(kept) > 1:
            a, b = kept[-2], kept[-1]
            if (ys[b] - ys[a]) * (xs[i] - xs[b]) >= (ys[i] - ys[b]) * (xs[b] - xs[a]):
                kept.pop()
            else:
                break
        if not kept or xs[i] > xs[kept[-1]]:
            kept.append(i)
    return xs[kept], sign * ys[kept]


def _thin(x: Floats, y: Floats, buckets: int = 1024) -> tuple[Floats, Floats]:
    """Keep the lowest point per slice of time and the hull's ends: no other point can be a corner that matters.

    A corner of the whole hull is the corner of its slice's hull too; beyond a few thousand points each slice
    contributes its own corners by a recursive hull, so nothing is lost.
    """
    if len(x) <= 4 * buckets:
        return x, y
    keep = []
    for part in np.array_split(np.arange(len(x)), buckets):
        low = part[np.argmin(y[part])]
        keep.append(np.unique([part[0], low, part[-1]]))
        left, right = part[part <= low], part[part >= low]
        slope_left = (y[left] - y[low]) / np.minimum(x[left] - x[low], -1e-12)
        slope_right = (y[right] - y[low]) / np.maximum(x[right] - x[low], 1e-12)
        keep.append(np.array([left[np.argmax(slope_left)], right[np.argmin(slope_right)]]))
    index = np.unique(np.concatenate(keep))
    return x[index], y[index]
