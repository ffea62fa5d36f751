"""A scenario made into machines and wires."""

from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from pathlib import Path as FilePath
from typing import TextIO

from analyzer.errors import UsageError
from analyzer.kernel.events import ACK, SYN, Decision
from analyzer.kernel.settings import Settings
from analyzer.seqnum import MASK32
from analyzer.simulator.applications import ClientHost, Logger, Netcat, OneShot, ServerApp
from analyzer.simulator.balancer import Balancer, BalancerOptions, PoolChoice
from analyzer.simulator.bulk import Bursts
from analyzer.simulator.frames import syn_options
from analyzer.simulator.hosts import Host, HostOptions, build_host
from analyzer.simulator.papers import probe_line
from analyzer.simulator.proxy import Proxy
from analyzer.simulator.recorder import CapturePoint, Clock
from analyzer.simulator.scenario import FOREVER_S, ClientGroup, Firewall, Flood, Scenario, Script, ServerGroup
from analyzer.simulator.truth import Ledger, SynRow
from analyzer.simulator.world import NS, Chance, Packet, Path, World


def number(text: str) -> int:
    """An IPv4 address as a number.

    Raises:
        UsageError: It is none.
    """
    try:
        return int(IPv4Address(text))
    except ValueError:
        raise UsageError(f"{text!r} is no IPv4 address") from None


@dataclass
class Member:
    """One pool member."""

    host: Host
    app: ServerApp
    group: ServerGroup


@dataclass
class Estate:
    """Everything that is simulated."""

    scenario: Scenario
    world: World
    ledger: Ledger
    out: FilePath
    probe: TextIO
    members: dict[str, Member] = field(default_factory=dict)
    clients: dict[str, ClientHost] = field(default_factory=dict)
    balancers: list[Balancer | Proxy] = field(default_factory=list)
    loggers: list[Logger] = field(default_factory=list)
    netcat: Netcat | None = None
    clocks: list[tuple[object, ...]] = field(default_factory=list)
    half_open: dict[tuple[int, int, int, int], SynRow] = field(default_factory=dict)


def build(scenario: Scenario, out: FilePath) -> Estate:
    """Machines, wires, programs and capture points of *scenario*."""
    world = World(scenario.start * NS, scenario.seed)
    probe = (out / "probe.log").open("w", encoding="utf-8")
    estate = Estate(scenario, world, Ledger(out / "truth"), out, probe)
    world.faults = estate.ledger.fault
    world.flushed.append(estate.ledger.settle)
    _servers(estate)
    _balancers(estate)
    for group in scenario.clients:
        _client_group(estate, group)
    _netcat(estate)
    for script in scenario.script:
        _script(estate, script)
    _firewalls(estate)
    for flood in scenario.flood:
        _Flooder(estate, flood).start()
    _bursts(estate)
    return estate


def _bursts(estate: Estate) -> None:
    """Loggers write in bursts where the scenario allows it and the wires are clean."""
    path = estate.scenario.path
    paths = (path.to_lb, path.to_client, path.to_server, path.from_server)
    paused = any(member.group.app.pauses for member in estate.members.values())
    if not estate.scenario.bulk or paused or not all(p.clean for p in paths):
        return
    apps = {member.host.address: member.app for member in estate.members.values()}
    end = estate.world.start + round(estate.scenario.duration_s * NS)
    bursts = Bursts(estate.balancers, apps, paths, end)
    for logger in estate.loggers:
        logger.burst = bursts.write


# ---- servers ----------------------------------------------------------------------------------------


