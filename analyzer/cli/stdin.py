"""Standard input for commands that read their captures twice."""

import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import PurePath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from analyzer.diagnosis.model import Analysis

PREFIX = "synquest-stdin-"
Inputs = tuple[list[str], ...]


@contextmanager
def saved(*groups: Sequence[str] | None) -> Iterator[Inputs]:
    """Yield *groups* of inputs with ``-`` replaced by a temporary file that holds standard input."""
    wanted = any("-" in (group or ()) for group in groups)
    with tempfile.NamedTemporaryFile(prefix=PREFIX, suffix=".pcap") as copy:
        if wanted:
            shutil.copyfileobj(sys.stdin.buffer, copy)
            copy.flush()
        yield tuple([copy.name if path == "-" else path for path in group or ()] for group in groups)


def call_by_name(analysis: "Analysis") -> None:
    """Let reports call a saved copy of standard input ``-``, as it was typed."""
    for vantage in analysis.vantages:
        for info in vantage.tracked.files:
            if PurePath(info.path).name.startswith(PREFIX):
                info.path = "-"
