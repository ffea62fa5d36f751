"""Verdicts and answers → causes, findings and what limits them."""

from collections import Counter
from typing import Any

import numpy as np

from analyzer.connections.names import host_texts
from analyzer.diagnosis.causes import weigh
from analyzer.diagnosis.model import Diagnosis, Finding, KernelChoice, Summary, Vantage
from analyzer.diagnosis.quality import notes
from analyzer.diagnosis.remedies import REFUTATIONS, REMEDIES
from analyzer.diagnosis.story import tell
from analyzer.schema import ANSWER_SYN_ACK, CAUSE_CERTAINTIES, CAUSES, SYN_ROW, VERDICT, VERDICTS

Records = np.ndarray[Any, np.dtype[np.void]]

KEPT_ROWS = 500_000
"""Failed SYNs kept in memory for findings and figures; counts always cover all."""


class Failed:
    """The SYNs that something went wrong with, beside their verdicts and causes."""

    def __init__(self) -> None:
        self._parts: list[tuple[Records, Records, Records]] = []
        self._count = 0

    def add(self, syns: Records, verdicts: Records, causes: Records) -> None:
        """Keep the rows whose cause is not ``answered``, up to ``KEPT_ROWS``."""
        room = KEPT_ROWS - self._count
        where = np.flatnonzero(causes["cause"] != 0)[: max(room, 0)]
        if len(where):
            self._parts.append((syns[where], verdicts[where], causes[where]))
            self._count += len(where)

    def rows(self) -> tuple[Records, Records, Records]:
        """(SYN rows, verdicts, causes), row for row."""
        if not self._parts:
            from analyzer.schema import CAUSE

            return np.zeros(0, SYN_ROW.dtype), np.zeros(0, VERDICT.dtype), np.zeros(0, CAUSE.dtype)
        syns, verdicts, causes = zip(*self._parts, strict=True)
        return np.concatenate(syns), np.concatenate(verdicts), np.concatenate(causes)


def diagnose(vantage: Vantage, kernel: KernelChoice) -> Diagnosis:
    """Weigh every SYN of a server-side capture.

    Args:
        vantage: The capture with its replay; its ``causes`` spool is filled here.
        kernel: Which kernel the replay stands for.
    """
    assert vantage.replayed is not None
    failed = Failed()
    by_cause: Counter[str] = Counter()
    by_verdict: Counter[str] = Counter()
    syns = answered = attempts = 0
    for rows, verdicts in zip(vantage.tracked.syns.chunks(), vantage.replayed.verdicts.chunks(), strict=True):
        causes = weigh(rows, verdicts, vantage.side == "server")
        vantage.causes.append(causes)
        failed.add(rows, verdicts, causes)
        by_cause.update(_counts(causes["cause"], CAUSES))
        by_verdict.update(_counts(verdicts["verdict"], VERDICTS))
        syns += len(rows)
        answered += int(np.count_nonzero(rows["answer"] == ANSWER_SYN_ACK))
        attempts += int(np.count_nonzero(rows["attempt"] == 1))
    rows, verdicts, causes = failed.rows()
    summary = Summary(
        syns=syns,
        attempts=attempts,
        retransmitted_syns=syns - attempts,
        answered_syn_ack=answered,
        unanswered=syns - answered,
        failed_attempts=_failed_attempts(vantage, rows),
        by_cause={cause: by_cause[cause] for cause in CAUSES if by_cause[cause]},
        by_verdict={verdict: by_verdict[verdict] for verdict in VERDICTS if by_verdict[verdict]},
    )
    names = host_texts(vantage.tracked.hosts)
    findings = [
        _finding(vantage, cause, rows, verdicts, causes, names, summary)
        for cause in summary.by_cause
        if cause != "answered"
    ]
    findings.sort(key=lambda f: -f.syns)
    return Diagnosis(
        summary=summary,
        findings=findings,
        quality=notes(vantage),
        kernel=kernel,
        causes={vantage.name: vantage.causes},
        contradictions=_contradictions(vantage),
    )


def _counts(column: Any, words: tuple[str, ...]) -> dict[str, int]:
    numbers = np.bincount(column, minlength=len(words))
    return {word: int(n) for word, n in zip(words, numbers, strict=False) if n}


