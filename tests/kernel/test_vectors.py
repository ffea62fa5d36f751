"""Rows typed by hand from the description of the kernels; no row was computed by the code under test."""

import pytest

from analyzer.kernel import rules
from analyzer.kernel.profiles import PROFILES, compare, find_profile
from analyzer.kernel.rules import Bucket
from analyzer.kernel.settings import Settings, parse_sysctls

OLD = [find_profile(n) for n in ("3.0", "3.4", "3.10", "3.14", "el7.1")]
NEW = [find_profile(n) for n in ("3.17", "4.0", "4.4", "4.9.337", "4.11", "el7.9")]
S = 1_000_000

PEER = [
    ("P1", 5000, 5000, 0, "pass", "pass"),
    ("P2", 5000, 4999, 0, "pass", "pass"),
    ("P3", 5000, 4998, 0, "drop", "drop"),
    ("P4", 5000, 4998, 59, "drop", "drop"),
    ("P5", 5000, 4998, 60, "pass", "pass"),
    ("P6", 5000, None, 10, "pass", "drop"),
    ("P7", 10, 4294967290, 5, "drop", "drop"),
    ("P8", 4294967290, 10, 5, "pass", "pass"),
    ("P9", 2147483748, 100, 5, "pass", "pass"),
    ("P10", 2147483747, 100, 5, "drop", "drop"),
    ("P11", 5000, 0, 5, "drop", "drop"),
    ("P12", 5000, 4000, -3, "pass", "pass"),
]


@pytest.mark.parametrize(("name", "stored", "tsval", "later", "old", "new"), PEER)
def test_per_peer_check(name, stored, tsval, later, old, new):
    for profiles, expected in ((OLD, old), (NEW, new)):
        for profile in profiles:
            assert rules.peer_rejects(profile, stored, S, tsval, S + later) == (expected == "drop"), profile.name


@pytest.mark.parametrize("name", ["2.6.32", "el6"])
def test_a_clock_stepped_back_keeps_the_oldest_kernels_stamp_fresh(name):
    profile = find_profile(name)
    assert rules.peer_rejects(profile, 5000, S, 4000, S - 3)
    assert not rules.peer_rejects(profile, 5000, S, 4000, S + 60)


def test_an_empty_record_rejects_nothing():
    assert not rules.peer_rejects(find_profile("el7.9"), 0, 0, 2**31 + 5, 30)
    assert not rules.peer_rejects(find_profile("el7.9"), 0, 0, None, 30)


WRITES = [
    ("W1", 9000, 0, 0, (9000, 0)),
    ("W2", 4000, 10, 10, (9000, 0)),
    ("W3", 9500, 20, 20, (9500, 20)),
    ("W4", 4100, 80, 80, (9500, 20)),
    ("W5", 4200, 81, 81, (4200, 81)),
    ("W6", 100, 300, 300, (100, 300)),
    ("W7", 90, 290, 400, (100, 300)),
]


@pytest.mark.parametrize("name", ["2.6.32", "3.10", "el7.9", "4.9.337"])
def test_the_record_evolves(name):
    profile, record = find_profile(name), (0, 0)
    for label, tsval, received, now, expected in WRITES:
        if rules.peer_write_replaces(profile, *record, tsval, S + received, S + now):
            record = (tsval, S + received)
        assert record == (expected[0], S + expected[1]), label


def test_an_equal_timestamp_refreshes_the_record():
    assert rules.peer_write_replaces(find_profile("el7.9"), 500, S, 500, S + 30, S + 30)


TIME_WAIT = [
    ("T1", 1000, 5000, True, 3, 1001, 5000, "accept", False),
    ("T2", 1000, 5000, True, 3, 1000, 5000, "ack", False),
    ("T3", 1000, 5000, True, 3, 999, 5001, "accept", False),
    ("T4", 1000, 5000, True, 3, 2000, 4999, "ack", True),
    ("T5", 1000, 5000, True, 3, 2000, None, "accept", False),
    ("T6", 1000, 5000, True, 3, 500, None, "ack", False),
    ("T7", 1000, 5000, True, 3, 1000, 5001, "accept", False),
    ("T8", 1000, 5000, False, 3, 500, 9000, "ack", False),
    ("T9", 1000, 0, True, 3, 500, 4294967290, "ack", False),
    ("T10", 4294967000, 5000, True, 3, 100, 5000, "accept", False),
    ("T11", 1000, 5000, True, 25 * 86400, 500, 4000, "ack", False),
]


