"""Which services are virtual and which are pool members, where no SYN passed through to tell it.

Two legs of one proxy have these in common: the proxy opens the second from an address of its own, so the two
services are asked by different addresses (or, where it shows the client's, by the same address and port); the
second begins while the first lives; requests pass one way and answers the other.  Members of one pool also show
equal payloads close together, but the same addresses ask them all.
"""

from dataclasses import dataclass

import numpy as np

from analyzer.snat.evidence import LATE, Array
from analyzer.snat.model import Records
from analyzer.units import MS, NO_TIME, NS

Pairs = tuple[Array, Array]

UNKNOWN, AHEAD, BEHIND = 0, 1, -1

WINDOW = 10 * NS
"""A proxy opens its own connection within this time after the client's, or the pair is not looked for."""
MOSTLY = 3
"""So many times as often first as second is a direction."""
FEWEST_RARE, FEWEST_COMMON, FEWEST_BY_TIME = 2, 8, 16
"""Pairs that make a direction: with first bytes that no third connection has, with common ones, with time alone."""
SOON = 100 * MS
"""A proxy that shows no common payload opens its connection this soon, if its time is to tell anything."""
MOST_PAIRS = 1000
"""Pairs of services that are compared; the most frequent ones."""


@dataclass(frozen=True)
class Askers:
    """Which addresses ask a service: originators sorted by service."""

    origs: Array
    starts: Array

    @classmethod
    def of(cls, conns: Records, codes: Array, count: int) -> "Askers":
        """Sort the originators by service."""
        order = np.argsort(codes, kind="stable")
        starts = np.searchsorted(codes[order], np.arange(count + 1))
        return cls(conns["orig"][order], starts)

    def alike(self, a: int, b: int) -> bool:
        """Whether most connections of either service come from addresses that ask the other one too."""
        one = self.origs[self.starts[a] : self.starts[a + 1]]
        two = self.origs[self.starts[b] : self.starts[b + 1]]
        return bool(np.isin(one, two).mean() > 0.5 and np.isin(two, one).mean() > 0.5)


def directions(conns: Records, codes: Array, count: int, by_time: bool = True) -> Array:
    """Tell the services whose connections lead to others from those that they lead to.

    Args:
        conns: CONNECTION records that have no partner yet.
        codes: int64 (n,), service of each.
        count: Number of services.
        by_time: Let who begins first decide where no payload does; a server that asks another one looks like that.

    Returns:
        int8 (count,): AHEAD for a virtual service, BEHIND for a pool member, UNKNOWN.
    """
    askers = Askers.of(conns, codes, count)
    rare, common = _by_payload(conns, codes)
    tries = [(rare, FEWEST_RARE), (common, FEWEST_COMMON)]
    for pairs, fewest in [*tries, (_by_time(conns, codes), FEWEST_BY_TIME)] if by_time else tries:
        a, b = of_two_legs(conns, codes, askers, *pairs)
        ahead, behind = np.bincount(codes[a], minlength=count), np.bincount(codes[b], minlength=count)
        found = np.zeros(count, np.int8)
        found[(ahead >= fewest) & (ahead > MOSTLY * behind)] = AHEAD
        led = np.bincount(codes[b[found[codes[a]] == AHEAD]], minlength=count)
        found[(led > MOSTLY * ahead) & (found == UNKNOWN)] = BEHIND
        if (found == AHEAD).any() and (found == BEHIND).any():
            return found
    return np.zeros(count, np.int8)


def _by_payload(conns: Records, codes: Array) -> tuple[Pairs, Pairs]:
    """Connections with equal first bytes at different services, one inside the other: rare bytes, common ones."""
    rare, common = [], []
    for digest in ("digest_orig", "digest_resp"):
        some = np.flatnonzero(conns[digest] != 0)
        _, which, often = np.unique(conns[digest][some], return_inverse=True, return_counts=True)
        a, b = _neighbours(conns[some], codes[some], which, WINDOW, most=len(some))
        twice = often[which[a]] == 2
        rare.append((some[a[twice]], some[b[twice]]))
        common.append((some[a], some[b]))
    return _both(conns, rare), _both(conns, common)


