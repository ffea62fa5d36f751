"""What the captures would have shown: absence proves something only where and while a capture ran."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from analyzer.connections import Tracked
from analyzer.diagnosis.model import Vantage
from analyzer.diagnosis.tries import numbered
from analyzer.schema import FLOW_KINDS, LEGS, SEEN_GAP_ORIG, SEEN_GAP_RESP
from analyzer.snat.model import Joined
from analyzer.units import MS, NO_TIME, NS

Records = np.ndarray[Any, np.dtype[np.void]]
Array = np.ndarray[Any, Any]

CLIENT_LEG, LB_SERVER_LEG, SERVER_LEG, OTHER_LEG = range(len(LEGS))
NOT_COVERED, BARELY_COVERED, LIKELY_COVERED, SURELY_COVERED = range(4)
"""How far absence is proof, as a cause's strength."""
EDGE = 50 * MS
"""A packet this close to the edge of a capture may have been missed."""
AROUND = 5 * NS
"""A capture begins before its first packet and ends after its last: this long around it absence is likely known."""
FEW_GAPS = 0.02
"""Share of connections with missing packets up to which a capture counts as complete."""


@dataclass(frozen=True)
class Window:
    """When a capture ran, on the clock of the capture that asks; ``proof`` is its strength."""

    start: int
    end: int
    proof: int

    def covers(self, times: Array) -> Array:
        """Strength of absence for packets at *times*."""
        inside = (times > self.start + EDGE) & (times < self.end - EDGE)
        near = (times > self.start - AROUND) & (times < self.end + AROUND)
        return np.where(inside, self.proof, np.where(near, LIKELY_COVERED, NOT_COVERED)).astype(np.uint8)


def lossy(vantage: Vantage) -> bool:
    """The capturing program dropped packets, or so many connections lack some that it must have."""
    if sum(interface.dropped or 0 for interface in vantage.tracked.interfaces):
        return True
    gaps = total = 0
    for chunk in vantage.tracked.connections.chunks():
        gaps += int(np.count_nonzero(chunk["seen"] & (SEEN_GAP_ORIG | SEEN_GAP_RESP)))
        total += len(chunk)
    return gaps > max(3, FEW_GAPS * total)


class ServerCoverage:
    """Which services the servers' captures show, and when, on the load balancer's clock."""

    def __init__(self, lb: Vantage, vantages: Sequence[Vantage], joined: Joined) -> None:
        self._lb = lb
        paths = joined.path(lb.name, len(lb.tracked.syns))
        self._services: dict[tuple[int, ...], list[Window]] = {}
        for index, vantage in enumerate(vantages):
            if vantage.side != "server" or not len(vantage.tracked.syns):
                continue
            window = _on_clock_of(paths, index, vantage)
            for service in _services_of(vantage):
                self._services.setdefault(service, []).append(window)

    def of(self, syns: Records) -> Array:
        """Strength with which absence at the server would be known, for SYNs on the LB's server leg."""
        out = np.zeros(len(syns), np.uint8)
        hosts = self._lb.tracked.hosts[syns["resp"]]
        if not self._services or not len(syns):
            return out
        keys = np.stack([hosts["hi"], hosts["lo"], syns["resp_p"].astype(np.uint64)])
        unique, inverse = np.unique(keys, axis=1, return_inverse=True)
        for number, key in enumerate(map(tuple, unique.T.tolist())):
            mine = np.flatnonzero(inverse.ravel() == number)
            for window in self._services.get(key, ()):
                out[mine] = np.maximum(out[mine], window.covers(syns["time"][mine]))
        return out


def _on_clock_of(paths: Records, index: int, vantage: Vantage) -> Window:
    """A server capture's span on the LB's clock, by the SYNs that both saw."""
    tracked = vantage.tracked
    both = paths[(paths["server"] == index) & (paths["time_lb_server"] != NO_TIME)]
    proof = LIKELY_COVERED if lossy(vantage) or not len(both) else SURELY_COVERED
    if not len(both):
        return Window(tracked.first_time, tracked.last_time, proof)
    ahead = both["time_server"] - both["time_lb_server"]
    return Window(tracked.first_time - int(ahead.min()), tracked.last_time - int(ahead.max()), proof)


def _services_of(vantage: Vantage) -> set[tuple[int, ...]]:
    """(address high, address low, port) of everything that was asked in a capture."""
    found: set[tuple[int, ...]] = set()
    hosts = vantage.tracked.hosts
    for _, chunk in numbered(vantage.tracked):
        names = np.unique(chunk[["resp", "resp_p"]])
        found.update((int(hosts["hi"][h]), int(hosts["lo"][h]), int(p)) for h, p in names.tolist())
    return found


def front_hosts(tracked: Tracked, paths: Records) -> frozenset[int]:
    """Host ids that the load balancer answers for: asked on its client side, and never behind it."""
    front: set[int] = set()
    behind: set[int] = set()
    for first, chunk in numbered(tracked):
        legs = paths["leg"][first : first + len(chunk)]
        front.update(np.unique(chunk["resp"][legs == CLIENT_LEG]).tolist())
        behind.update(np.unique(chunk["resp"][legs == LB_SERVER_LEG]).tolist())
    return frozenset(front - behind)


class Forwarding:
    """Where and while absence behind the load balancer would be known, for SYNs on its client side."""

    def __init__(self, index: int, lb: Vantage, joined: Joined) -> None:
        self._hosts = lb.tracked.hosts
        self._window = forwarding_window(lb, joined.path(lb.name, len(lb.tracked.syns)))
        flows = joined.flows[joined.flows["lb"] == index]
        whole = flows[flows["kind"] != FLOW_KINDS.index("layer7")]
        self._passed_on = np.unique(np.stack([whole["vip_hi"], whole["vip_lo"], whole["vip_p"]]), axis=1).T.tolist()

    def of(self, syns: Records) -> Array:
        """Strength of absence; where a proxy ends connections, its own listener may be the silent one."""
        if self._window is None or not len(syns):
            return np.zeros(len(syns), np.uint8)
        host = self._hosts[syns["resp"]]
        keys, which = np.unique(np.stack([host["hi"], host["lo"], syns["resp_p"]]), axis=1, return_inverse=True)
        passed = np.array([key in self._passed_on for key in keys.T.tolist()], np.bool_)[which.ravel()]
        level = self._window.covers(syns["time"])
        return np.where(passed, level, np.minimum(level, BARELY_COVERED)).astype(np.uint8)


def forwarding_window(lb: Vantage, paths: Records) -> Window | None:
    """When the load balancer's server side was captured; None if it was not."""
    spans = []
    for first, chunk in numbered(lb.tracked):
        legs = paths["leg"][first : first + len(chunk)]
        for number in np.unique(chunk["file"][legs == LB_SERVER_LEG]).tolist():
            info = lb.tracked.files[number] if number < len(lb.tracked.files) else None
            spans.append((info.first_time, info.last_time) if info is not None else (NO_TIME, NO_TIME))
    spans = [span for span in spans if NO_TIME not in span]
    if not spans:
        return None
    proof = LIKELY_COVERED if lossy(lb) else SURELY_COVERED
    return Window(min(a for a, _ in spans), max(b for _, b in spans), proof)
