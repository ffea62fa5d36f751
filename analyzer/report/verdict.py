"""The verdict in sentences: one source for terminal, page and Markdown."""

from collections.abc import Iterable

import numpy as np

from analyzer.diagnosis.model import Analysis, BlastRadius, CounterRow, Finding, Step, Story, WhatIf
from analyzer.report.words import clock, count, printable, span
from analyzer.schema import SEEN_ESTABLISHED, SEEN_SYN, SEEN_SYN_ACK
from analyzer.units import NO_TIME, NS

CERTAINTY_MEANS = {
    "certain": "every state that the packets allow gives this verdict, under the kernel and settings named below",
    "likely": "the best explanation; the packets leave room for another",
    "possible": "one explanation among several; see what limits it",
}


def headline(analysis: Analysis) -> str:
    """The verdict in one line."""
    summary = analysis.diagnosis.summary
    if not summary.syns:
        return "No SYN in this capture: nothing to judge"
    if analysis.diagnosis.findings:
        return f"{summary.unanswered:,} of {summary.syns:,} SYNs got no SYN-ACK"
    if not analysis.healthy:
        return f"In {analysis.main.name} all {summary.syns:,} SYNs were answered"
    if summary.syns == 1:
        return "Nothing is wrong: the only SYN was answered"
    return f"Nothing is wrong: all {summary.syns:,} SYNs were answered"


def limits(analysis: Analysis) -> list[str]:
    """What limits the conclusion: contradictions first, then one text for each kind of flaw."""
    kinds: dict[str, list[str]] = {}
    for note in analysis.diagnosis.quality:
        kinds.setdefault(note.kind, []).append(note.text)
    said = [f"Contradiction: {text}" for text in analysis.diagnosis.contradictions]
    return said + [
        texts[0] + (f" ({len(texts) - 1} more like it)" if len(texts) > 1 else "") for texts in kinds.values()
    ]


def losses(analysis: Analysis) -> str:
    """What the losses came to."""
    summary = analysis.diagnosis.summary
    attempts = f"{summary.failed_attempts:,} of {summary.attempts:,} attempts failed for good"
    return f"{headline(analysis)}; {attempts}."


def health(analysis: Analysis) -> list[str]:
    """How sure it is that nothing is wrong: sentences, the strongest first."""
    summary = analysis.diagnosis.summary
    if not summary.syns:
        return ["Capture from before the connections open: only then can a lost SYN be seen."]
    answered = completed = 0
    servers = [v for v in analysis.vantages if v.side == "server"]
    for vantage in servers or [analysis.main]:
        for rows in vantage.tracked.connections.chunks():
            opened = (rows["seen"] & (SEEN_SYN | SEEN_SYN_ACK)) == SEEN_SYN | SEEN_SYN_ACK
            answered += int(np.count_nonzero(opened))
            completed += int(np.count_nonzero(opened & ((rows["seen"] & SEEN_ESTABLISHED) > 0)))
    again = summary.retransmitted_syns
    said = [
        f"{completed:,} of {answered:,} answered handshakes were completed by the originator's ACK.",
        "No SYN had to be repeated." if not again else f"{again:,} SYNs were repeats of an earlier one.",
    ]
    names = [v.name for v in analysis.vantages]
    where = ", ".join(names[:-1]) + f" and {names[-1]}" if len(names) > 1 else names[0]
    said.append(
        f"Sure for what {where} saw in this span of time; losses elsewhere on the path cannot be seen from here."
    )
    return said


def comparison(story: Story) -> str:
    """The numbers that decided the worked example; empty where nothing was compared."""
    if story.delta is None or story.age is None or story.tsval is None or story.peer_tsval is None:
        return ""
    way = "behind" if story.delta < 0 else "ahead of"
    numbers = f"TSval {story.tsval} is {count(abs(story.delta), 'tick')} {way} {story.peer_tsval}"
    if not story.delta:
        numbers = f"TSval {story.tsval} equals the one before"
    return f"{numbers}, kept for {span(story.age)} (rule {story.rule})."


SAME_PACKET = NS // 20
"""Sightings of one packet are no further apart on the common clock."""
LONGEST_NAME = 24


