"""Which SYNs of a capture a server has judged, and where the capture was taken."""

from typing import Any

import numpy as np

from analyzer.connections import Tracked
from analyzer.schema import IDENTITY_SOURCES

Bools = np.ndarray[Any, np.dtype[np.bool_]]

MOSTLY = 0.5
_LB_SOURCES = [IDENTITY_SOURCES.index(name) for name in ("f5", "nstrace")]


def virtual_hosts(tracked: Tracked) -> set[int]:
    """Hosts that a load balancer answers for: their SYNs appear a second time towards another host.

    A SYN keeps its ISN and TSval through a layer-4 NAT, so the same pair on two four-tuples shows both
    legs; the earlier one is the client's.
    """
    parts = [chunk[["isn", "tsval", "chain", "resp", "time"]].copy() for chunk in tracked.syns.chunks()]
    if not parts:
        return set()
    rows = np.concatenate(parts)
    order = np.lexsort((rows["time"], rows["tsval"], rows["isn"]))
    rows = rows[order]
    same = (rows["isn"][1:] == rows["isn"][:-1]) & (rows["tsval"][1:] == rows["tsval"][:-1])
    legs = same & (rows["chain"][1:] != rows["chain"][:-1]) & (rows["resp"][1:] != rows["resp"][:-1])
    front = rows["resp"][:-1][legs]
    if not len(front):
        return set()
    size = len(tracked.hosts)
    shown_twice, all_syns = np.bincount(front, minlength=size), np.bincount(rows["resp"], minlength=size)
    backs = np.bincount(rows["resp"][1:][legs], minlength=size)
    return set(np.flatnonzero((shown_twice > MOSTLY * all_syns) & (shown_twice > backs)).tolist())


def _balancers_own(tracked: Tracked) -> bool:
    """Whether the packets carry ids that only a load balancer's own capture has."""
    return any(np.isin(rows["source"], _LB_SOURCES).any() for rows in tracked.identities.chunks())


def side_of(tracked: Tracked) -> str:
    """Where the capture was taken: ``lb`` (both legs), ``server`` or ``client``.

    Near the server the SYN-ACK follows the SYN at once and the third ACK comes a round trip later;
    near the client it is the other way round.
    """
    if _balancers_own(tracked) or virtual_hosts(tracked):
        return "lb"
    server_first = client_first = 0
    for chunk in tracked.connections.chunks():
        whole = chunk[(chunk["seen"] & 7) == 7]
        before = whole["syn_ack_time"] - whole["syn_time"]
        after = whole["established_time"] - whole["syn_ack_time"]
        single = whole["syn_count"] == 1
        server_first += int(np.count_nonzero(single & (after > 2 * before)))
        client_first += int(np.count_nonzero(single & (before > 2 * after)))
    return "client" if client_first > 2 * server_first else "server"
