"""What this room hands on: flows, each SYN's journey, offsets between capture clocks, host clocks."""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from analyzer.connections import Tracked
from analyzer.schema import CLOCK, PATH, SNAT_FLOW

Records = np.ndarray[Any, np.dtype[np.void]]


@dataclass(frozen=True)
class Seen:
    """One capture and where it was taken.

    Attributes:
        name: Name of the vantage: ``lb``, ``server``, ``server1`` …
        side: ``lb``, ``server`` or ``client``.
        tracked: Its tables.
    """

    name: str
    side: str
    tracked: Tracked


@dataclass(frozen=True)
class OffsetSegment:
    """Offset between two capture clocks while neither of them steps.

    Attributes:
        start, end: First and last paired packet on the first capture's clock, ns.
        seconds: Second capture's clock minus the first's, at ``start``.
        half_width: Hard bound: the true offset at ``start`` lies within ``seconds ± half_width``; infinite where
            packets were seen in one direction only.
        drift_ppm: Rate of the second clock against the first, minus one, in parts per million.
        drift_bound: Half-width of the drift's hard bound, ppm.
        pairs: Packets seen in both captures.
        half_width_end: The same bound at ``end``, around ``seconds`` carried on by ``drift_ppm``.  Between the two
            the bound is at most what lies on the straight line between them.
    """

    start: int
    end: int
    seconds: float
    half_width: float
    drift_ppm: float
    drift_bound: float
    pairs: int
    half_width_end: float = math.nan


@dataclass(frozen=True)
class ClockOffset:
    """The clock of capture ``second`` against that of capture ``first``.

    Attributes:
        first, second: Names of the vantages.
        segments: In order of time; several where a clock stepped.
        forward, backward: float64 (n, 2): time on the first clock (s since its first packet) and apparent
            offset (s) of packets first → second (upper hull: true offset is no higher) and second → first
            (lower hull: no lower); thinned, for the figure.
        notes: What limits the estimate: steps, clocks apart within one capture, contradicting stamps.
    """

    first: str
    second: str
    segments: tuple[OffsetSegment, ...]
    forward: np.ndarray[Any, np.dtype[np.float64]]
    backward: np.ndarray[Any, np.dtype[np.float64]]
    notes: tuple[str, ...] = ()


@dataclass
class Joined:
    """Everything that several captures tell together.

    Attributes:
        flows: SNAT_FLOW records.
        paths: By vantage name, PATH records row for row beside that capture's SYN rows.
        offsets: Clock offsets of the captures, against the load balancer's where there is one.
        clocks: CLOCK records.
        notes: (kind, text): what the pairing could not do and why, for the quality section.
    """

    flows: Records = field(default_factory=lambda: np.zeros(0, SNAT_FLOW.dtype))
    paths: dict[str, Records] = field(default_factory=dict)
    offsets: list[ClockOffset] = field(default_factory=list)
    clocks: Records = field(default_factory=lambda: np.zeros(0, CLOCK.dtype))
    notes: list[tuple[str, str]] = field(default_factory=list)

    def path(self, name: str, count: int) -> Records:
        """PATH rows of a vantage; empty ones where it took no part in any pairing."""
        known = self.paths.get(name)
        return known if known is not None else blank_paths(count)


def blank_paths(count: int) -> Records:
    """PATH rows that say nothing: every time absent, no flow."""
    from analyzer.schema import LEGS, NOT_THERE
    from analyzer.units import NO_TIME

    rows = np.zeros(count, PATH.dtype)
    for name in ("time_lb_client", "time_lb_server", "time_server", "time_answered", "time_answer_lb"):
        rows[name] = NO_TIME
    rows["time_answer_client"] = NO_TIME
    rows["journey"] = rows["flow"] = rows["server"] = rows["server_row"] = -1
    rows["answer_server"] = rows["answer_lb"] = rows["answer_client"] = NOT_THERE
    rows["leg"] = LEGS.index("other")
    return rows
