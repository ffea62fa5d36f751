"""synquest: what a server's kernel did with each SYN of a capture, and why.

``analyze(AnalyzeOptions(servers=["server.pcap"]))`` returns an ``Analysis``: the captures' tables, a
verdict and a cause for every SYN, and the findings.  ``write_report(analysis, "report")`` writes all of it.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from analyzer.capture import open_capture
    from analyzer.connections import track
    from analyzer.pipeline import AnalyzeOptions, analyze
    from analyzer.report import write_report

_HOMES = {
    "AnalyzeOptions": "analyzer.pipeline",
    "analyze": "analyzer.pipeline",
    "open_capture": "analyzer.capture",
    "track": "analyzer.connections",
    "write_report": "analyzer.report",
}
__all__ = ["AnalyzeOptions", "analyze", "open_capture", "track", "write_report"]


def __getattr__(name: str) -> Any:
    """Load a public name when it is first used; importing the package stays cheap."""
    if name not in _HOMES:
        raise AttributeError(name)
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
