"""An append-only table that keeps little in memory: full chunks go to a temporary file.

Tables that grow with the capture (events, SYNs, connections) pass between stages as spools, so
that memory is bounded by what is open at one moment and not by what was ever seen.
"""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import IO, Any

import numpy as np

from analyzer.schema import Table

CHUNK_ROWS = 16384
MEMORY_BYTES = 16 << 20

Records = np.ndarray[Any, np.dtype[np.void]]


def opaque(rows: Records) -> Records:
    """The same records as bytes without fields: numpy copies those thirty times as fast."""
    return np.asarray(rows).view(np.dtype((np.void, rows.dtype.itemsize)))


def pick(rows: Records, where: Any) -> Records:
    """``rows[where]`` for a mask or indices, copied as bytes."""
    return opaque(rows)[where].view(rows.dtype)


class Spool:
    """Rows of one table, written once and read in order, as often as needed.

    Args:
        table: Layout of a row.
        chunk_rows: Rows per chunk, in memory and in the file.
        memory_rows: Rows kept in memory before chunks go to a temporary file; as many as fit into
            ``MEMORY_BYTES`` if not said.
    """

    def __init__(self, table: Table, chunk_rows: int = CHUNK_ROWS, memory_rows: int | None = None) -> None:
        self.table = table
        self.dtype = table.dtype
        self.chunk_rows = chunk_rows
        if memory_rows is None:
            memory_rows = MEMORY_BYTES // self.dtype.itemsize
        self._memory_chunks = max(1, memory_rows // chunk_rows)
        self._tail = np.zeros(chunk_rows, self.dtype)
        self._fill = 0
        self._kept: list[Records] = []
        self._file: IO[bytes] | None = None
        self._filed = 0

    def __len__(self) -> int:
        return (self._filed + len(self._kept)) * self.chunk_rows + self._fill

    def append(self, rows: Records) -> None:
        """Add *rows* (any number, of this table's dtype)."""
        start = 0
        while start < len(rows):
            if self._fill == 0 and len(rows) - start >= self.chunk_rows and self._file is not None:
                rows[start : start + self.chunk_rows].tofile(self._file)
                self._filed += 1
                start += self.chunk_rows
                continue
            take = min(len(rows) - start, self.chunk_rows - self._fill)
            opaque(self._tail)[self._fill : self._fill + take] = opaque(rows[start : start + take])
            self._fill += take
            start += take
            if self._fill == self.chunk_rows:
                self._flush()

    def _flush(self) -> None:
        if self._file is None and len(self._kept) < self._memory_chunks:
            self._kept.append(self._tail)
            self._tail = np.zeros(self.chunk_rows, self.dtype)
        else:
            if self._file is None:
                self._file = tempfile.TemporaryFile(prefix="synquest-")  # noqa: SIM115
            self._tail.tofile(self._file)
            self._filed += 1
        self._fill = 0

    def chunks(self) -> Iterator[Records]:
        """Yield all rows in order, a chunk at a time; do not append meanwhile."""
        yield from self._kept
        if self._file is not None:
            for index in range(self._filed):
                self._file.seek(index * self.chunk_rows * self.dtype.itemsize)
                yield np.fromfile(self._file, self.dtype, self.chunk_rows)
            self._file.seek(0, 2)
        if self._fill:
            yield self._tail[: self._fill]

    def columns(self, names: Sequence[str], where: Callable[[Records], Any] | None = None) -> Records:
        """Some columns in one packed array: rows are wide, and a look at a few columns need not copy them all.

        Args:
            names: Columns.
            where: Chunk → bool or indices: which of its rows; None for all.
        """
        dtype = np.dtype([(name, self.dtype[name]) for name in names])
        parts = [np.zeros(0, dtype)]
        for chunk in self.chunks():
            chosen = None if where is None else where(chunk)
            if chosen is not None and chosen.dtype == np.bool_:
                chosen = np.flatnonzero(chosen)
            part = np.empty(len(chunk) if chosen is None else len(chosen), dtype)
            for name in names:
                part[name] = chunk[name] if chosen is None else chunk[name][chosen]
            parts.append(part)
        return np.concatenate([opaque(part) for part in parts]).view(dtype)

    def to_array(self) -> Records:
        """All rows in one array: for small tables and tests."""
        parts = [np.zeros(0, self.dtype), *self.chunks()]
        return np.concatenate([opaque(part) for part in parts]).view(self.dtype)

    def close(self) -> None:
        """Release the temporary file; the spool is empty afterwards."""
        if self._file is not None:
            self._file.close()
        self._file, self._filed, self._kept, self._fill = None, 0, [], 0
