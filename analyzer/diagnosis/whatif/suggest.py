"""Cures worth trying out unasked."""

from analyzer.diagnosis.model import Analysis, WhatIf
from analyzer.diagnosis.whatif.predict import predict

MOST_ATTEMPTS = 10_000
"""More would make every analysis wait; ``synquest whatif`` tries them when asked."""
FEWEST_LOST = 3

_CURES: dict[tuple[str, ...], tuple[tuple[str, object], ...]] = {
    ("peer_timestamp",): (("tcp_tw_recycle", 0),),
    ("time_wait_paws", "time_wait_sequence"): (("lb.hold_down", 60), ("lb.source_ports", "random")),
}
QUEUES = ("accept_queue_full", "syn_queue_full")
LARGER = 16


def suggested(analysis: Analysis) -> list[WhatIf]:
    """What-ifs that fit the causes found; none for a large capture, or one without a server's decisions."""
    summary = analysis.diagnosis.summary
    replayed = [v.replayed for v in analysis.vantages if v.replayed is not None]
    if not replayed or summary.attempts > MOST_ATTEMPTS:
        return []
    lost = summary.by_cause
    wanted = [
        change
        for causes, cures in _CURES.items()
        if sum(lost.get(cause, 0) for cause in causes) >= FEWEST_LOST
        for change in cures
    ]
    backlog = replayed[0].hypothesis.settings.backlog
    if backlog is not None and sum(lost.get(cause, 0) for cause in QUEUES) >= FEWEST_LOST:
        wanted.append(("backlog", LARGER * max(backlog, 1)))
    return predict(analysis, wanted, together=False) if wanted else []
