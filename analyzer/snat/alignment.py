"""Two capture clocks set against each other from packets that both captures saw.

A packet that leaves A at ``ta`` (A's clock) and reaches B at ``tb`` (B's clock) proves
``B(ta) <= tb``; one that leaves B at ``tb`` and reaches A at ``ta`` proves ``B(ta) >= tb``, where
``B(x)`` is what B's clock shows when A's shows ``x``.  With ``B(x) = x + offset + drift * (x - reference)``
every packet is one linear constraint, and all that agree form a convex polygon of possible
(offset, drift): its extent is a hard bound, whatever the delays were (Moon, Skelly and Towsley,
INFOCOM 1999).  Constraints that no line satisfies mean that a clock was stepped (Zhang, Liu and
Xia, INFOCOM 2002): the time is then cut into segments, each with a polygon of its own.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analyzer.snat.polygon import Polygon, feasible
from analyzer.snat.views import Ints

TOLERANCES = (0, 5_000, 20_000, 200_000)
"""Timestamp noise, ns, tried in turn until the fewest segments result (stamps are not taken in order of departure)."""


@dataclass(frozen=True)
class ClockOffset:
    """One segment of time in which ``B(x) = x + offset + drift * (x - reference)``.

    Attributes:
        capture_a: Index of the capture whose clock is the reference.
        capture_b: Index of the other.
        start: First time of the segment, ns on A's clock.
        end: Last time.
        reference: Time at which ``offset`` holds and is known best, ns on A's clock.
        offset: B's clock minus A's at ``reference``, ns.
        half_width: Hard bound: the true offset at ``reference`` lies within ``offset`` ± this, ns.
        drift_ppm: How much faster B's clock runs, parts per million.
        drift_bound: Hard bound of the drift, ± ppm.
        pairs: Packets it rests on.
        stepped: Whether a clock step separates this segment from the one before.
        split: Received minus sent packets' clock within one of the captures, ns, already removed; 0 if none.
    """

    capture_a: int
    capture_b: int
    start: int
    end: int
    reference: int
    offset: int
    half_width: float
    drift_ppm: float
    drift_bound: float
    pairs: int
    stepped: bool = False
    split: int = 0

    def bound_at(self, time: int) -> float:
        """Half-width in ns of what is known of the offset at *time* (ns on A's clock), linear away from ``reference``."""
        return self.half_width + self.drift_bound * 1e-6 * abs(time - self.reference)


@dataclass
class ClockAlignment:
    """B's clock against A's, in segments ordered by time; empty if no packet pairs the two."""

    segments: list[ClockOffset] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.segments)

    def to_b(self, times: Ints) -> Ints:
        """What B's clock showed at *times* (ns on A's clock)."""
        return times + self._offsets(times, np.array([s.start for s in self.segments]))

    def to_a(self, times: Ints) -> Ints:
        """What A's clock showed at *times* (ns on B's clock)."""
        starts = np.array([s.start + _at(s, s.start) for s in self.segments])
        guess = times - self._offsets(times, starts, on_b=True)
        return times - self._offsets(guess, starts, chosen=self._segment(times, starts))

    def _segment(self, times: Ints, starts: NDArray[Any]) -> Ints:
        return np.clip(np.searchsorted(starts, times, side="right") - 1, 0, len(self.segments) - 1)

    def _offsets(self, times: Ints, starts: Ints, *, on_b: bool = False, chosen: Ints | None = None) -> Ints:
        pick = self._segment(times, starts) if chosen is None else chosen
        offset = np.array([s.offset for s in self.segments], np.int64)[pick]
        drift = np.array([s.drift_ppm * 1e-6 for s in self.segments])[pick]
        reference = np.array([s.reference for s in self.segments], np.int64)[pick]
        base = reference + offset if on_b else reference
        return offset + np.rint(drift * (times - base)).astype(np.int64)


def _at(segment: ClockOffset, time: int) -> int:
    return segment.offset + round(segment.drift_ppm * 1e-6 * (time - segment.reference))


