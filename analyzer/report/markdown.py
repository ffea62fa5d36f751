"""``report.md``, for tickets."""

from analyzer.diagnosis.model import Analysis
from analyzer.report.words import CAUSE_TITLES, clock


def render(analysis: Analysis) -> str:
    """The verdict, the case and the causes in Markdown."""
    diagnosis = analysis.diagnosis
    summary = diagnosis.summary
    lines = [f"# synquest: {summary.unanswered:,} of {summary.syns:,} SYNs got no SYN-ACK", ""]
    lines += [f"- Limit: {_plain(note.text)}" for note in diagnosis.quality]
    lines += [f"- Contradiction: {_plain(text)}" for text in diagnosis.contradictions]
    if not diagnosis.findings:
        lines += ["Nothing is wrong: every SYN was answered." if analysis.healthy else "Here every SYN was answered."]
    for finding in diagnosis.findings:
        lines += ["", f"## {CAUSE_TITLES[finding.cause]} ({finding.certainty})", "", _plain(finding.statement), ""]
        if finding.story is not None:
            lines += ["| capture | frame | time (UTC) | packet |", "| --- | ---: | --- | --- |"]
            lines += [
                f"| {_plain(s.capture)} | {s.frame} | {clock(s.time)} | {_plain(s.text)} |" for s in finding.story.steps
            ]
            lines.append("")
        lines += [
            f"**Remedy.** {finding.remedy}",
            "",
            f"**Would refute it.** {finding.refutation}",
            "",
            f"`{finding.display_filter}`",
        ]
    lines += ["", f"Kernel: {diagnosis.kernel.profile} ({diagnosis.kernel.covers}), {diagnosis.kernel.why}."]
    return "\n".join(lines) + "\n"


def _plain(text: str) -> str:
    """Text that Markdown and HTML take as it is."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|")
