"""Times of all captures on one clock, for pictures and stories."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from analyzer.diagnosis.model import Vantage
from analyzer.schema import ANSWER_SYN_ACK
from analyzer.snat.model import ClockOffset, Joined
from analyzer.units import NO_TIME, NS

Records = np.ndarray[Any, np.dtype[np.void]]


class CommonClock:
    """Brings capture times to the clock of the load balancer's capture, or of the only one."""

    def __init__(self, vantages: Sequence[Vantage], joined: Joined) -> None:
        lbs = [v.name for v in vantages if v.side == "lb"]
        self.reference = lbs[0] if lbs else vantages[0].name
        self._offsets = {o.second: o for o in joined.offsets if o.first == self.reference and o.segments}
        self._by_paths: dict[str, int] = {}
        for index, vantage in enumerate(vantages):
            if vantage.name != self.reference and vantage.name not in self._offsets and lbs:
                self._by_paths[vantage.name] = _offset(joined.path(lbs[0], 0), index)

    def time(self, name: str, time: int) -> int:
        """A time of capture *name* on the common clock, ns; within microseconds to milliseconds."""
        if time == NO_TIME or name == self.reference:
            return time
        known = self._offsets.get(name)
        return time - (_at(known, time) if known is not None else self._by_paths.get(name, 0))


def _at(offset: ClockOffset, time: int) -> int:
    """Second clock minus first, ns, when the second shows *time*."""
    best = None
    for segment in offset.segments:
        here = time - round(segment.seconds * NS)
        if best is None or segment.start <= here:
            best = round(segment.seconds * NS) + round((here - segment.start) * segment.drift_ppm / 1e6)
    return best or 0


def _offset(paths: Records, index: int) -> int:
    """Median of the differences between both captures, half a round trip taken off where it is known."""
    both = paths[(paths["server"] == index) & (paths["time_lb_server"] != NO_TIME)]
    if not len(both):
        return 0
    there = both["time_server"] - both["time_lb_server"]
    known = (both["time_answered"] != NO_TIME) & (both["time_answer_lb"] != NO_TIME)
    known &= (both["answer_server"] == ANSWER_SYN_ACK) & (both["answer_lb"] == ANSWER_SYN_ACK)
    if not known.any():
        return int(np.median(there))
    back = both["time_answered"][known] - both["time_answer_lb"][known]
    return int((np.median(there[known]) + np.median(back)) / 2)
