"""Pairs that packets themselves tell: a load balancer's own ids, PROXY headers, client address options.

Strongest proof of all.  Ids name both legs in the load balancer's capture and are reused, so that a pair
also needs legs that live at the same time; addresses name the other leg's four numbers.  What the SYNs
told before is kept where it agrees, and gives way where it does not.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from analyzer.schema import CONNECTION, IDENTITY_SOURCES
from analyzer.snat.evidence import LATE, Array, Points, group_ids, latest_before
from analyzer.snat.journeys import LAYER4, LAYER7, Pairs
from analyzer.snat.model import Records, Seen
from analyzer.snat.pairing import BACK, FRONT, IN_BAND, SERVER, Links
from analyzer.units import NO_TIME, NS

TOA = IDENTITY_SOURCES.index("toa")
AROUND = 5 * NS
"""A leg may end, and its ids be spoken, this long before the other leg ends."""

End = tuple[str, str, str]
_ORIG: End = ("orig_hi", "orig_lo", "orig_p")
_RESP: End = ("resp_hi", "resp_lo", "resp_p")
_SRC: End = ("src_hi", "src_lo", "sport")
_DST: End = ("dst_hi", "dst_lo", "dport")
_REMOTE: End = ("remote_hi", "remote_lo", "remote_p")
_LOCAL: End = ("local_hi", "local_lo", "local_p")


@dataclass
class _Ends:
    """Connections with a SYN, of all captures, and the POINT row of each one's first SYN."""

    conns: Records
    vantage: Array
    first: Array
    addresses: dict[str, Array]

    def columns(self, end: End) -> list[Array]:
        """Address halves and port of one end."""
        return [self.addresses[name] for name in end]


def in_band_pairs(points: Points, seen: Sequence[Seen], links: Links) -> Pairs:
    """Join what packets say belongs together.

    Args:
        points: SYN rows of all captures.
        seen: The captures; their ``tracked.identities`` speak.
        links: What the SYNs told; forwarded SYNs are joined in it with proof ``in_band``, roles are set.

    Returns:
        Pairs of connections whose SYNs did not pass through: the load balancer opened its own.
    """
    told = [one.tracked.identities.to_array() for one in seen]
    if not any(len(rows) for rows in told):
        return Pairs.none()
    ends = _ends_of(points, seen)
    if not len(ends.first):
        return Pairs.none()
    found = [_pairs_of(vantage, rows, ends, links) for vantage, rows in enumerate(told) if len(rows)]
    return _joined(points.rows, ends, links, np.concatenate(found))


def _ends_of(points: Points, seen: Sequence[Seen]) -> _Ends:
    conns, vantages, firsts = [np.zeros(0, CONNECTION.dtype)], [], []
    hosts: dict[str, list[Array]] = {name: [] for name in (*_ORIG, *_RESP)}
    for vantage, one in enumerate(seen):
        mine = points.of(vantage)
        first = np.full(one.tracked.connection_count, -1, np.int64)
        first[points.rows["conn"][mine[::-1]]] = mine[::-1]
        for chunk in one.tracked.connections.chunks():
            kept = chunk[first[chunk["conn"]] >= 0]
            conns.append(kept)
            vantages.append(np.full(len(kept), vantage))
            firsts.append(first[kept["conn"]])
            for side in ("orig", "resp"):
                host = one.tracked.hosts[kept[side]]
                hosts[f"{side}_hi"].append(host["hi"])
                hosts[f"{side}_lo"].append(host["lo"])
                hosts[f"{side}_p"].append(kept[f"{side}_p"])
    addresses = {name: np.concatenate(parts) if parts else np.zeros(0, np.uint64) for name, parts in hosts.items()}
    no = np.zeros(0, np.int64)
    return _Ends(np.concatenate(conns), np.concatenate([no, *vantages]), np.concatenate([no, *firsts]), addresses)


# ---- who is meant -------------------------------------------------------------------------------


