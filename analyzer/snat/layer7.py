"""Pairing where the load balancer opens a connection of its own: what passes is payload, and time goes on.

A candidate pair must be possible (the server's leg begins while the client's lives, no byte leaves before it
came) and must carry the same first bytes one way or the other, or as many of them.  Each leg gets one partner,
so that the whole costs least; how much worse the next best choice is, is the margin.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from analyzer.schema import CONNECTION, SEEN_SYN
from analyzer.snat.evidence import LATE, Array, Points, group_ids
from analyzer.snat.journeys import LAYER4, LAYER7, Pairs
from analyzer.snat.model import Records, Seen
from analyzer.snat.pairing import BACK, FRONT, OTHER, PAYLOAD, SERVER, TIMING, Links
from analyzer.units import MS, NO_TIME, NS, US

WINDOW = 10 * NS
"""A proxy opens its own connection within this time after the client's, or the pair is not looked for."""
MOST_RIVALS = 16
"""Candidates per leg; the nearest in time are kept."""
CLEAR = 0.25
"""Least margin of a pair that is reported."""
LARGEST_BLOCK = 2000
"""Legs per assignment; a larger block is cut at its widest pause."""


@dataclass
class Ends:
    """Connections that look for a partner.

    Attributes:
        conns: CONNECTION records.
        first: POINT row of each one's first SYN.
    """

    conns: Records
    first: Array

    def __len__(self) -> int:
        return len(self.first)

    def take(self, which: Array) -> "Ends":
        """Some of them."""
        return Ends(self.conns[which], self.first[which])


def proxied_pairs(points: Points, seen: Sequence[Seen], links: Links) -> tuple[Pairs, int]:
    """Pairs of connections of every load balancer whose SYNs did not pass through, and how many legs stay open."""
    found = Pairs.none()
    alone = 0
    for vantage, one in enumerate(seen):
        if one.side != "lb":
            continue
        ends = _unpaired(points, one, links, vantage)
        if len(ends):
            _name_sides(points.rows, links, points.of(vantage), ends)
            front = ends.take(links.role[ends.first] == FRONT)
            back = ends.take(links.role[ends.first] == BACK)
            pairs = _matched(front, back)
            found += pairs
            alone += min(len(front), len(back)) - len(pairs.client)
    return found, alone


def _unpaired(points: Points, one: Seen, links: Links, vantage: int) -> Ends:
    """Connections of a capture that no SYN joined to another one."""
    mine = points.of(vantage)
    rows = points.rows
    joined = np.zeros(one.tracked.connection_count, np.bool_)
    later = mine[links.came_from[mine] >= 0]
    joined[rows["conn"][later]] = True
    joined[rows["conn"][links.came_from[later]]] = True
    everywhere = np.flatnonzero((links.role == SERVER) & (links.came_from >= 0))
    there = links.came_from[everywhere]
    fronts = there[(links.role[there] == FRONT) & (rows["vantage"][there] == vantage)]
    joined[rows["conn"][fronts]] = True
    first = np.full(one.tracked.connection_count, -1, np.int64)
    first[rows["conn"][mine[::-1]]] = mine[::-1]
    parts = []
    for chunk in one.tracked.connections.chunks():
        parts.append(chunk[~joined[chunk["conn"]] & (chunk["seen"] & SEEN_SYN > 0) & (first[chunk["conn"]] >= 0)])
    conns = np.concatenate(parts) if parts else np.zeros(0, CONNECTION.dtype)
    return Ends(conns, first[conns["conn"]])


# ---- which side is which ----------------------------------------------------------------------


def _name_sides(rows: Records, links: Links, mine: Array, ends: Ends) -> None:
    """Tell virtual services from pool members, where no SYN told it: by payload, else by who comes first."""
    services = rows["service"][ends.first]
    names, codes = np.unique(services, return_inverse=True)
    known = np.zeros(len(names), np.int8)
    known[codes] = links.role[ends.first]
    if not (known == OTHER).any():
        return
    votes = _votes(ends.conns, codes, len(names))
    role = np.where(known != OTHER, known, np.where(votes > 0, FRONT, np.where(votes < 0, BACK, OTHER)))
    role[(role == OTHER) & (known == BACK).any()] = FRONT
    at = np.searchsorted(names, rows["service"][mine])
    at = np.minimum(at, len(names) - 1)
    change = (links.role[mine] == OTHER) & (names[at] == rows["service"][mine])
    links.role[mine[change]] = role[at[change]]


def _votes(conns: Records, codes: Array, count: int) -> Array:
    """Per service: how often it comes first, less how often second, among connections with the same payload."""
    votes = np.zeros(count, np.int64)
    for digest in ("digest_orig", "digest_resp"):
        order = np.lexsort((conns["start"], conns[digest]))
        a, b = order[:-1], order[1:]
        same = (conns[digest][a] == conns[digest][b]) & (conns[digest][a] != 0) & (codes[a] != codes[b])
        same &= conns["start"][b] - conns["start"][a] < WINDOW
        votes += np.bincount(codes[a[same]], minlength=count) - np.bincount(codes[b[same]], minlength=count)
    if votes.any():
        return votes
    order = np.argsort(conns["start"], kind="stable")
    gaps = np.diff(conns["start"][order])
    ahead, behind = np.r_[gaps, WINDOW], np.r_[WINDOW, gaps]
    near = np.minimum(ahead, behind) < 100 * MS
    first = np.where(ahead < behind, 1, -1) * near
    return np.bincount(codes[order], weights=first, minlength=count).astype(np.int64)


