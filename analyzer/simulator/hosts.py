"""Machines with a TCP stack: the kernel model driven live, on a clock of their own."""

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2s
from typing import Any, Protocol

from analyzer.kernel.events import ACK, SYN, Connect, Decision, Event, Key, Reply, Segment, Timer
from analyzer.kernel.model import Machine, Server
from analyzer.kernel.profiles import Profile, find_profile
from analyzer.kernel.settings import Settings
from analyzer.seqnum import MASK32, add32, d32
from analyzer.simulator.frames import syn_options
from analyzer.simulator.recorder import CapturePoint, Clock
from analyzer.simulator.world import NS, US, Chance, Packet, World

_SECOND_WAITS = tuple(NS << i for i in range(7))
_OLD_WAITS = tuple(3 * NS << i for i in range(6))
_LINEAR_WAITS = (NS,) * 5 + tuple(NS << i for i in range(1, 7))


@dataclass(frozen=True)
class Personality:
    """How a kernel behaves as a client: its rules and its timestamps' era."""

    profile: Profile
    waits: tuple[int, ...]
    era: str
    window: int
    quick_retry: bool

    @classmethod
    def of(cls, kernel: str) -> "Personality":
        """By version text: SYN timeouts, TSval era (spec of ``secure_seq.c``), window of a SYN."""
        profile = find_profile(kernel)
        first = profile.first
        waits = _OLD_WAITS if profile.initial_rto_s == 3 else _SECOND_WAITS
        version = tuple(int(part) for part in kernel.split("-", maxsplit=1)[0].split(".")[:2] if part.isdigit())
        if version >= (6, 5) or first >= (6, 7):
            waits = _LINEAR_WAITS
        era = "host" if first < (4, 10) else "connection" if version >= (6, 19) else "pair"
        window = 14_600 if first < (3, 6) else 29_200 if version < (4, 20) else 64_240
        return cls(profile, waits, era, window, version >= (5, 10))


class Stamps:
    """A host's TSval clock.

    ``value`` is shown at *anchor* (true ns) in the host's own numbers; ``era`` adds nothing (``host``), a
    hash of both addresses (``pair``) or of the four-tuple (``connection``).
    """

    def __init__(self, hz: int, anchor: int, value: int, era: str, secret: bytes, skew_ppm: int = 0) -> None:
        self.hz, self.anchor, self.value, self.era, self.skew_ppm = hz, anchor, value, era, skew_ppm
        self._secret = secret
        self._offsets: dict[object, int] = {}

    def offset(self, key: Key) -> int:
        """What the era adds for *key*."""
        if self.era == "host":
            return self.value
        known: object = (key[0], key[2]) if self.era == "pair" else key
        if known not in self._offsets:
            if len(self._offsets) > 4096:
                self._offsets.clear()
            digest = blake2s(repr(known).encode(), key=self._secret, person=b"stamps").digest()
            self._offsets[known] = self.value + int.from_bytes(digest[:4]) & MASK32
        return self._offsets[known]

    def ticks(self, time: Any) -> Any:
        """Ticks since the anchor; works on arrays too."""
        us = (time - self.anchor) // US
        us = us + us * self.skew_ppm // 1_000_000
        return us * self.hz // 1_000_000

    def __call__(self, time: int, key: Key) -> int:
        """TSval at true or own *time* for *key*."""
        return int(self.offset(key) + self.ticks(time) & MASK32)


class Application(Protocol):
    """What runs on a host."""

    def notice(self, word: str, key: Key, size: int) -> None:
        """The kernel tells: see ``kernel.events.Decision.notices``."""


