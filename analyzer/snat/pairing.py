"""Which SYN on the server side is which client's SYN: layer 4, where the packet itself passes through.

Three places are joined two by two: the LB's client side (front), its server side (back), the servers.
Every step goes from the strongest key to weaker ones and pairs one to one in the order of time.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from analyzer.schema import PROOFS
from analyzer.snat.evidence import LATE, Array, Points, copies, group_ids, latest_before
from analyzer.snat.model import Records, Seen
from analyzer.snat.sides import Askers, of_two_legs
from analyzer.units import MS, NS

OTHER, FRONT, BACK, SERVER = range(4)
NONE, TIMING, PAYLOAD, STRONG, EXACT, IN_BAND = range(len(PROOFS))

HELD = 30 * NS
"""A load balancer forwards a SYN within this time or never."""
MOST_STEPS = 5
"""So often a clock may step under SYNs that nothing but their time tells apart."""
FORWARDED = 100 * MS
"""A load balancer that only rewrites forwards a SYN within this time."""
MOSTLY = 3
"""So many times as often first as second is a direction."""
FEW = 4
"""Pairs that prove no habit."""
ON_THE_WAY = 500 * MS
"""With the offset of both clocks known, a packet is at the server within this time or lost."""
ROUGH = 50 * MS
"""Differences of two clocks that agree this well speak of the same offset."""

WAY = 0x1FF
"""Bits of POINT.place that a forwarder changes: tunnel and TTL."""

SAME_PACKET = ("isn", "has_ts", "tsval", "ipid")
SAME_STAMP = ("isn", "has_ts", "tsval")


@dataclass
class Links:
    """What belongs to what; all arrays run along ``Points.rows``.

    Attributes:
        copy_of: Index of the first sight of the same packet on the same four numbers in its capture.
        role: OTHER, FRONT, BACK or SERVER.
        came_from: Index of the same SYN one place before: back → front, server → back (or front); -1 if unknown.
        proof: PROOFS index of ``came_from``.
        direct: The client's own four numbers reach the server.
    """

    copy_of: Array
    role: Array
    came_from: Array
    proof: Array
    direct: Array

    def join(self, earlier: Array, later: Array, proof: Array | int) -> None:
        """Note that *later* rows are the *earlier* ones, one place on."""
        self.came_from[later] = earlier
        self.proof[later] = proof

    def open(self, rows: Array) -> Array:
        """Those of *rows* that are first sights and have no earlier place yet."""
        return rows[(self.came_from[rows] < 0) & (self.copy_of[rows] == rows)]


def pair(points: Points, seen: Sequence[Seen]) -> Links:
    """Join the SYNs of all captures, layer 4."""
    rows = points.rows
    count = len(rows)
    links = Links(
        copies(rows),
        np.zeros(count, np.int8),
        np.full(count, -1, np.int64),
        np.zeros(count, np.uint8),
        np.zeros(count, np.bool_),
    )
    lbs = [v for v, one in enumerate(seen) if one.side == "lb"]
    servers = [v for v, one in enumerate(seen) if one.side == "server"]
    for v in servers:
        links.role[points.of(v)] = SERVER
    for v in lbs:
        mine = points.of(v)
        _legs(rows, links, mine)
        _direct(rows, links, mine)
        _through(rows, links, mine)
    at_lb = np.concatenate([points.of(v) for v in lbs]) if lbs else np.zeros(0, np.int64)
    for v in servers:
        _to_server(rows, links, at_lb, points.of(v))
    return links


def _legs(rows: Records, links: Links, mine: Array) -> None:
    """Which services are virtual: their SYNs appear again, later, towards another service.

    A client's own retry may show the same ISN towards another service too, behind a load balancer that gives
    it to another member; so the surest sort of repetition that there is decides, and only if it has one direction.
    """
    services, codes = np.unique(rows["service"][mine], return_inverse=True)
    one = np.flatnonzero(links.copy_of[mine] == mine)
    little = _by_chance(len(one))
    role = np.full(len(services), OTHER, np.int8)
    for columns, soon in ((SAME_PACKET, HELD), (SAME_STAMP, LATE), (("isn",), LATE), (SAME_STAMP, HELD)):
        ahead, behind = _votes(rows, mine[one], codes[one], columns, soon)
        role[(ahead > little) & (ahead > MOSTLY * behind)] = FRONT
        role[(behind > little) & (behind > MOSTLY * ahead)] = BACK
        if (role == FRONT).any() and (role == BACK).any():
            break
        role[:] = OTHER
    else:
        return
    at_servers = np.unique(rows["service"][links.role == SERVER])
    role[(role == FRONT) & np.isin(services, at_servers)] = OTHER
    links.role[mine] = role[codes]
    name_by_place(rows, links, mine)


def _votes(rows: Records, mine: Array, codes: Array, columns: tuple[str, ...], soon: int) -> tuple[Array, Array]:
    """How often each service comes first and second, within *soon*, among SYNs with equal *columns*.

    A retry on another member is asked for by the same address, and so is no second leg.
    """
    named = rows["ipid"][mine] > 0 if "ipid" in columns else np.ones(len(mine), np.bool_)
    size = int(codes.max(initial=-1)) + 1
    mine, codes = mine[named], codes[named]
    keys = group_ids(*(rows[name][mine] for name in columns))
    order = np.lexsort((rows["time"][mine], keys))
    one, two = order[:-1], order[1:]
    again = (keys[one] == keys[two]) & (codes[one] != codes[two])
    again &= rows["time"][mine[two]] - rows["time"][mine[one]] <= soon
    one, two = one[again], two[again]
    if len(one):
        asked = rows[["orig", "orig_p"]][mine]
        one, two = of_two_legs(asked, codes, Askers.of(asked, codes, size), one, two)
    return np.bincount(codes[one], minlength=size), np.bincount(codes[two], minlength=size)


def _by_chance(count: int) -> float:
    """Equal ISNs that mean nothing among *count* connections."""
    expected = count * count / 2**33
    return 0.0 if expected < 1e-3 else 3 + 3 * expected


def name_by_place(rows: Records, links: Links, mine: Array) -> None:
    """Services of which no SYN went through: they lie where the others of their tap or host lie."""
    for column in (rows["place"][mine] >> 9, rows["resp"][mine].astype(np.int64)):
        values, codes = np.unique(column, return_inverse=True)
        fronts = np.bincount(codes, weights=links.role[mine] == FRONT, minlength=len(values))
        backs = np.bincount(codes, weights=links.role[mine] == BACK, minlength=len(values))
        role = np.where((fronts > 0) & (backs == 0), FRONT, np.where((backs > 0) & (fronts == 0), BACK, OTHER))
        unknown = links.role[mine] == OTHER
        links.role[mine[unknown]] = role[codes[unknown]]


def _direct(rows: Records, links: Links, mine: Array) -> None:
    """No NAT: the same four numbers on both sides, told by a second sight of the same packet elsewhere."""
    second = mine[links.copy_of[mine] != mine]
    first = links.copy_of[second]
    moved = ((rows["place"][second] ^ rows["place"][first]) & WAY > 0) & (links.role[second] == OTHER)
    second, first = second[moved], first[moved]
    if not len(second):
        return
    was, now = rows["place"][first] & WAY, rows["place"][second] & WAY
    good = (now >> 8 > was >> 8) | ((now >> 8 == was >> 8) & (now < was))  # into a tunnel, or a TTL less
    second, first = second[good], first[good]
    links.role[second] = BACK
    links.copy_of[second] = second
    taps, services = np.unique(rows["place"][first] >> 9), np.unique(rows["service"][first])
    same = np.isin(rows["place"][mine] >> 9, taps) & np.isin(rows["service"][mine], services)
    links.role[mine[same & (links.role[mine] == OTHER)]] = FRONT
    links.join(first, second, EXACT)
    links.direct[second] = links.direct[first] = True


def _through(rows: Records, links: Links, mine: Array) -> None:
    """Pair the SYNs on both sides of the load balancer that keep their ISN."""
    front = mine[(links.role[mine] == FRONT) & (links.copy_of[mine] == mine)]
    back = mine[(links.role[mine] == BACK) & (links.copy_of[mine] == mine)]
    for columns in (SAME_PACKET, SAME_STAMP):
        _by_time(rows, links, front, back, columns)
    told = np.unique(rows["conn"][back[links.came_from[back] >= 0]])
    rest = links.open(back)
    rest = rest[~np.isin(rows["conn"][rest], told)]
    _by_time(rows, links, front, rest, ("isn",))


def _unused(links: Links, front: Array) -> Array:
    """Fronts that no later row came from yet."""
    used = np.zeros(len(links.role), np.bool_)
    used[links.came_from[links.came_from >= 0]] = True
    return front[~used[front]]


def _proof(rows: Records, earlier: Array, later: Array) -> Array:
    """PROOFS index of pairs: exact if ISN and another 16 bits of the packet's own are equal, else strong."""
    same = rows["isn"][earlier] == rows["isn"][later]
    options = (rows["wscale"][earlier] == rows["wscale"][later]) & (rows["mss"][earlier] == rows["mss"][later])
    stamped = (rows["has_ts"][earlier] > 0) & (rows["has_ts"][later] > 0)
    bare = (rows["has_ts"][earlier] == 0) & (rows["has_ts"][later] == 0)
    named = (rows["ipid"][earlier] == rows["ipid"][later]) & (rows["ipid"][later] > 0)
    stamp = stamped & (rows["tsval"][earlier] == rows["tsval"][later])
    exact = same & ((stamp & (options | named)) | (bare & named & options))
    return np.where(exact, EXACT, STRONG).astype(np.uint8)


