"""What the diagnosis says, as plain data: causes, findings, limits, and the bundle that reports read."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from analyzer.schema import CAUSE
from analyzer.snat.model import Joined
from analyzer.spool import Spool

if TYPE_CHECKING:
    from analyzer.anonymize import Anonymizer
    from analyzer.connections import Tracked
    from analyzer.errors import Problem
    from analyzer.replay.run import Replayed


@dataclass(frozen=True)
class Step:
    """One packet of a story.

    Attributes:
        capture, frame: Where it is found.
        time: ns; on one clock throughout a story.
        text: What it means.
        role: ``syn``, ``answer``, ``fin``, ``stamp`` …
        lane_from, lane_to: Who sent it to whom there: ``client``, ``lb``, ``server``; empty if not known.
        file: Base name of the file that the frame number counts in, where the capture has several.
    """

    capture: str
    frame: int
    time: int
    text: str
    role: str
    lane_from: str = ""
    lane_to: str = ""
    file: str = ""


@dataclass(frozen=True)
class Story:
    """One SYN's case with its numbers, the worked example of a finding.

    Attributes:
        title: One sentence.
        steps: Packets in order of time.
        peer, server: Addresses.
        tsval, peer_tsval: TSval of the SYN and of the memory or bucket it was compared with.
        delta: Signed difference in ticks; negative means behind.
        age: Seconds between the two.
        rule: Name of the deciding rule.
        conn: Connection id of the SYN.
    """

    title: str
    steps: tuple[Step, ...]
    peer: str
    server: str
    tsval: int | None
    peer_tsval: int | None
    delta: int | None
    age: float | None
    rule: str
    conn: int


@dataclass(frozen=True)
class Finding:
    """One cause and everything said about it.

    Attributes:
        cause: Word of ``schema.CAUSES``.
        certainty: ``certain``, ``likely`` or ``possible``: that of most of its SYNs.
        syns, connections: How many it explains.
        statement: One plain sentence with numbers.
        evidence: Frame numbers per capture, at most 20 each.
        display_filter: For Wireshark.
        remedy: What to do, where, and what it does not change.
        refutation: What would prove it wrong.
        story: Worked example.
        wrongly_predicts: SYNs that the same explanation would have hit, and that got their SYN-ACK.
        filters: Display filter per capture; ``display_filter`` is the first of them.
    """

    cause: str
    certainty: str
    syns: int
    connections: int
    statement: str
    evidence: dict[str, list[int]]
    display_filter: str
    remedy: str
    refutation: str
    story: Story | None = None
    wrongly_predicts: int = 0
    filters: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class QualityNote:
    """Something about the inputs that limits the conclusion."""

    kind: str
    text: str


@dataclass(frozen=True)
class KernelChoice:
    """Which kernel the verdicts rest on.

    Attributes:
        profile: Its name.
        covers: The versions it stands for.
        why: How it was chosen, one sentence.
        ranked: (profile and setting, SYNs it explains, SYNs it gets wrong), best first.
        settings: The settings in force, by kernel name.
        evidence: What in the packets speaks for it, one sentence each.
    """

    profile: str
    covers: str
    why: str
    ranked: tuple[tuple[str, int, int], ...] = ()
    settings: dict[str, int] = field(default_factory=dict)
    evidence: tuple[str, ...] = ()


@dataclass(frozen=True)
class CounterRow:
    """One kernel counter of one host: what it did against what the replay predicts.

    Attributes:
        host: Vantage name of the server.
        name: Name in /proc/net/netstat or snmp, e.g. ``PAWSPassive``.
        words: ``netstat -s`` wording, empty if net-tools has none.
        seen: Delta between the two snapshots; None if not given.
        predicted: Delta that the replay predicts (its likeliest state).
        predicted_low, predicted_high: Bounds over everything that is not certain.
        explanation: Why a residual is left, or empty.
    """

    host: str
    name: str
    words: str
    seen: int | None
    predicted: int
    predicted_low: int
    predicted_high: int
    explanation: str = ""

    @property
    def residual(self) -> int | None:
        """Seen minus predicted."""
        return None if self.seen is None else self.seen - self.predicted


@dataclass(frozen=True)
class ProbeMatch:
    """The replay against lines of a probe on the live server.

    Attributes:
        matrix: (probe's word, replay's verdict, SYNs) for every combination seen.
        disagreements: (frame, probe's line, replay's verdict and rule, explanation).
        unmatched_lines: Lines that no SYN of the capture belongs to.
        ignored_lines: Lines that are no probe output.
    """

    matrix: tuple[tuple[str, str, int], ...]
    disagreements: tuple[tuple[int, str, str, str], ...]
    unmatched_lines: int
    ignored_lines: int


@dataclass(frozen=True)
class BlastRadius:
    """Who is hit, how much, since when.

    Attributes:
        clients: (client address, SNAT or source address, SYNs, failed SYNs), worst first; all of them.
        began: Time of the first failed SYN, ns; NO_TIME if none failed.
        at_risk: (minute start ns, source address, share of new connections at risk, share that failed).
        reuse: seconds between a close and the reuse of the same four numbers, sorted.
        reuse_under_60: How many of them are under 60 s.
        ports: (source address, server, distinct source ports, most in use at once, share of 64 512).
    """

    clients: tuple[tuple[str, str, int, int], ...]
    began: int
    at_risk: tuple[tuple[int, str, float, float], ...]
    reuse: tuple[float, ...]
    reuse_under_60: int
    ports: tuple[tuple[str, str, int, int, float], ...]


@dataclass(frozen=True)
class WhatIf:
    """The same traffic under another setting.

    Attributes:
        change: What was changed, as typed.
        before, after: SYNs lost per cause.
        assumptions: What the prediction rests on.
        warnings: Cures that make it worse.
        failed_before, failed_after: Attempts that never got a SYN-ACK.
        syns_before, syns_after: SYNs sent.
    """

    change: str
    before: dict[str, int]
    after: dict[str, int]
    assumptions: tuple[str, ...]
    warnings: tuple[str, ...]
    failed_before: int = 0
    failed_after: int = 0
    syns_before: int = 0
    syns_after: int = 0


@dataclass(frozen=True)
class Summary:
    """Counts over the SYNs of the decisive capture."""

    syns: int
    attempts: int
    retransmitted_syns: int
    answered_syn_ack: int
    unanswered: int
    failed_attempts: int
    by_cause: dict[str, int]
    by_verdict: dict[str, int]


@dataclass
class Diagnosis:
    """Causes of every SYN and what follows from them."""

    summary: Summary
    findings: list[Finding]
    quality: list[QualityNote]
    kernel: KernelChoice
    causes: dict[str, Spool] = field(default_factory=dict)
    contradictions: list[str] = field(default_factory=list)
    counters: list[CounterRow] = field(default_factory=list)
    probe: ProbeMatch | None = None
    blast: BlastRadius | None = None
    whatif: list[WhatIf] = field(default_factory=list)


@dataclass
class Vantage:
    """One capture with what was made of it.

    ``replayed`` is None where no server could be judged; ``placed`` is False where neither the user nor the
    packets say where the capture was taken, and ``side`` is no more than assumed.
    """

    name: str
    side: str
    tracked: Tracked
    replayed: Replayed | None
    causes: Spool = field(default_factory=lambda: Spool(CAUSE))
    placed: bool = True


@dataclass
class Analysis:
    """Everything a report is made from; the first vantage is the decisive one."""

    vantages: list[Vantage]
    diagnosis: Diagnosis
    problems: list[Problem]
    version: str
    joined: Joined = field(default_factory=Joined)
    anonymizer: Anonymizer | None = None

    @property
    def main(self) -> Vantage:
        """The capture that the verdict rests on."""
        return self.vantages[0]

    @property
    def healthy(self) -> bool:
        """Whether no capture shows a SYN without its SYN-ACK."""
        notes = self.diagnosis.quality
        return not self.diagnosis.findings and not any(note.kind == "other_capture" for note in notes)
