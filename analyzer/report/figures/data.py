"""What figures are drawn from: the SYN rows of the decisive capture, thinned where there are very many."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from analyzer.connections.names import host_text
from analyzer.diagnosis.model import Analysis
from analyzer.schema import CAUSES, OPT_TS, SYN_ROW, VERDICT

Records = np.ndarray[Any, np.dtype[np.void]]

MOST_ROWS = 400_000


@dataclass
class Points:
    """SYN rows with verdicts and cause ids, row for row, at most MOST_ROWS of them."""

    analysis: Analysis
    syns: Records
    verdicts: Records
    causes: Any

    def address(self, host: int) -> str:
        """Address of a host id."""
        return host_text(self.analysis.main.tracked.hosts, host)


def points(analysis: Analysis) -> Points:
    """Collect the rows; very long captures keep every failed SYN and a share of the others."""
    vantage = analysis.main
    assert vantage.replayed is not None
    step = 1 + len(vantage.tracked.syns) // MOST_ROWS
    parts: list[tuple[Records, Records, Any]] = []
    chunks = zip(
        vantage.tracked.syns.chunks(), vantage.replayed.verdicts.chunks(), vantage.causes.chunks(), strict=True
    )
    for syns, verdicts, causes in chunks:
        keep = (causes["cause"] != CAUSES.index("answered")) | (np.arange(len(syns)) % step == 0)
        parts.append((syns[keep], verdicts[keep], causes["cause"][keep]))
    if not parts:
        return Points(analysis, np.zeros(0, SYN_ROW.dtype), np.zeros(0, VERDICT.dtype), np.zeros(0, np.uint8))
    syns, verdicts, cause = (np.concatenate([p[i] for p in parts]) for i in range(3))
    return Points(analysis, syns, verdicts, cause)


def with_timestamps(data: Points) -> Points:
    """Only SYNs that carry a TSval."""
    keep = (data.syns["opts"] & OPT_TS) > 0
    return Points(data.analysis, data.syns[keep], data.verdicts[keep], data.causes[keep])
