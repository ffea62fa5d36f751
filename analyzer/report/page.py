"""``report.html``: one file, no network, everything escaped, no script but its own."""

import base64
import hashlib
import json
import re
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from analyzer.diagnosis.model import Analysis
from analyzer.report import rows, verdict
from analyzer.report.figures import Drawn
from analyzer.report.findings import longest
from analyzer.report.words import CAUSE_TITLES, clock, count, date, duration, printable, span

FRAMES_IN_FILTER = 50


def render(analysis: Analysis, drawn: list[Drawn], svgs: dict[str, str], evidence: bool = False) -> str:
    """The page.

    Args:
        analysis: What to tell.
        drawn: The figures.
        svgs: Their SVG by name.
        evidence: Whether ``evidence.pcapng`` lies beside the page.
    """
    environment = _environment()
    script = environment.get_template("report.js.j2").render()
    figures: dict[str, list[dict[str, Any]]] = {}
    for one in drawn:
        picture = {"name": one.name, "title": one.title, "alt": one.alt, "svg": inline(one.name, svgs[one.name])}
        figures.setdefault(one.section, []).append(picture)
    diagnosis = analysis.diagnosis
    return environment.get_template("report.html.j2").render(
        analysis=analysis,
        diagnosis=diagnosis,
        summary=diagnosis.summary,
        findings=diagnosis.findings,
        story=next((f.story for f in diagnosis.findings if f.story is not None), None),
        figures=figures,
        evidence=evidence,
        offsets=[(o, longest(o)) for o in analysis.joined.offsets if o.segments],
        tables=_tables(analysis),
        style=Markup(environment.get_template("report.css.j2").render()),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("analyzer.report"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        clock=clock, date=date, duration=duration, span=span, count=count, title=lambda cause: CAUSE_TITLES[cause]
    )
    environment.globals.update(
        headline=verdict.headline,
        limits=verdict.limits,
        health=verdict.health,
        comparison=verdict.comparison,
        doubt=verdict.doubt,
        who=verdict.who,
        change=verdict.change,
        certainty_means=verdict.CERTAINTY_MEANS,
        frames_of=frames_of,
        embedded=embedded,
    )
    return environment


def _shown(value: Any) -> Any:
    """What a template prints: plain text without control characters."""
    return printable(value) if type(value) is str else value


def _tables(analysis: Analysis) -> dict[str, rows.Table]:
    """Tables by name, those that have rows."""
    if not analysis.diagnosis.findings and analysis.healthy:
        return {}
    made = {
        "syns": rows.syn_table(analysis),
        "clients": rows.client_table(analysis),
        "risk": rows.risk_table(analysis),
        "flows": rows.flow_table(analysis),
        "memory": rows.memory_table(analysis),
        "clocks": rows.clock_table(analysis),
    }
    return {
        name: {**table, "shown": len(table["columns"][0]["values"])}
        for name, table in made.items()
        if table["total"] and table["columns"]
    }


def inline(name: str, svg: str) -> Markup:
    """An SVG element for the page; its ids begin with the figure's name, so that no two figures share one."""
    text = svg[svg.index("<svg") :]
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r">\s+<", "><", text)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'(xlink:href|href)="#', rf'\1="#{name}-', text)
    text = text.replace("url(#", f"url(#{name}-")
    return Markup(text.replace("<svg ", '<svg aria-hidden="true" focusable="false" ', 1))


def embedded(value: Any) -> Markup:
    """JSON that cannot leave its script element."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def frames_of(frames: list[int]) -> str:
    """A Wireshark display filter for frames."""
    return f"frame.number in {{{', '.join(map(str, frames[:FRAMES_IN_FILTER]))}}}"