def _failed_attempts(vantage: Vantage, rows: Records) -> int:
    """Attempts of which no SYN was answered by a SYN-ACK."""
    if not len(rows):
        return 0
    lost = set(np.unique(rows["conn"]).tolist())
    for chunk in vantage.tracked.syns.chunks():
        lost.difference_update(np.unique(chunk["conn"][chunk["answer"] == ANSWER_SYN_ACK]).tolist())
    return len(lost)


def _finding(
    vantage: Vantage, cause: str, rows: Records, verdicts: Records, causes: Records, names: list[str], summary: Summary
) -> Finding:
    where = causes["cause"] == CAUSES.index(cause)
    mine = rows[where]
    levels = np.bincount(causes["certainty"][where], minlength=3)
    certainty = CAUSE_CERTAINTIES[int(np.argmax(levels))]
    frames = np.sort(mine["frame"])[:20].tolist()
    count = summary.by_cause[cause]
    return Finding(
        cause=cause,
        certainty=certainty,
        syns=count,
        connections=len(np.unique(mine["conn"])),
        statement=_statement(cause, count, summary.syns, mine, verdicts[where], names),
        evidence={vantage.name: frames},
        display_filter="frame.number in {" + ", ".join(map(str, frames)) + "}",
        remedy=REMEDIES.get(cause, ""),
        refutation=REFUTATIONS.get(cause, ""),
        story=tell(vantage, cause, mine, verdicts[where], names),
    )


def _statement(cause: str, count: int, total: int, rows: Records, verdicts: Records, names: list[str]) -> str:
    peers = len(np.unique(rows["orig"]))
    who = f"{count:,} of {total:,} SYNs (from {peers} address{'es' if peers != 1 else ''})"
    plural = count != 1
    texts = {
        "peer_timestamp": f"{who} got no answer: the server's kernel dropped them because it remembered a newer "
        "timestamp for their source address (tcp_tw_recycle); several clients' clocks share that address.",
        "time_wait_paws": f"{who} met a TIME-WAIT of an earlier connection on the same four numbers with a newer "
        "timestamp and got a bare ACK instead of a SYN-ACK, or nothing where such ACKs are rate-limited.",
        "time_wait_sequence": f"{who} met a TIME-WAIT of an earlier connection on the same four numbers; without a "
        "newer timestamp and with a sequence number not above the old one they got a bare ACK.",
        "established_collision": f"{who} hit a connection that the server still had open on the same four numbers: "
        + _collision_answer(rows)
        + ".",
        "accept_queue_full": f"{who} found the accept queue full: the application did not accept fast enough.",
        "syn_queue_full": f"{who} found the SYN queue full, with SYN cookies off or its last quarter reserved.",
        "server_silent": f"{who} reached this capture and nothing came back, though the kernel's TCP rules would "
        "have answered: a firewall, rp_filter, a missing route, or a drop after the capture point.",
        "refused": f"{who} {'were' if plural else 'was'} answered by a RST.",
        "unreachable": f"{who} {'were' if plural else 'was'} answered by an ICMP error.",
        "no_evidence": f"{who} failed for a reason that this capture cannot show.",
    }
    return texts[cause]


def _collision_answer(rows: Records) -> str:
    silent = int(np.count_nonzero(rows["answer"] == 0))
    if silent == len(rows):
        return "this kernel drops such a SYN without a word"
    return "it answered with a challenge ACK" + (f", {silent:,} times not at all" if silent else "")


def _contradictions(vantage: Vantage) -> list[str]:
    """Certain predictions that packets refute, by name."""
    assert vantage.replayed is not None
    found: list[str] = []
    names = host_texts(vantage.tracked.hosts)
    certain, accept, drop = 2, VERDICTS.index("accept"), VERDICTS.index("drop")
    for rows, verdicts in zip(vantage.tracked.syns.chunks(), vantage.replayed.verdicts.chunks(), strict=True):
        sure = verdicts["certainty"] == certain
        wrong = sure & (verdicts["verdict"] == drop) & (rows["answer"] == ANSWER_SYN_ACK)
        wrong |= sure & (verdicts["verdict"] == accept) & (rows["answer"] > ANSWER_SYN_ACK)
        for row, verdict in zip(rows[wrong][:10], verdicts[wrong][:10], strict=True):
            said = VERDICTS[int(verdict["verdict"])]
            found.append(
                f"frame {int(row['frame'])}: a SYN of {names[row['orig']]} port {int(row['orig_p'])} should get "
                f"'{said}' for certain, and the packets show otherwise: kernel, settings or completeness of "
                "the capture are not as assumed"
            )
    return found[:20]