def _servers(estate: Estate) -> None:
    scenario, world = estate.scenario, estate.world
    port = scenario.lb[0].port
    for group in scenario.server:
        for index in range(group.count):
            name = f"{group.name}{index + 1}" if group.count > 1 else group.name
            if name in estate.members:
                raise UsageError(f"server: two are named {name}")
            offset = group.clock_offset_s[index % len(group.clock_offset_s)]
            drift = group.clock_drift_ppm[index % len(group.clock_drift_ppm)]
            clock = Clock(round(offset * NS), drift, world.start)
            try:
                settings = Settings(backlog=group.backlog).override(group.sysctl)
                options = HostOptions(
                    group.kernel, group.hz, settings, Chance(world.seed, name).between(90_000, 4_000_000)
                )
                host = build_host(world, name, number(group.address) + index, options, clock)
            except ValueError as error:
                raise UsageError(str(error)) from None
            host.kernel.listen(port, group.backlog, group.dual_stack)
            snaplen, drops = scenario.capture.snaplen, scenario.capture.server_drops
            host.point = CapturePoint(estate.out / f"server-{name}.pcap", ("eth0",), clock, snaplen, drops)
            world.points.append(host.point)
            host.judged = _judge(estate)
            app = ServerApp(world, host, group.app, port)
            host.application = app
            estate.members[name] = Member(host, app, group)
            estate.clocks.append(("capture", f"server-{name}", host.clock.offset / NS, drift, "", "", ""))
            estate.clocks.append(_tsval_clock("server", host))


def _tsval_clock(role: str, host: Host) -> tuple[object, ...]:
    stamps = host.stamps
    at_start = stamps.value + stamps.ticks(host.world.start) & MASK32
    return (role, host.name, "", stamps.skew_ppm, stamps.hz, stamps.era, at_start)


def _judge(estate: Estate):  # type: ignore[no-untyped-def]
    def judged(host: Host, packet: Packet, decision: Decision) -> None:
        now = estate.world.now
        four = (packet.src, packet.sport, packet.dst, packet.dport)
        if packet.flags & (SYN | ACK) == SYN:
            if packet.row is not None:
                packet.row.judge(decision, now, host.clock.show(now))
            if decision.verdict in ("accept", "cookie"):
                estate.half_open[four] = packet.row
            line = probe_line(host, packet, decision, host.clock.show(now))
            if line is not None:
                estate.probe.write(line + "\n")
        elif decision.third:
            row = estate.half_open.get(four)
            if row is not None and not row.third:
                row.third = decision.third
            if decision.third == "accepted":
                estate.half_open.pop(four, None)

    return judged


# ---- balancers ------------------------------------------------------------------------------------------


def _balancers(estate: Estate) -> None:
    scenario, world = estate.scenario, estate.world
    capture = scenario.capture
    clock = Clock(round(capture.lb_offset_s * NS), capture.lb_drift_ppm, world.start)
    window = tuple(world.start + round(s * NS) for s in scenario.migration_s)
    old = [m.host for m in estate.members.values() if m.group.role == "old"]
    new = [m.host for m in estate.members.values() if m.group.role == "new"]
    routes: dict[int, Balancer | Proxy] = {}
    for options in scenario.lb:
        name = "lb" if len(scenario.lb) == 1 else options.name
        point = CapturePoint(estate.out / f"{name}.pcapng", ("eth0", "eth1"), clock, capture.snaplen, capture.lb_drops)
        world.points.append(point)
        snat = tuple(number(a) for a in options.snat)
        if options.reserved >= len(snat):
            raise UsageError(f"lb.{options.name}: all of its {len(snat)} snat addresses are reserved")
        balancer: Balancer | Proxy
        if options.mode == "layer7":
            box = build_host(world, options.name, snat[0], _box_options(options, world), Clock())
            balancer = Proxy(box, options, snat, estate.ledger, point)
            estate.clocks.append(_tsval_clock("lb", box))
        else:
            balancer = Balancer(world, options, snat, estate.ledger, point)
        for vip in options.vips:
            balancer.choose_server[number(vip)] = PoolChoice(world, vip, old, new, (window[0], window[1]))
        for member in estate.members.values():
            path = Path(world, scenario.path.to_server, f"{options.name} to {member.host.name}")
            balancer.wires.servers[member.host.address] = (path, member.host)
        routes.update(dict.fromkeys(snat, balancer))
        estate.balancers.append(balancer)
        estate.clocks.append(("capture", name, clock.offset / NS, clock.drift_ppm, "", "", ""))
    for member in estate.members.values():
        _wire_server(estate, member.host, routes)