# ---- candidates and their cost ----------------------------------------------------------------


def _matched(front: Ends, back: Ends) -> Pairs:
    """Payload first, then timing among those that are left."""
    found = Pairs.none()
    if not len(front) or not len(back):
        return found
    for proof in (PAYLOAD, TIMING):
        a, b = _same_payload(front, back) if proof == PAYLOAD else _same_time(front, back)
        pairs, taken = _chosen(front, back, a, b, proof)
        found += pairs
        front, back = (
            front.take(~np.isin(np.arange(len(front)), taken[0])),
            back.take(~np.isin(np.arange(len(back)), taken[1])),
        )
    return found


def _same_payload(front: Ends, back: Ends) -> tuple[Array, Array]:
    """Possible pairs whose first bytes are equal in one direction at least."""
    parts = [_within(front, back, front.conns[name], back.conns[name]) for name in ("digest_orig", "digest_resp")]
    a, b = (np.concatenate(part) for part in zip(*parts, strict=True))
    a, b = np.unique(np.stack([a, b]), axis=1)
    good = _possible(front.conns[a], back.conns[b])
    return a[good], b[good]


def _same_time(front: Ends, back: Ends) -> tuple[Array, Array]:
    """Possible pairs that carried as many bytes in one direction at least, and any at all."""
    one = np.ones(len(front), np.uint64), np.ones(len(back), np.uint64)
    a, b = _within(front, back, *one)
    f, s = front.conns[a], back.conns[b]
    alike = np.zeros(len(a), np.bool_)
    for name in ("bytes_orig", "bytes_resp"):
        alike |= (f[name] == s[name]) & (f[name] > 0)
    good = alike & _possible(f, s)
    return a[good], b[good]


