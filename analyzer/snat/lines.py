"""Lines that TSvals lie on: which connections of an address read the same clock, and how fast it runs.

A clock of f ticks per second draws a straight line of slope f through (time, TSval).  For a supposed f the
distance of a point from the line through zero is the same, modulo 2**32, for all connections that read one
clock, and smeared over the whole circle for a wrong f.  Clusters of that distance that last are lines.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from analyzer.snat.stamps import Floats, Ints, Stamps

RATES = (10.0, 100.0, 250.0, 300.0, 500.0, 1000.0, 1e6)
"""Nominal rates of TCP timestamp clocks in the field, 1/s."""
CIRCLE = float(2**32)
NEAR = 0.25
"""Seconds of clock that delays may blur a line by."""
APART = 1.5
"""Seconds of clock between two lines, below which they count as one."""
SKEW = 1e-3
"""Largest error of a clock's rate."""
SURE_RATE = 0.04
"""A line's rate is known when its width is at most this part of its length; nominal rates differ by more."""
SHORTEST = 1.0
"""Seconds that a line lasts at least."""
FALSE_LINES = 1e-4
"""Chance lines to expect among an address's connections, at most, for a line to be believed."""

Bools = np.ndarray[Any, np.dtype[np.bool_]]


@dataclass(frozen=True)
class Grouping:
    """Which line each speaker is on.

    Attributes:
        line: int64 per speaker, -1 where none is known.
        rate: float64 per line, nominal.
        origin: float64 per line, a TSval distance at time 0 that the line passes near, ticks.
        chains: int64 per line, how many independent connections share it.
        start, end: float64 per line, s.
    """

    line: Ints
    rate: Floats
    origin: Floats
    chains: Ints
    start: Floats
    end: Floats


def group(stamps: Stamps) -> Grouping:
    """Find the lines of every address."""
    count = len(stamps.host)
    ends = _Ends.of(stamps)
    best = np.zeros(count)
    line = np.full(count, -1, np.int64)
    tables: list[_Clusters] = []
    rates: list[Floats] = []
    base = 0
    for rate in RATES:
        clusters = _clusters(stamps, ends, rate)
        mine = np.where(clusters.of >= 0, clusters.worth[clusters.of], 0.0)
        better = mine > best
        best = np.where(better, mine, best)
        line = np.where(better, clusters.of + base, line)
        tables.append(clusters)
        rates.append(np.full(len(clusters.worth), rate))
        base += len(clusters.worth)
    used, line[line >= 0] = np.unique(line[line >= 0], return_inverse=True)
    return Grouping(
        line=line,
        rate=np.concatenate(rates)[used],
        origin=np.concatenate([t.origin for t in tables])[used],
        chains=chains_of(stamps, line, len(used)),
        start=np.concatenate([t.start for t in tables])[used],
        end=np.concatenate([t.end for t in tables])[used],
    )


@dataclass(frozen=True)
class _Clusters:
    """Clusters of one supposed rate; ``worth`` is 0 where a cluster is no line, else higher the surer it is."""

    of: Ints
    worth: Floats
    origin: Floats
    start: Floats
    end: Floats


@dataclass(frozen=True)
class _Ends:
    """The first TSvals of all speakers, then their last ones.

    Attributes:
        host: int64, position in the list of the hosts that speak.
        time: float64 s.
        tsval: float64.
        per_host: int64 per speaking host, its speakers.
        pause: float64 per speaking host, mean time between two speakers, s.
    """

    host: Ints
    time: Floats
    tsval: Floats
    per_host: Ints
    pause: Floats

    @classmethod
    def of(cls, stamps: Stamps) -> "_Ends":
        at = np.concatenate((stamps.first, stamps.last))
        _, host, per_host = np.unique(stamps.host, return_inverse=True, return_counts=True)
        start, end = _extremes(host[stamps.speaker], stamps.time, len(per_host))
        pause = (end - start) / per_host
        return cls(np.tile(host, 2), stamps.time[at], stamps.tsval[at].astype(float), per_host, pause)