def _box_options(options: BalancerOptions, world: World) -> HostOptions:
    uptime = Chance(world.seed, options.name).between(90_000, 4_000_000)
    return HostOptions(options.kernel, 250, Settings(somaxconn=4096), uptime)


def _wire_server(estate: Estate, host: Host, routes: dict[int, Balancer | Proxy]) -> None:
    world, options = estate.world, estate.scenario.path.from_server
    paths = {id(b): Path(world, options, f"{host.name} to {b.options.name}") for b in estate.balancers}

    def send(packet: Packet, time: int) -> None:
        balancer = routes.get(packet.dst)
        if balancer is not None:
            paths[id(balancer)].send(packet, time, balancer.from_server)

    host.send = send


# ---- clients --------------------------------------------------------------------------------------------


def _add_client(
    estate: Estate, name: str, address: int, options: HostOptions, ports: tuple[int, int] | None = None
) -> ClientHost:
    world, scenario = estate.world, estate.scenario
    host = build_host(world, name, address, options, Clock())
    if scenario.capture.client and not estate.clients:
        host.point = CapturePoint(estate.out / f"client-{name}.pcap", ("eth0",), Clock(), scenario.capture.snaplen)
        world.points.append(host.point)
    host.opened = _opened(estate)
    vips = {vip: b for b in estate.balancers for vip in b.choose_server}
    paths = {}
    for balancer in estate.balancers:
        paths[id(balancer)] = Path(world, scenario.path.to_lb, f"{name} to {balancer.options.name}")
        back = Path(world, scenario.path.to_client, f"{balancer.options.name} to {name}")
        balancer.wires.clients[address] = (back, host)

    def send(packet: Packet, time: int) -> None:
        balancer = vips.get(packet.dst)
        if balancer is not None:
            paths[id(balancer)].send(packet, time, balancer.from_client)

    host.send = send
    client = ClientHost(world, host, *((ports[1], ports[0]) if ports else ()))
    estate.clients[name] = client
    estate.clocks.append(_tsval_clock("client", host))
    return client


def _opened(estate: Estate):  # type: ignore[no-untyped-def]
    def opened(host: Host, packet: Packet, time: int) -> None:
        packet.row = estate.ledger.syn(packet, time)

    return opened


def _client_group(estate: Estate, group: ClientGroup) -> None:
    world = estate.world
    vips = [(number(vip), b.port) for b in estate.scenario.lb for vip in b.vips]
    for index in range(group.count):
        name = f"{group.name}{index + 1}" if group.count > 1 else group.name
        if name in estate.clients:
            raise UsageError(f"clients: two are named {name}")
        chance = Chance(world.seed, f"client {name}")
        options = HostOptions(
            group.kernel, group.hz, Settings(timestamps=min(1, group.timestamps)), chance.between(*group.uptime_s),
            group.tsval_at, chance.between(-group.skew_ppm, group.skew_ppm), group.timestamps,
        )  # fmt: skip
        try:
            client = _add_client(estate, name, number(group.address) + index, options, group.ports)
        except ValueError as error:
            raise UsageError(str(error)) from None
        for program in range(group.loggers):
            logger = Logger(client, program + 1_000 * len(estate.loggers), group.app, vips)
            estate.loggers.append(logger)
            world.at(world.start + chance.between(0, round(group.start_s * 1_000_000)) * 1_000, logger.start)


def _netcat(estate: Estate) -> None:
    options = estate.scenario.netcat
    if options is None:
        return
    world = estate.world
    chance = Chance(world.seed, "netcat")
    machine = HostOptions(
        options.kernel, options.hz, Settings(), chance.between(*options.uptime_s), options.tsval_at
    )  # fmt: skip
    client = _add_client(estate, "nc", number(options.address), machine)
    vips = [(number(vip), b.port, vip) for b in estate.scenario.lb for vip in b.vips]
    estate.netcat = Netcat(client, vips, options.every_s, options.wait_s)
    world.at(world.start + 2 * NS, estate.netcat.start)


# ---- what a scenario spells out ---------------------------------------------------------------------------


