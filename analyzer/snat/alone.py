"""A server's capture with no other beside it: nothing to pair, only packets that were captured twice."""

from collections.abc import Sequence

import numpy as np

from analyzer.schema import LEGS
from analyzer.snat.evidence import POINT, copies, fill_points
from analyzer.snat.model import Records, Seen, blank_paths
from analyzer.spool import opaque, pick


def is_alone(seen: Sequence[Seen]) -> bool:
    """Whether there is one capture, of a server, in which no packet speaks of another leg."""
    return len(seen) == 1 and seen[0].side == "server" and not len(seen[0].tracked.identities)


def lone_paths(one: Seen) -> Records:
    """PATH records beside the capture's SYN rows; a second sight of a packet has its first one's."""
    tracked = one.tracked
    table = blank_paths(len(tracked.syns))
    table["journey"] = table["server_row"] = np.arange(len(table))
    table["server"], table["leg"] = 0, LEGS.index("server")
    several = tracked.chain_syns > 1
    hosts = np.arange(len(tracked.hosts), dtype=np.int32)
    parts, numbers, at = [np.zeros(0, POINT)], [np.zeros(0, np.int64)], 0
    for chunk in tracked.syns.chunks():
        here = table[at : at + len(chunk)]
        here["time_server"], here["time_answered"] = chunk["time"], chunk["answer_time"]
        here["answer_server"] = chunk["answer"]
        where = np.flatnonzero(several[chunk["chain"]])
        again = pick(chunk, where)
        points = np.zeros(len(where), POINT)
        fill_points(points, again, 0, hosts)
        points["four"] = again["chain"]
        parts.append(points)
        numbers.append(at + where)
        at += len(chunk)
    rows = np.concatenate([opaque(part) for part in parts]).view(POINT)
    number, first = np.concatenate(numbers), copies(rows)
    second = np.flatnonzero(first != np.arange(len(rows)))
    opaque(table)[number[second]] = opaque(table)[number[first[second]]]
    return table
