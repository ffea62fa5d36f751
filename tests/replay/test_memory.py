"""A peer's memory as a set of states, at its edges."""

import pytest

from analyzer.kernel.profiles import find_profile
from analyzer.replay.memory import EMPTY, NEARBY, PeerMemory, Stamp
from analyzer.units import NS

S = 1_489_482_000
HALF, CIRCLE = 2**31, 2**32


def memory(kernel="el7.9", known_empty=True, start=S - 1000):
    return PeerMemory(find_profile(kernel), start, known_empty)


def write(record, tsval, second, certain=True, seconds=None):
    stamps = tuple(Stamp(tsval, s, second * NS) for s in (seconds or (second,)))
    return record.write(stamps, second, certain)


def test_a_certain_write_decides_for_certain():
    record = memory()
    assert write(record, 5000, S) == 1
    check = record.check(4998, (S + 59,))
    assert (check.rejects, check.certain, check.stamp.tsval) == (True, True, 5000)
    assert not record.check(4998, (S + 60,)).rejects
    assert write(record, 4000, S + 60) == 0
    assert write(record, 4000, S + 61) == 1


def test_a_write_that_may_not_have_happened_leaves_both_states():
    record = memory()
    assert write(record, 5000, S, certain=False) == 2
    check = record.check(10, (S + 1,))
    assert check.rejects and not check.certain
    assert record.check(5000, (S + 1,)).certain


def test_the_second_may_be_one_of_two():
    record = memory()
    write(record, 5000, S, seconds=(S, S - 1))
    assert record.check(10, (S + 58,)).certain
    assert not record.check(10, (S + 59,)).certain
    assert not record.check(10, (S + 59, S + 58)).certain


def test_what_was_before_is_open_for_a_minute():
    record = memory(known_empty=False, start=S)
    check = record.check(10, (S + 59,))
    assert not check.certain and check.missing_lead_in
    assert record.check(10, (S + 60,)).certain


def test_a_hidden_stamp_may_have_held_a_write_back_for_longer():
    record = memory(known_empty=False, start=S)
    write(record, 5000, S + 30)
    assert not record.check(10, (S + 61,)).certain
    assert record.check(10, (S + 90,)).certain


@pytest.mark.parametrize(
    ("passed", "tsval", "certain"),
    [
        ([1000], 1000, True), ([1000], 1001, True), ([1000], 999, False), ([1000], 1000 + NEARBY - 1, True),
        ([1000], 1000 + NEARBY, False), ([1000, 1000 + HALF // 2], 1000 + NEARBY, True),
        ([1000, (1000 + HALF - 2) % CIRCLE], 1000 + NEARBY, True), ([1000, 1000 + HALF - 1], 1000 + NEARBY, False),
        ([CIRCLE - 5], 3, True), ([], 3, False),
    ],
)  # fmt: skip
def test_syns_that_passed_bound_what_was_before(passed, tsval, certain):
    record = memory(known_empty=False, start=S)
    for old in passed:
        record.learn_passed(old, (S + 1) * NS, (S + 1,))
    assert record.check(tsval, (S + 2,)).certain == certain


def test_a_write_ahead_of_all_that_was_before_replaces_it():
    record = memory(known_empty=False, start=S)
    record.learn_passed(1000, (S + 1) * NS, (S + 1,))
    assert write(record, 1000, S + 2) == 2
    record = memory(known_empty=False, start=S)
    record.learn_passed(1000, (S + 1) * NS, (S + 1,))
    assert write(record, 1001, S + 2) == 1


def test_a_syn_without_timestamps_that_passed_shows_that_nothing_was_fresh():
    record, old = memory(known_empty=False, start=S), memory("3.10", known_empty=False, start=S)
    for each in (record, old):
        each.learn_passed(None, (S + 1) * NS, (S + 1,))
    assert record.check(5, (S + 2,)).certain
    assert not old.check(5, (S + 2,)).certain


def test_a_syn_that_passed_removes_the_states_that_would_have_rejected_it():
    record = memory()
    write(record, 5000, S, certain=False)
    assert record.learn_passed(4000, (S + 1) * NS, (S + 1,))
    assert record.states == [EMPTY]
    write(record, 5000, S + 2)
    assert not record.learn_passed(4000, (S + 3) * NS, (S + 3,)), "a certain state is refuted"


def test_a_state_written_later_says_nothing_of_an_earlier_syn():
    record = memory()
    write(record, 5000, S + 5)
    assert record.learn_passed(4000, (S + 5) * NS, (S + 5,))
    assert record.check(10, (S + 6,)).certain


def test_silence_makes_the_rejecting_state_likelier():
    record = memory()
    record.write((Stamp(5000, S, S * NS),), S, False)
    record.states.reverse()
    record.pending.append(((S + 1) * NS, 7, 4000))
    record.learn_pending((S + 1) * NS + 200_000_000)
    assert not record.check(10, (S + 2,)).rejects
    record.learn_pending((S + 1) * NS + 200_000_001)
    assert record.check(10, (S + 2,)).rejects


def test_a_revoked_write_is_only_the_less_likely_one():
    record = memory()
    write(record, 5000, S, certain=False)
    record.revoke(S * NS)
    check = record.check(10, (S + 1,))
    assert not check.rejects and not check.certain


def test_a_blurred_memory_is_open_for_a_minute_again():
    record = memory()
    record.blur(S)
    assert not record.check(10, (S + 59,)).certain
    assert record.check(10, (S + 61,)).certain


def test_a_stamp_that_rejects_in_one_of_two_seconds_only_is_kept():
    record = memory()
    write(record, 5000, S)
    assert record.learn_passed(10, (S + 60) * NS, (S + 59, S + 60))
    assert not memory_after(S, (S + 58, S + 59))


def memory_after(second, now):
    """Whether a state is left after a SYN behind it passed in one of the seconds *now*."""
    record = memory()
    write(record, 5000, second)
    return record.learn_passed(10, now[0] * NS, now)


def test_what_was_before_counts_up_to_the_sixtieth_second_when_it_holds_a_write_back():
    record = memory(known_empty=False, start=S)
    assert write(record, 5000, S + 60) == 2
    assert write(memory(known_empty=False, start=S), 5000, S + 61) == 1


def test_one_state_is_open_where_its_minute_ends_in_one_of_two_seconds():
    record = memory()
    write(record, 5000, S)
    assert not record.check(10, (S + 60, S + 59)).certain
    assert record.check(10, (S + 59, S + 58)).certain