def _script(estate: Estate, script: Script) -> None:
    world = estate.world
    client, member = estate.clients.get(script.client), estate.members.get(script.server)
    if client is None or member is None:
        raise UsageError(f"script: there is no client {script.client!r} or no server {script.server!r}")
    balancer = next((b for b in estate.balancers if number(script.vip) in b.choose_server), None)
    if balancer is None:
        raise UsageError(f"script: {script.vip} is no virtual address")
    snat = number(script.snat)
    local = 20_000 + len(balancer.pins)
    balancer.pins[client.host.address, local] = (snat, script.port, member.host)
    shot = OneShot(client, (number(script.vip), balancer.options.port), local, script.timeout_s, script.lines)
    world.at(world.start + round(script.at_s * NS), shot.start)
    if script.closes_s is not None:
        member.app.planned[snat, script.port] = world.start + round(script.closes_s * NS)


def _firewalls(estate: Estate) -> None:
    for wall in estate.scenario.firewall:
        member = estate.members.get(wall.server)
        if member is None:
            raise UsageError(f"firewall: there is no server {wall.server!r}")
        member.host.filter = _Wall(estate, wall, member.host, member.host.filter).blocks


class _Wall:
    """One rule of a server's firewall, in front of the rules before it."""

    def __init__(
        self, estate: Estate, wall: Firewall, host: Host, before: Callable[[Packet, int], bool] | None
    ) -> None:
        start = estate.world.start
        self.estate, self.wall, self.host, self.before = estate, wall, host, before
        self._source = number(wall.source) if wall.source else None
        self._chance = Chance(estate.world.seed, f"firewall {wall.server} {wall.source}")
        self._window = start + round(wall.from_s * NS), start + round(min(wall.to_s, FOREVER_S) * NS)

    def blocks(self, packet: Packet, now: int) -> bool:
        """Whether *packet* ends here."""
        begin, end = self._window
        meant = packet.flags & (SYN | ACK) == SYN and begin <= now < end and self._source in (None, packet.src)
        if not meant or not self._chance.hit(self.wall.share):
            return self.before is not None and self.before(packet, now)
        said = Decision(verdict="drop", rule="firewall")
        clock = self.host.clock.show(now)
        if packet.row is not None:
            packet.row.judge(said, now, clock)
        self.estate.world.faults(now, self.host.name, "firewall", packet)
        line = probe_line(self.host, packet, said, clock)
        if line is not None:
            self.estate.probe.write(line + "\n")
        return True


class _Flooder:
    """Spoofed SYNs at a server, never completed."""

    def __init__(self, estate: Estate, flood: Flood) -> None:
        member = estate.members.get(flood.server)
        if member is None:
            raise UsageError(f"flood: there is no server {flood.server!r}")
        self.estate, self.flood, self.host = estate, flood, member.host
        self._chance = Chance(estate.world.seed, f"flood {flood.server}")
        self._base = number(flood.source)
        self._path = Path(estate.world, estate.scenario.path.to_server, f"flood to {flood.server}")

    def start(self) -> None:
        """From its first second on."""
        world = self.estate.world
        world.at(world.start + round(self.flood.from_s * NS), self._one)

    def _one(self) -> None:
        world, chance = self.estate.world, self._chance
        if world.now >= world.start + round(min(self.flood.to_s, FOREVER_S) * NS):
            return
        source, port = self._base + chance.between(2, 65_000), chance.between(1_025, 65_535)
        packet = Packet(
            source, port, self.host.address, self.estate.scenario.lb[0].port, SYN, chance.below(1 << 32), 0, 64_240,
            chance.below(1 << 32), 0, 0, syn_options(1460, 7, True), 52, chance.below(1 << 16), 0, 0,
        )  # fmt: skip
        packet.row = self.estate.ledger.syn(packet, world.now)
        packet.row.to_server(world.now, (source, port, packet.dst, packet.dport), packet.seq, packet.tsval)
        self._path.send(packet, world.now, self.host.receive)
        world.at(world.now + chance.exponential(round(NS / self.flood.per_s)), self._one)
