import numpy as np

from analyzer.schema import CAUSE
from analyzer.spool import Spool


def test_rows_come_back_in_order_from_memory_and_file():
    spool = Spool(CAUSE, chunk_rows=10, memory_rows=20)
    rows = np.zeros(57, CAUSE.dtype)
    rows["cause"] = np.arange(57)
    for start in range(0, 57, 8):
        spool.append(rows[start : start + 8])
    assert len(spool) == 57
    assert np.array_equal(spool.to_array(), rows)
    assert np.array_equal(spool.to_array(), rows), "read a second time"
    assert [len(c) for c in spool.chunks()] == [10, 10, 10, 10, 10, 7]


def test_two_readers_do_not_disturb_each_other():
    spool = Spool(CAUSE, chunk_rows=4, memory_rows=4)
    rows = np.zeros(12, CAUSE.dtype)
    rows["certainty"] = np.arange(12) % 3
    spool.append(rows)
    for left, right in zip(spool.chunks(), spool.chunks(), strict=True):
        assert np.array_equal(left, right)


def test_closed_spool_is_empty():
    spool = Spool(CAUSE, chunk_rows=4, memory_rows=4)
    spool.append(np.zeros(20, CAUSE.dtype))
    spool.close()
    assert len(spool) == 0
    assert len(spool.to_array()) == 0
