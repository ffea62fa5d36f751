"""Which row speaks for a SYN that several captures saw: the one nearest to the server."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from analyzer.diagnosis.coverage import CLIENT_LEG, LB_SERVER_LEG, OTHER_LEG, SERVER_LEG
from analyzer.diagnosis.model import Vantage
from analyzer.snat.model import Joined

Records = np.ndarray[Any, np.dtype[np.void]]
Array = np.ndarray[Any, Any]

_RANK = np.zeros(4, np.int8)
_RANK[[SERVER_LEG, LB_SERVER_LEG, OTHER_LEG, CLIENT_LEG]] = (0, 1, 2, 3)


@dataclass
class Journeys:
    """Every SYN row of all captures, and the row that decides over it.

    Rows are numbered through all captures, in their order; ``starts`` is each capture's first number.

    Attributes:
        starts: int64 (captures + 1).
        speaker: For each row the row that speaks for its journey, itself where it travels alone.
        attempt: For each row an id of its connection attempt, the one of the client where that was seen.
    """

    starts: Array
    speaker: Array
    attempt: Array

    @classmethod
    def of(cls, vantages: Sequence[Vantage], joined: Joined) -> "Journeys":
        """Group the rows of all captures by journey."""
        counts = [len(vantage.tracked.syns) for vantage in vantages]
        starts = np.concatenate(([0], np.cumsum(counts))).astype(np.int64)
        total = int(starts[-1])
        speaker = np.arange(total)
        attempt = np.concatenate([np.zeros(0, np.int64), *(_attempts(v, i) for i, v in enumerate(vantages))])
        parts = [joined.path(v.name, n)[["journey", "leg"]] for v, n in zip(vantages, counts, strict=True)]
        if not joined.paths or not total:
            return cls(starts, speaker, attempt)
        rows = np.concatenate(parts)
        member = np.flatnonzero(rows["journey"] >= 0)
        journey, rank = rows["journey"][member], _RANK[rows["leg"][member]]
        order = np.lexsort((member, rank, journey))
        member, journey = member[order], journey[order]
        opens = np.concatenate(([True], journey[1:] != journey[:-1])) if len(member) else np.zeros(0, np.bool_)
        group = np.cumsum(opens) - 1
        closes = np.concatenate((opens[1:], [True])) if len(member) else opens
        speaker[member] = member[opens][group]
        attempt[member] = attempt[member[closes]][group]
        return cls(starts, speaker, attempt)

    def decides(self, vantage: int) -> Array:
        """Whether each row of a capture speaks for itself."""
        mine = slice(int(self.starts[vantage]), int(self.starts[vantage + 1]))
        return self.speaker[mine] == np.arange(mine.start, mine.stop)

    def repeated(self) -> Array:
        """Whether each row's attempt has several SYNs, each counted once."""
        lead = self.speaker == np.arange(len(self.speaker))
        _, group, count = np.unique(self.attempt[lead], return_inverse=True, return_counts=True)
        several = np.zeros(len(self.speaker), np.bool_)
        several[lead] = count[group.ravel()] > 1
        return several[self.speaker]

    def spread(self, causes: Records) -> None:
        """Give every row of a journey the cause of the row that speaks for it, in place."""
        causes[:] = causes[self.speaker]


def _attempts(vantage: Vantage, index: int) -> Array:
    """Ids of connection attempts: capture and connection."""
    parts = [chunk["conn"].astype(np.int64) for chunk in vantage.tracked.syns.chunks()]
    conns = np.concatenate([np.zeros(0, np.int64), *parts])
    return conns | index << 40
