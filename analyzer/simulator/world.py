"""Time, chance, packets and the wires between machines."""

import heapq
import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from analyzer.kernel.events import ACK, SYN
from analyzer.simulator.recorder import CapturePoint, Row

NS = 1_000_000_000
US = 1_000


class Chance:
    """Random draws that are the same on every Python: built on ``random()`` alone, rounded to integers."""

    def __init__(self, seed: int, name: str) -> None:
        self._random = random.Random(f"{seed}/{name}").random

    def below(self, n: int) -> int:
        """0 … n - 1."""
        return int(self._random() * n)

    def between(self, low: int, high: int) -> int:
        """*low* … *high*."""
        return low + int(self._random() * (high - low + 1))

    def hit(self, share: float) -> bool:
        """True with probability *share*; no draw is made at 0."""
        return share > 0 and self._random() < share

    def exponential(self, mean_ns: int) -> int:
        """Exponential wait in ns, rounded to microseconds."""
        return round(-math.log(1.0 - self._random()) * mean_ns / US) * US


@dataclass(slots=True)
class Packet:
    """One TCP segment under way; ``row`` is the truth of the SYN that it is or answers."""

    src: int
    sport: int
    dst: int
    dport: int
    flags: int
    seq: int
    ack: int
    window: int
    tsval: int
    tsecr: int
    length: int
    options: int
    ttl: int
    ipid: int
    salt: int
    offset: int
    row: Any = None

    def copy(self) -> "Packet":
        """The same packet once more."""
        return Packet(
            self.src, self.sport, self.dst, self.dport, self.flags, self.seq, self.ack, self.window, self.tsval,
            self.tsecr, self.length, self.options, self.ttl, self.ipid, self.salt, self.offset, self.row,
        )  # fmt: skip

    def record(self, time: int, interface: int) -> Row:
        """This packet as a row of ``frames.COLUMNS``."""
        return (
            time, interface, self.src, self.dst, self.sport, self.dport, self.seq, self.ack, self.flags, self.window,
            self.tsval, self.tsecr, self.length, self.options, self.ttl, self.ipid, self.salt, self.offset,
        )  # fmt: skip


class World:
    """The event loop: true time in ns, and what is to happen when.

    Attributes:
        start, now: When the simulation began and how far it is, ns since 1970.
        faults: Called with (time, place, kind, packet) for each injected fault.
        points: All capture points.
    """

    HELD = 200_000
    """Records that may wait in memory before they are written."""

    def __init__(self, start: int, seed: int) -> None:
        self.start = self.now = start
        self.seed = seed
        self.points: list[CapturePoint] = []
        self.flushed: list[Callable[[int], None]] = []
        self.faults: Callable[[int, str, str, Packet], None] = lambda *_: None
        self._agenda: list[tuple[int, int, Callable[..., None], tuple[Any, ...]]] = []
        self._count = 0
        self._limit = self.HELD

    def at(self, time: int, act: Callable[..., None], *arguments: Any) -> None:
        """Have *act* called at *time* (not before now)."""
        self._count += 1
        heapq.heappush(self._agenda, (max(time, self.now), self._count, act, arguments))

    def run(self, until: int) -> None:
        """Let time pass until *until*."""
        agenda = self._agenda
        steps = 0
        while agenda and agenda[0][0] <= until:
            self.now, _, act, arguments = heapq.heappop(agenda)
            act(*arguments)
            steps += 1
            if not steps & 0x3FF and self._held() > self._limit:
                self.flush(self.now)
                self._limit = max(self.HELD, 2 * self._held())
        self.now = until

    def _held(self) -> int:
        return sum(point.held() for point in self.points)

    def flush(self, horizon: int) -> None:
        """Write what lies before *horizon*."""
        for point in self.points:
            point.flush(horizon)
        for act in self.flushed:
            act(horizon)


@dataclass(frozen=True)
class PathOptions:
    """One direction of a network path.

    Attributes:
        delay_us, jitter_us: Fixed delay and the most that chance adds to it.
        loss, loss_syn, loss_syn_ack: Share of packets (of SYNs, of SYN-ACKs) lost.
        duplicate, reorder: Share of packets doubled, and held back by *reorder_us*.
        reorder_us: How long a held-back packet waits.
    """

    delay_us: int = 100
    jitter_us: int = 20
    loss: float = 0.0
    loss_syn: float = 0.0
    loss_syn_ack: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    reorder_us: int = 3_000

    @property
    def clean(self) -> bool:
        """Whether every packet arrives once and in order."""
        return not (self.loss or self.loss_syn or self.loss_syn_ack or self.duplicate or self.reorder)


class Path:
    """One direction of a wire: delay, jitter and injected faults; order is kept unless injected."""

    GAP_NS = 1_200

    def __init__(self, world: World, options: PathOptions, name: str) -> None:
        self.world, self.options, self.name = world, options, name
        self._chance = Chance(world.seed, f"path {name}")
        self._last = 0

    def send(self, packet: Packet, time: int, deliver: Callable[[Packet], None]) -> None:
        """Carry *packet*, leaving at *time*, to *deliver*; perhaps."""
        options, chance, world = self.options, self._chance, self.world
        kind = packet.flags & (SYN | ACK)
        loss = options.loss
        if kind == SYN:
            loss = max(loss, options.loss_syn)
        elif kind == SYN | ACK:
            loss = max(loss, options.loss_syn_ack)
        if chance.hit(loss):
            world.faults(time, self.name, "lost", packet)
            if packet.row is not None:
                packet.row.lost(kind == SYN, self.name)
            return
        arrival = self.arrival(time)
        if chance.hit(options.reorder):
            world.faults(time, self.name, "reordered", packet)
            world.at(arrival + options.reorder_us * US, deliver, packet)
            return
        self._last = arrival
        world.at(arrival, deliver, packet)
        if chance.hit(options.duplicate):
            world.faults(time, self.name, "duplicated", packet)
            world.at(arrival + 50 * US, deliver, packet.copy())

    def arrival(self, time: int) -> int:
        """When a packet that leaves at *time* arrives, behind those before it."""
        jitter = self._chance.below(self.options.jitter_us * US + 1)
        return max(time + self.options.delay_us * US + jitter, self._last + self.GAP_NS)

    def passed(self, last: int) -> None:
        """A burst went over this wire; its last packet arrived at *last*."""
        self._last = max(self._last, last)
