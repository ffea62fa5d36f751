"""Many writes of one connection at once: the same packets as event by event, built as columns.

Only where nothing can come between: clean wires, both ends established and idle, no pause of the
application, and an end before the connection's next planned close.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import log
from typing import Any

import numpy as np

from analyzer.kernel.events import ACK, PSH, Key
from analyzer.kernel.sockets import RECEIVE_WINDOW, Connection, State
from analyzer.seqnum import MASK32, add32
from analyzer.simulator.applications import Logger, ServerApp
from analyzer.simulator.balancer import Balancer, Flow, Stage
from analyzer.simulator.frames import COLUMNS, Records
from analyzer.simulator.hosts import Host
from analyzer.simulator.proxy import Proxy
from analyzer.simulator.recorder import CapturePoint, mix
from analyzer.simulator.world import NS, US, PathOptions

Ints = np.ndarray[Any, np.dtype[np.int64]]

SPAN_NS = 5 * NS
MARGIN_NS = 10_000_000
_STEPS = 4096
_WAITS = np.array([round(-log((i + 0.5) / _STEPS) * (1 << 20)) for i in range(_STEPS)], np.int64)
"""Exponential waits of mean 2**20, by quantile: integers, so the same everywhere."""


@dataclass
class Ends:
    """Everything that one connection touches."""

    client: Host
    server: Host
    balancer: Balancer | Proxy
    flow: Flow
    near: Connection
    far: Connection
    app: ServerApp


class Draws:
    """Vectors of chance: splitmix64 over a counter of their own."""

    def __init__(self, seed: int) -> None:
        self._at = seed << 32

    def below(self, bound: int, count: int) -> Ints:
        """*count* numbers 0 … bound - 1."""
        numbers = np.arange(self._at, self._at + count, dtype=np.uint64)
        self._at += count
        return ((mix(numbers) >> np.uint64(32)) * np.uint64(bound) >> np.uint64(32)).astype(np.int64)


class Bursts:
    """Makes a logger write in bursts; see :meth:`write`."""

    def __init__(
        self,
        balancers: Sequence[Balancer | Proxy],
        apps: dict[int, ServerApp],
        paths: tuple[PathOptions, ...],
        end: int,
    ) -> None:
        self._balancers, self._apps, self._end = balancers, apps, end
        self._paths = paths
        self._draws: dict[int, Draws] = {}
        spent = sum(path.delay_us + path.jitter_us for path in paths) * 2 + 200
        self._exchange = spent * US

    def write(self, logger: Logger, key: Key) -> bool:
        """Write for some seconds at once; False where it has to go event by event."""
        ends = self._ends(logger, key)
        if ends is None:
            return False
        now = logger.world.now
        stop = min(now + SPAN_NS, self._end, ends.app.closing.get(ends.far.key, self._end), logger.closes or self._end)
        draws = self._draws.setdefault(id(logger), Draws(logger.number + 1))
        mean_us = logger.options.interval_ms * 1_000
        most = int(SPAN_NS // US // mean_us * 3 // 2) + 16
        gap = self._exchange + ends.app.options.reply_us * US
        waits = np.maximum((_WAITS[draws.below(_STEPS, most)] * mean_us >> 20) * US, gap)
        times = now + np.concatenate([[0], np.cumsum(waits)])
        count = int(np.searchsorted(times, stop - MARGIN_NS - gap))
        if count < 2 or count >= len(times):
            return False
        low, high = logger.options.bytes
        sizes = low + draws.below(high - low + 1, count)
        last = _exchange(ends, times[:count], sizes, draws, self._paths)
        logger.resume(max(int(times[count]), last + US))
        return True

    def _ends(self, logger: Logger, key: Key) -> Ends | None:
        four: Any = key
        client = logger.client.host
        near = client.kernel.table.get(key)
        for balancer in self._balancers:
            flow = balancer.by_client.get(four)
            if flow is not None:
                break
        else:
            return None
        snat, port, address, sport = flow.server
        far = flow.host.kernel.table.get((address, sport, snat, port))
        if not isinstance(near, Connection) or not isinstance(far, Connection) or not far.accepted:
            return None
        idle = not (near.sender.flight or far.sender.flight or near.parked or far.parked or far.unread)
        plain = flow.stage is Stage.OPEN and not flow.isn_shift and not flow.ts_shift and near.has_ts and far.has_ts
        open_ = near.state is State.ESTABLISHED and far.state is State.ESTABLISHED
        if not (idle and plain and open_):
            return None
        return Ends(client, flow.host, balancer, flow, near, far, self._apps[address])


def _exchange(ends: Ends, times: Ints, sizes: Ints, draws: Draws, paths: tuple[PathOptions, ...]) -> int:
    """Packets of all writes at *times*, at every capture point; both ends' sockets move on.  Returns the last time."""
    to_lb, to_client, to_server, from_server = paths
    n, reply = len(times), ends.app.options.reply_bytes
    near, far = ends.near, ends.far
    step = 2 if reply else 1

    def spend(low: int, high: int) -> Ints:
        return (low + draws.below(high - low + 1, n)) * US

    def over(path: PathOptions) -> Ints:
        return path.delay_us * US + draws.below(path.jitter_us * US + 1, n)

    data = Way(ends, True, times + spend(8, 24), over(to_lb), spend(9, 30), over(to_server))
    answered = data.arrives + spend(8, 24)
    acks = Way(ends, False, answered, over(from_server), spend(9, 30), over(to_client))
    sent = np.cumsum(sizes)
    stamp = _stamps(ends.client, near.key, times)
    ack_stamp = _stamps(ends.server, far.key, ends.server.clock.show(data.arrives))
    start = near.sender.nxt
    seqs, got = start + sent - sizes & MASK32, start + sent & MASK32
    base = far.sender.nxt + reply * np.arange(n) & MASK32
    near_id = near.ipid + 1 + step * np.arange(n) & 0xFFFF
    far_id = far.ipid + 1 + step * np.arange(n) & 0xFFFF
    heard = ack_stamp
    parts: list[tuple[Any, ...]] = [(acks, base, got, ACK, ack_stamp, stamp, 0, far_id, 0)]
    last = acks.arrives
    if reply:
        spoken = data.arrives + ends.app.options.reply_us * US
        replies = Way(ends, False, spoken + spend(8, 24), over(from_server), spend(9, 30), over(to_client))
        heard = _stamps(ends.server, far.key, ends.server.clock.show(spoken))
        end_stamp = _stamps(ends.client, near.key, replies.arrives)
        closing = Way(ends, True, replies.arrives + spend(8, 24), over(to_lb), spend(9, 30), over(to_server))
        offset = base - far.sender.start - 1 & MASK32
        parts.append((replies, base, got, ACK | PSH, heard, stamp, reply, far_id + 1 & 0xFFFF, offset))
        parts.append((closing, got, base + reply & MASK32, ACK, end_stamp, heard, 0, near_id + 1 & 0xFFFF, 0))
        last = closing.arrives
    echo = np.concatenate([[near.ts_recent], heard[:-1]])
    offset = seqs - near.sender.start - 1 & MASK32
    parts.append((data, seqs, base, ACK | PSH, stamp, echo, sizes, near_id, offset))
    for way, *columns in parts:
        way.record(columns)
    near.sender.sample(int(acks.arrives[-1] - times[-1]))
    if reply:
        far.sender.sample(int(last[-1] - spoken[-1]))
    _advance(near, int(sent[-1]), reply * n, step * n)
    _advance(far, reply * n, int(sent[-1]), step * n)
    ends.server.kernel.counters.update(InSegs=step * n, OutSegs=step * n)
    near.ts_recent, near.ts_recent_s = int(heard[-1]), int(last[-1]) // NS
    far_stamp, far_time = (end_stamp, last) if reply else (stamp, data.arrives)
    far.ts_recent = int(far_stamp[-1])
    far.ts_recent_s = ends.server.kernel.second(ends.server.clock.show(int(far_time[-1])))
    ends.flow.last = int(last[-1])
    return int(last[-1])


