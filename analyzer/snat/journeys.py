"""Journeys and flows: what was joined, as tables.

A journey is one SYN packet at every point where it was seen; a flow is a connection on all its legs.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from analyzer.schema import ANSWER_NONE, ANSWER_SYN_ACK, FLOW_KINDS, LEGS, NOT_THERE, PATH, SNAT_FLOW
from analyzer.snat.evidence import LATE, Array, Points, group_ids
from analyzer.snat.model import Records, Seen
from analyzer.snat.pairing import BACK, FRONT, ON_THE_WAY, OTHER, SERVER, Links
from analyzer.units import NO_TIME

LEG_OF_ROLE = {FRONT: "client_leg", BACK: "lb_server_leg", SERVER: "server", OTHER: "other"}
LAYER4, LAYER7, SYNPROXY, DIRECT = range(len(FLOW_KINDS))


@dataclass
class Pairs:
    """Joined connections, one row per flow; conn is -1 where a leg was not seen.

    Attributes:
        client, back, server: POINT row of a SYN of each leg, -1 if not seen.
        proof: PROOFS index.
        kind: FLOW_KINDS index.
        rivals: Other pairings left open.
        margin: 0 … 1.
    """

    client: Array
    back: Array
    server: Array
    proof: Array
    kind: Array
    rivals: Array
    margin: Array

    @staticmethod
    def none() -> "Pairs":
        """No pair at all."""
        no = np.zeros(0, np.int64)
        return Pairs(no, no, no, no.astype(np.uint8), no.astype(np.uint8), no, no.astype(float))

    def __add__(self, other: "Pairs") -> "Pairs":
        """Both, one after the other."""
        return Pairs(*(np.concatenate((a, vars(other)[name])) for name, a in vars(self).items()))


def layer4_pairs(points: Points, links: Links) -> tuple[Pairs, Array]:
    """Flows of the SYNs that passed through, and for every POINT row its flow (-1: none)."""
    rows = points.rows
    front, back, server = _legs_of(links)
    known = front >= 0
    known &= (back >= 0) | (server >= 0)
    legs = np.stack([np.where(leg >= 0, rows["conn"][leg], -1) for leg in (front, back, server)])
    where = np.where(server >= 0, rows["vantage"][server], -1)
    ids = group_ids(legs[0], legs[1], rows["vantage"][front])
    flow = np.full(len(rows), -1, np.int64)
    chosen = np.flatnonzero(known)
    if not len(chosen):
        return Pairs.none(), flow
    # a flow is known by its legs at the LB; the server leg tells it where the LB shows only the client's side
    lonely = legs[1][chosen] < 0
    ids = group_ids(ids[chosen], np.where(lonely, where[chosen], 0), np.where(lonely, legs[2][chosen], 0))
    order = np.lexsort((server[chosen] < 0, ids))
    firsts = order[np.r_[True, ids[order][1:] != ids[order][:-1]]]
    flow[chosen] = ids
    picked = chosen[firsts]
    proof = np.zeros(len(firsts), np.uint8)
    np.maximum.at(proof, ids, _strength(links, front, back, server)[chosen])
    kind = np.full(len(firsts), LAYER4, np.uint8)
    answered = rows["answer_time"][front[picked]]
    later = rows["time"][np.maximum(back[picked], 0)]
    early = (back[picked] >= 0) & (answered != NO_TIME) & (answered < later)
    kind[early] = SYNPROXY
    kind[links.direct[front[picked]]] = DIRECT
    count = len(firsts)
    pairs = Pairs(front[picked], back[picked], server[picked], proof, kind, np.zeros(count, np.int64), np.ones(count))
    return pairs, flow


def _legs_of(links: Links) -> tuple[Array, Array, Array]:
    """For each row the rows of its journey on the client leg, the LB's server leg and at the server; -1 if unknown."""
    count = len(links.role)
    me = np.arange(count)
    first = links.copy_of
    up = np.where(links.came_from[first] >= 0, links.came_from[first], -1)
    upup = np.where(up >= 0, links.came_from[np.maximum(up, 0)], -1)
    role = links.role[first]
    role_up = np.where(up >= 0, links.role[np.maximum(up, 0)], OTHER)
    front = np.where(role == FRONT, first, np.where(role_up == FRONT, up, upup))
    back = np.where(role == BACK, first, np.where(role_up == BACK, up, -1))
    server = np.where(role == SERVER, first, -1)
    for leg, here in ((back, BACK), (server, SERVER)):
        _down(links, leg, here, me)
    return front, back, server


def _down(links: Links, leg: Array, role: int, me: Array) -> None:
    """Tell earlier places which later row came from them."""
    later = me[(links.role == role) & (links.came_from >= 0) & (links.copy_of == me)][::-1]
    earlier = links.came_from[later]
    leg[earlier] = later
    above = links.came_from[earlier]
    leg[above[above >= 0]] = later[above >= 0]
    aside = me[links.copy_of != me]
    leg[aside] = np.where(leg[aside] >= 0, leg[aside], leg[links.copy_of[aside]])


def _strength(links: Links, front: Array, back: Array, server: Array) -> Array:
    """Proof that the client's leg belongs to the server side."""
    by_back = np.where(back >= 0, links.proof[np.maximum(back, 0)], 0)
    by_server = np.where((server >= 0) & (back < 0), links.proof[np.maximum(server, 0)], 0)
    return np.maximum(by_back, by_server).astype(np.uint8)


# ---- the public tables ------------------------------------------------------------------------


