"""Who is hit, how much, since when; how soon ports are used again and how many are in use."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from analyzer.connections.names import host_texts
from analyzer.diagnosis.clock import CommonClock
from analyzer.diagnosis.coverage import CLIENT_LEG, LB_SERVER_LEG
from analyzer.diagnosis.decide import Journeys
from analyzer.diagnosis.model import BlastRadius, Vantage
from analyzer.diagnosis.tries import numbered
from analyzer.schema import VERDICTS
from analyzer.snat.model import Joined
from analyzer.units import NO_TIME, NS

Records = np.ndarray[Any, np.dtype[np.void]]
Array = np.ndarray[Any, Any]

HOLD = 60.0
"""A TIME-WAIT lasts this long, s: a port that comes back sooner may meet it."""
PORTS = 64_512
"""Ports of one address above the privileged ones."""
MOST_INTERVALS = 100_000
"""Reuse intervals that are kept; beyond it every n-th."""
MINUTE = 60 * NS
_WANTED = ("orig", "resp", "orig_p", "resp_p", "start", "end", "previous", "previous_end")
_RISKY = [VERDICTS.index(word) for word in ("drop", "ack", "rst")]
_JUDGED = [VERDICTS.index(word) for word in ("accept", "cookie", "drop", "ack", "rst")]


@dataclass(frozen=True)
class _Syns:
    """SYNs that speak for their journeys; addresses are numbers in a list of texts."""

    client: Array
    source: Array
    time: Array
    failed: Array
    first: Array
    risky: Array
    judged: Array


class _Names:
    """Texts of addresses, each once, over all captures."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self._numbers: dict[str, int] = {}
        self._of: dict[str, Array] = {}

    def numbers(self, vantage: Vantage) -> Array:
        """Number of each host id of a capture."""
        if vantage.name not in self._of:
            texts = host_texts(vantage.tracked.hosts)
            self._of[vantage.name] = np.array([self._number(text) for text in texts], np.int64)
        return self._of[vantage.name]

    def _number(self, text: str) -> int:
        if text not in self._numbers:
            self._numbers[text] = len(self.texts)
            self.texts.append(text)
        return self._numbers[text]


