"""A layer-4 load balancer with SNAT: connection table, port pools, timeouts, and its own peculiarities."""

from dataclasses import dataclass, field
from enum import IntEnum

from analyzer.kernel.events import ACK, FIN, RST, SYN
from analyzer.seqnum import MASK32, add32
from analyzer.simulator.hosts import Host
from analyzer.simulator.recorder import CapturePoint
from analyzer.simulator.truth import Ledger
from analyzer.simulator.world import NS, US, Chance, Packet, Path, World

CLIENT_SIDE, SERVER_SIDE = 0, 1


class Stage(IntEnum):
    """How far a flow is."""

    OPENING = 0
    OPEN = 1
    CLOSING = 2
    GONE = 3


@dataclass(frozen=True)
class BalancerOptions:
    """One load balancer.

    Attributes:
        name: Its name.
        vips: Virtual addresses; all on *port*.
        snat: Addresses that servers see; the last *reserved* of them only serve scripted connections.
        ports: First and last source port of the pool.
        policy: How a port is chosen: ``random``, ``sequential``, ``lowest``, ``preserve`` (the client's).
        hold_down_s: How long a port rests after its flow ended.
        handshake_s: When an unanswered SYN's flow ends with a RST to the server.
        reset_client: Whether that RST goes to the client as well.
        idle_s, idle: When an idle flow ends, and how: ``forget`` or ``reset``.
        linger_ms: How long a closed flow stays, for late packets.
        swallow_ack: Whether an ACK that answers a SYN is kept from the client.
        timestamps: ``pass``, ``strip`` (no timestamps behind it) or ``rewrite`` (another offset per flow).
        rewrite_isn: Whether the server sees another initial sequence number.
        mode: ``layer4`` translates packets; ``layer7`` ends the client's connection and opens its own.
        kernel: Kernel of a layer-7 box.
    """

    name: str = "lb1"
    vips: tuple[str, ...] = ("203.0.113.9",)
    port: int = 1120
    snat: tuple[str, ...] = ("10.2.0.5",)
    reserved: int = 0
    ports: tuple[int, int] = (32768, 60999)
    policy: str = "random"
    hold_down_s: float = 0.0
    handshake_s: float = 15.0
    reset_client: bool = False
    idle_s: float = 3600.0
    idle: str = "forget"
    linger_ms: int = 200
    swallow_ack: bool = False
    timestamps: str = "pass"
    rewrite_isn: bool = False
    mode: str = "layer4"
    kernel: str = "5.10.0"


@dataclass(slots=True)
class Flow:
    """One translated connection."""

    client: tuple[int, int, int, int]
    server: tuple[int, int, int, int]
    host: Host
    isn: int
    started: int
    stage: Stage = Stage.OPENING
    isn_shift: int = 0
    ts_shift: int = 0
    last: int = 0
    fins: int = 0
    generation: int = 0


@dataclass(slots=True)
class Wires:
    """The balancer's ends of the network: towards each client host, towards each server."""

    clients: dict[int, tuple[Path, Host]] = field(default_factory=dict)
    servers: dict[int, tuple[Path, Host]] = field(default_factory=dict)


