"""The capture clock set back during the capture: order in a file is order of arrival.

Up to 4.18 the second stamps follow the server's wall clock, so a capture taken there shows what the
kernel saw; timers do not follow it.  The replay therefore counts on a time that never runs back, and
asks here for the wall clock's second.  A step forward cannot be told from a pause.
"""

from bisect import bisect_right
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from analyzer.connections import Tracked
from analyzer.spool import Spool
from analyzer.units import MS, NO_TIME

STEP = 500 * MS
"""Packets of one clock are not written this much out of order."""


@dataclass(frozen=True)
class Steps:
    """Where the clock was set back.

    Attributes:
        events: Number of the first event after each step.
        starts: The same events' times on the clock that never runs back, ns.
        shifts: What to add to capture times from there on, ns; the first is for the time before any step.
    """

    events: tuple[int, ...] = ()
    starts: tuple[int, ...] = ()
    shifts: tuple[int, ...] = (0,)

    def wall(self, time: int) -> int:
        """Capture time of a time that never runs back."""
        return time if time == NO_TIME else time - self.shifts[bisect_right(self.starts, time)]

    def straighten(self, rows: Any, first: int) -> Any:
        """EVENT records with times that never run back; *first* is the number of the first of them."""
        if not self.events:
            return rows
        rows = rows.copy()
        shifts, starts = np.array(self.shifts), np.array([NO_TIME, *self.starts])
        epoch = np.searchsorted(self.events, first + np.arange(len(rows)), "right")
        rows["time"] += shifts[epoch]
        stored, told = rows["ts_recent_time"].copy(), rows["ts_recent_time"] != NO_TIME
        for _ in self.events:  # a stamp may have been stored before the last step, or the one before it
            moved = stored + shifts[epoch]
            outside = told & (epoch > 0) & ((moved < starts[epoch]) | (moved > rows["time"]))
            epoch = epoch - outside
        rows["ts_recent_time"] = np.where(told, np.minimum(stored + shifts[epoch], rows["time"]), NO_TIME)
        return rows


NO_STEPS = Steps()
_KNOWN: WeakKeyDictionary[Spool, Steps] = WeakKeyDictionary()


def steps_of(tracked: Tracked) -> Steps:
    """Where a capture's clock was set back by more than :data:`STEP`."""
    known = _KNOWN.get(tracked.events)
    if known is None:
        known = _KNOWN[tracked.events] = _find(tracked)
    return known


def _find(tracked: Tracked) -> Steps:
    events: list[int] = []
    starts: list[int] = []
    shifts = [0]
    number, last = 0, NO_TIME
    for rows in tracked.events.chunks():
        times = rows["time"]
        before = np.concatenate(([last if last != NO_TIME else times[0]], times[:-1]))
        for index in np.flatnonzero(times < before - STEP).tolist():
            start = int(before[index]) + shifts[-1] + 1
            events.append(number + index)
            starts.append(start)
            shifts.append(start - int(times[index]))
        number, last = number + len(rows), int(times[-1])
    return Steps(tuple(events), tuple(starts), tuple(shifts)) if events else NO_STEPS
