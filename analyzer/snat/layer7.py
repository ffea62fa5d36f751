"""Pairing where the load balancer opens a connection of its own: what passes is payload, and time goes on.

A candidate pair must be possible (the server's leg begins while the client's lives, no byte leaves before it
came) and must carry the same first bytes one way or the other, or as many of them.  How much that says depends
on how common those bytes are, and on how well the delay fits the delays that this proxy has: both are learned
from the capture itself.  Each leg gets one partner, so that the whole is likeliest; a pair's margin is the
probability that is left between it and the next best choice, "none of these" included.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from analyzer.schema import CONNECTION, SEEN_SYN
from analyzer.snat.evidence import LATE, Array, Points, group_ids, latest_before
from analyzer.snat.journeys import LAYER4, LAYER7, Pairs
from analyzer.snat.model import Records, Seen
from analyzer.snat.pairing import BACK, FRONT, OTHER, PAYLOAD, SERVER, TIMING, Links, by_ip_id
from analyzer.snat.sides import AHEAD, BEHIND, WINDOW, asked_as_members, directions, inside
from analyzer.units import MS, NO_TIME, US

MOST_RIVALS = 16
"""Candidates per leg; the nearest in time are kept."""
CLEAR = 0.9
"""Least margin of a pair that is reported."""
HABIT = 8
"""So many pairs make a proxy; fewer pairs that only their time joins may be chance."""
NO_PARTNER = 0.02
"""Share of legs that are taken to have no partner in the capture."""
ROUNDS = 8
"""Rounds in which delays are learned from likely pairs and likely pairs from delays."""
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


def proxied_pairs(points: Points, seen: Sequence[Seen], links: Links, told: Pairs) -> tuple[Pairs, int]:
    """Pairs of connections of every load balancer whose SYNs did not pass through, and how many legs stay open.

    Connections of *told* pairs, which packets themselves name, look for no other partner.
    """
    taken = np.concatenate((told.client, told.back))
    found = Pairs.none()
    alone = 0
    for vantage, one in enumerate(seen):
        if one.side != "lb":
            continue
        ends = _unpaired(points, one, links, vantage, taken)
        if len(ends):
            _name_sides(points.rows, links, points.of(vantage), ends)
            by_ip_id(points, links, points.of(vantage))
            ends = _unpaired(points, one, links, vantage, taken)
            front = ends.take(links.role[ends.first] == FRONT)
            back = ends.take(links.role[ends.first] == BACK)
            pairs = _matched(front, back)
            found += pairs
            alone += min(len(front), len(back)) - len(pairs.client)
    return found, alone


def _unpaired(points: Points, one: Seen, links: Links, vantage: int, taken: Array) -> Ends:
    """Connections of a capture that no SYN joined to another one, and of which no SYN is *taken*."""
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
    joined[rows["conn"][taken[rows["vantage"][taken] == vantage]]] = True
    first = np.full(one.tracked.connection_count, -1, np.int64)
    first[rows["conn"][mine[::-1]]] = mine[::-1]
    parts = []
    for chunk in one.tracked.connections.chunks():
        parts.append(chunk[~joined[chunk["conn"]] & (chunk["seen"] & SEEN_SYN > 0) & (first[chunk["conn"]] >= 0)])
    conns = np.concatenate(parts) if parts else np.zeros(0, CONNECTION.dtype)
    return Ends(conns, first[conns["conn"]])


# ---- which side is which ----------------------------------------------------------------------


def _name_sides(rows: Records, links: Links, mine: Array, ends: Ends) -> None:
    """Tell virtual services from pool members, where no SYN told it."""
    names, codes = np.unique(rows["service"][ends.first], return_inverse=True)
    known = np.zeros(len(names), np.int8)
    known[codes] = links.role[ends.first]
    if not (known == OTHER).any():
        return
    told = directions(ends.conns, codes, len(names))
    role = np.where(known != OTHER, known, np.select([told == AHEAD, told == BEHIND], [FRONT, BACK], OTHER))
    _give(rows, links, mine, names, role)
    front, back = links.role[mine] == FRONT, links.role[mine] == BACK
    role[(role == OTHER) & asked_as_members(rows, mine, names, front, back)] = BACK
    role[(role == OTHER) & (known == BACK).any()] = FRONT
    _give(rows, links, mine, names, role)


def _give(rows: Records, links: Links, mine: Array, names: Array, role: Array) -> None:
    """Roles of services to those of their SYNs that have none."""
    at = np.minimum(np.searchsorted(names, rows["service"][mine]), len(names) - 1)
    change = (links.role[mine] == OTHER) & (names[at] == rows["service"][mine])
    links.role[mine[change]] = role[at[change]]


# ---- candidates and their cost ----------------------------------------------------------------


def _matched(front: Ends, back: Ends) -> Pairs:
    """Payload first, then timing among those that are left."""
    found = Pairs.none()
    if not len(front) or not len(back):
        return found
    for proof in (PAYLOAD, TIMING):
        a, b = _same_payload(front, back) if proof == PAYLOAD else _same_time(front, back)
        pairs, taken = _chosen(front, back, a, b, proof)
        if proof == PAYLOAD or len(pairs.client) + len(found.client) >= HABIT:
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
    return _possible(front, back, a, b)


def _same_time(front: Ends, back: Ends) -> tuple[Array, Array]:
    """Possible pairs that carried as many bytes in one direction at least, and any at all."""
    one = np.ones(len(front), np.uint64), np.ones(len(back), np.uint64)
    a, b = _within(front, back, *one)
    alike = np.zeros(len(a), np.bool_)
    for name in ("bytes_orig", "bytes_resp"):
        f = front.conns[name][a]
        alike |= (f == back.conns[name][b]) & (f > 0)
    return _possible(front, back, a[alike], b[alike])


def _within(front: Ends, back: Ends, front_key: Array, back_key: Array) -> tuple[Array, Array]:
    """Pairs with equal nonzero keys whose server leg starts within WINDOW after the client's; the latest few."""
    if not len(front) or not len(back):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    order = np.lexsort((front.conns["start"], front_key))
    values = np.unique(np.concatenate((front_key, back_key)))
    moments = np.sort(front.conns["start"])
    scale = len(moments) + 1
    place = np.searchsorted(values, front_key[order]) * scale + np.searchsorted(moments, front.conns["start"][order])
    base = np.searchsorted(values, back_key) * scale
    start = back.conns["start"]
    high = np.searchsorted(place, base + np.searchsorted(moments, start + LATE, "right"))
    low = np.searchsorted(place, base + np.searchsorted(moments, start - WINDOW))
    low = np.maximum(low, high - MOST_RIVALS)
    many = np.where(back_key != 0, np.maximum(high - low, 0), 0)
    at = np.repeat(low, many) + np.arange(many.sum()) - np.repeat(np.cumsum(many) - many, many)
    return order[at], np.repeat(np.arange(len(back)), many)


