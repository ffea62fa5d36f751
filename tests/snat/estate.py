"""A load balancer between clients and a server, packet by packet, and what each tap sees."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address
from pathlib import Path

from analyzer.capture import open_capture
from analyzer.connections import track
from analyzer.schema import ANSWERS
from analyzer.snat.joining import join
from analyzer.snat.model import Joined, Seen
from analyzer.units import NO_TIME
from tests.frames import A, F, P, S, Segment, write

VIP, SNAT, SERVER = "192.0.2.80", "10.20.0.101", "10.30.0.11"
WAY = 0.0002  # one hop, s


@dataclass
class Estate:
    """Taps fill as connections are told; times in seconds from the start."""

    client_side: list[Segment] = field(default_factory=list)
    server_side: list[Segment] = field(default_factory=list)
    server: list[Segment] = field(default_factory=list)

    def syn(self, time: float, client: str, port: int, snat_port: int | None, isn: int, tsval: int | None = 1, **how):
        """A client's SYN, forwarded unless *snat_port* is None; ``at_server=False`` loses it on the way."""
        first = Segment(time, client, port, VIP, 80, S, isn, tsval=tsval, ipid=how.get("ipid", 0))
        self.client_side.append(first)
        if snat_port is None:
            return
        out = replace(first, time=time + WAY, src=SNAT, sport=snat_port, dst=SERVER, dport=1120)
        out = replace(out, seq=how.get("isn_out", isn), tsval=how.get("tsval_out", tsval))
        out = replace(out, ipid=how.get("ipid_out", out.ipid))
        self.server_side.append(out)
        if how.get("at_server", True):
            seen = replace(out, time=time + 2 * WAY, seq=how.get("isn_there", out.seq))
            self.server.append(seen)

    def answer(
        self, time: float, client: str, port: int, snat_port: int, ack: int, flags: int = S | A, upto: str = "client"
    ):
        """The server's answer as it leaves at *time*; it is seen up to the tap *upto*."""
        leaves = Segment(time, SERVER, 1120, SNAT, snat_port, flags, 7000, ack=ack)
        self.server.append(leaves)
        if upto in ("lb", "client"):
            self.server_side.append(replace(leaves, time=time + WAY))
        if upto == "client":
            self.client_side.append(replace(leaves, time=time + 2 * WAY, src=VIP, sport=80, dst=client, dport=port))

    def seen(self, folder: Path, server_clock: float = 0.0, lb: str = "both", server: bool = True) -> list[Seen]:
        """Captures of it: *lb* ``both``, ``client`` or ``server`` legs; the server's clock is off by some seconds."""
        legs = {"client": self.client_side, "server": self.server_side}
        taps = [tap for name, tap in legs.items() if lb in ("both", name)]
        files = [str(_file(folder / f"lb{i}.pcap", tap)) for i, tap in enumerate(taps) if tap]
        result = [Seen("lb", "lb", track(open_capture(files, "lb", digests=True)))]
        if server:
            late = [replace(s, time=s.time + server_clock) for s in self.server]
            path = str(_file(folder / "server.pcap", late))
            result.append(Seen("server", "server", track(open_capture([path], "server", digests=True))))
        return result


def _file(path: Path, tap: Sequence[Segment]) -> Path:
    return write(path, sorted(tap, key=lambda s: s.time))


def talk(tap: list[Segment], time: float, ends: tuple[str, int, str, int], isn: int, said: bytes, told: bytes):
    """A whole connection on one leg: handshake, a request 1 ms later, the response *told* 2 ms after it, FINs."""
    src, sport, dst, dport = ends

    def up(at: float, flags: int, seq: int, ack: int = 0, payload: bytes = b"") -> None:
        tap.append(Segment(at, src, sport, dst, dport, flags, seq, ack, payload=payload))

    def down(at: float, flags: int, seq: int, ack: int, payload: bytes = b"") -> None:
        tap.append(Segment(at, dst, dport, src, sport, flags, seq, ack, payload=payload))

    up(time, S, isn)
    down(time + 0.0001, S | A, isn + 500, isn + 1)
    up(time + 0.0002, A, isn + 1, isn + 501)
    if said:
        up(time + 0.001, A | P, isn + 1, isn + 501, said)
        down(time + 0.003, A | P, isn + 501, isn + 1 + len(said), told)
    up(time + 0.02, F | A, isn + 1 + len(said), isn + 501 + len(told))
    down(time + 0.0201, F | A, isn + 501 + len(told), isn + 2 + len(said))
    up(time + 0.0202, A, isn + 2 + len(said), isn + 502 + len(told))


def four(flow) -> tuple[str, int, str, int, str, int, str, int]:
    """The eight numbers of a flow."""
    result = []
    for end in ("client", "vip", "snat", "server"):
        result += [str(IPv4Address(int(flow[f"{end}_lo"]) & 0xFFFFFFFF)), int(flow[f"{end}_p"])]
    return tuple(result)


def joined_of(estate: Estate, folder: Path, **how) -> tuple[Joined, list[Seen]]:
    """The estate's captures, joined."""
    seen = estate.seen(folder, **how)
    return join(seen), seen


def word(answer: int) -> str | None:
    """An answer code as its word; None for a place where the SYN was not seen."""
    return None if answer == 255 else ANSWERS[answer]


def seconds(time: int, base: int = 1_500_000_000) -> float | None:
    """A time of a table in seconds from the start, None if absent."""
    return None if time == NO_TIME else round(time / 1e9 - base, 6)