class Balancer:
    """See :class:`BalancerOptions`; ``point`` captures both sides."""

    def __init__(
        self, world: World, options: BalancerOptions, snat: tuple[int, ...], ledger: Ledger, point: CapturePoint
    ) -> None:
        self.world, self.options, self.ledger, self.point = world, options, ledger, point
        self.wires = Wires()
        self.pins: dict[tuple[int, int], tuple[int, int, Host]] = {}
        self.by_client: dict[tuple[int, int, int, int], Flow] = {}
        self.by_server: dict[tuple[int, int, int, int], Flow] = {}
        self.resting: dict[tuple[int, int, int, int], int] = {}
        self.choose_server: dict[int, PoolChoice] = {}
        self._snat = snat[: len(snat) - options.reserved]
        self._chance = Chance(world.seed, f"lb {options.name}")
        self._next = options.ports[0]
        self._left = [0, 0]

    # ---- packets ----------------------------------------------------------------------------------

    def from_client(self, packet: Packet) -> None:
        """A packet arrives on the client side."""
        now = self.world.now
        self.point.rows.append(packet.record(now, CLIENT_SIDE))
        key = (packet.src, packet.sport, packet.dst, packet.dport)
        flow = self.by_client.get(key)
        syn = packet.flags & (SYN | ACK | RST) == SYN
        if syn:
            packet.row.at_lb(now)
            if flow is not None and flow.isn != packet.seq:
                self._end(flow)
                flow = None
            if flow is None:
                flow = self._open(key, packet)
        if flow is None:
            if not syn and not packet.flags & RST:
                self._refuse(packet)
            return
        self._follow(flow, packet, 1)
        self._translate(flow, packet)
        self._to_server(flow, packet)
        if packet.flags & RST:
            self._end(flow)

    def from_server(self, packet: Packet) -> None:
        """A packet arrives on the server side."""
        now = self.world.now
        self.point.rows.append(packet.record(now, SERVER_SIDE))
        if packet.row is not None:
            packet.row.answered_at_lb(now)
        flow = self.by_server.get((packet.dst, packet.dport, packet.src, packet.sport))
        if flow is None:
            return
        if flow.stage is Stage.OPENING and packet.flags & (SYN | ACK | RST) == ACK and self.options.swallow_ack:
            self.world.faults(now, self.options.name, "swallowed", packet)
            return
        self._follow(flow, packet, 2)
        client, cport, vip, vport = flow.client
        packet.src, packet.sport, packet.dst, packet.dport = vip, vport, client, cport
        packet.ack = add32(packet.ack, -flow.isn_shift) if packet.flags & ACK else packet.ack
        if flow.ts_shift and packet.tsval >= 0:
            packet.tsecr = add32(packet.tsecr, -flow.ts_shift)
        self._to_client(client, packet)
        if packet.flags & RST:
            self._end(flow)

    def _to_server(self, flow: Flow, packet: Packet) -> None:
        path, host = self.wires.servers[flow.server[2]]
        leaves = self._leave(packet, SERVER_SIDE)
        if packet.row is not None:
            packet.row.to_server(leaves, flow.server, packet.seq, packet.tsval)
        path.send(packet, leaves, host.receive)

    def _to_client(self, client: int, packet: Packet) -> None:
        path, host = self.wires.clients[client]
        leaves = self._leave(packet, CLIENT_SIDE)
        if packet.row is not None:
            packet.row.answered_to_client(leaves)
        path.send(packet, leaves, host.receive)

    def _leave(self, packet: Packet, side: int) -> int:
        """Forward after the box's own delay; the packet is seen as it leaves."""
        packet.ttl -= 1
        leaves = max(self.world.now + self._chance.between(9, 30) * US, self._left[side] + US)
        self._left[side] = leaves
        self.point.rows.append(packet.record(leaves, side))
        return leaves

    def _translate(self, flow: Flow, packet: Packet) -> None:
        packet.src, packet.sport, packet.dst, packet.dport = flow.server
        packet.seq = add32(packet.seq, flow.isn_shift)
        if self.options.timestamps == "strip":
            packet.tsval = -1
        elif flow.ts_shift and packet.tsval >= 0:
            packet.tsval = add32(packet.tsval, flow.ts_shift)

    # ---- flows ------------------------------------------------------------------------------------

    def _open(self, key: tuple[int, int, int, int], packet: Packet) -> Flow | None:
        """A new flow for a SYN: a pool member, a source port; None when there is no port left."""
        now = self.world.now
        pinned = self.pins.pop((packet.src, packet.sport), None)
        if pinned is not None:
            snat, port, host = pinned
            server = (snat, port, host.address, packet.dport)
        else:
            host = self.choose_server[packet.dst].pick(now)
            found = self._port(host.address, packet)
            if found is None:
                packet.row.no_port()
                self.world.faults(now, self.options.name, "no_port", packet)
                return None
            server = (*found, host.address, packet.dport)
        old = self.by_server.get(server)
        if old is not None:
            self._end(old)
        flow = Flow(key, server, host, packet.seq, now, last=now)
        if self.options.rewrite_isn:
            flow.isn_shift = self._chance.below(1 << 32)
        if self.options.timestamps == "rewrite":
            flow.ts_shift = self._chance.below(1 << 32)
        self.by_client[key] = self.by_server[server] = flow
        self.ledger.flow(now, flow.client, flow.server)
        self.world.at(now + round(self.options.handshake_s * NS), self._handshake_timeout, flow)
        self.world.at(now + round(self.options.idle_s * NS), self._idle, flow)
        return flow

    def _port(self, server: int, packet: Packet) -> tuple[int, int] | None:
        low, high = self.options.ports
        snat = self._snat[self._chance.below(len(self._snat))] if len(self._snat) > 1 else self._snat[0]
        span, policy = high - low + 1, self.options.policy
        if policy == "preserve" and self._free((snat, packet.sport, server, packet.dport)):
            return snat, packet.sport
        if policy == "lowest":
            first = low
        elif policy == "sequential":
            first = self._next
        else:
            first = low + self._chance.below(span)
        for step in range(span):
            port = low + (first - low + step) % span
            if self._free((snat, port, server, packet.dport)):
                self._next = low + (port - low + 1) % span
                return snat, port
        return None

    def _free(self, server: tuple[int, int, int, int]) -> bool:
        flow = self.by_server.get(server)
        if flow is not None:
            return False
        return self.resting.get(server, 0) <= self.world.now

    def _follow(self, flow: Flow, packet: Packet, side: int) -> None:
        """Keep the flow's stage by what passes."""
        flow.last = self.world.now
        if flow.stage is Stage.OPENING and side == 1 and packet.flags & (SYN | ACK) == ACK:
            flow.stage = Stage.OPEN
        if packet.flags & FIN:
            flow.fins |= side
            if flow.fins == 3 and flow.stage is not Stage.CLOSING:
                flow.stage = Stage.CLOSING
                self.world.at(flow.last + self.options.linger_ms * 1_000_000, self._end, flow)

    def _end(self, flow: Flow) -> None:
        if flow.stage is Stage.GONE:
            return
        flow.stage = Stage.GONE
        now = self.world.now
        if self.by_client.get(flow.client) is flow:
            del self.by_client[flow.client]
        if self.by_server.get(flow.server) is flow:
            del self.by_server[flow.server]
            if self.options.hold_down_s:
                self.resting[flow.server] = now + round(self.options.hold_down_s * NS)
        self.ledger.flow_ended(now, flow.client, flow.server)

    def _handshake_timeout(self, flow: Flow) -> None:
        if flow.stage is not Stage.OPENING:
            return
        snat, port, server, sport = flow.server
        isn = add32(flow.isn, flow.isn_shift + 1)
        self._to_server(flow, self._own(snat, port, server, sport, RST, isn, 0))
        if self.options.reset_client:
            client, cport, vip, vport = flow.client
            self._to_client(client, self._own(vip, vport, client, cport, RST | ACK, 0, add32(flow.isn, 1)))
        self._end(flow)

    def _idle(self, flow: Flow) -> None:
        if flow.stage is Stage.GONE:
            return
        limit = flow.last + round(self.options.idle_s * NS)
        if self.world.now < limit:
            self.world.at(limit, self._idle, flow)
            return
        self._end(flow)

    def _refuse(self, packet: Packet) -> None:
        """A packet of no flow: a RST, as a stateful box does."""
        reset = self._own(packet.dst, packet.dport, packet.src, packet.sport, RST, packet.ack, 0)
        self._to_client(packet.src, reset)

    def _own(self, src: int, sport: int, dst: int, dport: int, flags: int, seq: int, ack: int) -> Packet:
        return Packet(src, sport, dst, dport, flags, seq & MASK32, ack, 0, -1, 0, 0, 0, 65, 0, 0, 0)


class PoolChoice:
    """Which pool member takes a new flow: by chance, weighted; traffic may migrate from old to new members."""

    def __init__(self, world: World, name: str, old: list[Host], new: list[Host], window: tuple[int, int]) -> None:
        self._chance = Chance(world.seed, f"pool {name}")
        self._old, self._new, self._window = old, new, window

    def pick(self, now: int) -> Host:
        """A member for a flow that opens now."""
        if self._new:
            begin, end = self._window
            moved = min(1_000, max(0, (now - begin) * 1_000 // max(1, end - begin)))
            if not self._old or self._chance.below(1_000) < moved:
                return self._new[self._chance.below(len(self._new))]
        return self._old[self._chance.below(len(self._old))]
