"""The verdict on one screen: at 80 columns what settles the argument, at 140 more of it."""

from rich.console import Console
from rich.table import Table
from rich.text import Text

from analyzer.diagnosis.model import Analysis, Step, Story
from analyzer.report import verdict
from analyzer.report.words import CAUSE_TITLES, clock, count, date, duration, printable

WIDE = 110
MOST_PACKETS = 12
ASCII = str.maketrans({"±": "+/-", "µ": "u", "–": "-", "−": "-", "→": "->", "·": ".", "×": "x"})


class Screen:
    """Prints lines that any terminal can take; its width decides how much is told."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self.wide = console.width >= WIDE
        self._ascii = not console.encoding.lower().startswith("utf")

    def text(self, words: str, style: str = "") -> Text:
        """Words without control characters, in letters that the terminal has."""
        clean = printable(words)
        return Text(clean.translate(ASCII).encode("ascii", "replace").decode() if self._ascii else clean, style=style)

    def say(self, *parts: tuple[str, str]) -> None:
        """One paragraph of (words, style) parts."""
        self._console.print(Text.assemble(*(self.text(words, style) for words, style in parts)))

    def table(self, table: Table) -> None:
        """A table as it is."""
        self._console.print(table)


def show(analysis: Analysis, console: Console) -> None:
    """Print the verdict: what was read, what failed and why, one case, who is hit, the remedy.

    Args:
        analysis: What to tell.
        console: Where to; its width decides how much.
    """
    screen = Screen(console)
    _read(analysis, screen)
    _limits(analysis, screen)
    findings = analysis.diagnosis.findings
    if not findings:
        _healthy(analysis, screen)
        return
    console.print()
    screen.say((verdict.losses(analysis), "bold"))
    top = findings[0]
    screen.say((top.statement, ""), (f" [{top.certainty}]", "cyan"))
    if screen.wide and verdict.doubt(top):
        screen.say((verdict.doubt(top), ""))
    if top.story is not None:
        _story(top.story, screen)
    _others(analysis, screen)
    _around(analysis, screen)
    screen.say(("Remedy: ", "green"), (top.remedy if screen.wide else _first_sentences(top.remedy), ""))
    if screen.wide and top.refutation:
        screen.say(("Would refute it: ", "green"), (top.refutation, ""))
    kernel = analysis.diagnosis.kernel
    screen.say((f"Kernel: {kernel.profile} ({kernel.covers}), {kernel.why}.", "dim"))


def _read(analysis: Analysis, screen: Screen) -> None:
    """One line for each capture, or one for all of them where they are many and the screen is narrow."""
    vantages = analysis.vantages
    if len(vantages) > 2 and not screen.wide:
        names = ", ".join(v.name for v in vantages)
        packets = sum(v.tracked.packets for v in vantages)
        span = duration(max(v.tracked.last_time - v.tracked.first_time for v in vantages))
        screen.say((f"{names}: ", "bold"), (f"{count(packets, 'packet')}, {span} from {_start(analysis)}", ""))
        return
    for vantage in vantages:
        tracked = vantage.tracked
        files = tracked.files[0].path if len(tracked.files) == 1 else count(len(tracked.files), "file")
        span = duration(tracked.last_time - tracked.first_time) if tracked.tcp_packets else "0 s"
        what = f"{count(tracked.packets, 'packet')}, {count(tracked.connection_count, 'connection')}"
        screen.say((f"{vantage.name}: ", "bold"), (f"{files}, {what}, {span} from {date(tracked.first_time)}", ""))


def _start(analysis: Analysis) -> str:
    return date(min(v.tracked.first_time for v in analysis.vantages if v.tracked.tcp_packets))


def _limits(analysis: Analysis, screen: Screen) -> None:
    limits = verdict.limits(analysis)
    most = 6 if screen.wide else 2
    for text in limits[:most]:
        screen.say(("limit: ", "yellow"), (text, ""))
    if len(limits) > most:
        screen.say((f"and {count(len(limits) - most, 'more limit')}, in the report", "dim"))


def _healthy(analysis: Analysis, screen: Screen) -> None:
    screen.say((f"{verdict.headline(analysis)}.", "bold green" if analysis.diagnosis.summary.syns else "bold"))
    for text in verdict.health(analysis):
        screen.say((text, ""))


def _story(story: Story, screen: Screen) -> None:
    table = Table(box=None, pad_edge=False, padding=(0, 1), show_header=False)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(no_wrap=True, style="dim")
    table.add_column(overflow="fold")
    packets, several = _packets(story), len({step.capture for step in story.steps}) > 1
    shown = packets if len(packets) <= MOST_PACKETS else [*packets[: MOST_PACKETS - 3], *packets[-3:]]
    for steps in shown if screen.wide else _few(packets):
        step = steps[-1]
        style = "red" if step.role == "syn" else "bold" if step.role == "stamp" else ""
        sightings = [verdict.sighting(s) for s in (steps if screen.wide else [step])]
        where = ", ".join(sightings) if several else f"frame {step.frame}"
        table.add_row(screen.text(where), clock(step.time), screen.text(step.text, style))
    screen.say((f"For example {story.title}{' (capture, frame)' if several else ''}:", ""))
    screen.table(table)
    if screen.wide and len(packets) > MOST_PACKETS:
        screen.say((f"and {count(len(packets) - MOST_PACKETS, 'packet')} between, in the report", "dim"))
    if verdict.comparison(story):
        screen.say((verdict.comparison(story), ""))


def _packets(story: Story) -> list[list[Step]]:
    """Each packet with all its sightings: at the load balancer, at the server."""
    packets: list[list[Step]] = []
    for step in story.steps:
        twin = next((p for p in packets[-4:] if verdict.same_packet(p[0], step)), None)
        if twin is None:
            packets.append([step])
        else:
            twin.append(step)
    return packets


def _few(packets: list[list[Step]]) -> list[list[Step]]:
    """At 80 columns: the close, the stamp, the first SYN, the last one, what came back, who gave up."""
    syns = [p for p in packets if p[0].role == "syn"]
    answers = [p for p in packets if p[0].role == "answer"]
    keep = [*syns[:1], *answers[:1], *syns[1:][-1:], *(answers[1:][-1:] if len(syns) > 1 else [])]
    return [p for p in packets if p[0].role not in ("syn", "answer") or any(p is k for k in keep)][:7]


def _others(analysis: Analysis, screen: Screen) -> None:
    rest = analysis.diagnosis.findings[1:]
    most = 4 if screen.wide else 2
    for finding in rest[:most]:
        what = f"{count(finding.syns, 'SYN')} {CAUSE_TITLES[finding.cause]} [{finding.certainty}]"
        screen.say(("also: ", "bold"), (what, ""))
    if len(rest) > most:
        screen.say((f"      and {count(len(rest) - most, 'more cause')}, in the report", "dim"))


def _around(analysis: Analysis, screen: Screen) -> None:
    """Who is hit, what the counters say, what a change would do: a line each."""
    diagnosis = analysis.diagnosis
    if diagnosis.blast is not None:
        screen.say(("Who: ", "bold"), (verdict.who(diagnosis.blast), ""))
    counted = verdict.counted(diagnosis.counters)
    if counted:
        screen.say(("Counters: ", "bold"), ("; ".join(counted[: 6 if screen.wide else 2]) + ".", ""))
    for case in diagnosis.whatif[: 4 if screen.wide else 1]:
        screen.say(("What if ", "bold"), (verdict.change(case), ""))


def _first_sentences(text: str) -> str:
    """The first two sentences."""
    end = text.find(". ")
    second = text.find(". ", end + 1)
    return text if end < 0 or second < 0 else text[: second + 1]