def _clusters(stamps: Stamps, ends: _Ends, rate: float) -> _Clusters:
    """Cluster the first and last TSval of every speaker by their distance from a line of slope *rate*."""
    count = len(stamps.host)
    host, time, per_host = ends.host, ends.time, ends.per_host
    away = (ends.tsval - rate * time) % CIRCLE
    order = np.argsort(host << 47 | (away * 2**15).astype(np.int64))  # by host, then by distance
    reach = rate * (NEAR + SKEW / 5 * ends.pause) + 2  # delays, a tick, and skew over a pause
    label, away_sorted = linked(host[order], away[order], reach[host[order]])
    at = np.empty(2 * count, np.int64)
    at[order] = label
    away[order] = away_sorted
    size = int(label.max()) + 1 if len(label) else 0
    low, high = _extremes(at, away, size)
    start, end = _extremes(at, time, size)
    of = np.where(at[:count] == at[count:], at[:count], -1)
    chains = chains_of(stamps, of, size)
    hosts = np.zeros(size, np.int64)
    hosts[at] = host
    worth = _worth((high - low, end - start), chains, per_host[hosts], rate)
    middle = low + np.where(np.isfinite(low), high - low, 0.0) / 2
    return _Clusters(of, worth, middle, start, end)


def chains_of(stamps: Stamps, line: Ints, size: int) -> Ints:
    """Connections per line that are independent of each other.

    The same four numbers, used again, may show the same offset in every era; and one SYN that a load balancer sends
    from one port after another shows one connection's offset on several four-tuples.
    """
    on = line >= 0
    counts = [
        np.bincount(distinct(line[on] << 32 | mark[on]) >> 32, minlength=size) for mark in (stamps.chain, stamps.isn)
    ]
    return np.minimum(*counts)


def distinct(values: Ints) -> Ints:
    """Each value once, ascending."""
    ordered = np.sort(values)
    return ordered[np.concatenate((np.ones(len(ordered[:1]), np.bool_), ordered[1:] != ordered[:-1]))]


def linked(host: Ints, away: Floats, reach: Floats) -> tuple[Ints, Floats]:
    """Single-linkage clusters on each host's circle; distances of clusters across zero are made one run."""
    new = np.ones(len(host), np.bool_)
    other = host[1:] != host[:-1]
    new[1:] = other | (np.diff(away) > reach[1:])
    label = np.cumsum(new) - 1
    begins = np.flatnonzero(np.concatenate(([True], other))) if len(host) else np.zeros(0, np.int64)
    finals = np.append(begins[1:], len(host)) - 1
    around = (away[begins] + CIRCLE - away[finals] <= reach[begins]) & (label[begins] != label[finals])
    target = np.arange(int(label[-1]) + 1 if len(label) else 0)
    target[label[finals[around]]] = label[begins[around]]
    moved = target[label] != label
    return target[label], np.where(moved, away - CIRCLE, away)


def _extremes(at: Ints, values: Floats, size: int) -> tuple[Floats, Floats]:
    low, high = np.full(size, np.inf), np.full(size, -np.inf)
    np.minimum.at(low, at, values)
    np.maximum.at(high, at, values)
    return low, high


def _worth(extent: tuple[Floats, Floats], chains: Ints, others: Ints, rate: float) -> Floats:
    """How sure each cluster is a line of this rate; 0 if it is not."""
    width, lasts = extent
    straight = width <= rate * (NEAR + SKEW * lasts) + 2
    known = (width + 2 <= SURE_RATE * rate * lasts) & (lasts >= SHORTEST)
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        chance = np.minimum(others * 2 * (width + 2) / CIRCLE, 1.0)
        expected = np.log10(others) + (chains - 1) * np.log10(chance)
    believed = (chains == 1) | (expected <= np.log10(FALSE_LINES))
    surer = np.where(chains > 1, 1 - np.minimum(expected, 0), 1.0)
    return np.where(straight & known & believed & (chains > 0), surer, 0.0)
