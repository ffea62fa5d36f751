"""What limits the conclusion, said before it."""

from typing import Any

import numpy as np

from analyzer.diagnosis.model import QualityNote, Vantage
from analyzer.schema import ANSWER_NONE, CONNECTION, OPT_CLIPPED, SEEN_GAP_ORIG, SEEN_GAP_RESP, SEEN_MIDSTREAM
from analyzer.units import NS

Records = np.ndarray[Any, np.dtype[np.void]]


def notes_of(vantage: Vantage) -> list[QualityNote]:
    """Flaws of one capture that bear on its verdicts, the weightiest first."""
    tracked = vantage.tracked
    found = [QualityNote(p.kind, str(p)) for p in tracked.problems]
    found += _drops(vantage)
    counts = _connection_counts(vantage)
    syns = len(tracked.syns)
    span = (tracked.last_time - tracked.first_time) / NS if syns else 0.0
    if syns and span < 120:
        found.append(
            QualityNote(
                "lead_in",
                f"The capture spans {span:.0f} s; what the server knew before it is unknown for its first minute.",
            )
        )
    one_way = counts["one_way"]
    if counts["all"] and one_way > 0.5 * counts["all"] and _unanswered(vantage) == syns > 0:
        found.append(QualityNote("one_direction", "Nothing of the server's side was captured: answers cannot be seen."))
    if counts["gaps"]:
        found.append(
            QualityNote(
                "gaps", f"{counts['gaps']:,} connections lack packets that were on the wire: the capture dropped some."
            )
        )
    if counts["midstream"]:
        found.append(
            QualityNote("midstream", f"{counts['midstream']:,} connections were open before the capture began.")
        )
    clipped = sum(int(np.count_nonzero(c["opts"] & OPT_CLIPPED)) for c in tracked.syns.chunks())
    if clipped:
        found.append(
            QualityNote(
                "snaplen", f"{clipped:,} SYNs have their options cut by the snap length; capture with -s 128 or more."
            )
        )
    return found


def _drops(vantage: Vantage) -> list[QualityNote]:
    dropped = sum(i.dropped or 0 for i in vantage.tracked.interfaces)
    if not dropped:
        return []
    return [QualityNote("dropped", f"The capturing program reports {dropped:,} dropped packets.")]


def _connection_counts(vantage: Vantage) -> dict[str, int]:
    counts = {"all": 0, "gaps": 0, "midstream": 0, "one_way": 0}
    for chunk in vantage.tracked.connections.chunks():
        assert chunk.dtype == CONNECTION.dtype
        counts["all"] += len(chunk)
        counts["gaps"] += int(np.count_nonzero(chunk["seen"] & (SEEN_GAP_ORIG | SEEN_GAP_RESP)))
        counts["midstream"] += int(np.count_nonzero(chunk["seen"] & SEEN_MIDSTREAM))
        counts["one_way"] += int(np.count_nonzero((chunk["packets_resp"] == 0) & (chunk["packets_orig"] > 1)))
    return counts


def _unanswered(vantage: Vantage) -> int:
    return sum(int(np.count_nonzero(c["answer"] == ANSWER_NONE)) for c in vantage.tracked.syns.chunks())


def notes(vantages, joined):
    return [n for v in vantages for n in notes_of(v)]
