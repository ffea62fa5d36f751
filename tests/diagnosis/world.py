"""A client, a load balancer and a server as packets: each packet is seen where the case says, and nowhere else."""

from collections.abc import Sequence
from pathlib import Path

from tests.frames import A, F, P, R, S, Segment, write

CLIENT, VIP, SNAT, SERVER = "10.0.0.5", "10.1.0.1", "10.2.0.9", "10.2.0.1"
EVERYWHERE = ("client", "lb", "server")
STEP = 0.00005


class World:
    """Packets of one estate; times are seconds, the client's ISN is made from its port."""

    def __init__(self) -> None:
        self.seen: dict[str, list[Segment]] = {"lb": [], "server": []}

    def up(self, time: float, port: int, flags: int, at: Sequence[str] = EVERYWHERE, **fields) -> None:
        """A packet of the client on its way to the server."""
        for hop, place in enumerate(EVERYWHERE):
            if place in at:
                self._put(place, time + hop * STEP, port, True, flags, **fields)

    def down(self, time: float, port: int, flags: int, at: Sequence[str] = EVERYWHERE, **fields) -> None:
        """A packet of the server on its way back."""
        for hop, place in enumerate(reversed(EVERYWHERE)):
            if place in at:
                self._put(place, time + hop * STEP, port, False, flags, **fields)

    def _put(self, place: str, time: float, port: int, up: bool, flags: int, **fields) -> None:
        near, far = (CLIENT, VIP) if place == "client" else (SNAT, SERVER)
        ends = (near, port, far, 80) if up else (far, 80, near, port)
        segment = Segment(time, *ends, flags, **{"ipid": port if up else 0, **fields})
        self.seen["server" if place == "server" else "lb"].append(segment)

    def syn(self, time: float, port: int, at: Sequence[str] = EVERYWHERE, tsval: int | None = -1) -> None:
        """A SYN; its timestamp runs in milliseconds unless given, None for none."""
        self.up(time, port, S, at, seq=port * 1000, tsval=round(1_000_000 + time * 1000) if tsval == -1 else tsval)

    def syn_ack(self, time: float, port: int, at: Sequence[str] = EVERYWHERE) -> None:
        """The SYN-ACK to it."""
        self.down(time, port, S | A, at, seq=port * 2000, ack=port * 1000 + 1, tsval=round(5_000_000 + time * 1000))

    def opened(self, time: float, port: int, at: Sequence[str] = EVERYWHERE) -> None:
        """A handshake and a request, not answered by the application."""
        self.syn(time, port, at)
        self.syn_ack(time + 0.0002, port, at)
        stamp = round(1_000_000 + time * 1000)
        self.up(time + 0.0004, port, A, at, seq=port * 1000 + 1, ack=port * 2000 + 1, tsval=stamp)
        self.up(
            time + 0.0005, port, A | P, at, seq=port * 1000 + 1, ack=port * 2000 + 1, tsval=stamp, payload=b"x" * 10
        )

    def served(self, time: float, port: int, by_client: bool = True) -> None:
        """A whole connection; the client closes first, or the server."""
        self.opened(time, port)
        self.answered(time + 0.001, port)
        stamp = round(1_000_000 + time * 1000)
        client = {"seq": port * 1000 + 11, "ack": port * 2000 + 6, "tsval": stamp}
        server = {"seq": port * 2000 + 6, "ack": port * 1000 + 11, "tsval": 5_000_000}
        first, second = (self.up, self.down) if by_client else (self.down, self.up)
        one, other = (client, server) if by_client else (server, client)
        first(time + 0.002, port, F | A, **one)
        second(time + 0.003, port, F | A, **{**other, "ack": other["ack"] + 1})
        first(time + 0.004, port, A, **{**one, "seq": one["seq"] + 1, "ack": one["ack"] + 1})

    def answered(self, time: float, port: int) -> None:
        """The application's answer."""
        self.down(time, port, A | P, seq=port * 2000 + 1, ack=port * 1000 + 11, tsval=5_000_000, payload=b"yes!!")

    def reset(self, time: float, port: int, at: Sequence[str] = EVERYWHERE) -> None:
        """The server's RST to a SYN."""
        self.down(time, port, R | A, at, seq=0, ack=port * 1000 + 1)

    def healthy(self, ports: range, start: float = 0.0, step: float = 0.1) -> None:
        """Whole connections, one after the other."""
        for number, port in enumerate(ports):
            self.served(start + number * step, port)

    def files(self, folder: Path) -> dict[str, str]:
        """Captures at the load balancer (both sides) and at the server."""
        return {
            name: str(write(folder / f"{name}.pcap", sorted(segments, key=lambda s: s.time)))
            for name, segments in self.seen.items()
        }