class Host:
    """One machine.

    Attributes:
        kernel: Its TCP stack.
        clock: Its wall clock's error; the kernel lives on it.
        point, interface: Capture point on it, if any.
        send: Hands a packet that leaves at a time to the wire.
    """

    def __init__(self, world: World, name: str, address: int, kernel: Server, clock: Clock) -> None:
        self.world, self.name, self.address, self.kernel, self.clock = world, name, address, kernel, clock
        self.point: CapturePoint | None = None
        self.send: Callable[[Packet, int], None] = lambda *_: None
        self.application: Application | None = None
        self.judged: Callable[[Host, Packet, Decision], None] | None = None
        self.opened: Callable[[Host, Packet, int], None] | None = None
        self.filter: Callable[[Packet, int], bool] | None = None
        self._chance = Chance(world.seed, f"host {name}")
        self._wake: int | None = None
        self._sent = 0

    @property
    def stamps(self) -> Stamps:
        """Its TSval clock."""
        stamps = self.kernel.machine.stamp
        assert isinstance(stamps, Stamps)
        return stamps

    def receive(self, packet: Packet) -> None:
        """A packet arrives now."""
        now = self.world.now
        if self.point is not None:
            self.point.rows.append(packet.record(now, 0))
        if self.filter is not None and self.filter(packet, now):
            return
        options = packet.options
        segment = Segment(
            self.clock.show(now), packet.src, packet.sport, packet.dst, packet.dport, packet.flags, packet.seq,
            packet.ack, None if packet.tsval < 0 else packet.tsval, packet.tsecr, packet.length, packet.window,
            (options >> 16 & 255) if options and options >> 16 & 255 != 255 else None, options & 0xFFFF or None,
        )  # fmt: skip
        decision = self.kernel.feed(segment)
        syn = packet.flags & (SYN | ACK) == SYN
        if self.judged is not None and (syn or decision.third):
            self.judged(self, packet, decision)
        self._after(decision, packet.row if syn else None)

    def act(self, event: Event) -> Decision:
        """The application or a timer acts."""
        decision = self.kernel.feed(event)
        self._after(decision, None)
        return decision

    def own_time(self) -> int:
        """Now, on the host's clock."""
        return int(self.clock.show(self.world.now))

    def connect(self, port: int, address: int, remote_port: int, local: object = None) -> Key:
        """Open a connection from *port* of its address, or of *local*."""
        key = (self.address if local is None else local, port, address, remote_port)
        self.act(Connect(self.own_time(), key))
        return key

    def _after(self, decision: Decision, row: object) -> None:
        """Send what was decided, tell the application, and be woken for the next timer."""
        for reply in decision.replies:
            self._emit(reply, row)
        if self.application is not None:
            for word, key, size in decision.notices:
                self.application.notice(word, key, size)
        due = self.kernel.next_timer()
        if due is not None:
            time = self.clock.when(due)
            if self._wake is None or time < self._wake or self._wake < self.world.now:
                self._wake = time
                self.world.at(time, self._tick, time)

    def _tick(self, time: int) -> None:
        if self._wake == time:
            self._wake = None
        self.act(Timer(max(self.own_time(), 0)))

    def _emit(self, reply: Reply, row: object) -> None:
        time = max(self.world.now + self._chance.between(8, 24) * US, self._sent + 2 * US)
        self._sent = time
        packet = packet_of(reply)
        packet.row = row
        if reply.flags & (SYN | ACK) == SYN and self.opened is not None:
            self.opened(self, packet, time)
        if self.point is not None:
            self.point.rows.append(packet.record(time, 0))
        self.send(packet, time)

    def busy(self, until: int) -> None:
        """A burst was sent; what follows leaves after *until*."""
        self._sent = max(self._sent, until)


def packet_of(reply: Reply) -> Packet:
    """A kernel's reply as a packet on the wire."""
    local, lport, remote, rport = reply.key
    assert isinstance(local, int) and isinstance(remote, int)
    options = 0 if reply.options is None else syn_options(*reply.options)
    offset = d32(reply.seq, add32(reply.start, 1)) & MASK32 if reply.length else 0
    return Packet(
        local, lport, remote, rport, reply.flags, reply.seq, reply.ack, reply.window,
        -1 if reply.tsval is None else reply.tsval, reply.tsecr, reply.length, options, 64, reply.ipid,
        reply.start & 0xFFF, offset,
    )  # fmt: skip


@dataclass(frozen=True)
class HostOptions:
    """What a host's kernel is made from.

    Attributes:
        kernel: Version text; picks the profile and the client's habits.
        hz: Ticks per second of its timers and (up to 4.12) its TSvals.
        settings: Its sysctls.
        uptime: Seconds since boot at the start.
        tsval_at: (seconds from the start, TSval): fixes the TSval clock instead of the boot.
        skew_ppm: How fast its TSval clock runs ahead.
        timestamps: net.ipv4.tcp_timestamps (2: no offset).
    """

    kernel: str
    hz: int
    settings: Settings
    uptime: int
    tsval_at: tuple[float, int] | None = None
    skew_ppm: int = 0
    timestamps: int = 1


def build_host(world: World, name: str, address: int, options: HostOptions, clock: Clock) -> Host:
    """A machine with its kernel, clock and boot secret."""
    person = Personality.of(options.kernel)
    secret = blake2s(f"{world.seed}/{name}".encode()).digest()[:16]
    hz = options.hz if person.profile.first < (4, 13) else 1000
    anchor, value = world.start - options.uptime * NS, -300 * options.hz & MASK32
    if options.tsval_at is not None:
        anchor, value = world.start + round(options.tsval_at[0] * NS), options.tsval_at[1]
    era = "host" if options.timestamps == 2 else person.era
    stamps = Stamps(hz, anchor, value, era, secret, options.skew_ppm)
    lag = Chance(world.seed, f"lag {name}").between(50, 900) * NS // options.hz // 1000
    machine = Machine(
        options.hz, stamps, secret, lag, syn_window=person.window, syn_timeouts=person.waits,
        quick_retry=person.quick_retry,
    )  # fmt: skip
    return Host(world, name, address, Server(person.profile, options.settings, machine), clock)
