"""Packets to connections: the streaming tracker around the compiled pass."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from analyzer.capture.files import Capture
from analyzer.capture.inputs import InputFile, Interface
from analyzer.connections import passes, state
from analyzer.connections.lookup import EMPTY, rebuild, rebuild_hosts
from analyzer.errors import Problem
from analyzer.schema import CONNECTION, EVENT, HOST, IDENTITY, KIND_TCP, SYN_ROW
from analyzer.spool import CHUNK_ROWS, Spool, opaque
from analyzer.units import NO_TIME, NS

Records = np.ndarray[Any, np.dtype[np.void]]

ANSWER_HORIZON = 120 * NS
"""A SYN's answer is awaited this long."""
CLOSED_HORIZON = 150 * NS
"""Reuse of the four numbers is noticed this long after a close."""
IDLE_HORIZON = 3600 * NS
"""An open connection without a packet is kept this long."""
SWEEP_EVERY = 30 * NS
FIRST_SLOTS = 8192


@dataclass
class Tracked:
    """Connections, SYNs and kernel-visible events of one capture.

    Attributes:
        name: The vantage's name.
        files, interfaces, problems: As the capture reports them.
        hosts: HOST records; ids in the other tables index them.
        connections: Spool of CONNECTION, in order of completion.
        syns: Spool of SYN_ROW in order of arrival; the row number is the SYN's id.
        events: Spool of EVENT in order of arrival.
        identities: Spool of IDENTITY: what packets say of the other side of a load balancer.
        chain_syns: uint32, SYN packets per chain id.
        connection_count: Incarnations seen, that is, connection ids given.
        packets, tcp_packets: Frames and TCP packets read.
        first_time, last_time: Of the packets, in order of arrival, ns.
    """

    name: str
    files: list[InputFile] = field(default_factory=list)
    interfaces: list[Interface] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    hosts: Records = field(default_factory=lambda: np.zeros(0, HOST.dtype))
    connections: Spool = field(default_factory=lambda: Spool(CONNECTION))
    syns: Spool = field(default_factory=lambda: Spool(SYN_ROW))
    events: Spool = field(default_factory=lambda: Spool(EVENT))
    identities: Spool = field(default_factory=lambda: Spool(IDENTITY))
    chain_syns: np.ndarray[Any, np.dtype[np.uint32]] = field(default_factory=lambda: np.zeros(0, np.uint32))
    connection_count: int = 0
    packets: int = 0
    tcp_packets: int = 0
    first_time: int = NO_TIME
    last_time: int = NO_TIME


