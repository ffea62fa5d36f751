"""Causes of single SYNs → findings: counts, sentence, evidence, remedy, the worked example."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from analyzer.connections.names import host_texts
from analyzer.diagnosis.causes import REGISTRY
from analyzer.diagnosis.causes.base import Cause, Told
from analyzer.diagnosis.facts import Facts
from analyzer.diagnosis.model import Finding, Story, Summary, Vantage
from analyzer.diagnosis.strain import Listener
from analyzer.diagnosis.tries import numbered
from analyzer.schema import ANSWER_NONE, CAUSE_CERTAINTIES, CAUSES, VERDICTS

Records = np.ndarray[Any, np.dtype[np.void]]
Array = np.ndarray[Any, Any]

FRAMES = 20
"""Evidence frames per capture."""
ADDRESSES = 10_000
"""Addresses that a finding names at the most."""
ANSWERED = CAUSES.index("answered")
_QUEUE = CAUSES.index("accept_queue_full")


@dataclass
class Tally:
    """What one cause adds up to."""

    count: int = 0
    silent: int = 0
    wrongly: int = 0
    ignored: int = 0
    levels: Array = field(default_factory=lambda: np.zeros(len(CAUSE_CERTAINTIES), np.int64))
    aggravated: Counter[str] = field(default_factory=Counter)
    attempts: list[Array] = field(default_factory=list)
    peers: set[str] = field(default_factory=set)
    services: set[str] = field(default_factory=set)
    sides: set[str] = field(default_factory=set)


class Account:
    """Counts every SYN once, at the row that speaks for its journey."""

    def __init__(self) -> None:
        self.tallies = [Tally() for _ in CAUSES]
        self.by_verdict: Counter[str] = Counter()
        self.attempts: list[Array] = []
        self.answered_attempts: list[Array] = []
        self.first_tries = 0

    def add(self, vantage: Vantage, facts: Facts, causes: Records, decides: Array, attempts: Array) -> None:
        """Count the deciding rows of one chunk."""
        self.by_verdict.update(_words(facts.verdicts["verdict"][decides], VERDICTS))
        self.first_tries += int(np.count_nonzero(decides & (facts.rows["attempt"] == 1)))
        self.attempts.append(attempts[decides])
        self.answered_attempts.append(attempts[decides & (causes["cause"] == ANSWERED)])
        ignored = decides & (causes["aggravated_by"] == _QUEUE)
        self.tallies[_QUEUE].ignored += int(np.count_nonzero(ignored))
        for at, cause in enumerate(REGISTRY):
            mine = decides & (causes["cause"] == at)
            tally = self.tallies[at]
            if at != ANSWERED:
                tally.wrongly += int(np.count_nonzero(decides & cause.wrongly(facts)))
            if at == _QUEUE:
                _describe(tally, vantage, facts, mine | ignored, attempts)
            if not mine.any():
                continue
            tally.count += int(np.count_nonzero(mine))
            tally.levels += np.bincount(causes["certainty"][mine], minlength=len(CAUSE_CERTAINTIES))
            if at != ANSWERED:
                _describe(tally, vantage, facts, mine, attempts)
                tally.silent += int(np.count_nonzero(mine & (facts.answer == ANSWER_NONE)))
                seconds = causes["aggravated_by"][mine]
                tally.aggravated.update({w: n for w, n in _words(seconds, CAUSES).items() if w != "answered"})

    def summary(self) -> Summary:
        """Counts over all SYNs, each once."""
        counts = {word: tally.count for word, tally in zip(CAUSES, self.tallies, strict=True) if tally.count}
        total = sum(counts.values())
        answered = counts.get("answered", 0)
        attempts, got_through = _unique(self.attempts), _unique(self.answered_attempts)
        return Summary(
            syns=total,
            attempts=len(attempts),
            retransmitted_syns=total - len(attempts),
            answered_syn_ack=answered,
            unanswered=total - answered,
            failed_attempts=len(attempts) - len(got_through),
            by_cause=counts,
            by_verdict={word: self.by_verdict[word] for word in VERDICTS if self.by_verdict[word]},
        )

    def told(self, at: int, total: int, given: set[str], listeners: tuple[Listener, ...]) -> Told:
        """What the sentence on cause number *at* is made of."""
        tally = self.tallies[at]
        return Told(
            count=tally.count,
            total=total,
            attempts=len(_unique(tally.attempts)),
            peers=tally.peers,
            services=tally.services,
            silent=tally.silent,
            aggravated=dict(tally.aggravated),
            sides=tally.sides,
            given=given,
            listeners=listeners,
            ignored=tally.ignored,
        )


def _describe(tally: Tally, vantage: Vantage, facts: Facts, mine: Array, attempts: Array) -> None:
    """Add addresses, attempts and capture sides."""
    if not mine.any():
        return
    tally.sides.add(vantage.side)
    tally.attempts.append(attempts[mine])
    texts = host_texts(vantage.tracked.hosts)
    if len(tally.peers) < ADDRESSES:
        tally.peers.update(texts[h] for h in np.unique(facts.rows["orig"][mine]).tolist())
    if len(tally.services) < ADDRESSES:
        services = np.unique(facts.rows["resp"][mine].astype(np.int64) << 16 | facts.rows["resp_p"][mine])
        tally.services.update(_service(texts[key >> 16], key & 0xFFFF) for key in services.tolist())


def _service(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _unique(parts: list[Array]) -> Array:
    ordered = np.sort(np.concatenate([np.zeros(0, np.int64), *parts]))
    return ordered[np.diff(ordered, prepend=-1) != 0]  # ids are not negative


def _words(column: Array, words: tuple[str, ...]) -> dict[str, int]:
    numbers = np.bincount(column, minlength=len(words))
    return {word: int(n) for word, n in zip(words, numbers, strict=False) if n}


def evidence_of(vantages: Sequence[Vantage], at: int) -> dict[str, list[int]]:
    """First frames with cause number *at* in every capture, or of handshakes whose last ACK it took."""
    found: dict[str, list[int]] = {}
    for vantage in vantages:
        frames: list[int] = []
        for (_, rows), causes in zip(numbered(vantage.tracked), vantage.causes.chunks(), strict=True):
            hit = (causes["cause"] == at) | ((causes["aggravated_by"] == at) & (causes["cause"] == ANSWERED))
            frames += rows["frame"][hit][: FRAMES - len(frames)].tolist()
            if len(frames) >= FRAMES:
                break
        if frames:
            found[vantage.name] = sorted(frames)
    return found


def frame_filter(frames: Sequence[int]) -> str:
    """Display filter for Wireshark that shows these frames."""
    return "frame.number in {" + ", ".join(map(str, frames)) + "}"


def finding(cause: Cause, tally: Tally, told: Told, evidence: dict[str, list[int]], story: Story | None) -> Finding:
    """One cause and everything said about it."""
    certainty = CAUSE_CERTAINTIES[int(np.argmax(tally.levels))] if tally.count else "likely"
    filters = {name: frame_filter(frames) for name, frames in evidence.items()}
    return Finding(
        cause=cause.word,
        certainty=certainty,
        syns=tally.count or tally.ignored,
        connections=told.attempts,
        statement=cause.statement(told),
        evidence=evidence,
        display_filter=next(iter(filters.values()), ""),
        remedy=cause.remedy,
        refutation=cause.refutation,
        story=story,
        wrongly_predicts=tally.wrongly,
        filters=filters,
    )
