"""What figures are drawn from: SYN rows and connections of the captures that tell most, on one clock."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from analyzer.connections.names import host_texts
from analyzer.diagnosis.clock import CommonClock
from analyzer.diagnosis.decide import Journeys
from analyzer.diagnosis.model import Analysis, Vantage
from analyzer.schema import CAUSE, CAUSES, CONNECTION, HOST, OPT_TS, SYN_ROW, VERDICT
from analyzer.units import NO_TIME, NS

Records = np.ndarray[Any, np.dtype[np.void]]

MOST_ROWS = 400_000
ANSWERED = CAUSES.index("answered")


@dataclass(frozen=True)
class Points:
    """SYN rows, row for row beside what is known of each.

    Attributes:
        syns, verdicts: SYN_ROW and VERDICT records.
        causes: uint8, index in CAUSES.
        seconds: float64, since the captures began, on one clock.
        vantage: int16, index in the analysis' vantages.
        sources: Address texts that ``source`` indexes.
        source: int32, the SYN's source address.
    """

    syns: Records
    verdicts: Records
    causes: Any
    seconds: Any
    vantage: Any
    source: Any
    sources: list[str]

    def __len__(self) -> int:
        return len(self.syns)

    def where(self, keep: Any) -> "Points":
        """The rows of a mask or of indices."""
        return Points(
            self.syns[keep], self.verdicts[keep], self.causes[keep], self.seconds[keep], self.vantage[keep],
            self.source[keep], self.sources,
        )  # fmt: skip

    @property
    def with_timestamps(self) -> "Points":
        """Only SYNs that carry a TSval."""
        return self.where((self.syns["opts"] & OPT_TS) > 0)


class View:
    """The rows that several figures share, each collected once."""

    def __init__(self, analysis: Analysis) -> None:
        self.analysis = analysis
        self.clock = CommonClock(analysis.vantages, analysis.joined)

    @cached_property
    def judged(self) -> list[int]:
        """Indices of the captures taken on servers, or of the decisive one where there is none."""
        all_ = enumerate(self.analysis.vantages)
        servers = [i for i, v in all_ if v.side == "server" and v.replayed is not None and len(v.causes)]
        return servers or [0]

    @cached_property
    def start(self) -> int:
        """When the earliest capture began, ns on the reference clock."""
        firsts = [int(self.aligned(v, np.array([v.tracked.first_time]))[0]) for v in self.analysis.vantages]
        return min((t for t in firsts if t != NO_TIME), default=0)

    def aligned(self, vantage: Vantage, times: Any) -> Any:
        """Times of a capture on the reference clock, ns."""
        return self.clock.times(vantage.name, np.asarray(times, np.int64))

    def since_start(self, vantage: Vantage, times: Any) -> Any:
        """Seconds since the captures began."""
        return (self.aligned(vantage, times) - self.start) / NS

    @cached_property
    def servers(self) -> Points:
        """SYNs as the servers' captures show them."""
        return self._points(self.judged)

    @cached_property
    def outcomes(self) -> Points:
        """Every SYN once, by the row that decides over it, however many captures saw it."""
        journeys = Journeys.of(self.analysis.vantages, self.analysis.joined)
        everywhere = range(len(self.analysis.vantages))
        return self._points(list(everywhere), [journeys.decides(i) for i in everywhere])

    @cached_property
    def clients(self) -> set[str]:
        """Addresses of clients in front of a load balancer."""
        flows = self.analysis.joined.flows
        hosts = np.unique(flows[["client_hi", "client_lo", "client_v6"]])
        hosts.dtype.names = ("hi", "lo", "v6")
        return set(host_texts(hosts.astype(HOST.dtype)))

    @cached_property
    def reused(self) -> list[tuple[int, Records]]:
        """(vantage index, CONNECTION records) that follow another on the same four numbers."""
        return [(i, self._connections(i)) for i in self.judged]

    def _connections(self, index: int) -> Records:
        parts = [c[c["previous"] >= 0] for c in self.analysis.vantages[index].tracked.connections.chunks()]
        return np.concatenate(parts)[:MOST_ROWS] if parts else np.zeros(0, CONNECTION.dtype)

    def _points(self, indices: list[int], counted: list[Any] | None = None) -> Points:
        """Very long captures keep every failed SYN and a share of the others."""
        total = sum(len(self.analysis.vantages[i].tracked.syns) for i in indices)
        step = 1 + total // MOST_ROWS
        masks = counted or [np.ones(len(self.analysis.vantages[i].tracked.syns), np.bool_) for i in indices]
        parts = [part for i, mask in zip(indices, masks, strict=True) for part in self._parts(i, mask, step)]
        if not parts:
            nothing = np.zeros(0, np.int64)
            return Points(
                np.zeros(0, SYN_ROW.dtype), np.zeros(0, VERDICT.dtype), nothing, nothing / 1.0, nothing, nothing, []
            )
        syns, verdicts, causes, seconds, vantage = (np.concatenate([p[k] for p in parts]) for k in range(5))
        source, sources = self._sources(syns, vantage)
        return Points(syns, verdicts, causes, seconds, vantage, source, sources)

    def _parts(self, index: int, counted: Any, step: int) -> list[tuple[Any, ...]]:
        vantage = self.analysis.vantages[index]
        if vantage.replayed is None or len(vantage.causes) != len(vantage.tracked.syns):
            return []
        parts, first = [], 0
        chunks = (vantage.tracked.syns.chunks(), vantage.replayed.verdicts.chunks(), vantage.causes.chunks())
        for syns, verdicts, causes in zip(*chunks, strict=True):
            assert causes.dtype == CAUSE.dtype
            keep = (causes["cause"] != ANSWERED) | (np.arange(len(syns)) % step == 0)
            keep &= counted[first : first + len(syns)]
            first += len(syns)
            rows = syns[keep]
            times = self.since_start(vantage, rows["time"])
            parts.append((rows, verdicts[keep], causes["cause"][keep], times, np.full(len(rows), index, np.int16)))
        return parts

    def _sources(self, syns: Records, vantage: Any) -> tuple[Any, list[str]]:
        """The same address has one number in all captures."""
        numbers: dict[str, int] = {}
        source = np.zeros(len(syns), np.int32)
        for index in np.unique(vantage).tolist():
            names = host_texts(self.analysis.vantages[index].tracked.hosts)
            mine = vantage == index
            hosts, inverse = np.unique(syns["orig"][mine], return_inverse=True)
            codes = [numbers.setdefault(names[h], len(numbers)) for h in hosts.tolist()]
            source[mine] = np.array(codes, np.int32)[inverse]
        return source, list(numbers)