def _pairs_of(vantage: int, told: Records, ends: _Ends, links: Links) -> Array:
    """int64 (pairs, 2): indices in *ends* of the client's leg and of the other one, by one capture's identities."""
    here = np.flatnonzero(ends.vantage == vantage)
    at_lb = np.flatnonzero(links.role[ends.first] != SERVER)
    own = _find(ends, here, told, (_SRC, _DST))
    told, own = told[own >= 0], own[own >= 0]
    by_source = told["source"] == TOA
    by_address = ~by_source & (told["remote_p"] > 0) & (told["local_p"] > 0)
    found = [_by_ids(ends, told, own)]
    for which, named in ((by_address, (_REMOTE, _LOCAL)), (by_source, (_REMOTE,))):
        other = _find(ends, at_lb, told[which], named)
        good = (other >= 0) & (other != own[which])
        found.append(np.stack([own[which][good], other[good]], axis=1))
    return _client_first(ends, links, np.concatenate(found))


def _find(ends: _Ends, among: Array, told: Records, named: tuple[End, ...]) -> Array:
    """For each identity the connection of *among* that it names, alive at its time; -1 if there is none.

    Two *named* ends are looked for in either direction; a single one is an originator's.
    """
    result = np.full(len(told), -1, np.int64)
    if not len(told) or not len(among):
        return result
    if len(named) == 1:
        have = [column[among] for column in ends.columns(_ORIG)]
        want = [told[name] for name in named[0]]
    else:
        have = _sorted_ends(*([c[among] for c in ends.columns(end)] for end in (_ORIG, _RESP)))
        want = _sorted_ends(*([told[name] for name in end] for end in named))
    ids = group_ids(
        *(np.concatenate((h.astype(np.uint64), w.astype(np.uint64))) for h, w in zip(have, want, strict=True))
    )
    asks = np.arange(len(ids)) >= len(among)
    times = np.concatenate((ends.conns["start"][among], told["time"] + LATE))
    order = np.lexsort((asks, times, ids))
    latest = np.maximum.accumulate(np.where(asks[order], -1, np.arange(len(order))))
    at = np.flatnonzero(asks[order] & (latest >= 0))
    conn = order[latest[at]]
    question = order[at] - len(among)
    good = (ids[conn] == ids[order[at]]) & (ends.conns["end"][among][conn] + AROUND >= told["time"][question])
    result[question[good]] = among[conn[good]]
    return result


def _sorted_ends(a: list[Array], b: list[Array]) -> list[Array]:
    """Both ends of each row, the smaller first."""
    more = (a[0] > b[0]) | ((a[0] == b[0]) & ((a[1] > b[1]) | ((a[1] == b[1]) & (a[2] > b[2]))))
    return [np.where(more, y, x) for x, y in zip(a, b, strict=True)] + [
        np.where(more, x, y) for x, y in zip(a, b, strict=True)
    ]


def _by_ids(ends: _Ends, told: Records, own: Array) -> Array:
    """Connections of which each calls the other its peer, and that live at the same time."""
    known = (told["flow"] > 0) & (told["peer_flow"] > 0)
    flow, peer, mine = told["flow"][known], told["peer_flow"][known], own[known]
    if not len(mine):
        return np.zeros((0, 2), np.int64)
    said = np.unique(np.stack([flow, peer, mine.astype(np.uint64)]), axis=1)
    flow, peer, mine = said[0], said[1], said[2].astype(np.int64)
    low = flow < peer
    key = group_ids(np.minimum(flow, peer), np.maximum(flow, peer))
    start = ends.conns["start"][mine]
    order = np.lexsort((start, key))
    found = []
    for step in (1, 2):
        a, b = order[:-step], order[step:]
        good = (key[a] == key[b]) & (low[a] != low[b]) & (mine[a] != mine[b])
        good &= ends.conns["start"][mine[b]] <= ends.conns["end"][mine[a]] + AROUND
        found.append(np.stack([mine[a[good]], mine[b[good]]], axis=1))
    used = set(found[0].ravel().tolist())
    later = [pair for pair in found[1].tolist() if used.isdisjoint(pair)]
    return np.concatenate((found[0], np.array(later, np.int64).reshape(-1, 2)))


def _client_first(ends: _Ends, links: Links, pairs: Array) -> Array:
    """Each pair with the client's leg first: by what is known of its service, else the one that began first."""
    roles = links.role[ends.first[pairs]]
    starts = ends.conns["start"][pairs]
    swap = (roles[:, 1] == FRONT) & (roles[:, 0] != FRONT)
    swap |= (np.isin(roles[:, 0], (BACK, SERVER))) & ~np.isin(roles[:, 1], (BACK, SERVER))
    undecided = roles[:, 0] == roles[:, 1]
    swap |= undecided & (starts[:, 0] > starts[:, 1])
    return np.where(swap[:, None], pairs[:, ::-1], pairs)


