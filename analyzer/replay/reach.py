"""Which networks the server has been seen to talk with: elsewhere it may have no route back.

A SYN from a network that the server cannot answer (no route, a firewall, rp_filter) is dropped
without a trace (step L10), and no packet tells beforehand.  So a SYN-ACK is certain only once an
earlier SYN of the same network was answered, or SYNs of several networks far apart, which takes a
default route.
"""

from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from analyzer.connections import Tracked
from analyzer.schema import SEEN_MIDSTREAM
from analyzer.spool import Spool
from analyzer.units import NO_TIME

Times = np.ndarray[Any, np.dtype[np.int64]]
Records = np.ndarray[Any, np.dtype[np.void]]

UNREACHED = "no earlier packet shows that the server can answer this network"
NO_ANSWERS = "no SYN of this network was answered so far: no route back, a firewall or rp_filter"
NEVER = np.iinfo(np.int64).max
FAR_APART = 4
"""Answers to so many distant networks take a default route."""
FEW_SILENCES = 3


class Reach:
    """What is known of the server's way back to its clients.

    Attributes:
        ready: int64 (hosts,), when the server was first seen to talk with the host's network, ns.
        net: int64 (hosts,), id of each host's network: /24, or /48 in IPv6.
    """

    def __init__(self, tracked: Tracked) -> None:
        hosts = tracked.hosts
        v6 = hosts["v6"] > 0
        near = np.where(v6, hosts["hi"] >> np.uint64(16), (hosts["lo"] & np.uint64(0xFFFFFFFF)) >> np.uint64(8))
        far = np.where(v6, hosts["hi"] >> np.uint64(32), near >> np.uint64(8))
        self.net = _numbered(v6, near)
        distant = _numbered(v6, far)
        first = np.full(len(hosts), NEVER, np.int64)
        for rows in tracked.connections.chunks():
            older = (rows["seen"] & SEEN_MIDSTREAM) > 0
            spoke = np.where(older, rows["start"], rows["syn_ack_time"])
            known = spoke != NO_TIME
            np.minimum.at(first, rows["orig"][known], spoke[known])
        default = np.sort(_earliest(first, distant))[: FAR_APART + 1]
        routed = int(default[FAR_APART - 1]) if len(default) >= FAR_APART else NEVER
        self.ready: Times = np.minimum(_earliest(first, self.net)[self.net], routed)
        self._ready, self._net = self.ready.tolist(), self.net.tolist()
        self._silent: dict[int, int] = {}

    def fresh(self) -> "Reach":
        """The same knowledge for another replay, with no SYN missed yet."""
        other = object.__new__(Reach)
        other.__dict__.update(self.__dict__, _silent={})
        return other

    def shown(self, host: int, now: int) -> bool:
        """Whether the server was seen to talk with this network before *now*."""
        return bool(self._ready[host] < now)

    def missed(self, host: int) -> None:
        """A SYN that should have been taken got no answer."""
        net = self._net[host]
        self._silent[net] = self._silent.get(net, 0) + 1

    def refuses(self, host: int, now: int) -> bool:
        """Whether this network's SYNs went unanswered so far, all of them and several."""
        return self._silent.get(self._net[host], 0) >= FEW_SILENCES and not self.shown(host, now)


def _numbered(v6: Any, prefix: Any) -> Times:
    """Numbers from 0 for each distinct network."""
    _, number = np.unique(np.stack([v6.astype(np.uint64), prefix]), axis=1, return_inverse=True)
    return np.asarray(number, np.int64).reshape(-1)


def _earliest(times: Times, group: Times) -> Times:
    """Smallest of *times* in each group."""
    out = np.full(int(group.max(initial=-1)) + 1, NEVER, np.int64)
    np.minimum.at(out, group, times)
    return out


_KNOWN: WeakKeyDictionary[Spool, Reach] = WeakKeyDictionary()


def reach_of(tracked: Tracked) -> Reach:
    """The capture's :class:`Reach`; its tables are read once for all replays."""
    known = _KNOWN.get(tracked.connections)
    if known is None:
        known = _KNOWN[tracked.connections] = Reach(tracked)
    return known.fresh()