def _by_time(rows: Records, links: Links, earlier: Array, later: Array, columns: tuple[str, ...]) -> None:
    """Pair equal *columns* in the order of time; the second round forgives stamps in the wrong order."""
    for late in (0, LATE):
        earlier, later = _unused(links, earlier), links.open(later)
        if not len(earlier) or not len(later):
            return
        both = np.concatenate((earlier, later))
        keys = group_ids(*(rows[name][both] for name in columns))
        a, b = latest_before(keys, rows["time"][both], np.arange(len(both)) < len(earlier), late)
        a, b = both[a], both[b]
        good = rows["time"][b] - rows["time"][a] <= HELD
        a, b = a[good], b[good]
        links.join(a, b, _proof(rows, a, b))


def by_ip_id(points: Points, links: Links, mine: Array) -> None:
    """Pair rewritten SYNs of a load balancer that leaves their IP id alone, if this one does.

    16 bits are little: they count only where most SYNs find their like at once, and hardly any do a second later.
    """
    rows = points.rows
    front = _unused(links, mine[(links.role[mine] == FRONT) & (links.copy_of[mine] == mine)])
    back = links.open(mine[links.role[mine] == BACK])
    front, back = front[rows["ipid"][front] > 0], back[rows["ipid"][back] > 0]
    if not len(front) or not len(back):
        return
    both = np.concatenate((front, back))
    is_first = np.arange(len(both)) < len(front)
    keys = rows["ipid"][both].astype(np.int64)
    found = []
    for shift in (0, NS):
        times = rows["time"][both] - np.where(is_first, 0, shift)
        a, b = latest_before(keys, times, is_first)
        soon = times[b] - times[a] <= FORWARDED
        found.append((both[a[soon]], both[b[soon]]))
    (a, b), (by_chance, _) = found
    if len(a) > max(FEW, len(back) // 2, 20 * len(by_chance)):
        links.join(a, b, STRONG)


# ---- to the servers, whose clocks are not the load balancer's ---------------------------------


def _to_server(rows: Records, links: Links, at_lb: Array, there: Array) -> None:
    """Join one server's SYNs with the LB's server side, or with its client side where that is all there is."""
    there = there[links.copy_of[there] == there]
    if not len(at_lb) or not len(there):
        return
    near = at_lb[(links.role[at_lb] != FRONT) & (links.copy_of[at_lb] == at_lb)]
    offset = Offset()
    keys: tuple[tuple[str, ...], ...] = (SAME_PACKET, SAME_STAMP)
    for columns in keys:
        _across(rows, links, near, there, ("four", *columns), offset)
    _rewritten(rows, links, near, there, offset)
    _tunnelled(rows, links, near, there)
    _name_services(rows, links, near, there, BACK)
    front = at_lb[(links.role[at_lb] != BACK) & (links.copy_of[at_lb] == at_lb)]
    front = _unused(links, front)
    for columns in (*keys, ("isn",)):
        _across(rows, links, front, there, columns, offset)
    _name_services(rows, links, front, there, FRONT)


def _tunnelled(rows: Records, links: Links, near: Array, there: Array) -> None:
    """What the LB shows bare and the server in a tunnel is the client's leg, sent on without NAT."""
    inside = there[(rows["tunnelled"][there] > 0) & (links.came_from[there] >= 0)]
    bare = links.came_from[inside]
    bare = bare[(rows["tunnelled"][bare] == 0) & (links.role[bare] == OTHER)]
    links.direct[bare] = True
    same = near[(links.role[near] == OTHER) & np.isin(rows["service"][near], np.unique(rows["service"][bare]))]
    links.role[same] = FRONT


def _name_services(rows: Records, links: Links, at_lb: Array, there: Array, role: int) -> None:
    """A service whose SYNs reached a server lies on that side of the load balancer."""
    known = np.unique(rows["service"][at_lb[_used(links, there, at_lb)]])
    links.role[at_lb[(links.role[at_lb] == OTHER) & np.isin(rows["service"][at_lb], known)]] = role


def _used(links: Links, later: Array, earlier: Array) -> Array:
    used = np.zeros(len(links.role), np.bool_)
    mine = links.came_from[later]
    used[mine[mine >= 0]] = True
    return used[earlier]


class Offset:
    """Server clock minus LB clock, transit included, from the pairs found so far."""

    def __init__(self) -> None:
        self.times = np.zeros(0, np.int64)
        self.values = np.zeros(0, np.int64)

    def learn(self, earlier: Array, later: Array) -> None:
        """Take these pairs of times, ns, in place of what was known."""
        order = np.argsort(later, kind="stable")
        self.times, self.values = later[order], (later - earlier)[order]

    def back(self, times: Array) -> Array:
        """Server times on the LB's clock."""
        if not len(self.times):
            return times
        at = np.searchsorted(self.times, times)
        nearest = np.median(self.values[np.clip(at[:, None] + np.arange(-3, 4), 0, len(self.values) - 1)], axis=1)
        return times - nearest.astype(np.int64)


def _across(
    rows: Records, links: Links, earlier: Array, later: Array, columns: tuple[str, ...], offset: Offset
) -> None:
    """Pair across two clocks: keys that name one packet on each side first, then by time."""
    earlier, later = _free(links, earlier, later), links.open(later)
    if not len(earlier) or not len(later):
        return
    both = np.concatenate((earlier, later))
    keys = group_ids(*(rows[name][both] for name in columns))
    here, far = keys[: len(earlier)], keys[len(earlier) :]
    size = int(keys.max()) + 1
    alone = (np.bincount(here, minlength=size) == 1) & (np.bincount(far, minlength=size) == 1)
    place = np.full(size, -1, np.int64)
    place[here] = earlier
    sure = alone[far]
    a, b = place[far[sure]], later[sure]
    links.join(a, b, _proof(rows, a, b))
    if len(a) > len(offset.times):
        offset.learn(rows["time"][a], rows["time"][b])
    _with_offset(rows, links, earlier[~alone[here]], later[~sure], columns, offset)


def _free(links: Links, earlier: Array, later: Array) -> Array:
    """Rows of the LB that none of *later* came from."""
    return earlier[~_used(links, later, earlier)]


def _with_offset(
    rows: Records, links: Links, earlier: Array, later: Array, columns: tuple[str, ...], offset: Offset
) -> None:
    """Pair what keys alone do not tell apart in the order of time; the second round allows for jitter."""
    for late in (LATE, 20 * LATE):
        earlier, later = _free(links, earlier, later), links.open(later)
        if not len(earlier) or not len(later) or not len(offset.times):
            return
        both = np.concatenate((earlier, later))
        keys = group_ids(*(rows[name][both] for name in columns))
        times = np.concatenate((rows["time"][earlier], offset.back(rows["time"][later])))
        a, b = latest_before(keys, times, np.arange(len(both)) < len(earlier), late)
        good = np.abs(times[b] - times[a]) <= ON_THE_WAY
        a, b = both[a[good]], both[b[good]]
        links.join(a, b, _proof(rows, a, b))


def _rewritten(rows: Records, links: Links, earlier: Array, later: Array, offset: Offset) -> None:
    """ISN changed on the way: the four numbers and the order of time are left, also where a clock steps."""
    for _ in range(MOST_STEPS):
        earlier, later = _free(links, earlier, later), links.open(later)
        if not len(offset.times):
            _common_offset(rows, earlier, later, offset)
        _with_offset(rows, links, earlier, later, ("four",), offset)
        offset = Offset()
        if not (links.came_from[later] >= 0).any():
            return


def _common_offset(rows: Records, earlier: Array, later: Array, offset: Offset) -> None:
    """The difference of times that most pairs on the same four numbers agree in, followed as it drifts."""
    if not len(earlier) or not len(later):
        return
    order = earlier[np.argsort(rows["four"][earlier], kind="stable")]
    fours = rows["four"][order]
    low, high = np.searchsorted(fours, rows["four"][later]), np.searchsorted(fours, rows["four"][later], "right")
    many = np.minimum(high - low, 64)
    here = rows["time"][order[np.repeat(low, many) + _ramp(many)]]
    there = rows["time"][np.repeat(later, many)]
    ordered = np.sort(there - here)
    if not len(ordered):
        return
    reach = np.searchsorted(ordered, ordered + ROUGH, "right") - np.arange(len(ordered))
    middle = ordered[np.argmax(reach) + reach.max() // 2]
    near = np.abs(there - here - middle) <= ROUGH
    if near.sum() * 2 < min(len(earlier), len(later)) and near.sum() < 8:
        return
    for _ in range(8):
        offset.learn(here[near], there[near])
        wider = np.abs(offset.back(there) - here) <= 4 * ROUGH
        if wider.sum() <= near.sum():
            return
        near = wider


def _ramp(counts: Array) -> Array:
    """0 … n-1 for each n of *counts*, one after the other."""
    return np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
