"""numpy columns as Arrow arrays, made from their memory.

``pyarrow.array`` would import pandas, where that is installed, to ask whether the values are of its kind: a
third of a second for a report that needs none of it.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

Mask = Any
TIME = pa.timestamp("ns", tz="UTC")


def numbers(values: Any, mask: Mask = None, kind: pa.DataType | None = None) -> pa.Array:
    """A fixed-width column.

    Args:
        values: One-dimensional array of integers, floats or booleans.
        mask: bool, where the value is null; None for nowhere.
        kind: Arrow type of the same width; None for the one that belongs to the dtype.
    """
    data: Any = np.ascontiguousarray(values)
    if kind is None:
        kind = pa.from_numpy_dtype(data.dtype)
    if data.dtype == np.bool_:
        data = np.packbits(data, bitorder="little")
    return pa.Array.from_buffers(kind, len(values), [_valid(mask), pa.py_buffer(data)])


def _valid(mask: Mask) -> pa.Buffer | None:
    if mask is None or not mask.any():
        return None
    return pa.py_buffer(np.packbits(~mask, bitorder="little"))


def times(values: Any) -> pa.Array:
    """Ns since 1970; ``NO_TIME`` is null."""
    from analyzer.units import NO_TIME

    return numbers(values.astype(np.int64, copy=False), values == NO_TIME, TIME)


def strings(texts: Sequence[str]) -> pa.Array:
    """A column of texts."""
    encoded = [text.encode() for text in texts]
    ends = np.cumsum([0, *map(len, encoded)], dtype=np.int32)
    return pa.StringArray.from_buffers(len(encoded), pa.py_buffer(ends), pa.py_buffer(b"".join(encoded)))


def letters(values: Any, mask: Mask = None) -> pa.Array:
    """Fixed-width ASCII byte strings (dtype S) as texts, without the zeros that fill them up."""
    bytes_ = np.ascontiguousarray(values)
    width = bytes_.dtype.itemsize
    lengths = np.strings.str_len(bytes_)
    ends = np.zeros(len(bytes_) + 1, np.int32)
    np.cumsum(lengths, out=ends[1:])
    flat = bytes_.view(np.uint8).reshape(len(bytes_), width)
    packed = flat[np.arange(width) < lengths[:, None]]
    return pa.StringArray.from_buffers(len(bytes_), pa.py_buffer(ends), pa.py_buffer(packed), _valid(mask))


def coded(codes: Any, texts: pa.Array, mask: Mask = None) -> pa.Array:
    """A dictionary column: an index into *texts* for each row."""
    return pa.DictionaryArray.from_arrays(numbers(codes.astype(np.int32, copy=False), mask), texts)


def words(codes: Any, listed: Iterable[str], mask: Mask = None) -> pa.Array:
    """Codes as a dictionary column; an empty word is null."""
    texts = list(listed)
    empty = np.array([not text for text in texts], np.bool_)[codes]
    return coded(codes, strings([text or "-" for text in texts]), empty if mask is None else empty | mask)


def lists(offsets: Any, values: Any) -> pa.Array:
    """One list of floats for each row: those between its offset and the next."""
    return pa.ListArray.from_arrays(numbers(offsets.astype(np.int32)), numbers(values.astype(np.float64)))
