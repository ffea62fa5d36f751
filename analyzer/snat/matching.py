"""One-to-one matching of rows by key and time: candidates by joins, rivals by assignment."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analyzer.snat.views import Ints, Keys

Floats = NDArray[np.float64]

NEAREST = 8
"""Candidates kept per row, the nearest in time: more only occur where the key says nothing."""

SMALL = 64
"""Groups of rivals up to this many rows a side are assigned at least total cost; larger ones by mutual best."""


@dataclass
class Window:
    """Delays, in ns on the upstream clock, within which a downstream row can follow an upstream row."""

    earliest: int
    latest: int
    typical: int = 0


@dataclass
class Matches:
    """Matched rows, and the candidates that lost against them.

    Attributes:
        up: Upstream row of each match.
        down: Downstream row of each match.
        margin: 0 … 1, how far the best rival stands behind; 1 without a rival.
        rival_up: Upstream row of each candidate that was not chosen.
        rival_down: Its downstream row.
    """

    up: Ints
    down: Ints
    margin: Floats
    rival_up: Ints
    rival_down: Ints


def candidates(
    keys: tuple[Keys, Keys], times: tuple[Ints, Ints], window: Window, nearest: int = NEAREST
) -> tuple[Ints, Ints]:
    """Pairs of an upstream and a downstream row of equal key whose times fit *window*.

    Args:
        keys: Key per upstream row and per downstream row.
        times: Times of both, in ns on one clock.
        window: Allowed delays.
        nearest: At most so many candidates per downstream row, those of the smallest delay.

    Returns:
        Upstream and downstream row numbers, one pair per element.
    """
    ups, downs = len(keys[0]), len(keys[1])
    if not ups or not downs:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    _, rank = np.unique(np.concatenate(keys), return_inverse=True)
    rank = rank.astype(np.int64)
    floor = int(min(times[0].min(), times[1].min() - window.latest))
    span = int(max(times[0].max(), times[1].max() - window.earliest)) - floor + 2
    shift = max(0, span.bit_length() + int(rank.max() + 2).bit_length() - 62)
    step = (span >> shift) + 2
    place_up = rank[:ups] * step + ((times[0] - floor) >> shift)
    order = np.argsort(place_up, kind="stable")
    ordered = place_up[order]
    first = rank[ups:] * step + ((times[1] - window.latest - floor).clip(0) >> shift)
    last = rank[ups:] * step + ((times[1] - window.earliest - floor).clip(0) >> shift)
    low, high = np.searchsorted(ordered, first), np.searchsorted(ordered, last, side="right")
    low = np.maximum(low, high - nearest)
    count = np.maximum(high - low, 0)
    down = np.repeat(np.arange(downs), count)
    within = np.arange(len(down)) - np.repeat(np.cumsum(count) - count, count)
    return order[np.repeat(low, count) + within], down


def match(pairs: tuple[Ints, Ints], cost: Floats) -> Matches:
    """Choose one-to-one pairs of least cost among candidate *pairs*.

    Args:
        pairs: Upstream and downstream rows.
        cost: Cost of each pair, 0 for the perfect one.
    """
    up, down = pairs
    if not len(up):
        none = np.zeros(0, np.int64)
        return Matches(none, none, np.zeros(0), none, none)
    up_id, down_id = _dense(up), _dense(down)
    lonely = (np.bincount(up_id)[up_id] == 1) & (np.bincount(down_id)[down_id] == 1)
    chosen = lonely.copy()
    rivals = np.flatnonzero(~lonely)
    if len(rivals):
        chosen[rivals[_choose(up_id[rivals], down_id[rivals], cost[rivals])]] = True
    margin = _margins(up_id, down_id, cost, chosen)
    return Matches(up[chosen], down[chosen], margin, up[~chosen], down[~chosen])


def _dense(values: Ints) -> Ints:
    return np.unique(values, return_inverse=True)[1].astype(np.int64)


def _choose(up: Ints, down: Ints, cost: Floats) -> NDArray[np.bool_]:
    """Assign within each connected group of rivals: optimally if small, else by rounds of mutual best."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    up, down = _dense(up), _dense(down)
    ups, downs = int(up.max()) + 1, int(down.max()) + 1
    graph = coo_matrix((np.ones(len(up)), (up, down + ups)), shape=(ups + downs, ups + downs))
    _, label = connected_components(graph, directed=False)
    group = label[up]
    size = np.bincount(label)
    chosen = np.zeros(len(up), bool)
    large = size[group] > SMALL
    if large.any():
        chosen[np.flatnonzero(large)[_mutual(up[large], down[large], cost[large])]] = True
    small = np.flatnonzero(~large)
    small = small[np.argsort(group[small], kind="stable")]
    if len(small):
        for edges in np.split(small, np.flatnonzero(np.diff(group[small])) + 1):
            chosen[edges[_assign(up[edges], down[edges], cost[edges])]] = True
    return chosen


def _assign(up: Ints, down: Ints, cost: Floats) -> Ints:
    """Edges of the assignment with most pairs and, among those, the least total cost."""
    from scipy.optimize import linear_sum_assignment

    row, column = _dense(up), _dense(down)
    shape = (int(row.max()) + 1, int(column.max()) + 1)
    barrier = (float(cost.max()) + 1.0) * (min(shape) + 1)
    matrix = np.full(shape, barrier)
    edge = np.full(shape, -1, np.int64)
    order = np.argsort(-cost, kind="stable")
    matrix[row[order], column[order]] = cost[order]
    edge[row[order], column[order]] = order
    picked = edge[linear_sum_assignment(matrix)]
    return picked[picked >= 0]


def _mutual(up: Ints, down: Ints, cost: Floats) -> Ints:
    """Rounds of mutual best choices: each round joins the pairs that prefer each other."""
    order = np.argsort(cost, kind="stable")
    free = np.ones(len(up), bool)
    picked = []
    while free.any():
        live = order[free[order]]
        _, first_up = np.unique(up[live], return_index=True)
        _, first_down = np.unique(down[live], return_index=True)
        best = live[np.intersect1d(first_up, first_down)]
        picked.append(best)
        free &= ~(np.isin(up, up[best]) | np.isin(down, down[best]))
    return np.concatenate(picked)


def _margins(up: Ints, down: Ints, cost: Floats, chosen: NDArray[Any]) -> Floats:
    """1 - own cost / best rival's cost, the rival being any unchosen pair with either row."""
    best = np.full(int(up.max()) + 1, np.inf), np.full(int(down.max()) + 1, np.inf)
    lost = ~chosen
    np.minimum.at(best[0], up[lost], cost[lost])
    np.minimum.at(best[1], down[lost], cost[lost])
    rival = np.minimum(best[0][up[chosen]], best[1][down[chosen]])
    with np.errstate(invalid="ignore", divide="ignore"):
        margin = 1.0 - (cost[chosen] + 1e-9) / (rival + 1e-9)
    return np.clip(margin, 0.0, 1.0)
