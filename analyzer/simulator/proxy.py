"""A layer-7 load balancer: it ends the client's connection and opens one of its own to a pool member."""

from dataclasses import dataclass
from typing import Any

from analyzer.kernel.events import ACK, SYN, Accept, Close, Decision, Key, Send
from analyzer.kernel.sockets import Connection
from analyzer.simulator.balancer import CLIENT_SIDE, SERVER_SIDE, BalancerOptions, Flow, PoolChoice, Wires
from analyzer.simulator.hosts import Host
from analyzer.simulator.recorder import CapturePoint
from analyzer.simulator.truth import Ledger
from analyzer.simulator.world import US, Chance, Packet

BACKLOG = 1024


@dataclass(slots=True)
class Relay:
    """A client's connection and the one behind it; bytes that came before the second was up."""

    front: Key
    back: Key
    waiting: int = 0
    up: bool = False


class Proxy:
    """Has the face of ``balancer.Balancer``; ``box`` is its own TCP stack."""

    def __init__(
        self, box: Host, options: BalancerOptions, snat: tuple[int, ...], ledger: Ledger, point: CapturePoint
    ) -> None:
        self.world, self.options, self.ledger, self.point, self.box = box.world, options, ledger, point, box
        self.wires = Wires()
        self.choose_server: dict[int, PoolChoice] = {}
        self.pins: dict[tuple[int, int], tuple[int, int, Host]] = {}
        self.by_client: dict[tuple[int, int, int, int], Flow] = {}
        self.by_server: dict[tuple[int, int, int, int], Flow] = {}
        self._snat = snat
        self._relays: dict[Key, Relay] = {}
        self._salts: dict[Key, int] = {}
        self._chance = Chance(box.world.seed, f"lb {options.name}")
        self._next = options.ports[0]
        box.kernel.listen(options.port, BACKLOG)
        box.application = self
        box.send, box.judged, box.opened = self._send, self._judged, self._opened

    # ---- packets ----------------------------------------------------------------------------------

    def from_client(self, packet: Packet) -> None:
        """A packet arrives on the client side."""
        self.point.rows.append(packet.record(self.world.now, CLIENT_SIDE))
        if packet.row is not None:
            packet.row.at_lb(self.world.now)
        self._hear(packet)

    def from_server(self, packet: Packet) -> None:
        """A packet arrives on the server side."""
        self.point.rows.append(packet.record(self.world.now, SERVER_SIDE))
        if packet.row is not None:
            packet.row.answered_at_lb(self.world.now)
            packet.row.answered_to_client(self.world.now)
        self._hear(packet)

    def _hear(self, packet: Packet) -> None:
        if packet.length:
            self._salts[packet.dst, packet.dport, packet.src, packet.sport] = packet.salt
        self.box.receive(packet)

    def _send(self, packet: Packet, time: int) -> None:
        key: Key = (packet.src, packet.sport, packet.dst, packet.dport)
        relay = self._relays.get(key)
        if packet.length and relay is not None:
            other = relay.back if key == relay.front else relay.front
            packet.salt = self._salts.get(other, packet.salt)
        inside = packet.dst in self.wires.servers
        self.point.rows.append(packet.record(time, SERVER_SIDE if inside else CLIENT_SIDE))
        if inside:
            if packet.row is not None and packet.flags & (SYN | ACK) == SYN:
                packet.row.to_server(time, key, packet.seq, packet.tsval)
            path, host = self.wires.servers[packet.dst]
            path.send(packet, time, host.receive)
            return
        if packet.row is not None:
            packet.row.answered_at_lb(time)
            packet.row.answered_to_client(time)
        if packet.dst in self.wires.clients:
            path, host = self.wires.clients[packet.dst]
            path.send(packet, time, host.receive)

    def _judged(self, host: Host, packet: Packet, decision: Decision) -> None:
        if packet.row is not None and packet.flags & (SYN | ACK) == SYN:
            packet.row.judge(decision, self.world.now, self.world.now)

    def _opened(self, host: Host, packet: Packet, time: int) -> None:
        packet.row = self.ledger.syn(packet, time)
        packet.row.at_lb(time)

    # ---- connections --------------------------------------------------------------------------------

    def notice(self, word: str, key: Key, size: int) -> None:
        """The box's kernel tells."""
        relay = self._relays.get(key)
        if word == "ready":
            self.world.at(self.world.now + 20 * US, self._accept)
        elif word == "taken":
            self._open(key, size)
        elif relay is None:
            return
        elif word == "connected":
            relay.up = True
            self._forward(relay.back, relay.waiting)
        elif word == "data" and (relay.up or key == relay.back):
            self._forward(relay.back if key == relay.front else relay.front, size)
        elif word == "data":
            relay.waiting += size
        elif word == "eof":
            self._finish(relay, reset=False)
        else:
            self._finish(relay, reset=word in ("reset", "refused", "timeout"))

    def _accept(self) -> None:
        self.box.act(Accept(self.box.own_time(), self.options.port))

    def _open(self, front: Key, waiting: int) -> None:
        address = front[0]
        assert isinstance(address, int)
        member = self.choose_server[address].pick(self.world.now)
        back = self._free(member.address)
        if back is None:
            self.box.act(Close(self.box.own_time(), front, reset=True))
            return
        relay = Relay(front, back, waiting)
        self._relays[front] = self._relays[back] = relay
        client = (front[2], front[3], front[0], front[1])
        ends: tuple[Any, Any] = (client, back)
        flow = Flow(*ends, member, 0, self.world.now)
        self.by_server[flow.server] = flow
        self.ledger.flow(self.world.now, flow.client, flow.server)
        self.box.connect(back[1], member.address, self.options.port, back[0])

    def _free(self, server: int) -> Key | None:
        low, high = self.options.ports
        snat = self._snat[self._chance.below(len(self._snat))]
        for _ in range(high - low + 1):
            port, self._next = self._next, self._next + 1 if self._next < high else low
            key = (snat, port, server, self.options.port)
            if key not in self.box.kernel.table:
                return key
        return None

    def _forward(self, key: Key, size: int) -> None:
        if size:
            self.box.act(Send(self.box.own_time(), key, size))

    def _finish(self, relay: Relay, reset: bool) -> None:
        """Both connections end with the first of them."""
        for key in (relay.front, relay.back):
            self._relays.pop(key, None)
        back: Any = relay.back
        flow = self.by_server.pop(back, None)
        if flow is not None:
            self.ledger.flow_ended(self.world.now, flow.client, flow.server)
        for key in (relay.front, relay.back):
            if isinstance(self.box.kernel.table.get(key), Connection):
                self.box.act(Close(self.box.own_time(), key, reset))
            self._salts.pop(key, None)