def flow_table(points: Points, seen: Sequence[Seen], pairs: Pairs) -> Records:
    """SNAT_FLOW records of the joined connections."""
    rows, hosts = points.rows, points.hosts
    table = np.zeros(len(pairs.client), SNAT_FLOW.dtype)
    for column in ("proof", "kind", "rivals", "margin"):
        table[column] = vars(pairs)[column]
    inner = np.where(pairs.back >= 0, pairs.back, pairs.server)
    for names, points_of, side in (
        (("client", "vip"), pairs.client, "client"),
        (("snat", "server"), inner, "server"),
    ):
        for name, which in zip(names, ("orig", "resp"), strict=True):
            host = hosts[rows[which][points_of]]
            table[f"{name}_hi"], table[f"{name}_lo"] = host["hi"], host["lo"]
            table[f"{name}_p"] = rows[f"{which}_p"][points_of]
            table[f"{side}_v6"] = host["v6"]
    table["lb"] = rows["vantage"][pairs.client]
    table["server"] = np.where(pairs.server >= 0, rows["vantage"][pairs.server], -1)
    for column, leg in (("client_conn", pairs.client), ("lb_conn", pairs.back), ("server_conn", pairs.server)):
        table[column] = np.where(leg >= 0, rows["conn"][leg], -1)
    spans = [_spans(one) for one in seen]
    table["start"], table["end"] = _span(rows, spans, pairs.client)
    has_back = pairs.back >= 0
    start, end = _span(rows, spans, pairs.back[has_back])
    table["start"][has_back] = np.minimum(table["start"][has_back], start)
    table["end"][has_back] = np.maximum(table["end"][has_back], end)
    return table


def _spans(one: Seen) -> Array:
    """int64 (connections, 2): first and last packet of each connection id, ns."""
    spans = np.full((one.tracked.connection_count, 2), NO_TIME, np.int64)
    for chunk in one.tracked.connections.chunks():
        spans[chunk["conn"], 0], spans[chunk["conn"], 1] = chunk["start"], chunk["end"]
    return spans


def _span(rows: Records, spans: list[Array], leg: Array) -> tuple[Array, Array]:
    result = np.zeros((len(leg), 2), np.int64)
    for vantage, table in enumerate(spans):
        mine = rows["vantage"][leg] == vantage
        result[mine] = table[rows["conn"][leg[mine]]]
    return result[:, 0], result[:, 1]


def _own_answers(rows: Records, links: Links, front: Array, server: Array) -> tuple[Array, Array]:
    """Answer and its time of each row, with late ones put where they belong.

    A server repeats a lost SYN-ACK at about the time the client repeats its SYN, and the two may cross at
    the load balancer.  Such an answer is not the first SYN's, whose own was lost; it is the repeated one's.
    """
    answers, times = rows["answer"].copy(), rows["answer_time"].copy()
    back = np.flatnonzero((links.role == BACK) & (links.copy_of == np.arange(len(rows))))
    back = back[np.lexsort((rows["time"][back], rows["conn"][back], rows["vantage"][back]))]
    if len(back) < 2:
        return answers, times
    one, following = back[:-1], back[1:]
    same = (rows["conn"][one] == rows["conn"][following]) & (rows["vantage"][one] == rows["vantage"][following])
    at_server = server[one]
    same &= (at_server >= 0) & (answers[one] == ANSWER_SYN_ACK) & (answers[at_server] == ANSWER_SYN_ACK)
    waited = (times[one] - rows["time"][one]) - (times[at_server] - rows["time"][at_server])
    late = same & (waited > ON_THE_WAY) & (rows["time"][following] <= times[one] + LATE)
    for leg in (np.arange(len(rows)), front):
        gives, takes = leg[one[late]], leg[following[late]]
        both = (gives >= 0) & (takes >= 0)
        gives, takes = gives[both], takes[both]
        empty = (answers[takes] == ANSWER_NONE) & (answers[gives] == ANSWER_SYN_ACK)
        answers[takes[empty]], times[takes[empty]] = ANSWER_SYN_ACK, times[gives[empty]]
        answers[gives], times[gives] = ANSWER_NONE, NO_TIME
    return answers, times


def path_tables(points: Points, seen: Sequence[Seen], links: Links, flow: Array) -> dict[str, Records]:
    """PATH records of every capture, row for row beside its SYN rows."""
    rows = points.rows
    front, back, server = _legs_of(links)
    answers, answer_times = _own_answers(rows, links, front, server)
    table = np.zeros(len(rows), PATH.dtype)
    for leg, place, answer in (
        (front, "lb_client", "client"),
        (back, "lb_server", "lb"),
        (server, "server", "server"),
    ):
        there = leg >= 0
        at = np.maximum(leg, 0)
        answered = "time_answered" if answer == "server" else f"time_answer_{answer}"
        table[f"time_{place}"] = np.where(there, rows["time"][at], NO_TIME)
        table[answered] = np.where(there, answer_times[at], NO_TIME)
        table[f"answer_{answer}"] = np.where(there, answers[at], NOT_THERE)
    root = np.where(front >= 0, front, np.where(back >= 0, back, np.where(server >= 0, server, links.copy_of)))
    table["journey"] = root
    table["flow"] = flow
    for role, word in LEG_OF_ROLE.items():
        table["leg"][links.role == role] = LEGS.index(word)
    table["server"] = np.where(server >= 0, rows["vantage"][server], -1)
    starts = np.asarray(points.starts)
    own = server - starts[np.maximum(table["server"], 0)]
    table["server_row"] = np.where(server >= 0, own, -1)
    return {one.name: table[starts[v] : starts[v + 1]] for v, one in enumerate(seen)}