def _possible(front: Ends, back: Ends, a: Array, b: Array) -> tuple[Array, Array]:
    """Candidates in which nothing leaves before it came: requests pass from client to server, answers back.

    The server's leg is the load balancer's own, from an address that no client has, unless it shows the
    client's address and port.
    """
    own = ~np.isin(back.conns["orig"], front.conns["orig"])[b]
    shown = front.conns["orig"][a] == back.conns["orig"][b]
    good = own | (shown & (front.conns["orig_p"][a] == back.conns["orig_p"][b]))
    good &= inside(front.conns[a], back.conns[b])
    return a[good], b[good]


def _evidence(front: Ends, back: Ends, a: Array, b: Array) -> Array:
    """float64 (candidates,): log of how much likelier each is to be a pair than a coincidence."""
    content = np.zeros(len(a))
    for name in ("digest_orig", "digest_resp", "bytes_orig", "bytes_resp"):
        f = front.conns[name][a]
        equal = (f == back.conns[name][b]) & (f > 0)
        _, codes, counts = np.unique(back.conns[name], return_inverse=True, return_counts=True)
        rare = np.log(len(back) / counts)[codes[b]]
        content = np.maximum(content, np.where(equal, rare, 0.0))
    span = max(int(front.conns["start"].max() - front.conns["start"].min()), 1)
    window = min(WINDOW, max(span * MOST_RIVALS // len(front), MS))
    delays = [_delay(front, back, a, b, name) for name in ("start", "first_data_orig", "first_data_resp")]
    known = [d for d in delays if np.count_nonzero(d != NO_TIME) * 2 > len(d)] or delays[:1]
    learned = [_learn(a, b, d, content, window) for d in known]
    likelihood = [float(np.sum(weight * gain)) for weight, gain in learned]
    return content + learned[int(np.argmax(likelihood))][1]


def _delay(front: Ends, back: Ends, a: Array, b: Array, name: str) -> Array:
    """Time from the client's leg to the server's, or back for the response; NO_TIME if not seen on both."""
    f, s = front.conns[name][a], back.conns[name][b]
    sign = -1 if name == "first_data_resp" else 1
    return np.where((f != NO_TIME) & (s != NO_TIME), sign * (s - f), NO_TIME)


def _learn(a: Array, b: Array, delay: Array, content: Array, window: int) -> tuple[Array, Array]:
    """Weights of the candidates and what their delay says, learned together.

    Delays of chance pairs are spread evenly over *window*; those of real pairs cluster somewhere, which is
    seen on a logarithmic scale with three bins per octave.
    """
    known = delay != NO_TIME
    steps = np.floor(3 * np.log2(np.maximum(delay, 10 * US) / (10 * US))).astype(np.int64) + 1
    bins = np.where(delay < 0, 0, steps) * known
    edges = 10 * US * np.exp2(np.arange(-1, int(bins.max()) + 1) / 3)
    widths = np.r_[LATE, 10 * US * 2 ** (1 / 3), np.diff(edges[1:])][: int(bins.max()) + 1]
    even = np.minimum(widths / window, 1.0)
    gain = np.zeros(len(a))
    weight = np.zeros(len(a))
    for _ in range(ROUNDS):
        weight = _shares(b, content + gain)[0]
        seen = np.bincount(bins[known], weights=weight[known], minlength=len(even))
        density = (seen + 2.0 * even) / (seen.sum() + 2.0)
        gain = np.where(known, np.log(density / even)[bins], 0.0)
    return weight, gain


def _shares(leg: Array, evidence: Array) -> tuple[Array, Array]:
    """Probability of each candidate among those of its *leg*, and of the leg having none."""
    count = np.bincount(leg)
    top = np.zeros(len(count))
    np.maximum.at(top, leg, evidence)
    weight = np.exp(evidence - top[leg]) * (1 - NO_PARTNER) / count[leg]
    none = NO_PARTNER * np.exp(-top)
    total = np.bincount(leg, weights=weight) + none
    return weight / total[leg], none / total


# ---- one partner each -------------------------------------------------------------------------


def _chosen(front: Ends, back: Ends, a: Array, b: Array, proof: int) -> tuple[Pairs, tuple[Array, Array]]:
    """The cheapest one-to-one choice among candidates; unclear ones are left out, and their legs stay taken."""
    if not len(a):
        return Pairs.none(), (a, b)
    evidence = _evidence(front, back, a, b)
    picked = _assign(a, b, -evidence)
    margin, rivals = _margins(a, b, evidence, picked)
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
    table = np.full((len(left), len(right)), cost.max() + 1e6)
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


def _margins(a: Array, b: Array, evidence: Array, picked: Array) -> tuple[Array, Array]:
    """For each chosen candidate: probability between it and the next best of either leg, and how many could be it."""
    margin = np.ones(len(picked))
    rivals = np.zeros(len(picked), np.int64)
    others = np.ones(len(a), np.bool_)
    others[picked] = False
    for leg in (a, b):
        share, none = _shares(leg, evidence)
        best_other = none.copy()
        np.maximum.at(best_other, leg[others], share[others])
        margin = np.minimum(margin, share[picked] - best_other[leg[picked]])
        mine = np.zeros(len(none))
        mine[leg[picked]] = share[picked]
        close = others & (share > 0.05 * mine[leg])
        rivals += np.bincount(leg[close], minlength=len(none))[leg[picked]]
    return np.maximum(margin, 0.0), rivals


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
    _forwarded(rows, links, flow, ids[pairs.kind == LAYER4])


def _forwarded(rows: Records, links: Links, flow: Array, flows: Array) -> None:
    """Join the SYNs of rewritten connections in the order of time."""
    lb = np.flatnonzero(np.isin(flow, flows) & (links.role != SERVER) & (links.copy_of == np.arange(len(flow))))
    if len(lb):
        a, b = latest_before(flow[lb], rows["time"][lb], links.role[lb] == FRONT)
        links.join(lb[a], lb[b], PAYLOAD)
