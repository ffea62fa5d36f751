"""Standard input for commands that read their captures twice."""

import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

Inputs = tuple[list[str], ...]


@contextmanager
def saved(*groups: Sequence[str] | None) -> Iterator[Inputs]:
    """Yield *groups* of inputs with ``-`` replaced by a temporary file that holds standard input."""
    wanted = any("-" in (group or ()) for group in groups)
    with tempfile.NamedTemporaryFile(prefix="synquest-stdin-", suffix=".pcap") as copy:
        if wanted:
            shutil.copyfileobj(sys.stdin.buffer, copy)
            copy.flush()
        yield tuple([copy.name if path == "-" else path for path in group or ()] for group in groups)