def sighting(step: Step) -> str:
    """Where a packet is found: the capture, or its file where it has several, and the frame."""
    name = printable(step.file or step.capture)
    return f"{name if len(name) <= LONGEST_NAME else '…' + name[1 - LONGEST_NAME :]} {step.frame}"


def meaning(step: Step) -> str:
    """What a packet is; each capture counts the tries that it saw itself."""
    return step.text.partition(" (try ")[0]


def same_packet(one: Step, other: Step) -> bool:
    """Whether two steps are sightings of one packet on its way."""
    return meaning(one) == meaning(other) and abs(one.time - other.time) < SAME_PACKET


def doubt(finding: Finding) -> str:
    """What speaks against a finding; empty if nothing does."""
    wrongly = finding.wrongly_predicts
    if not wrongly:
        return ""
    were = "were" if wrongly != 1 else "was"
    return f"The same explanation would have hit {count(wrongly, 'SYN')} that {were} answered."


def who(blast: BlastRadius) -> str:
    """Who is hit, since when, in one or two sentences."""
    failed: dict[str, int] = {}
    for client, _, _, lost in blast.clients:
        failed[client] = failed.get(client, 0) + lost
    hit = sum(1 for lost in failed.values() if lost)
    noun = "client" if forwarded(blast.clients) else "source address"
    text = f"{hit:,} of {count(len(failed), noun)} {'is' if hit == 1 else 'are'} hit"
    if blast.began != NO_TIME:
        text += f", the first at {clock(blast.began)} UTC"
    text += "."
    if blast.reuse:
        text += (
            f" The same four numbers were used again {len(blast.reuse):,} times, "
            f"{blast.reuse_under_60:,} of them within 60 s."
        )
    return text


def forwarded(clients: Iterable[tuple[str, str, int, int]]) -> bool:
    """Whether clients are known behind the addresses that the server sees; else those addresses are all there is."""
    return any(client != snat for client, snat, _, _ in clients)


def named(clients: Iterable[tuple[str, str, int, int]]) -> list[tuple[str, str, int, int]]:
    """Rows of ``BlastRadius.clients`` with a word where the client's address was not translated.

    Its own address is what the server sees where nothing translates; beside translated ones it means that no
    translation was seen, because the SYN was not forwarded or did not pass the load balancer.
    """
    rows = list(clients)
    own = "no translation seen" if forwarded(rows) else "its own address"
    return [(client, own if client == snat else snat, syns, failed) for client, snat, syns, failed in rows]


TELLING = (
    "PAWSPassive", "PAWSTimewait", "PAWSEstab", "TCPACKSkippedTimeWait", "TCPSYNChallenge", "TCPChallengeACK",
    "ListenOverflows", "ListenDrops", "TCPReqQFullDrop", "TCPReqQFullDoCookies", "SyncookiesSent", "SyncookiesRecv",
    "SyncookiesFailed", "EmbryonicRsts", "TWKilled", "TW", "PassiveOpens",
)  # fmt: skip
"""Counters that tell what became of SYNs, the most telling first."""


def telling(rows: Iterable[CounterRow]) -> list[CounterRow]:
    """Counters of SYNs that moved or should have, the most telling first."""
    moved = [row for row in rows if row.name in TELLING and (row.seen or row.predicted_high)]
    return sorted(moved, key=lambda row: TELLING.index(row.name))


def counted(rows: Iterable[CounterRow]) -> list[str]:
    """What telling counters did, summed over the hosts, one phrase each."""
    seen: dict[str, int] = {}
    predicted: dict[str, int] = {}
    for row in telling(rows):
        if row.seen is not None:
            seen[row.name] = seen.get(row.name, 0) + row.seen
            predicted[row.name] = predicted.get(row.name, 0) + row.predicted
    return [
        f"{name} {n:+,} ({'as predicted' if n == predicted[name] else f'predicted {predicted[name]:+,}'})"
        for name, n in seen.items()
    ]


def change(case: WhatIf) -> str:
    """What a change would have done, in one sentence."""
    before, after = sum(case.before.values()), sum(case.after.values())
    if after == before:
        return f"{case.change}: as many SYNs lost as before ({before:,})."
    return f"{case.change}: {count(after, 'SYN')} lost instead of {before:,}."
