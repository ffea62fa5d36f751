"""When the capture itself lacks packets: around such a time nothing that rests on completeness is certain.

An endpoint that acknowledges what was never seen proves that the capturing program missed a packet: loss
on the network would have been repaired in sight of it.  What else went missing then is not known: a close,
a reset, a whole connection.  So the minute after it is like the first one of a capture, and a connection
that was open then may have ended unseen.
"""

from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from analyzer.connections import Tracked
from analyzer.replay.clock import steps_of
from analyzer.schema import ACKS_UNSEEN
from analyzer.spool import Spool
from analyzer.units import NS

LACKS = "the capture lacks packets of this time, a close among them perhaps"
AFTER = 66 * NS
"""Whatever a missed packet left behind is gone by then: TIME-WAIT with its timer's rounding, stamps, requests."""
BEFORE = 5 * NS
"""A missed packet shows when a later one leans on it, at the latest after so long."""
SHARE_ELSEWHERE = 0.001
"""Captures of several interfaces may order packets wrongly by microseconds: away from the server a few do not count."""


class Losses:
    """Times at which packets proved missing.

    Args:
        times: int64, ns, sorted.
    """

    def __init__(self, times: np.ndarray[Any, np.dtype[np.int64]]) -> None:
        self._times = times

    def __bool__(self) -> bool:
        return len(self._times) > 0

    def near(self, times: Any) -> Any:
        """Bool like *times*: whether something went missing shortly before (or was missing by) then."""
        return self._any(times - AFTER, times + BEFORE)

    def since(self, begin: int, now: int) -> bool:
        """Whether something went missing between *begin* and *now*."""
        return bool(self._any(begin - BEFORE, now + BEFORE))

    def _any(self, low: Any, high: Any) -> Any:
        return np.searchsorted(self._times, high, "right") > np.searchsorted(self._times, low, "left")


_LOSSES: WeakKeyDictionary[Spool, np.ndarray[Any, np.dtype[np.int64]]] = WeakKeyDictionary()


def losses_of(tracked: Tracked, at_server: bool) -> Losses:
    """The capture's losses; its events are read once for all replays."""
    times = _LOSSES.get(tracked.events)
    if times is None:
        times = _LOSSES[tracked.events] = _read(tracked)
    few = not at_server and len(times) < SHARE_ELSEWHERE * len(tracked.events)
    return Losses(times[:0] if few else times)


def _read(tracked: Tracked) -> np.ndarray[Any, np.dtype[np.int64]]:
    steps, number = steps_of(tracked), 0
    found = [np.zeros(0, np.int64)]
    for chunk in tracked.events.chunks():
        rows = steps.straighten(chunk, number)
        number += len(chunk)
        found.append(rows["time"][(rows["opts"] & ACKS_UNSEEN) > 0])
    return np.sort(np.concatenate(found))