def _within(front: Ends, back: Ends, front_key: Array, back_key: Array) -> tuple[Array, Array]:
    """Pairs with equal nonzero keys whose server leg starts within WINDOW after the client's; the latest few."""
    order = np.lexsort((front.conns["start"], front_key))
    keys, times = front_key[order], front.conns["start"][order]
    values = np.unique(np.concatenate((keys, back_key)))
    low_time = min(times.min(), back.conns["start"].min()) - WINDOW
    scale = int(max(times.max(), back.conns["start"].max()) - low_time + 2 * WINDOW) // US
    place = np.searchsorted(values, keys) * scale + (times - low_time) // US
    base = np.searchsorted(values, back_key) * scale
    start = back.conns["start"] - low_time
    high = np.searchsorted(place, base + (start + LATE) // US, "right")
    low = np.maximum(np.searchsorted(place, base + (start - WINDOW) // US), high - MOST_RIVALS)
    many = np.where(back_key != 0, np.maximum(high - low, 0), 0)
    at = np.repeat(low, many) + np.arange(many.sum()) - np.repeat(np.cumsum(many) - many, many)
    return order[at], np.repeat(np.arange(len(back)), many)


def _possible(front: Records, back: Records) -> Array:
    """Nothing leaves before it came: requests pass from client to server, answers back."""
    good = back["start"] <= front["end"] + NS
    asked = (front["first_data_orig"] != NO_TIME) & (back["first_data_orig"] != NO_TIME)
    told = (front["first_data_resp"] != NO_TIME) & (back["first_data_resp"] != NO_TIME)
    good &= ~asked | (back["first_data_orig"] >= front["first_data_orig"] - LATE)
    return np.asarray(good & (~told | (front["first_data_resp"] >= back["first_data_resp"] - LATE)))


def _cost(front: Records, back: Records) -> Array:
    """How unlikely a pair is: delays on a logarithmic scale, and what differs."""
    cost = _slow(back["start"] - front["start"], front["start"] != NO_TIME)
    for a, b in ((front, back), (back, front)):
        name = "first_data_orig" if a is front else "first_data_resp"
        cost += _slow(b[name] - a[name], (a[name] != NO_TIME) & (b[name] != NO_TIME))
    for name in ("orig", "resp"):
        cost += 2.0 * (front[f"bytes_{name}"] != back[f"bytes_{name}"])
        cost += 2.0 * (front[f"digest_{name}"] != back[f"digest_{name}"])
    return cost


def _slow(delay: Array, known: Array) -> Array:
    return np.where(known, np.log1p(np.abs(np.where(known, delay, 0)) / (100 * US)), 0.0)


# ---- one partner each -------------------------------------------------------------------------


def _chosen(front: Ends, back: Ends, a: Array, b: Array, proof: int) -> tuple[Pairs, tuple[Array, Array]]:
    """The cheapest one-to-one choice among candidates; unclear ones are left out, and their legs stay taken."""
    if not len(a):
        return Pairs.none(), (a, b)
    cost = _cost(front.conns[a], back.conns[b])
    picked = _assign(a, b, cost)
    margin, rivals = _margins(a, b, cost, picked)
    clear = margin >= CLEAR
    taken = a[picked], b[picked]
    picked, margin, rivals = picked[clear], margin[clear], rivals[clear]
    f, s = front.conns[a[picked]], back.conns[b[picked]]
    forwarded = (s["start"] <= f["syn_ack_time"]) & (s["syn_ack_time"] <= f["syn_ack_time"] + LATE)
    forwarded &= s["syn_ack_time"] != NO_TIME
    pairs = Pairs(
        front.first[a[picked]],
        back.first[b[picked]],
        np.full(len(picked), -1, np.int64),
        np.full(len(picked), proof, np.uint8),
        np.where(forwarded, LAYER4, LAYER7).astype(np.uint8),
        rivals,
        margin,
    )
    return pairs, taken


def _assign(a: Array, b: Array, cost: Array) -> Array:
    """Indices of the chosen candidates: alone on both sides at once, the rest by the Hungarian method in blocks."""
    single = (np.bincount(a)[a] == 1) & (np.bincount(b)[b] == 1)
    chosen = [np.flatnonzero(single)]
    rest = np.flatnonzero(~single)
    if len(rest):
        blocks = _blocks(a[rest], b[rest])
        order = rest[np.argsort(blocks, kind="stable")]
        for block in np.split(order, np.cumsum(np.bincount(blocks))[:-1]):
            if len(block):
                chosen.append(_solve(a, b, cost, block))
    return np.concatenate(chosen)


def _blocks(a: Array, b: Array) -> Array:
    """Connected groups of candidates."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    count = int(a.max()) + 1
    size = count + int(b.max()) + 1
    graph = coo_matrix((np.ones(len(a), np.int8), (a, b + count)), shape=(size, size))
    labels = connected_components(graph, directed=False)[1]
    return np.unique(labels[a], return_inverse=True)[1]


def _solve(a: Array, b: Array, cost: Array, block: Array) -> Array:
    from scipy.optimize import linear_sum_assignment

    if len(np.unique(b[block])) > LARGEST_BLOCK:
        return _greedy(a, b, cost, block)
    left, i = np.unique(a[block], return_inverse=True)
    right, j = np.unique(b[block], return_inverse=True)
    never = 1e6
    table = np.full((len(left), len(right)), never)
    table[i, j] = cost[block]
    index = np.full(table.shape, -1, np.int64)
    index[i, j] = block
    picked = index[linear_sum_assignment(table)]
    return picked[picked >= 0]


def _greedy(a: Array, b: Array, cost: Array, block: Array) -> Array:
    """Cheapest candidates first: for blocks too large to solve."""
    used_a, used_b, picked = set[int](), set[int](), []
    for index in block[np.argsort(cost[block], kind="stable")].tolist():
        i, j = int(a[index]), int(b[index])
        if i not in used_a and j not in used_b:
            used_a.add(i)
            used_b.add(j)
            picked.append(index)
    return np.array(picked, np.int64)


def _margins(a: Array, b: Array, cost: Array, picked: Array) -> tuple[Array, Array]:
    """For each chosen candidate: distance to the next best of either leg, 0 … 1, and how many are as good or nearly."""
    margin = np.ones(len(picked))
    rivals = np.zeros(len(picked), np.int64)
    for side in (a, b):
        size = int(side.max()) + 1
        mine = np.full(size, np.inf)
        mine[side[picked]] = cost[picked]
        others = np.ones(len(side), np.bool_)
        others[picked] = False
        next_best = np.full(size, np.inf)
        np.minimum.at(next_best, side[others], cost[others])
        gap = next_best[side[picked]] - cost[picked]
        margin = np.minimum(margin, np.where(np.isinf(gap), 1.0, 1.0 - np.exp(-np.maximum(gap, 0.0))))
        close = others & (cost - mine[side] < 1.0)
        rivals += np.bincount(side[close], minlength=size)[side[picked]]
    return margin, rivals


def take_in(points: Points, links: Links, pairs: Pairs, flow: Array, first_flow: int) -> None:
    """Put the proxied pairs' rows into their flows; where the SYN itself was forwarded, into its journey too."""
    rows = points.rows
    ids = first_flow + np.arange(len(pairs.client))
    keys = group_ids(rows["vantage"], rows["conn"])
    of_conn = np.full(int(keys.max()) + 1, -1, np.int64)
    of_conn[keys[pairs.client]] = ids
    of_conn[keys[pairs.back]] = ids
    mine = of_conn[keys]
    flow[mine >= 0] = mine[mine >= 0]
    server = np.flatnonzero((links.role == SERVER) & (links.came_from >= 0))
    above = flow[links.came_from[server]]
    flow[server[above >= first_flow]] = above[above >= first_flow]
    back = np.full(int(ids.max(initial=0)) + 1, -1, np.int64)
    back[flow[server]] = server
    pairs.server[:] = back[ids]
