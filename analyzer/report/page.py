"""``report.html``: one file, no network, everything escaped."""

import json
import re
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from analyzer.connections.names import host_texts
from analyzer.diagnosis.model import Analysis
from analyzer.kernel.rules import RULE_NAMES
from analyzer.report.figures import Drawn
from analyzer.report.words import CAUSE_TITLES, clock, date, duration
from analyzer.schema import ANSWERS, CAUSES, CERTAINTIES, OPT_TS, VERDICTS
from analyzer.units import NS

MOST_ROWS = 10_000
"""Rows of the page's own table; the tables beside it hold all."""


def render(analysis: Analysis, drawn: list[Drawn], svgs: dict[str, str]) -> str:
    """The page.

    Args:
        analysis: What to tell.
        drawn: The figures.
        svgs: Their SVG by name.
    """
    environment = Environment(
        loader=PackageLoader("analyzer.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(clock=clock, date=date, duration=duration, seconds=lambda ns: ns / NS)
    rows, total = _rows(analysis)
    return environment.get_template("report.html.j2").render(
        analysis=analysis,
        diagnosis=analysis.diagnosis,
        titles=CAUSE_TITLES,
        figures=[(d.name, d.alt, inline(d.name, svgs[d.name])) for d in drawn],
        rows_json=_embedded(rows),
        shown=len(rows),
        total=total,
    )


def inline(name: str, svg: str) -> Markup:
    """An SVG element for the page; its ids begin with the figure's name, so that no two figures share one."""
    text = svg[svg.index("<svg") :]
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'(xlink:href|href)="#', rf'\1="#{name}-', text)
    return Markup(text.replace("url(#", f"url(#{name}-"))


def _embedded(rows: list[list[Any]]) -> Markup:
    """JSON that cannot leave its script element."""
    text = (
        json.dumps(rows, separators=(",", ":")).replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    )
    return Markup(text)


def _rows(analysis: Analysis) -> tuple[list[list[Any]], int]:
    """Rows of the SYN table, failed ones first, and how many SYNs there are."""
    vantage = analysis.main
    assert vantage.replayed is not None
    names = host_texts(vantage.tracked.hosts)
    start = vantage.tracked.first_time
    failed: list[list[Any]] = []
    others: list[list[Any]] = []
    chunks = zip(
        vantage.tracked.syns.chunks(), vantage.replayed.verdicts.chunks(), vantage.causes.chunks(), strict=True
    )
    for syns, verdicts, causes in chunks:
        for syn, verdict, cause in zip(syns, verdicts, causes, strict=True):
            into = failed if cause["cause"] else others
            if len(into) >= MOST_ROWS:
                if len(failed) >= MOST_ROWS:
                    break
                continue
            compared = bool(verdict["compared"])
            into.append(
                [
                    int(syn["frame"]),
                    round((int(syn["time"]) - start) / NS, 6),
                    f"{names[syn['orig']]}:{syn['orig_p']}",
                    f"{names[syn['resp']]}:{syn['resp_p']}",
                    int(syn["tsval"]) if syn["opts"] & OPT_TS else None,
                    int(syn["attempt"]),
                    ANSWERS[int(syn["answer"])],
                    VERDICTS[int(verdict["verdict"])],
                    CERTAINTIES[int(verdict["certainty"])],
                    RULE_NAMES[int(verdict["rule"])],
                    int(verdict["tsval_delta"]) if compared and syn["opts"] & OPT_TS else None,
                    round(int(verdict["stamp_age"]) / NS, 3) if compared else None,
                    CAUSES[int(cause["cause"])],
                ]
            )
    return (failed + others)[:MOST_ROWS], len(vantage.tracked.syns)
