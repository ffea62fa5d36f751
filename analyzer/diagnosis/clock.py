"""Times of all captures on one clock, for pictures and stories."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from analyzer.diagnosis.model import Vantage
from analyzer.schema import ANSWER_SYN_ACK
from analyzer.snat.model import ClockOffset, Joined
from analyzer.units import NO_TIME, NS

Records = np.ndarray[Any, np.dtype[np.void]]
Array = np.ndarray[Any, Any]


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
        return int(self.times(name, np.array([time], np.int64))[0])

    def times(self, name: str, times: Array) -> Array:
        """The same for an int64 array; absent times stay absent."""
        if name == self.reference:
            return times
        known = self._offsets.get(name)
        ahead = _ahead(known, times) if known is not None else self._by_paths.get(name, 0)
        return np.where(times == NO_TIME, NO_TIME, times - ahead)


def _ahead(offset: ClockOffset, times: Array) -> Array:
    """Second clock minus first, ns, when the second shows *times*: by the segment that they fall into."""
    begins = np.array([s.start + round(s.seconds * NS) for s in offset.segments], np.int64)
    which = np.clip(np.searchsorted(begins, times, side="right") - 1, 0, len(begins) - 1)
    seconds = np.array([round(s.seconds * NS) for s in offset.segments], np.int64)[which]
    drift = np.array([s.drift_ppm if np.isfinite(s.drift_ppm) else 0.0 for s in offset.segments])[which]
    return seconds + np.round((times - begins[which]) * drift / 1e6).astype(np.int64)


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
