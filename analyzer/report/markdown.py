"""``report.md``, for tickets."""

from collections.abc import Iterator

from analyzer.diagnosis.model import Analysis, Finding, Story
from analyzer.report import verdict
from analyzer.report.findings import longest
from analyzer.report.words import CAUSE_TITLES, clock, count, printable

MOST_CLIENTS = 10


def render(analysis: Analysis) -> str:
    """The verdict, the case, the causes and what surrounds them, in Markdown."""
    diagnosis = analysis.diagnosis
    lines = [f"# {plain(verdict.headline(analysis))}", ""]
    if diagnosis.findings:
        lines += [plain(verdict.losses(analysis)), ""]
    else:
        lines += [*map(plain, verdict.health(analysis)), ""]
    lines += [f"- Contradiction: {plain(text)}" for text in diagnosis.contradictions]
    lines += [f"- Limit: {plain(note.text)}" for note in diagnosis.quality]
    for finding in diagnosis.findings:
        lines += _finding(finding)
    lines += [*_who(analysis), *_counters(analysis), *_whatif(analysis), *_method(analysis)]
    return "\n".join(lines) + "\n"


def plain(text: str) -> str:
    """Text that Markdown and HTML take as it is."""
    text = printable(text).replace("&", "&amp;").replace("<", "&lt;")
    return "".join(f"\\{c}" if c in "|\\`*_[]" else c for c in text)


def _finding(finding: Finding) -> Iterator[str]:
    title = f"{count(finding.syns, 'SYN')}: {CAUSE_TITLES[finding.cause]} ({finding.certainty})"
    yield from ("", f"## {title}", "", plain(finding.statement), "")
    if verdict.doubt(finding):
        yield from (verdict.doubt(finding), "")
    if finding.story is not None:
        yield from _story(finding.story)
    if finding.remedy:
        yield from (f"**Remedy.** {plain(finding.remedy)}", "")
    if finding.refutation:
        yield from (f"**Would refute it.** {plain(finding.refutation)}", "")
    if finding.display_filter:
        yield f"Wireshark: `{printable(finding.display_filter)}`"


def _story(story: Story) -> Iterator[str]:
    yield from (plain(story.title) + ":", "", "| capture | frame | time (UTC) | packet |", "| --- | ---: | --- | --- |")
    for step in story.steps:
        yield f"| {plain(step.file or step.capture)} | {step.frame} | {clock(step.time)} | {plain(step.text)} |"
    yield ""
    if verdict.comparison(story):
        yield from (plain(verdict.comparison(story)), "")


def _who(analysis: Analysis) -> Iterator[str]:
    blast = analysis.diagnosis.blast
    if blast is None or not analysis.diagnosis.findings:
        return
    yield from ("", "## Who is hit", "", verdict.who(blast), "")
    yield from ("| client | seen by the server as | SYNs | failed |", "| --- | --- | ---: | ---: |")
    for client, snat, syns, failed in verdict.named(blast.clients)[:MOST_CLIENTS]:
        yield f"| {client} | {snat} | {syns:,} | {failed:,} |"


def _counters(analysis: Analysis) -> Iterator[str]:
    rows = analysis.diagnosis.counters
    if not rows:
        return
    yield from ("", "## Counters", "", "| host | counter | counted | predicted | residual | explanation |")
    yield "| --- | --- | ---: | ---: | ---: | --- |"
    for row in rows:
        seen = "" if row.seen is None else f"{row.seen:,}"
        rest = "" if row.residual is None else f"{row.residual:+,}" if row.residual else "0"
        yield f"| {plain(row.host)} | {row.name} | {seen} | {row.predicted:,} | {rest} | {plain(row.explanation)} |"


def _whatif(analysis: Analysis) -> Iterator[str]:
    cases = analysis.diagnosis.whatif
    if cases:
        yield from ("", "## What if", "")
    for case in cases:
        yield f"- {plain(verdict.change(case))}"
        yield from (f"  - Warning: {plain(text)}" for text in case.warnings)


def _method(analysis: Analysis) -> Iterator[str]:
    kernel = analysis.diagnosis.kernel
    yield from ("", f"Kernel: {kernel.profile} ({plain(kernel.covers)}), {plain(kernel.why)}.")
    for offset in analysis.joined.offsets:
        if offset.segments:
            best = longest(offset)
            yield f"Clock of {plain(offset.second)} against {plain(offset.first)}: {best.seconds:+.6f} s."
