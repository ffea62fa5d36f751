"""Edges of the rules: 59/60/61 s, one and two ticks, half the circle, the edges of windows and queues."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analyzer.kernel import rules
from analyzer.kernel.profiles import find_profile
from analyzer.kernel.rules import Bucket
from analyzer.kernel.settings import Settings

NEW, OLD, EL6 = find_profile("el7.9"), find_profile("3.10"), find_profile("el6")
S = 1_489_482_000
HALF, CIRCLE = 2**31, 2**32
near = st.sampled_from(
    [0, 1, 2, 3, 59, 60, 61, 1000, HALF - 2, HALF - 1, HALF, HALF + 1, HALF + 2, CIRCLE - 2, CIRCLE - 1]
)
value = st.one_of(near, st.integers(0, CIRCLE - 1))
age = st.one_of(st.sampled_from([-61, -60, -20, -1, 0, 1, 58, 59, 60, 61, 62, 3600]), st.integers(-4000, 4000))


@given(stored=value, behind=value, old=age)
def test_the_check_rejects_half_a_circle_for_60_seconds(stored, behind, old):
    """Rejected: 2 to 2**31 - 1 ticks behind, in the seconds 0 to 59 after the stamp."""
    said = rules.peer_rejects(NEW, stored, S, (stored - behind) % CIRCLE, S + old)
    assert said == (2 <= behind <= HALF - 1 and 0 <= old <= 59)


@given(stored=value, behind=value, old=age)
def test_the_oldest_kernels_keep_a_stamp_of_the_future_fresh(stored, behind, old):
    said = rules.peer_rejects(EL6, stored, S, (stored - behind) % CIRCLE, S + old)
    assert said == (2 <= behind <= HALF - 1 and old <= 59)


@given(stored=value, behind=value, old=age, received=st.integers(-100, 4000))
def test_a_write_moves_up_or_replaces_what_is_over_a_minute_old(stored, behind, old, received):
    """A stamp of the future counts as very old from 3.0 on; what was received earlier never replaces."""
    said = rules.peer_write_replaces(NEW, stored, S, (stored - behind) % CIRCLE, S + received, S + old)
    up = behind == 0 or behind >= HALF
    assert said == (up or (not 0 <= old <= 60 and received >= 0))


@given(stored=value, behind=st.integers(1, HALF - 1), old=age)
def test_the_oldest_kernels_compare_wide_seconds_when_they_write(stored, behind, old):
    said = rules.peer_write_replaces(EL6, stored, S, (stored - behind) % CIRCLE, S + 4000, S + old)
    assert said == (old >= 61)
    assert not rules.peer_write_replaces(EL6, stored, S, (stored - behind) % CIRCLE, S - 1, S + old)


def test_where_a_stamp_is_filed():
    assert rules.peer_key(NEW, "a", "b") == ("a", "b")
    assert rules.peer_key(OLD, "a", "b") == "b"
    assert rules.peer_key(EL6, "a", "b", v6=True) is None
    assert rules.peer_key(NEW, "a", "b", v6=True) == ("a", "b")
    assert rules.peer_key(OLD, "a", "b", dual_stack=True) is None
    assert rules.peer_key(OLD, "a", "b", v6=True, dual_stack=True) == "b"
    assert rules.peer_key(NEW, "a", "b", dual_stack=True) == ("a", "b")


@given(recent=value, behind=value, tolerance=st.sampled_from([0, 1]))
def test_paws(recent, behind, tolerance):
    bucket = Bucket(0, 0, 0, recent, S, True)
    said = rules.paws_rejects(NEW, bucket, (recent - behind) % CIRCLE, S + 5, tolerance)
    assert said == (recent != 0 and tolerance < behind <= HALF - 1)


def test_paws_forgets():
    bucket, limit = Bucket(0, 0, 0, 5000, S, True), 86400 * 24
    assert rules.paws_rejects(NEW, bucket, 4000, S + limit - 1)
    assert not rules.paws_rejects(NEW, bucket, 4000, S + limit)
    late = find_profile("6.12")
    assert rules.paws_rejects(late, bucket, 4000, S + 2146)
    assert not rules.paws_rejects(late, bucket, 4000, S + 2147)


@pytest.mark.parametrize(
    ("seq", "end", "inside"),
    [
        (1000, 1001, True), (999, 1000, False), (999, 1001, True), (1099, 1100, True), (1100, 1101, False),
        (1100, 1100, True), (1101, 1101, False), (900, 950, False),
    ],
)  # fmt: skip
def test_the_window(seq, end, inside):
    assert rules.in_window(Bucket(1000, 100), seq, end) == inside


def test_a_window_of_nothing_takes_the_next_byte_alone():
    assert rules.in_window(Bucket(1000, 0), 1000, 1001)
    assert not rules.in_window(Bucket(1000, 0), 1001, 1002)


def test_a_syn_one_before_the_window_of_a_half_closed_bucket_is_no_reset():
    assert rules.fin_wait2(NEW, Bucket(1000, 100, 7, 5000, S, True), 999, 5000, S).rule == "fin_wait2_ack"


def test_the_request_knows_its_own_syn():
    request = Bucket(rcv_nxt=101, rcv_wnd=1000, ts_recent=50, ts_recent_s=S, has_ts=True)
    said = {seq: rules.syn_recv(NEW, request, seq, 50, S).rule for seq in (99, 100, 101, 1100, 1101)}
    assert said == {
        99: "syn_recv_ack", 100: "syn_recv_repeat", 101: "syn_recv_reset", 1100: "syn_recv_reset", 1101: "syn_recv_ack",
    }  # fmt: skip


def test_acks_go_out_again_after_the_limit_and_when_the_clock_ran_back():
    assert not rules.ack_suppressed(find_profile("6.1"), Settings(), 10, 9)
    assert rules.ack_suppressed(find_profile("6.1"), Settings(), 10, 10)
    limit = Settings(invalid_ratelimit_ms=100)
    assert rules.ack_suppressed(find_profile("6.1"), limit, 0, 99_999_999)
    assert not rules.ack_suppressed(find_profile("6.1"), limit, 0, 100_000_000)


def test_a_connection_without_round_trips_waits_three_seconds():
    assert rules.rto_bounds_ns(0, 0) == (200_000_000, 3_000_000_000)
    assert rules.rto_bounds_ns(0, 1_000) == (200_000_000, 200_001_000)


def test_slots_end_early_and_wheels_late():
    old, new, exact = (find_profile(name) for name in ("3.10", "6.1", "4.1"))
    minute = 60_000_000_000
    assert rules.bucket_life_ns(old, Settings(), False, 0) == (minute - 7_500_000_000, minute)
    assert rules.bucket_life_ns(new, Settings(), False, 0) == (minute, minute + 5_120_000_000)
    assert rules.bucket_life_ns(exact, Settings(), False, 0) == (minute, minute)
    edge = 10_000_000_000 // 7  # 3.5 RTO of this are 5 s, less a little
    assert rules.bucket_life_ns(old, Settings(), True, edge)[1] - edge * 7 // 2 == 160_000_000
    assert rules.bucket_life_ns(old, Settings(), True, edge + 2)[1] == (edge + 2) * 7 // 2


def test_fin_wait2_lasts_tcp_fin_timeout_but_three_and_a_half_rto_at_least():
    assert rules.fin_time_ns(Settings(), 0) == 60_000_000_000
    assert rules.fin_time_ns(Settings(fin_timeout=1), 1_000_000_000) == 3_500_000_000


def test_the_syn_queue_is_the_whole_backlog_from_4_4_on():
    assert rules.syn_queue_limit(find_profile("4.4"), 5, 2048) == 5
    assert rules.syn_queue_limit(OLD, 7, 2048) == 16
    assert rules.syn_queue_limit(OLD, 100, 64) == 128


def test_the_last_quarter_begins_below_a_quarter():
    assert [rules.last_quarter(n, 100, 0) for n in (75, 76)] == [False, True]


@pytest.mark.parametrize("profile", [NEW, EL6])
def test_a_stamp_received_in_the_same_second_may_replace(profile):
    assert rules.peer_write_replaces(profile, 5000, S, 4000, S, S + 61)
    assert not rules.peer_write_replaces(profile, 5000, S, 4000, S - 1, S + 61)