class Tracker:
    """Feed it blocks of PACKET records in order of arrival, then call :meth:`close`."""

    def __init__(self, tracked: Tracked) -> None:
        self.out = tracked
        self._slots = np.zeros(0, state.SLOT).view(np.recarray)
        self._conns = np.zeros(0, state.CONN).view(np.recarray)
        self._table = np.full(2 * FIRST_SLOTS, EMPTY, np.int32)
        self._state = np.zeros(state.STATE_SIZE, np.int64)
        self._state[state.FREE_HEAD] = -1
        self._state[state.NOW] = NO_TIME
        self._hosts = np.zeros(256, HOST.dtype).view(np.recarray)
        self._host_table = np.full(1024, EMPTY, np.int32)
        self._chain_syns = np.zeros(FIRST_SLOTS, np.uint32)
        self._syns = np.zeros(CHUNK_ROWS, SYN_ROW.dtype).view(np.recarray)
        self._events = np.zeros(CHUNK_ROWS, EVENT.dtype).view(np.recarray)
        self._done = np.zeros(CHUNK_ROWS, state.CONN).view(np.recarray)
        self._next_sweep = NO_TIME
        self._more_slots(FIRST_SLOTS)

    def feed(self, packets: Records) -> None:
        """Follow one block."""
        now = self._state
        now[state.NEXT_PACKET] = 0
        while True:
            # as plain arrays: of other classes numba finds out the type anew at every call
            stop = passes.track_block(*map(np.asarray, (
                packets, self._table, self._slots, self._conns, self._hosts, self._host_table,
                self._chain_syns, self._syns, self._events, self._done, now,
            )))  # fmt: skip
            if stop == state.BLOCK_DONE:
                break
            self._make_room(int(stop))
        if len(packets) and self.out.first_time == NO_TIME:
            self.out.first_time = int(packets["time"][0])
        if now[state.NOW] > self._next_sweep:
            if self._next_sweep != NO_TIME:
                self._sweep(False)
            self._next_sweep = int(now[state.NOW]) + SWEEP_EVERY

    def close(self) -> Tracked:
        """Hand over what is still open."""
        self._sweep(True)
        self._flush_done()
        self._flush_events()
        fill = int(self._state[state.SYN_FILL])
        self.out.syns.append(self._syns[:fill])
        self.out.hosts = np.array(self._hosts[: int(self._state[state.HOSTS])])
        self.out.chain_syns = self._chain_syns[: int(self._state[state.CHAINS])].copy()
        self.out.connection_count = int(self._state[state.CONNS])
        self.out.last_time = int(self._state[state.NOW])
        return self.out

    def _make_room(self, what: int) -> None:
        if what == state.NEED_SLOTS:
            self._more_slots(len(self._slots))
        elif what == state.NEED_SYNS:
            self._flush_syns()
        elif what == state.NEED_EVENTS:
            self._flush_events()
        elif what == state.NEED_DONE:
            self._flush_done()
        elif what == state.NEED_HOSTS:
            self._hosts = _grown(self._hosts)
            self._host_table = np.full(4 * _power_of_two(len(self._hosts)), EMPTY, np.int32)
            rebuild_hosts(self._host_table, self._hosts, int(self._state[state.HOSTS]))
        else:
            self._chain_syns = _grown(self._chain_syns)

    @property
    def _now(self) -> int:
        """Latest time seen, far enough from the smallest integer to subtract horizons from."""
        return max(int(self._state[state.NOW]), NO_TIME + IDLE_HORIZON)

    def _more_slots(self, count: int) -> None:
        old = len(self._slots)
        slots = np.zeros(old + count, state.SLOT).view(np.recarray)
        opaque(slots)[:old] = opaque(self._slots)
        conns = np.zeros(old + count, state.CONN).view(np.recarray)
        opaque(conns)[:old] = opaque(self._conns)
        slots["next_free"][old:] = np.arange(old + 1, old + count + 1)
        slots["next_free"][-1] = self._state[state.FREE_HEAD]
        self._state[state.FREE_HEAD] = old
        self._slots, self._conns = slots, conns
        if len(self._table) < 2 * len(slots):
            self._rebuild(2 * _power_of_two(len(slots)))

    def _rebuild(self, size: int) -> None:
        self._table = np.full(size, EMPTY, np.int32)
        rebuild(self._table, self._slots)
        self._state[state.TABLE_DEAD] = 0

    def _sweep(self, everything: bool) -> None:
        now = self._now
        while not passes.sweep(
            self._table, self._slots, self._conns, self._done, self._state,
            now - CLOSED_HORIZON, now - IDLE_HORIZON, everything,
        ):  # fmt: skip
            self._flush_done()
        if self._state[state.TABLE_DEAD] * 4 > len(self._table):
            self._rebuild(len(self._table))

    def _flush_syns(self) -> None:
        """Rows old enough go to the spool; if too few are, there is more room."""
        fill, base = int(self._state[state.SYN_FILL]), int(self._state[state.SYN_BASE])
        rows = self._syns[:fill]
        young = np.flatnonzero(rows["time"] > self._now - ANSWER_HORIZON)
        count = int(young[0]) if len(young) else fill
        self.out.syns.append(rows[:count])
        rest = opaque(rows[count:]).copy()
        if count < fill // 2:
            self._syns = np.zeros(2 * len(self._syns), SYN_ROW.dtype).view(np.recarray)
        opaque(self._syns)[: len(rest)] = rest
        self._state[state.SYN_FILL], self._state[state.SYN_BASE] = len(rest), base + count

    def _flush_events(self) -> None:
        self.out.events.append(self._events[: int(self._state[state.EVENT_FILL])])
        self._state[state.EVENT_FILL] = 0

    def _flush_done(self) -> None:
        rows = self._done[: int(self._state[state.DONE_FILL])]
        self.out.connections.append(np.asarray(rows).view(np.void).view(CONNECTION.dtype))
        self._state[state.DONE_FILL] = 0


def _grown(array: Any) -> Any:
    bigger = np.zeros(2 * len(array), array.dtype).view(type(array))
    bigger[: len(array)] = array
    return bigger


def _power_of_two(count: int) -> int:
    return 1 << (count - 1).bit_length()


def follow(blocks: Iterable[Records], tracked: Tracked) -> Tracked:
    """Track *blocks* of PACKET records into *tracked*."""
    tracker = Tracker(tracked)
    for block in blocks:
        tracked.tcp_packets += int(np.count_nonzero(block["kind"] == KIND_TCP))
        tracker.feed(block)
    return tracker.close()


def track(capture: Capture) -> Tracked:
    """Read a capture to its end and follow every connection in it.

    Args:
        capture: As ``capture.open_capture`` returns it; read once.
    """
    tracked = follow(capture.blocks(), Tracked(capture.name))
    tracked.files = capture.files
    tracked.interfaces = capture.interfaces
    tracked.problems = capture.problems
    tracked.identities = capture.identities
    tracked.packets = sum(info.packets for info in tracked.files)
    return tracked
