"""Golden reports: the sentences and numbers of five real captures, nothing else of the page.

They guard against change, not against error.  After a change that is meant, write them anew with
``SYNQUEST_GOLDEN=write pytest tests/report/test_golden.py`` and read the difference.
"""

import os
from pathlib import Path

import pytest

from analyzer.pipeline import AnalyzeOptions, analyze
from analyzer.report import verdict
from analyzer.report.figures import draw_all
from analyzer.report.words import count
from tests.conftest import FIXTURES

GOLDEN = Path(__file__).parent / "golden"
ONE_SERVER = {
    "el7-recycle": ("el7.9", 128),
    "v4.9-recycle": ("4.9.337", 128),
    "v3.10-recycle": ("3.10.108", 128),
    "v6.1-timewait": ("6.1", 128),
}
LB = "v6.18-lb-drops-ack"


def _options(name):
    case = FIXTURES / name
    sysctls = str(case / "sysctl.txt")
    if name == LB:
        servers, lbs = (
            [str(case / f"{n}.pcap.zst") for n in names] for names in (("s1", "s2"), ("lb_client", "lb_server"))
        )
        return AnalyzeOptions(servers=servers, lbs=lbs, kernel="6.18", sysctl_file=sysctls)
    kernel, backlog = ONE_SERVER[name]
    return AnalyzeOptions(servers=[str(case / "server.pcap.zst")], kernel=kernel, sysctl_file=sysctls, backlog=backlog)


def _sentences(analysis):
    """What a reader takes from the report, line by line."""
    diagnosis = analysis.diagnosis
    yield verdict.losses(analysis)
    yield from (f"limit: {text}" for text in verdict.limits(analysis))
    for finding in diagnosis.findings:
        counts = f"{count(finding.syns, 'SYN')}, {count(finding.connections, 'connection')}"
        yield f"{finding.cause} [{finding.certainty}] {counts}"
        yield finding.statement
        yield from filter(None, [verdict.doubt(finding)])
        if finding.story is not None:
            yield f"case: {finding.story.title}, {len(finding.story.steps)} packets"
            yield from filter(None, [verdict.comparison(finding.story)])
    if diagnosis.blast is not None:
        yield verdict.who(diagnosis.blast)
    yield from (f"figure {one.name}: {one.title}" for one in draw_all(analysis))
    yield f"kernel {diagnosis.kernel.profile}: {diagnosis.kernel.why}"


@pytest.mark.parametrize("name", [*ONE_SERVER, LB])
def test_sentences_and_numbers(name):
    told = "\n".join(_sentences(analyze(_options(name)))) + "\n"
    path = GOLDEN / f"{name}.txt"
    if os.environ.get("SYNQUEST_GOLDEN") == "write":
        path.parent.mkdir(exist_ok=True)
        path.write_text(told, encoding="utf-8")
    assert told == path.read_text(encoding="utf-8")
