"""A progress bar on long reads, on a terminal only: how far, packets per second, time left."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SHOW_AFTER = 1.0
"""Seconds of reading before a bar appears."""

Update = Callable[[int, int, int], None]


@contextmanager
def reading() -> Iterator[Update | None]:
    """Yield a callback (bytes read, bytes in all, packets so far), or None where no bar would be seen.

    No bar appears where standard error is no terminal, or one that cannot move its cursor.
    """
    from rich.console import Console

    console = Console(stderr=True)
    if not sys.stderr.isatty() or console.is_dumb_terminal:
        yield None
        return
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    bar = Progress(
        "reading", BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[speed]}"),
        TimeRemainingColumn(compact=True), TextColumn("left"), console=console, transient=True,
    )  # fmt: skip
    task = bar.add_task("reading", total=None, speed="")
    counter = _Counter()

    def update(done: int, total: int, packets: int) -> None:
        speed = counter.speed(packets)
        if counter.elapsed > SHOW_AFTER:
            bar.start()
            bar.update(task, completed=done, total=total or None, speed=f"{packets:,} packets, {speed:,.0f}/s")

    try:
        yield update
    finally:
        bar.stop()


class _Counter:
    """Packets per second since the first of the capture that is being read."""

    def __init__(self) -> None:
        self._began = self._first = time.monotonic()
        self._last = 0

    @property
    def elapsed(self) -> float:
        """Seconds since reading began."""
        return time.monotonic() - self._first

    def speed(self, packets: int) -> float:
        """Mean speed; it starts anew when the count falls, for that is the next capture."""
        if packets < self._last:
            self._began = time.monotonic()
        self._last = packets
        return packets / max(time.monotonic() - self._began, 1e-6)
