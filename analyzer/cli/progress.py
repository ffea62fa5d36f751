"""A progress bar on long reads, on a terminal only."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SHOW_AFTER = 1.0
"""Seconds of reading before a bar appears."""


@contextmanager
def reading() -> Iterator[Callable[[int, int], None] | None]:
    """Yield a callback (bytes read, bytes in all), or None where standard error is no terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

    bar = Progress(
        "reading", BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn(),
        console=Console(stderr=True), transient=True,
    )  # fmt: skip
    began = time.monotonic()
    task = bar.add_task("reading", total=None)
    started = False

    def update(done: int, total: int) -> None:
        nonlocal started
        if not started and time.monotonic() - began > SHOW_AFTER:
            bar.start()
            started = True
        if started:
            bar.update(task, completed=done, total=total or None)

    try:
        yield update
    finally:
        if started:
            bar.stop()