def _stamps(host: Host, key: Key, times: Ints) -> Ints:
    ticks: Any = host.stamps.ticks(times)
    return np.asarray(host.stamps.offset(key) + ticks & MASK32, np.int64)


def _advance(conn: Connection, sent: int, received: int, packets: int) -> None:
    conn.sender.una = conn.sender.nxt = add32(conn.sender.nxt, sent)
    conn.rcv_nxt = conn.rcv_wup = add32(conn.rcv_nxt, received)
    conn.ipid = conn.ipid + packets & 0xFFFF


class Way:
    """One kind of packet's times along its way, and its records at each capture point."""

    def __init__(self, ends: Ends, up: bool, leaves: Ints, first: Ints, box: Ints, second: Ints) -> None:
        self.ends, self.up = ends, up
        self.leaves = leaves
        self.at_lb = leaves + first
        self.from_lb = self.at_lb + box
        self.arrives = self.from_lb + second

    def record(self, columns: list[Any]) -> None:
        """Append records of these packets where they are captured."""
        flow, ends = self.ends.flow, self.ends
        up = self.up
        outside = flow.client if up else (*flow.client[2:], *flow.client[:2])
        inside = flow.server if up else (*flow.server[2:], *flow.server[:2])
        start = (ends.near if up else ends.far).sender.start
        point = ends.balancer.point
        came, went = (outside, inside) if up else (inside, outside)
        point.blocks.append(_rows(self.at_lb, 0 if up else 1, came, 64, start, columns))
        point.blocks.append(_rows(self.from_lb, 1 if up else 0, went, 63, start, columns))
        server: CapturePoint | None = ends.server.point
        if server is not None:
            time, ttl = (self.arrives, 63) if up else (self.leaves, 64)
            server.blocks.append(_rows(time, 0, inside, ttl, start, columns))
        client = ends.client.point
        if client is not None:
            time, ttl = (self.leaves, 64) if up else (self.arrives, 63)
            client.blocks.append(_rows(time, 0, outside, ttl, start, columns))


def _rows(time: Ints, interface: int, four: tuple[int, ...], ttl: int, start: int, columns: list[Any]) -> Records:
    seq, ack, flags, tsval, tsecr, length, ipid, offset = columns
    rows = np.empty((len(time), len(COLUMNS)), np.int64)
    src, sport, dst, dport = four
    values = (
        time, interface, src, dst, sport, dport, seq, ack, flags, RECEIVE_WINDOW >> 7, tsval, tsecr, length, 0, ttl,
        ipid, start & 0xFFF, offset,
    )  # fmt: skip
    for index, value in enumerate(values):
        rows[:, index] = value
    return rows
