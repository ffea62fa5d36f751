"""Which SYNs of a capture a server has judged, and where the capture was taken."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from analyzer.connections import Tracked
from analyzer.schema import (
    ANSWER_SYN_ACK,
    CONNECTION,
    IDENTITY_SOURCES,
    META_RECEIVED,
    META_SENT,
    OPT_TS,
    SEEN_SYN,
    SYN_ROW,
)
from analyzer.snat.sides import directions
from analyzer.units import MS

Records = np.ndarray[Any, np.dtype[np.void]]

MOSTLY = 0.5
KERNELS_TIME = 10 * MS
"""A server's kernel answers a SYN sooner than this; a capture in which nothing ever does is not the server's."""
NO_ANSWER = 2**62
MOST_TUPLES = 6
"""So many four-tuples show one SYN behind a load balancer, retries on other members included."""
SEVERAL = 3
"""Peers that show whose address all connections share."""
_LB_SOURCES = [IDENTITY_SOURCES.index(name) for name in ("f5", "nstrace")]


def virtual_hosts(tracked: Tracked) -> set[int]:
    """Hosts that a load balancer answers for: their SYNs appear a second time towards another host.

    A SYN keeps its ISN and TSval through a layer-4 NAT, so the same pair on two four-tuples shows both
    legs; the earlier one is the client's.
    """
    names = ["isn", "tsval", "chain", "orig", "resp", "time", "orig_p", "opts"]
    parts = [chunk[names].copy() for chunk in tracked.syns.chunks()]
    if not parts:
        return set()
    rows = np.concatenate(parts)
    rows = rows[np.lexsort((rows["time"], rows["tsval"], rows["isn"]))]
    front, back = _passed_on(rows)
    if not len(front):
        return set()
    size = len(tracked.hosts)
    shown_twice, all_syns = np.bincount(front["resp"], minlength=size), np.bincount(rows["resp"], minlength=size)
    backs = np.bincount(back["resp"], minlength=size)
    return set(np.flatnonzero((shown_twice > MOSTLY * all_syns) & (shown_twice > backs)).tolist())


def _passed_on(rows: Records) -> tuple[Records, Records]:
    """SYNs beside the ones that they look to have become, *rows* sorted by ISN, TSval and time.

    Scanners, and generators of test traffic, give one ISN to SYNs for many hosts: an ISN on more four-tuples than
    a client's retries need is none, and a single one without a timestamp proves nothing.
    """
    a, b = rows[:-1], rows[1:]
    same = (a["isn"] == b["isn"]) & (a["tsval"] == b["tsval"])
    begins = np.r_[True, ~same]
    group = np.cumsum(begins) - 1
    others = same & (a["chain"] != b["chain"])
    tuples = np.unique(np.stack([group, rows["chain"]]), axis=1)[0]
    few = np.bincount(tuples) <= MOST_TUPLES
    legs = others & (a["resp"] != b["resp"]) & few[group[1:]]
    legs &= (a["orig"] != b["orig"]) | (a["orig_p"] == b["orig_p"])
    stamped = (a["opts"] & b["opts"] & OPT_TS) > 0
    if not (legs & stamped).any() and len(np.unique(a["isn"][legs])) < 2:
        legs[:] = False
    return a[legs], b[legs]


def _balancers_own(tracked: Tracked) -> bool:
    """Whether the packets carry ids that only a load balancer's own capture has."""
    return any(np.isin(rows["source"], _LB_SOURCES).any() for rows in tracked.identities.chunks())


@dataclass(frozen=True)
class Place:
    """Where a capture was taken.

    Attributes:
        side: ``lb`` (both legs), ``server`` or ``client``.
        known: The packets show it; otherwise ``server`` is assumed for want of anything better.
    """

    side: str
    known: bool


def side_of(tracked: Tracked) -> str:
    """Where the capture was taken: ``lb`` (both legs), ``server`` or ``client``."""
    return place_of(tracked).side


def place_of(tracked: Tracked) -> Place:
    """Where the capture was taken, and whether the packets show it.

    In this order: ids that only a load balancer's capture has, SYNs or payload on both of its legs; the direction
    that the capture notes; the time that answers take, by handshakes; the address that all connections share.
    """
    if _balancers_own(tracked) or virtual_hosts(tracked) or _carries_on(tracked):
        return Place("lb", True)
    for told in (_by_direction(tracked), _by_handshakes(tracked), _by_address(tracked)):
        if told:
            return Place(told, True)
    return Place("server", False)


def _carries_on(tracked: Tracked) -> bool:
    """Whether payload that comes to one service goes on to another, by connections that a proxy opens."""
    parts = [rows[rows["seen"] & SEEN_SYN > 0] for rows in tracked.connections.chunks()]
    conns = np.concatenate([np.zeros(0, CONNECTION.dtype), *parts])
    if not conns["digest_orig"].any():
        return False
    names, codes = np.unique(conns["resp"].astype(np.int64) << 16 | conns["resp_p"], return_inverse=True)
    return len(names) > 1 and bool(directions(conns, codes, len(names), by_time=False).any())


def _by_direction(tracked: Tracked) -> str:
    """Whether the capturing host sent its SYNs or received them, where the capture notes that of most."""
    sent = received = total = 0
    for rows in tracked.syns.chunks():
        sent += int(np.count_nonzero(rows["meta"] & META_SENT))
        received += int(np.count_nonzero(rows["meta"] & META_RECEIVED))
        total += len(rows)
    if sent + received <= MOSTLY * total:
        return ""
    return "client" if sent > 9 * received else "server" if received > 9 * sent else ""


def _by_handshakes(tracked: Tracked) -> str:
    """Which gap of the handshakes is the long one, and whether a SYN-ACK ever came as fast as a kernel sends it.

    Near the server the SYN-ACK follows the SYN at once and the third ACK comes a round trip later;
    near the client it is the other way round.
    """
    server_first = client_first = 0
    for chunk in tracked.connections.chunks():
        whole = chunk[((chunk["seen"] & 7) == 7) & (chunk["syn_count"] == 1)]
        before = whole["syn_ack_time"] - whole["syn_time"]
        after = whole["established_time"] - whole["syn_ack_time"]
        server_first += int(np.count_nonzero(after > 2 * before))
        client_first += int(np.count_nonzero(before > 2 * after))
    if client_first > 2 * server_first or KERNELS_TIME < _fastest_answer(tracked) < NO_ANSWER:
        return "client"
    return "server" if server_first > 2 * client_first else ""


def _fastest_answer(tracked: Tracked) -> int:
    """Shortest time from a SYN to its SYN-ACK, ns; ``NO_ANSWER`` if there is none."""
    fastest = NO_ANSWER
    for rows in tracked.syns.chunks():
        got = rows[rows["answer"] == ANSWER_SYN_ACK]
        fastest = min(fastest, int((got["answer_time"] - got["time"]).min(initial=NO_ANSWER)))
    return fastest


def _by_address(tracked: Tracked) -> str:
    """The one address that all connections have in common is the capturing host's, where its peers are several."""
    parts = [rows[["orig", "resp"]].copy() for rows in tracked.syns.chunks()]
    ends = np.unique(np.concatenate(parts)) if parts else np.zeros(0, SYN_ROW.dtype)
    origs, resps = np.unique(ends["orig"]), np.unique(ends["resp"])
    if len(resps) == 1 and len(origs) >= SEVERAL:
        return "server"
    return "client" if len(origs) == 1 and len(resps) >= SEVERAL else ""
