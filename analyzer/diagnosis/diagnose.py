"""Verdicts, answers and journeys → causes, findings and what limits them.

A SYN that several captures saw is weighed once, at the capture nearest to the server, and its cause is
written to its row in each of them.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from analyzer.diagnosis.causes import REGISTRY, weigh
from analyzer.diagnosis.decide import Journeys
from analyzer.diagnosis.findings import ANSWERED, Account, evidence_of, finding
from analyzer.diagnosis.gather import Gatherer, Known
from analyzer.diagnosis.model import Diagnosis, Finding, KernelChoice, Vantage
from analyzer.diagnosis.quality import notes
from analyzer.diagnosis.story import Teller
from analyzer.diagnosis.strain import Listener
from analyzer.diagnosis.tries import numbered
from analyzer.replay.contradictions import contradictions
from analyzer.schema import CAUSE, CAUSE_CERTAINTIES, OPT_TS
from analyzer.snat.model import Joined

Records = np.ndarray[Any, np.dtype[np.void]]


def diagnose(
    vantages: Sequence[Vantage], joined: Joined, kernel: KernelChoice, known: Known | None = None
) -> Diagnosis:
    """Weigh every SYN of all captures.

    Args:
        vantages: Captures with their replays, the decisive one first; their ``causes`` are filled here.
        joined: Flows and journeys.
        kernel: Which kernel the replays stand for.
        known: Counters and settings as far as they were given.

    Returns:
        Counts are of SYN packets, each once however many captures saw it.
    """
    journeys = Journeys.of(vantages, joined)
    account = Account()
    listeners: list[Listener] = []
    causes = np.zeros(int(journeys.starts[-1]), CAUSE.dtype)
    gatherers = [Gatherer(index, vantages, joined, known or Known()) for index in range(len(vantages))]
    lb_hears_acks = all(g.tries.hears_acks for g in gatherers if g.vantage.side == "lb")
    for index, (vantage, gatherer) in enumerate(zip(vantages, gatherers, strict=True)):
        gatherer.lb_hears_acks = lb_hears_acks
        if vantage.side == vantages[0].side:
            listeners += gatherer.strain.listeners
        start, decides = int(journeys.starts[index]), journeys.decides(index)
        for first, facts in gatherer.chunks():
            mine = slice(first, first + len(facts))
            here = slice(start + first, start + first + len(facts))
            causes[here] = weigh(facts)
            account.add(vantage, facts, causes[here], decides[mine], journeys.attempt[here])
    journeys.spread(causes)
    _doubt_lookalikes(vantages, journeys, causes)
    for index, vantage in enumerate(vantages):
        vantage.causes.append(causes[int(journeys.starts[index]) : int(journeys.starts[index + 1])])
    summary = account.summary()
    return Diagnosis(
        summary=summary,
        findings=_findings(vantages, joined, account, tuple(listeners)),
        quality=notes(vantages, joined),
        kernel=kernel,
        causes={vantage.name: vantage.causes for vantage in vantages},
        contradictions=[text for vantage in vantages for text in _contradictions(vantage)],
    )


def _doubt_lookalikes(vantages: Sequence[Vantage], journeys: Journeys, causes: Records) -> None:
    """Repeated SYNs without timestamps look alike: which of them met what rests on their order, no proof."""
    several = journeys.repeated()
    for index, vantage in enumerate(vantages):
        for first, rows in numbered(vantage.tracked):
            start = int(journeys.starts[index]) + first
            here = causes[start : start + len(rows)]
            alike = several[start : start + len(rows)] & ((rows["opts"] & OPT_TS) == 0) & (here["cause"] != ANSWERED)
            here["certainty"][alike] = np.minimum(here["certainty"][alike], CAUSE_CERTAINTIES.index("likely"))


def _findings(
    vantages: Sequence[Vantage], joined: Joined, account: Account, listeners: tuple[Listener, ...]
) -> list[Finding]:
    """One finding per cause that explains any SYN, the strongest first."""
    total = sum(tally.count for tally in account.tallies)
    given = {vantage.side if vantage.placed else "unknown" for vantage in vantages}
    teller = Teller(vantages, joined)
    found = []
    for at, (cause, tally) in enumerate(zip(REGISTRY, account.tallies, strict=True)):
        if at == ANSWERED or not (tally.count or tally.ignored):
            continue
        told = account.told(at, total, given, listeners)
        found.append(finding(cause, tally, told, evidence_of(vantages, at), teller.tell(at)))
    return sorted(found, key=lambda f: -f.syns)


def _contradictions(vantage: Vantage) -> Iterator[str]:
    """Answers that certain predictions exclude, by kind, with what they refute."""
    assert vantage.replayed is not None
    for kind in contradictions(vantage.tracked, vantage.replayed):
        frames = ", ".join(f"{frame:,}" for frame in kind.frames[:5])
        more = " …" if kind.syns > 5 else ""
        yield (
            f"{vantage.name}: {kind.syns:,} SYN{'s' if kind.syns != 1 else ''} {kind.text} "
            f"(frame{'s' if kind.syns != 1 else ''} {frames}{more}). Any of these would explain it: "
            f"{'; '.join(kind.refutes)}."
        )