# ---- what follows -------------------------------------------------------------------------------


def _joined(rows: Records, ends: _Ends, links: Links, pairs: Array) -> Pairs:
    """Note the pairs in *links* where the SYN was forwarded; the rest as pairs of connections."""
    conn = group_ids(rows["vantage"], rows["conn"])
    pairs = _at_load_balancer(ends, links, conn, pairs)
    client, other = conn[ends.first[pairs[:, 0]]], conn[ends.first[pairs[:, 1]]]
    size = int(conn.max()) + 1
    codes = client * size + other
    _settle(links, conn, codes, size)
    f, s = ends.conns[pairs[:, 0]], ends.conns[pairs[:, 1]]
    answered = (f["syn_ack_time"] != NO_TIME) & (s["syn_ack_time"] != NO_TIME)
    forwarded = answered & (s["start"] <= f["syn_ack_time"]) & (s["syn_ack_time"] <= f["syn_ack_time"] + LATE)
    forwarded |= f["syn_ack_time"] == NO_TIME
    _link(rows, links, conn, client[forwarded], other[forwarded])
    back = np.flatnonzero((links.role == BACK) & (links.came_from >= 0))
    linked = np.isin(codes, conn[links.came_from[back]] * size + conn[back])
    rest = pairs[~linked]
    links.role[np.isin(conn, client)], links.role[np.isin(conn, other)] = FRONT, BACK
    count = len(rest)
    kind = np.where(forwarded[~linked], LAYER4, LAYER7).astype(np.uint8)
    return Pairs(
        ends.first[rest[:, 0]], ends.first[rest[:, 1]], np.full(count, -1, np.int64),
        np.full(count, IN_BAND, np.uint8), kind, np.zeros(count, np.int64), np.ones(count),
    )  # fmt: skip


def _at_load_balancer(ends: _Ends, links: Links, conn: Array, pairs: Array) -> Array:
    """The pairs with connections seen at a server replaced by the load balancer's leg to it, where that is known."""
    of_conn = np.full(int(conn.max()) + 1, -1, np.int64)
    of_conn[conn[ends.first]] = np.arange(len(ends.first))
    there = np.flatnonzero((links.role == SERVER) & (links.came_from >= 0))
    there = there[links.role[links.came_from[there]] == BACK]
    leg = np.full(len(of_conn), -1, np.int64)
    leg[conn[there]] = of_conn[conn[links.came_from[there]]]
    moved = pairs.copy()
    at_server = links.role[ends.first[pairs[:, 1]]] == SERVER
    moved[at_server, 1] = leg[conn[ends.first[pairs[at_server, 1]]]]
    moved = moved[(moved[:, 1] >= 0) & (links.role[ends.first[pairs[:, 0]]] != SERVER)]
    return np.unique(moved[moved[:, 0] != moved[:, 1]], axis=0)


def _settle(links: Links, conn: Array, codes: Array, size: int) -> None:
    """Raise the proof of joins that agree with the told pairs, and undo those that do not."""
    back = np.flatnonzero((links.role == BACK) & (links.came_from >= 0))
    front = links.came_from[back]
    agree = np.isin(conn[front] * size + conn[back], codes)
    told = np.isin(conn[back], codes % size)
    links.proof[back[agree]] = IN_BAND
    links.came_from[back[told & ~agree]], links.proof[back[told & ~agree]] = -1, 0


def _link(rows: Records, links: Links, conn: Array, client: Array, other: Array) -> None:
    """Join the SYNs of pairs that have none joined yet, each with the last one before it."""
    pair_of = np.full(int(conn.max()) + 1, -1, np.int64)
    pair_of[client] = pair_of[other] = np.arange(len(client))
    first_sight = links.copy_of == np.arange(len(rows))
    used = links.came_from[links.came_from >= 0]
    front = np.flatnonzero(np.isin(conn, client) & first_sight & ~np.isin(np.arange(len(rows)), used))
    back = links.open(np.flatnonzero(np.isin(conn, other)))
    both = np.concatenate((front, back))
    is_first = np.arange(len(both)) < len(front)
    if not len(front) or not len(back):
        return
    a, b = latest_before(pair_of[conn[both]], rows["time"][both], is_first)
    links.role[front], links.role[back] = FRONT, BACK
    links.join(both[a], both[b], IN_BAND)
