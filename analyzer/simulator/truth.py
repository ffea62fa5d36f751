"""What really happened: one row per SYN, the SNAT table, the clocks, the injected faults."""

import csv
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from analyzer.kernel.events import ACK, RST, SYN, Decision
from analyzer.simulator.world import NS, Packet

SYN_COLUMNS = (
    "time_client", "client_h", "client_p", "vip_h", "vip_p", "isn", "tsval", "attempt", "time_lb_in", "time_lb_out",
    "snat_h", "snat_p", "server_h", "server_p", "server_isn", "server_tsval", "time_server", "server_clock",
    "verdict", "rule", "compared_tsval", "compared_second", "third_ack", "answer", "time_answered", "time_answer_lb",
    "time_answer_client", "causes",
)  # fmt: skip
FLOW_COLUMNS = (
    "start", "end", "client_ip", "client_port", "vip", "vport", "snat_ip", "snat_port", "server_ip", "server_port",
)  # fmt: skip
SETTLED_NS = 40 * NS
"""How long after a SYN nothing more can happen to its row."""
CAUSE_OF_RULE = {
    "peer_timestamp": "peer_timestamp",
    "peer_timestamp_missing": "peer_timestamp",
    "time_wait_paws": "time_wait_paws",
    "time_wait_sequence": "time_wait_sequence",
    "time_wait_paws_rate_limited": "time_wait_paws",
    "time_wait_sequence_rate_limited": "time_wait_sequence",
    "fin_wait2_ack": "time_wait_paws|time_wait_sequence|established_collision",
    "fin_wait2_rate_limited": "time_wait_paws|time_wait_sequence|established_collision",
    "fin_wait2_reset": "refused|established_collision",
    "accept_queue_full": "accept_queue_full",
    "syn_queue_full": "syn_queue_full",
    "last_quarter": "syn_queue_full",
    "no_listener": "refused",
    "firewall": "server_silent",
}
"""Acceptable cause words for a SYN that a rule refused; rules not here are met by an open or half-open socket."""


def address(number: int) -> str:
    """An IPv4 address as text."""
    return ".".join(str(number >> shift & 255) for shift in (24, 16, 8, 0))


def seconds(time: int) -> str:
    """Ns since 1970 as seconds with nine decimals; empty for 0."""
    return f"{time // NS}.{time % NS:09d}" if time else ""


@dataclass(slots=True)
class SynRow:
    """One SYN packet's life."""

    time: int
    client: tuple[int, int, int, int]
    isn: int
    tsval: int
    attempt: int
    lb_in: int = 0
    lb_out: int = 0
    server: tuple[int, int, int, int] | None = None
    server_isn: int = 0
    server_tsval: int = -1
    arrived: int = 0
    server_clock: int = 0
    verdict: str = ""
    rule: str = ""
    compared: tuple[int, int] | None = None
    third: str = ""
    answer: str = "none"
    answered: int = 0
    answer_lb: int = 0
    answer_client: int = 0
    lost_on: str = ""
    ported: bool = True

    def lost(self, syn: bool, where: str) -> None:
        """It, or its answer, was lost."""
        self.lost_on = self.lost_on or ("" if syn else "answer ") + where

    def at_lb(self, time: int) -> None:
        """It arrived at the balancer."""
        self.lb_in = self.lb_in or time

    def no_port(self) -> None:
        """The balancer had no source port for it."""
        self.ported = False

    def to_server(self, time: int, server: tuple[int, int, int, int], isn: int, tsval: int) -> None:
        """It left the balancer."""
        if not self.lb_out:
            self.lb_out, self.server, self.server_isn, self.server_tsval = time, server, isn, tsval

    def answered_at_lb(self, time: int) -> None:
        """Its answer came back to the balancer."""
        self.answer_lb = self.answer_lb or time

    def answered_to_client(self, time: int) -> None:
        """Its answer went on to the client."""
        self.answer_client = self.answer_client or time

    def judge(self, decision: Decision, now: int, clock: int) -> None:
        """What the server decided."""
        if self.arrived:
            return
        self.arrived, self.server_clock = now, clock
        self.verdict, self.rule, self.compared = decision.verdict, decision.rule, decision.compared
        for reply in decision.replies:
            flags = reply.flags & (SYN | ACK | RST)
            if not reply.length and not reply.again:
                self.answer = "rst" if flags & RST else "syn_ack" if flags & SYN else "ack"
                self.answered = now

    def causes(self) -> str:
        """Acceptable cause words, joined by ``|``; empty where no capture of the estate saw it."""
        if not self.lb_in:
            return ""
        if not self.ported:
            return "not_forwarded"
        if not self.arrived:
            return "lost_before_server" if self.lost_on else ""
        if self.rule == "syn_recv_rate_limited":
            return "answered|syn_ack_lost|server_silent|established_collision"
        if self.verdict in ("accept", "cookie"):
            if not self.answer_lb:
                late = "answered|" if self.third == "accepted" else ""
                return late + "syn_ack_lost|answer_not_forwarded"
            late = "|accept_queue_full" if self.third in ("dropped", "reset") else ""
            return ("answered" if self.answer_client else "answer_not_forwarded") + late
        return CAUSE_OF_RULE.get(self.rule, "established_collision")

    def cells(self) -> tuple[Any, ...]:
        """The row of ``SYN_COLUMNS``."""
        client, cport, vip, vport = self.client
        server = ("", "", "", "")
        if self.server is not None:
            server = (address(self.server[0]), self.server[1], address(self.server[2]), self.server[3])  # type: ignore[assignment]
        seen = self.server is not None
        return (
            seconds(self.time), address(client), cport, address(vip), vport, self.isn, _optional(self.tsval),
            self.attempt, seconds(self.lb_in), seconds(self.lb_out), *server, self.server_isn if seen else "",
            _optional(self.server_tsval), seconds(self.arrived), seconds(self.server_clock), self.verdict, self.rule,
            *(self.compared or ("", "")), self.third, self.answer if self.arrived else "", seconds(self.answered),
            seconds(self.answer_lb), seconds(self.answer_client), self.causes(),
        )  # fmt: skip


