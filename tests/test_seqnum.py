from hypothesis import example, given
from hypothesis import strategies as st

from analyzer.seqnum import add32, after, before, d32, u32age

U32 = st.integers(0, 2**32 - 1)


@given(U32, st.integers(-(2**31), 2**31 - 1))
@example(0, -1)
@example(2**32 - 1, 1)
@example(0, -(2**31))
def test_distance_undoes_addition(a, step):
    assert d32(add32(a, step), a) == step


@given(U32, U32)
@example(0, 2**31)
def test_nothing_is_both_before_and_after(a, b):
    assert not (after(a, b) and before(a, b))
    assert after(a, b) == (0 < (a - b) % 2**32 < 2**31)


def test_half_the_circle_is_after_neither_way():
    assert not after(2**31, 0)
    assert not after(0, 2**31)


def test_a_stamp_of_the_future_is_very_old():
    assert u32age(100, 103) == 2**32 - 3