@dataclass
class Constraints:
    """Packets seen by both captures.

    Attributes:
        time: When A saw it, ns on A's clock.
        value: B's time minus A's time, ns.
        forward: True if it travelled from A to B.
    """

    time: Ints
    value: Ints
    forward: NDArray[np.bool_]

    def sorted(self) -> "Constraints":
        """In order of A's time."""
        order = np.argsort(self.time, kind="stable")
        return Constraints(self.time[order], self.value[order], self.forward[order])

    def part(self, chosen: Any) -> "Constraints":
        """The constraints of an index, slice or mask."""
        return Constraints(self.time[chosen], self.value[chosen], self.forward[chosen])

    def __len__(self) -> int:
        return len(self.time)


def fit(constraints: Constraints, captures: tuple[int, int] = (0, 1), quantum: tuple[int, int] = (0, 0)) -> ClockAlignment:
    """Estimate offset and drift with hard bounds, in as few segments as the packets allow.

    Args:
        constraints: Packet pairs of both directions.
        captures: Indices of A and B, for the record.
        quantum: Resolution of A's and of B's time stamps, ns (a stamp is cut, never rounded up).
    """
    if not len(constraints):
        return ClockAlignment()
    ordered = constraints.sorted()
    slack = np.where(ordered.forward, quantum[1], -quantum[0])
    ordered.value = ordered.value + slack
    best: list[tuple[slice, NDArray[np.bool_]]] = []
    chosen = 0
    for tolerance in TOLERANCES:
        parts = _segments(ordered, tolerance)
        if not best or len(parts) < len(best):
            best, chosen = parts, tolerance
        if len(best) == 1:
            break
    segments = [_solve(ordered.part(part).part(keep), chosen, captures, index > 0) for index, (part, keep) in enumerate(best)]
    return ClockAlignment(segments)


def _segments(ordered: Constraints, tolerance: int) -> list[tuple[slice, NDArray[np.bool_]]]:
    """Cut time greedily into the longest stretches that one line explains, dropping lone misfits."""
    parts: list[tuple[slice, NDArray[np.bool_]]] = []
    start, keep = 0, np.ones(len(ordered), bool)
    while start < len(ordered):
        end = _longest(ordered, start, keep, tolerance)
        if end < len(ordered) and not _begins(ordered, end, tolerance):
            keep[end] = False
            if keep[start:].any():
                continue
        parts.append((slice(start, end), keep[start:end]))
        start = end
    return parts


def _longest(ordered: Constraints, start: int, keep: NDArray[np.bool_], tolerance: int) -> int:
    """End of the longest stretch from *start* that is feasible: doubling, then halving."""

    def fits(end: int) -> bool:
        part = ordered.part(slice(start, end)).part(keep[start:end])
        return feasible(part.time, part.value, part.forward, tolerance)

    total = len(ordered)
    if fits(total):
        return total
    low, step = start + 1, 64
    while low + step < total and fits(low + step):
        low += step
        step *= 2
    high = min(low + step, total)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def _begins(ordered: Constraints, start: int, tolerance: int) -> bool:
    """Whether a new segment starts here: the next packets agree with each other, in both directions."""
    part = ordered.part(slice(start, start + 6))
    both = bool(part.forward.any() and not part.forward.all())
    return both and len(part) >= 4 and feasible(part.time, part.value, part.forward, tolerance)


def _solve(part: Constraints, tolerance: int, captures: tuple[int, int], stepped: bool) -> ClockOffset:
    polygon = Polygon.of(part.time, part.value, part.forward, tolerance)
    reference, low, high = polygon.narrowest()
    slow, fast = polygon.drifts()
    return ClockOffset(
        *captures,
        start=int(part.time[0]),
        end=int(part.time[-1]),
        reference=reference,
        offset=round((low + high) / 2) if high < np.inf and low > -np.inf else round(high if high < np.inf else low),
        half_width=(high - low) / 2,
        drift_ppm=(slow + fast) / 2,
        drift_bound=(fast - slow) / 2,
        pairs=len(part),
        stepped=stepped,
    )