def _optional(value: int) -> int | str:
    return "" if value < 0 else value


class Ledger:
    """The ``truth/`` folder, written as the simulation goes; only open ends stay in memory."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._files: list[TextIO] = []
        self._syns = self._table(folder / "syns.csv", SYN_COLUMNS)
        self._flows = self._table(folder / "snat_truth.csv", FLOW_COLUMNS)
        self._faults = self._table(
            folder / "faults.csv",
            ("time", "where", "kind", "src", "sport", "dst", "dport", "flags", "seq", "ack", "length"),
        )
        self._waiting: deque[SynRow] = deque()
        self._open: dict[tuple[int, int, int, int], int] = {}
        self._pending: dict[tuple[int, int, int, int], SynRow] = {}
        self.syns = 0

    def _table(self, path: Path, columns: tuple[str, ...]) -> Any:
        file = path.open("w", newline="")
        self._files.append(file)
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        return writer

    def syn(self, packet: Packet, time: int) -> SynRow:
        """A client sends a SYN: its row begins."""
        client = (packet.src, packet.sport, packet.dst, packet.dport)
        last = self._pending.get(client)
        attempt = last.attempt + 1 if last is not None and last.isn == packet.seq else 1
        row = SynRow(time, client, packet.seq, packet.tsval, attempt)
        self._pending[client] = row
        self._waiting.append(row)
        self.syns += 1
        return row

    def third_ack(self, server: tuple[int, int, int, int], outcome: str, rows: dict[Any, SynRow]) -> None:
        """What became of a handshake's last ACK; the first word stays unless the ACK is taken later."""
        row = rows.get(server)
        if row is not None and not row.third:
            row.third = outcome

    def flow(self, now: int, client: tuple[int, int, int, int], server: tuple[int, int, int, int]) -> None:
        """A translation begins."""
        self._open[server] = now

    def flow_ended(self, now: int, client: tuple[int, int, int, int], server: tuple[int, int, int, int]) -> None:
        """A translation ends."""
        start = self._open.pop(server, None)
        if start is not None:
            self._flows.writerow([seconds(start), seconds(now), *_tuple(client), *_tuple(server)])

    def fault(self, time: int, where: str, kind: str, packet: Packet) -> None:
        """Something was done to a packet on purpose."""
        self._faults.writerow(
            [seconds(time), where, kind, address(packet.src), packet.sport, address(packet.dst), packet.dport,
             packet.flags, packet.seq, packet.ack, packet.length]
        )  # fmt: skip

    def settle(self, horizon: int) -> None:
        """Write the rows of SYNs that are long past."""
        while self._waiting and self._waiting[0].time < horizon - SETTLED_NS:
            row = self._waiting.popleft()
            if self._pending.get(row.client) is row:
                del self._pending[row.client]
            self._syns.writerow(row.cells())

    def close(self, end: int, open_flows: Any) -> None:
        """Write what is left."""
        for flow in open_flows:
            self.flow_ended(end, flow.client, flow.server)
        self.settle(end + 2 * SETTLED_NS)
        for file in self._files:
            file.close()


def _tuple(four: tuple[int, int, int, int]) -> tuple[Any, ...]:
    return address(four[0]), four[1], address(four[2]), four[3]


def write_rows(path: Path, columns: tuple[str, ...], rows: list[tuple[Any, ...]]) -> None:
    """A small CSV file."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)