def blast_radius(vantages: Sequence[Vantage], joined: Joined) -> BlastRadius:
    """Measure how far the failures reach.

    Args:
        vantages: Captures with verdicts and causes.
        joined: Flows and journeys.

    Returns:
        Every SYN counts once, at the capture nearest to the server.  The client is the one that the load
        balancer's client side shows, else the address that the SYN came from.
    """
    names = _Names()
    syns = _gather(vantages, joined, names)
    reuse, ports = _connections(vantages, joined, names)
    failed = syns.time[syns.failed]
    return BlastRadius(
        clients=_clients(syns, names.texts),
        began=int(failed.min()) if len(failed) else NO_TIME,
        at_risk=_at_risk(syns, names.texts),
        reuse=tuple(reuse[:: -(-len(reuse) // MOST_INTERVALS) or 1].tolist()),
        reuse_under_60=int(np.count_nonzero(reuse < HOLD)),
        ports=ports,
    )


def _gather(vantages: Sequence[Vantage], joined: Joined, names: _Names) -> _Syns:
    journeys = Journeys.of(vantages, joined)
    clock = CommonClock(vantages, joined)
    numbers = [names.numbers(vantage) for vantage in vantages]
    clients = _clients_of(vantages, joined, journeys, numbers)
    parts = []
    for index, vantage in enumerate(vantages):
        assert vantage.replayed is not None
        start, decides = int(journeys.starts[index]), journeys.decides(index)
        tables = vantage.replayed.verdicts.chunks(), vantage.causes.chunks()
        for (first, rows), verdicts, causes in zip(numbered(vantage.tracked), *tables, strict=True):
            mine = decides[first : first + len(rows)]
            source = numbers[index][rows["orig"]]
            client = clients[start + first : start + first + len(rows)]
            shift = clock.time(vantage.name, int(rows["time"][0])) - int(rows["time"][0]) if len(rows) else 0
            parts.append(
                [
                    np.where(client >= 0, client, source)[mine],
                    source[mine],
                    rows["time"][mine] + shift,
                    (causes["cause"] != 0)[mine],
                    (rows["attempt"] == 1)[mine],
                    np.isin(verdicts["verdict"], _RISKY)[mine],
                    np.isin(verdicts["verdict"], _JUDGED)[mine],
                ]
            )
    empty = [np.zeros(0, np.int64)] * 3 + [np.zeros(0, np.bool_)] * 4
    return _Syns(*(np.concatenate(column) for column in zip(empty, *parts, strict=True)))


def _clients_of(vantages: Sequence[Vantage], joined: Joined, journeys: Journeys, numbers: list[Array]) -> Array:
    """For each row the client's address as the load balancer's client side shows it, -1 if it does not."""
    clients = np.full(int(journeys.starts[-1]), -1, np.int64)
    for index, vantage in enumerate(vantages):
        paths = joined.path(vantage.name, len(vantage.tracked.syns))
        for first, rows in numbered(vantage.tracked):
            front = np.flatnonzero(paths["leg"][first : first + len(rows)] == CLIENT_LEG)
            own = int(journeys.starts[index]) + first + front
            clients[journeys.speaker[own]] = numbers[index][rows["orig"][front]]
    return clients


def _clients(syns: _Syns, texts: list[str]) -> tuple[tuple[str, str, int, int], ...]:
    """(client, source, SYNs, failed SYNs), worst first."""
    pairs, which = np.unique(syns.client << 32 | syns.source, return_inverse=True)
    total, failed = np.bincount(which), np.bincount(which, weights=syns.failed).astype(np.int64)
    order = np.lexsort((-total, -failed)) if len(total) else total
    rows = zip(pairs[order].tolist(), total[order].tolist(), failed[order].tolist(), strict=True)
    return tuple((texts[pair >> 32], texts[pair & 0xFFFFFFFF], syns_, lost) for pair, syns_, lost in rows)


def _at_risk(syns: _Syns, texts: list[str]) -> tuple[tuple[int, str, float, float], ...]:
    """(minute, source, share of first SYNs that the model says fail, share that failed)."""
    fresh = syns.first & syns.judged
    minutes = syns.time[fresh] // MINUTE
    first = int(minutes.min(initial=np.iinfo(np.int64).max)) if len(minutes) else 0
    keys, which = np.unique((minutes - first) << 32 | syns.source[fresh], return_inverse=True)
    total = np.bincount(which)
    risky = np.bincount(which, weights=syns.risky[fresh]) / np.maximum(total, 1)
    failed = np.bincount(which, weights=syns.failed[fresh]) / np.maximum(total, 1)
    rows = zip(keys.tolist(), risky.tolist(), failed.tolist(), strict=True)
    return tuple(((first + (key >> 32)) * MINUTE, texts[key & 0xFFFFFFFF], risk, lost) for key, risk, lost in rows)


def _connections(
    vantages: Sequence[Vantage], joined: Joined, names: _Names
) -> tuple[Array, tuple[tuple[str, str, int, int, float], ...]]:
    """(sorted reuse intervals in s, ports in use per source and server), of connections on the servers' side."""
    reuse, ports = [np.zeros(0)], []
    servers = [vantage for vantage in vantages if vantage.side == "server"] or list(vantages)
    for vantage in servers:
        services = _services(vantage, joined)
        rows = vantage.tracked.connections.columns(_WANTED)
        if services is not None:
            rows = rows[np.isin(rows["resp"].astype(np.int64) << 16 | rows["resp_p"], services)]
        again = rows[(rows["previous"] >= 0) & (rows["previous_end"] != NO_TIME)]
        reuse.append((again["start"] - again["previous_end"]) / NS)
        ports += _ports(rows, names.numbers(vantage), names.texts)
    ports.sort(key=lambda row: -row[3])
    return np.sort(np.concatenate(reuse)), tuple(ports)


def _services(vantage: Vantage, joined: Joined) -> Array | None:
    """Services behind the load balancer in its own capture; None where all connections count."""
    legs = joined.path(vantage.name, len(vantage.tracked.syns))["leg"]
    if not (legs == LB_SERVER_LEG).any():
        return None
    found = []
    for first, rows in numbered(vantage.tracked):
        behind = rows[legs[first : first + len(rows)] == LB_SERVER_LEG]
        found.append(np.unique(behind["resp"].astype(np.int64) << 16 | behind["resp_p"]))
    return np.unique(np.concatenate(found))


def _ports(rows: Records, numbers: Array, texts: list[str]) -> list[tuple[str, str, int, int, float]]:
    """(source, server, source ports, most open at once, their share of all ports) per pair of addresses."""
    pairs = numbers[rows["orig"]] << 32 | numbers[rows["resp"]]
    keys, which = np.unique(pairs, return_inverse=True)
    own = np.sort(which << 16 | rows["orig_p"])
    counts = np.bincount(own[np.diff(own, prepend=-1) != 0] >> 16, minlength=len(keys))
    most = _most_open(which, rows["start"], rows["end"])
    return [
        (texts[int(key) >> 32], texts[int(key) & 0xFFFFFFFF], int(counts[at]), int(most[at]), float(most[at]) / PORTS)
        for at, key in enumerate(keys.tolist())
    ]


def _most_open(group: Array, start: Array, end: Array) -> Array:
    """Connections that each group had open at once, at the most; one that ends as another begins is not open then."""
    group = group.astype(np.uint16 if group.max(initial=0) < 1 << 16 else np.int64)  # short ones sort in linear time
    order = np.argsort(np.concatenate([end, start]), kind="stable")
    order = order[np.argsort(np.tile(group, 2)[order], kind="stable")]
    level = np.cumsum(np.where(order < len(end), -1, 1))
    first = np.concatenate(([0], np.cumsum(2 * np.bincount(group))[:-1])).astype(np.int64)
    return np.maximum.reduceat(level, first) if len(group) else level