def _both(conns: Records, parts: list[Pairs]) -> Pairs:
    """Pairs of either kind, each once, of those that lie inside each other."""
    a, b = (np.concatenate(part) for part in zip(*parts, strict=True))
    nested = inside(conns[a], conns[b])
    a, b = np.unique(np.stack([a[nested], b[nested]]), axis=1)
    return a, b


def _by_time(conns: Records, codes: Array) -> Pairs:
    """Connections that begin soon after one at another service."""
    return _both(conns, [_neighbours(conns, codes, np.zeros(len(conns), np.int64), SOON, most=1)])


def _neighbours(conns: Records, codes: Array, keys: Array, within: int, most: int) -> Pairs:
    """Runs of connections at one service, each with the run that follows it, where that one is the nearer in time.

    Args:
        conns: CONNECTION records.
        codes: Service of each.
        keys: Only connections of one key are neighbours.
        within: Longest pause between the runs, ns.
        most: So many connections of two runs are paired at most, in their order.
    """
    if not len(conns):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    order = np.lexsort((conns["start"], keys))
    start, key, code = conns["start"][order], keys[order], codes[order]
    first = np.flatnonzero(np.r_[True, (key[1:] != key[:-1]) | (code[1:] != code[:-1])])
    length = np.diff(np.r_[first, len(order)])
    pause = start[first[1:]] - start[first[1:] - 1]
    pause[key[first[1:]] != key[first[:-1]]] = 2 * WINDOW
    nearer = (pause <= np.r_[pause[1:], 2 * WINDOW]) & (pause <= np.r_[2 * WINDOW, pause[:-1]])
    good = np.flatnonzero(nearer & (pause < within)) if len(pause) else np.zeros(0, np.int64)
    many = np.minimum(np.minimum(length[good], length[good + 1]), most)
    nth = np.arange(many.sum()) - np.repeat(np.cumsum(many) - many, many)
    one = np.repeat(first[good + 1] - many, many) + nth
    return order[one], order[np.repeat(first[good + 1], many) + nth]


def inside(front: Records, back: Records) -> Array:
    """Whether each *back* connection can carry on its *front* one: nothing leaves before it came."""
    good = back["start"] <= front["end"] + NS
    for name, first, then in (("first_data_orig", front, back), ("first_data_resp", back, front)):
        known = (first[name] != NO_TIME) & (then[name] != NO_TIME)
        good &= ~known | (then[name] - first[name] >= -LATE)
    return good


def of_two_legs(conns: Records, codes: Array, askers: Askers, a: Array, b: Array) -> Pairs:
    """Those of the pairs that may be two legs, by the addresses that ask either service.

    Args:
        conns: Records with ``orig`` and ``orig_p``.
        codes: Service of each.
        askers: Who asks each service.
        a: Indices of the earlier connections.
        b: Indices of the later ones.
    """
    shown = (conns["orig"][a] == conns["orig"][b]) & (conns["orig_p"][a] == conns["orig_p"][b])
    low, high = np.minimum(codes[a], codes[b]), np.maximum(codes[a], codes[b])
    both, which, often = np.unique(np.stack([low, high]), axis=1, return_inverse=True, return_counts=True)
    apart = np.zeros(both.shape[1], np.bool_)
    for at in np.argsort(-often, kind="stable")[:MOST_PAIRS].tolist():
        apart[at] = not askers.alike(int(both[0, at]), int(both[1, at]))
    good = shown | apart[which.ravel()]
    return a[good], b[good]


def asked_as_members(rows: Records, mine: Array, services: Array, front: Array, back: Array) -> Array:
    """Which of *services* are asked mostly by the load balancer's own addresses, which ask on its server side only.

    Args:
        rows: POINT records.
        mine: Rows of the load balancer's capture.
        services: int64 (n,), sorted service ids.
        front: Which of *mine* are known to be of the client's side.
        back: Which of *mine* are known to be of the server side.

    Returns:
        bool (n,).
    """
    theirs, ours = np.unique(rows["orig"][mine[front]]), np.unique(rows["orig"][mine[back]])
    own = np.isin(rows["orig"][mine], ours[~np.isin(ours, theirs)])
    at = np.minimum(np.searchsorted(services, rows["service"][mine]), len(services) - 1)
    here = services[at] == rows["service"][mine]
    asked = np.bincount(at[here & own], minlength=len(services))
    return asked * 2 > np.bincount(at[here], minlength=len(services))