@pytest.mark.parametrize(("name", "rcv_nxt", "recent", "has_ts", "age", "seq", "tsval", "verdict", "rearm"), TIME_WAIT)
def test_time_wait(name, rcv_nxt, recent, has_ts, age, seq, tsval, verdict, rearm):
    bucket = Bucket(rcv_nxt, 65535, 7, recent, S, has_ts)
    for profile in (find_profile(n) for n in ("el6", "3.10", "el7.9", "4.9.337", "6.1", "6.18")):
        outcome = rules.time_wait(profile, bucket, seq, tsval, S + age)
        assert (outcome.verdict, outcome.rearm) == (verdict, rearm), profile.name


def test_time_wait_of_a_zero_timestamp_rejects_on_plain_2_6_32():
    outcome = rules.time_wait(find_profile("2.6.32"), Bucket(1000, 0, 7, 0, S, True), 500, 4294967290, S + 3)
    assert (outcome.rule, outcome.rearm) == ("time_wait_paws", True)


def test_a_reused_time_wait_starts_65537_behind_the_old_connection():
    bucket = Bucket(1000, 0, 4294901758, 5000, S, True)
    assert rules.time_wait(find_profile("6.1"), bucket, 2000, 6000, S).isn == (4294901758 + 65537) % 2**32
    wrapped = Bucket(1000, 0, 2**32 - 65537, 5000, S, True)
    assert rules.time_wait(find_profile("6.1"), wrapped, 2000, 6000, S).isn == 1, "0 is replaced by 1"


def test_fin_wait2_bucket():
    bucket, profile = Bucket(1000, 100, 7, 5000, S, True), find_profile("6.1")
    assert rules.fin_wait2(profile, bucket, 1000, 5000, S).verdict == "rst"
    assert rules.fin_wait2(profile, bucket, 1099, 5001, S).verdict == "rst"
    assert rules.fin_wait2(profile, bucket, 1101, 5001, S).verdict == "ack"
    assert rules.fin_wait2(profile, bucket, 998, 5001, S).verdict == "ack"
    assert rules.fin_wait2(profile, bucket, 1000, 4999, S).verdict == "ack"


def test_half_open_request():
    request, profile = Bucket(rcv_nxt=101, rcv_wnd=1000, ts_recent=50, ts_recent_s=S, has_ts=True), find_profile("4.9")
    assert rules.syn_recv(profile, request, 100, 60, S).rule == "syn_recv_repeat"
    assert rules.syn_recv(profile, request, 100, 49, S).rule == "syn_recv_paws"
    assert rules.syn_recv(profile, request, 500, 60, S).verdict == "rst"
    assert rules.syn_recv(profile, request, 5_000_000, 60, S).rule == "syn_recv_ack"


@pytest.mark.parametrize(
    ("name", "inside", "verdict"),
    [
        ("2.6.32", True, "rst"),
        ("2.6.32", False, "ack"),
        ("3.10.108", True, "drop"),
        ("el7.9", True, "ack"),
        ("6.1", False, "ack"),
    ],
)
def test_a_syn_on_a_live_connection(name, inside, verdict):
    assert rules.live(find_profile(name), inside, paws=False).verdict == verdict


QUEUES = [(5, 16), (50, 64), (100, 128), (128, 256), (511, 512), (1024, 2048), (4096, 4096)]


@pytest.mark.parametrize(("backlog", "limit"), QUEUES)
def test_syn_queue_limit_of_old_kernels(backlog, limit):
    assert rules.syn_queue_limit(find_profile("3.10"), backlog, 2048) == limit
    assert rules.syn_queue_limit(find_profile("4.9.337"), backlog, 2048) == backlog


def test_syn_queue_full_by_version():
    assert rules.syn_queue_full(find_profile("6.12"), 128, 128)
    assert not rules.syn_queue_full(find_profile("6.14"), 128, 128)
    assert rules.syn_queue_full(find_profile("6.14"), 129, 128)


