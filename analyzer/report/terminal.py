"""The verdict on one screen."""

from rich.console import Console
from rich.table import Table
from rich.text import Text

from analyzer.diagnosis.model import Analysis, Step, Story
from analyzer.report.words import CAUSE_TITLES, clock, date, duration

MOST_NOTES = 3
WIDE = 110


def show(analysis: Analysis, console: Console) -> None:
    """Print the verdict: what was read, what failed and why, one case, the remedy.

    Args:
        analysis: What to tell.
        console: Where to; its width decides how much.
    """
    _read(analysis, console)
    diagnosis = analysis.diagnosis
    for note in diagnosis.quality[:MOST_NOTES]:
        console.print(Text("limit: ", style="yellow") + Text(note.text), soft_wrap=False)
    for text in diagnosis.contradictions[:2]:
        console.print(Text("contradiction: ", style="red") + Text(text))
    summary = diagnosis.summary
    if not diagnosis.findings:
        _healthy(analysis, console)
        return
    console.print()
    lost = f"{summary.unanswered:,} of {summary.syns:,} SYNs got no SYN-ACK"
    failed = f"{summary.failed_attempts:,} of {summary.attempts:,} attempts failed for good"
    console.print(Text(f"{lost}; {failed}.", style="bold"))
    top = diagnosis.findings[0]
    console.print(Text(top.statement) + Text(f" [{top.certainty}]", style="cyan"))
    if top.story is not None:
        _story(top.story, console)
    _others(analysis, console)
    console.print(Text("Remedy: ", style="green") + Text(_first_sentences(top.remedy, console.width)))
    kernel = diagnosis.kernel
    console.print(Text(f"Kernel: {kernel.profile} ({kernel.covers}), {kernel.why}.", style="dim"))


def _read(analysis: Analysis, console: Console) -> None:
    for vantage in analysis.vantages:
        tracked = vantage.tracked
        files = tracked.files[0].path if len(tracked.files) == 1 else f"{len(tracked.files)} files"
        span = duration(tracked.last_time - tracked.first_time) if tracked.tcp_packets else "0 s"
        what = f"{files}, {tracked.packets:,} packets, {tracked.connection_count:,} connections"
        console.print(Text(f"{vantage.name}: ", style="bold") + Text(f"{what}, {span} from {date(tracked.first_time)}"))


def _healthy(analysis: Analysis, console: Console) -> None:
    summary = analysis.diagnosis.summary
    if not summary.syns:
        console.print("No SYN in this capture: there is nothing to judge. Capture from before the connections open.")
        return
    here = "Nothing is wrong: all" if analysis.healthy else f"In {analysis.main.name} all"
    console.print(Text(f"{here} {summary.syns:,} SYNs were answered by a SYN-ACK.", style="bold green"))
    console.print("Sure for this capture point and time span; losses elsewhere on the path cannot be seen from here.")


def _story(story: Story, console: Console) -> None:
    table = Table(box=None, pad_edge=False, padding=(0, 1), show_header=False)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(no_wrap=True, style="dim")
    table.add_column(overflow="fold")
    steps = list(story.steps) if console.width >= WIDE else _few(story)
    for step in steps:
        style = "red" if step.role == "syn" else "bold" if step.role == "stamp" else ""
        table.add_row(f"frame {step.frame}", clock(step.time), Text(step.text, style=style))
    console.print(Text(f"For example {story.title}:"))
    console.print(table)
    if story.delta is not None and story.age is not None:
        way = "behind" if story.delta < 0 else "ahead of"
        age = f"{story.age:.1f} s" if story.age >= 0.1 else f"{story.age * 1000:.1f} ms"
        numbers = f"TSval {story.tsval} is {abs(story.delta):,} ticks {way} {story.peer_tsval}"
        console.print(Text(f"{numbers}, kept for {age} (rule {story.rule})."))


def _few(story: Story) -> list[Step]:
    """At 80 columns: the close, the stamp, the first two SYNs and what came back."""
    syns = [s for s in story.steps if s.role == "syn"]
    keep = {id(s) for s in syns[:2]}
    return [s for s in story.steps if s.role != "syn" or id(s) in keep][:6]


def _others(analysis: Analysis, console: Console) -> None:
    rest = analysis.diagnosis.findings[1:]
    for finding in rest[: 4 if console.width >= WIDE else 2]:
        console.print(
            Text("also: ", style="bold")
            + Text(f"{finding.syns:,} SYNs {CAUSE_TITLES[finding.cause]} [{finding.certainty}]")
        )
    if len(rest) > 2 and console.width < WIDE:
        console.print(Text(f"      and {len(rest) - 2} more causes in the report"))


def _first_sentences(text: str, width: int) -> str:
    if width >= WIDE:
        return text
    end = text.find(". ")
    second = text.find(". ", end + 1)
    return text if second < 0 else text[: second + 1]
