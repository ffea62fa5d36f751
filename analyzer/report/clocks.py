"""Several captures, one clock: times of one capture as another capture's clock has them."""

from typing import Any

import numpy as np

from analyzer.diagnosis.model import Analysis
from analyzer.snat.model import ClockOffset
from analyzer.units import NO_TIME, NS


def reference(analysis: Analysis) -> str:
    """Name of the capture whose clock reports speak in: the load balancer's where captures were aligned."""
    return analysis.joined.offsets[0].first if analysis.joined.offsets else analysis.main.name


def aligned(analysis: Analysis, name: str, times: Any) -> Any:
    """Times of capture *name* on the reference clock.

    Args:
        analysis: Where the offsets are.
        name: The capture that the times belong to.
        times: int64 array, ns; absent times stay absent.

    Returns:
        int64 array, ns; unchanged where no offset is known.
    """
    times = np.asarray(times, np.int64)
    first = reference(analysis)
    offset = next((o for o in analysis.joined.offsets if o.first == first and o.second == name and o.segments), None)
    if offset is None or not len(times):
        return times
    return np.where(times == NO_TIME, NO_TIME, times - _ahead(offset, times))


def _ahead(offset: ClockOffset, times: Any) -> Any:
    """How far the second clock is ahead at *times* of its own, ns, by the segment that they fall into."""
    begins = np.array([s.start + round(s.seconds * NS) for s in offset.segments], np.int64)
    which = np.clip(np.searchsorted(begins, times, side="right") - 1, 0, len(begins) - 1)
    seconds = np.array([round(s.seconds * NS) for s in offset.segments], np.int64)[which]
    drift = np.array([s.drift_ppm if np.isfinite(s.drift_ppm) else 0.0 for s in offset.segments])[which]
    return seconds + np.round((times - begins[which]) * drift * 1e-6).astype(np.int64)
