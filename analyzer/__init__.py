"""synquest: what a server's kernel did with each SYN of a capture, and why.

``analyze(server="server.pcap")`` returns an :class:`Analysis`: a verdict and a cause for every SYN,
every table as a DataFrame, findings and figures.  ``docs/library.md`` has a tour.
"""

from typing import TYPE_CHECKING, Any

from analyzer.version import VERSION

if TYPE_CHECKING:
    from analyzer.capture.packets import Packets, read_capture
    from analyzer.errors import InputError, SynquestError, UsageError
    from analyzer.library import Analysis, analyze, simulate, whatif

__version__ = VERSION

_HOMES = {
    "Analysis": "analyzer.library",
    "InputError": "analyzer.errors",
    "Packets": "analyzer.capture.packets",
    "SynquestError": "analyzer.errors",
    "UsageError": "analyzer.errors",
    "analyze": "analyzer.library",
    "read_capture": "analyzer.capture.packets",
    "simulate": "analyzer.library",
    "whatif": "analyzer.library",
}
__all__ = ["Analysis", "InputError", "Packets", "SynquestError", "UsageError", "analyze", "read_capture", "simulate",
           "whatif"]  # fmt: skip


def __getattr__(name: str) -> Any:
    """Load a public name when it is first used; importing the package stays cheap."""
    if name not in _HOMES:
        raise AttributeError(name)
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