def test_accept_queue():
    old, new = find_profile("el7.9"), find_profile("4.9.337")
    assert [rules.accept_queue_drops(new, n, 3, 0) for n in (3, 4)] == [False, True]
    assert [rules.accept_queue_drops(old, 4, 3, young) for young in (0, 1, 2)] == [False, False, True]


def test_last_quarter():
    assert [rules.last_quarter(n, 64, 0) for n in (48, 49)] == [False, True]
    assert not rules.last_quarter(60, 64, 1)


def test_acks_are_limited_to_one_in_500_ms():
    settings, half = Settings(), 500_000_000
    assert not rules.ack_suppressed(find_profile("3.10"), settings, 0, 1)
    assert rules.ack_suppressed(find_profile("6.1"), settings, 0, half - 1)
    assert not rules.ack_suppressed(find_profile("6.1"), settings, 0, half)
    assert not rules.ack_suppressed(find_profile("6.1"), settings, None, 1)


def test_recycled_bucket_lives_three_and_a_half_rto():
    """Measured: 704 ms of life at 1 ms of round trip; gone between 506 and 606 ms on slots, after 706 ms on 4.9."""
    low, high = rules.rto_bounds_ns(1_000_000, 1_000_000)
    old = rules.bucket_life_ns(find_profile("el7.9"), Settings(), True, low)
    new = rules.bucket_life_ns(find_profile("4.9.337"), Settings(), True, low)
    assert low == high == 201_000_000
    assert old[0] < 506_000_000 < old[1]
    assert 700_000_000 < new[0] <= 706_000_000 < new[1]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("2.6.32", "2.6.32"), ("el6", "el6"), ("2.6.32-642.6.2.el6.x86_64", "el6"), ("3.10", "3.10"),
        ("3.10.108", "3.10"), ("3.10.0-693.11.1.el7.x86_64", "el7.9"), ("3.10.0-229.7.2.el7.x86_64", "el7.1"),
        ("el7.2", "el7.1"), ("el7.9", "el7.9"), ("el7", "el7.9"), ("4.9.0", "4.9.0"), ("4.9.337", "4.9.337"),
        ("4.18.0-553.el8_10.x86_64", "4.14"), ("6.1", "6.1"), ("6.1.0-56-cloud-amd64", "6.1"),
        ("5.15.0-105-generic", "6.1"), ("6.18", "6.18"), ("7.0", "6.18"), ("3.16.0-4-amd64", "3.14"),
        ("Linux db1 4.9.337 #4 SMP Tue Nov 24 02:37:42 UTC 2026 x86_64", "4.9.337"), ("2.6.18", "2.6.32"),
    ],
)  # fmt: skip
def test_versions_as_people_say_them(text, name):
    assert find_profile(text).name == name


@pytest.mark.parametrize("text", ["", "latest", "windows"])
def test_no_version_is_an_error(text):
    with pytest.raises(ValueError, match="no kernel version"):
        find_profile(text)


def test_every_release_has_one_profile():
    for major, top in ((3, 19), (4, 20), (5, 19), (6, 19)):
        for minor in range(top + 1):
            assert find_profile(f"{major}.{minor}") in PROFILES


def test_two_kernels_side_by_side():
    flags = {flag for flag, *_ in compare(find_profile("3.10"), find_profile("el7.9"))}
    assert {"key", "drop_without_ts", "dual_stack", "ack_ratelimit", "live_syn"} <= flags
    assert compare(find_profile("6.1"), find_profile("5.10")) == []


def test_sysctl_output_is_read_and_noise_is_not():
    text = (
        "kernel 4.9.337 #4 SMP\nnet.ipv4.tcp_tw_recycle = 1\nsysctl: permission denied\n"
        "net.core.somaxconn=77\nkernel.pid_max = 9\n"
    )
    values, kernel = parse_sysctls(text)
    assert values == {"net.ipv4.tcp_tw_recycle": 1, "net.core.somaxconn": 77}
    assert find_profile(kernel or "").name == "4.9.337"


def test_recycle_is_off_where_the_kernel_has_none():
    assert Settings(tw_recycle=1).with_defaults(find_profile("6.1")).tw_recycle == 0
    assert Settings(tw_recycle=1).with_defaults(find_profile("4.11")).tw_recycle == 1


def test_unknown_setting_is_named():
    with pytest.raises(ValueError, match="tcp_nonsense"):
        Settings().override({"net.ipv4.tcp_nonsense": 1})
