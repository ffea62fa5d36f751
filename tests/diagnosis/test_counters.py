"""Counters of the host: every format read, and the replay's prediction held against real kernels."""

import json

import pytest

from analyzer.capture import open_capture
from analyzer.cli.pairs import doubled
from analyzer.connections import track
from analyzer.diagnosis.counters import moved, predict, reconcile, reconcile_all
from analyzer.diagnosis.model import Vantage
from analyzer.diagnosis.netstat import load_pairs, read_counters
from analyzer.errors import InputError, UsageError
from analyzer.kernel.profiles import find_profile
from analyzer.kernel.settings import Settings, parse_sysctls
from analyzer.replay.run import replay
from tests.replay import real

OLD_NET_TOOLS = """\
Tcp:
    12 active connections openings
    345 passive connection openings
    7 resets sent
TcpExt:
    3 TCP sockets finished time wait in fast timer
    41 TCP sockets finished time wait in slow timer
    706 passive connections rejected because of time stamp
    4 packets rejects in established connections because of timestamp
    Quick ack mode was activated 1 times
    5 times the listen queue of a socket overflowed
    711 SYNs to LISTEN sockets ignored
    TCPTimeWaitOverflow: 2
"""
NEW_NET_TOOLS = (
    OLD_NET_TOOLS.replace("connections openings", "connection openings")
    .replace("packets rejects", "packets rejected")
    .replace("ignored", "dropped")
)
VALUES = {
    "ActiveOpens": 12, "PassiveOpens": 345, "OutRsts": 7, "TW": 3, "TWKilled": 41, "PAWSPassive": 706,
    "PAWSEstab": 4, "ListenOverflows": 5, "ListenDrops": 711, "TCPTimeWaitOverflow": 2,
}  # fmt: skip
TCP = {"ActiveOpens", "PassiveOpens", "OutRsts"}


def as_nstat(values):
    return "#kernel\n" + "".join(f"{'Tcp' if n in TCP else 'TcpExt'}{n:<40}{v}   0.0\n" for n, v in values.items())


def as_json(values):
    return json.dumps({"kernel": {("Tcp" if n in TCP else "TcpExt") + n: v for n, v in values.items()}})


def as_proc(values):
    lines = []
    for group, names in (("TcpExt", [n for n in values if n not in TCP]), ("Tcp", [n for n in values if n in TCP])):
        lines += [f"{group}: {' '.join(names)}", f"{group}: {' '.join(str(values[n]) for n in names)}"]
    return "\n".join(lines)


@pytest.mark.parametrize(
    "text",
    [OLD_NET_TOOLS, NEW_NET_TOOLS, as_nstat(VALUES), as_json(VALUES), as_proc(VALUES)],
    ids=["old netstat -s", "netstat -s", "nstat", "nstat --json", "/proc/net"],
)
def test_each_format_gives_the_same_counters(text):
    assert {name: value for name, value in read_counters(text).items() if value} == VALUES


def test_what_a_text_format_leaves_out_stands_at_zero():
    assert read_counters("Tcp:\n    1 resets sent\nTcpExt:\n")["PAWSPassive"] == 0
    assert "PAWSPassive" not in read_counters("Tcp: OutRsts\nTcp: 1\n")


def test_other_groups_keep_their_group():
    found = read_counters("Tcp: InErrs\nTcp: 1\nUdp: InErrors\nUdp: 2\nIcmp: OutDestUnreachs\nIcmp: 50\n")
    assert found == {"InErrs": 1, "UdpInErrors": 2, "IcmpOutDestUnreachs": 50}


@pytest.mark.parametrize(
    "text",
    ["", "hello", "{", "{}", "[1]", '{"kernel": 3}', "a,b\n1,2\n", "TcpExt: A B\nTcpExt: 1 x\n", "Tcp:\n\n", "\0" * 50],
)
def test_what_is_no_table_of_counters_is_said_in_one_line(text):
    with pytest.raises(InputError) as error:
        read_counters(text)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", [as_nstat(VALUES) * 2, as_proc(VALUES) + "\n" + as_proc(VALUES), NEW_NET_TOOLS * 2])
def test_two_hosts_in_one_file_are_not_mixed_up(text):
    with pytest.raises(InputError, match="more than once"):
        read_counters(text)


def test_snmp_goes_to_the_host_of_the_netstat_before_it(tmp_path):
    netstat, snmp = as_proc(VALUES).split("\nTcp: ", 1)
    for name, text in {"n": netstat, "s": "Tcp: " + snmp, "both": as_proc(VALUES)}.items():
        (tmp_path / name).write_text(text)
    path = {name: str(tmp_path / name) for name in ("n", "s", "both")}
    hosts = load_pairs([(path["n"], path["n"]), (path["s"], path["s"]), (path["both"], path["both"])])
    assert [before for before, _ in hosts] == [VALUES, VALUES]


def test_snapshots_the_wrong_way_round_are_noticed(tmp_path):
    early, late = tmp_path / "early", tmp_path / "late"
    early.write_text(as_proc(VALUES))
    late.write_text(as_proc({**VALUES, "ListenDrops": 800}))
    with pytest.raises(InputError, match="BEFORE, then AFTER"):
        load_pairs([(str(late), str(early))])


def test_option_of_two_words():
    assert doubled(["a", "--netstat", "b", "c", "--netstat=d", "e"]) == [
        "a", "--netstat", "b", "--netstat", "c", "--netstat", "d", "--netstat", "e",
    ]  # fmt: skip
    with pytest.raises(UsageError, match="BEFORE AFTER"):
        doubled(["--netstat", "b", "--json"])


# ---- prediction --------------------------------------------------------------------------------------

# what the kernels' own counters rose by while the captures in fixtures/ were taken
SEEN = {
    "el7-recycle": ("el7.9", {"PAWSPassive": 706, "PAWSEstab": 4, "ListenDrops": 706, "ListenOverflows": 0,
                              "TWKilled": 293, "TW": 0, "PassiveOpens": 533, "EmbryonicRsts": 1, "InSegs": 3898}),
    "el7-norecycle": ("el7.9", {"PAWSPassive": 0, "PAWSEstab": 57, "ListenDrops": 0, "ListenOverflows": 0,
                                "TWKilled": 0, "PassiveOpens": 730, "InSegs": 4345}),
    "v4.9-recycle": ("4.9.337", {"PAWSPassive": 706, "PAWSEstab": 4, "ListenDrops": 706, "TWKilled": 292, "TW": 0,
                                 "PassiveOpens": 533, "EmbryonicRsts": 1, "InSegs": 3898}),
    "v3.10-recycle": ("3.10.108", {"PAWSPassive": 678, "PAWSEstab": 1, "ListenDrops": 678, "TWKilled": 276, "TW": 0,
                                   "PassiveOpens": 491, "InSegs": 3775}),
    "v6.1-timewait": ("6.1", {"PAWSEstab": 59, "ListenDrops": 0, "PassiveOpens": 730, "InSegs": 4348}),
}  # fmt: skip


def vantage(name, kernel):
    tracked = real.capture(name)
    return Vantage("server", "server", tracked, replay(tracked, find_profile(kernel), real.settings(name)))


@pytest.mark.parametrize("name", SEEN)
def test_predicted_rise_is_the_kernels(name):
    kernel, seen = SEEN[name]
    rows = reconcile(vantage(name, kernel), dict.fromkeys(seen, 1000), {n: 1000 + v for n, v in seen.items()})
    assert {row.name: row.residual for row in rows if row.seen is not None} == dict.fromkeys(
        (row.name for row in rows if row.seen is not None), 0
    )
    assert {row.name: row.seen for row in rows if row.seen} == {n: v for n, v in seen.items() if v}


def test_bounds_hold_the_prediction():
    tally = predict(vantage("v4.9-recycle", "4.9.337"))
    for name, likely in tally.likely.items():
        assert tally.low[name] <= likely <= max(tally.high[name], likely), name
    assert tally.low["PAWSPassive"] > 600


def test_a_residual_is_laid_on_segments_that_the_capture_lacks():
    _, seen = SEEN["v4.9-recycle"]
    more = {**seen, "PAWSPassive": seen["PAWSPassive"] + 9, "InSegs": seen["InSegs"] + 50}
    rows = {r.name: r for r in reconcile(vantage("v4.9-recycle", "4.9.337"), dict.fromkeys(seen, 0), more)}
    assert rows["InSegs"].residual == 50
    assert rows["EmbryonicRsts"].explanation == ""
    assert "50 segments" in rows["PAWSPassive"].explanation or "bounds" in rows["PAWSPassive"].explanation


def test_a_residual_without_an_excuse_is_called_unexplained():
    _, seen = SEEN["v4.9-recycle"]
    more = {**seen, "ListenOverflows": 5}
    rows = {r.name: r for r in reconcile(vantage("v4.9-recycle", "4.9.337"), dict.fromkeys(more, 0), more)}
    assert rows["ListenOverflows"].residual == 5
    assert rows["ListenOverflows"].explanation.startswith("unexplained")


def test_a_reboot_between_the_snapshots_is_no_delta():
    rows = reconcile(vantage("v4.9-recycle", "4.9.337"), {"PAWSPassive": 900}, {"PAWSPassive": 3})
    (row,) = [r for r in rows if r.name == "PAWSPassive"]
    assert row.seen is None and row.residual is None and "rebooted" in row.explanation


def test_more_snapshots_than_servers():
    with pytest.raises(UsageError, match="2 hosts"):
        reconcile_all([vantage("v4.9-recycle", "4.9.337")], [({}, {}), ({}, {})])


@pytest.mark.parametrize(
    ("kernel", "rule", "names"),
    [
        ("el6", "peer_timestamp", {"PAWSPassive"}),
        ("3.10", "peer_timestamp", {"PAWSPassive", "ListenDrops"}),
        ("el6", "accept_queue_full", set()),
        ("4.9.337", "accept_queue_full", {"ListenOverflows", "ListenDrops"}),
        ("3.0", "syn_queue_full", set()),
        ("3.10", "syn_queue_full", {"TCPReqQFullDrop", "ListenDrops"}),
        ("3.10", "syn_cookie", {"TCPReqQFullDoCookies", "SyncookiesSent", "ListenDrops"}),
        ("4.9.337", "syn_cookie", {"TCPReqQFullDoCookies", "SyncookiesSent"}),
        ("6.1", "time_wait_paws", {"PAWSEstab"}),
        ("6.18", "time_wait_paws", {"PAWSTimewait"}),
        ("6.18", "time_wait_paws_rate_limited", {"PAWSTimewait", "TCPACKSkippedTimeWait"}),
        ("6.18", "time_wait_sequence", set()),
        ("4.9.337", "live_challenge", {"PAWSEstab"}),
        ("6.18", "live_challenge", {"TCPSYNChallenge", "TCPChallengeACK"}),
        ("3.10", "live_silent", set()),
    ],
)
def test_counters_of_a_rule_with_an_old_timestamp(kernel, rule, names):
    assert set(moved(find_profile(kernel), rule, paws=True)) == names


SCENARIOS = [
    ("kernel/3.10.0-1160.el7/S4b-ackoverflow-abort0", "el7.9"),
    ("kernel/3.10.108/S4-acceptq-abort1-cookies0", "3.10.108"),
    ("kernel/3.10.108/S6a-mixed-recycle0", "3.10.108"),
    ("kernel/4.9.337/S4-acceptq-abort0-cookies0", "4.9.337"),
    ("kernel/4.9.337/S4b-ackoverflow-abort1", "4.9.337"),
    ("kernel/4.9.337/S6a-mixed-recycle1", "4.9.337"),
]
EXACT = {"PAWSPassive", "PAWSEstab", "ListenOverflows", "ListenDrops", "TCPReqQFullDrop", "PassiveOpens", "InSegs"}


@pytest.mark.parametrize(("folder", "kernel"), SCENARIOS)
def test_queues_and_third_acks_of_real_kernels(shared, folder, kernel):
    path = shared / "captures" / folder
    backlog = int((path / "listen.txt").read_text().split("backlog ")[1].split()[0])
    settings = Settings(backlog=backlog).override(parse_sysctls((path / "sysctl.txt").read_text())[0])
    tracked = track(open_capture([str(next(path.glob("server.pcap*")))], "server"))
    server = Vantage("server", "server", tracked, replay(tracked, find_profile(kernel), settings))
    names = [(str(path / f"{stem}-before.txt"), str(path / f"{stem}-after.txt")) for stem in ("netstat", "snmp")]
    ((before, after),) = load_pairs(names)
    off = {row.name: row.residual for row in reconcile(server, before, after) if row.name in EXACT and row.residual}
    assert off == {}


@pytest.mark.parametrize("name", ["M2d_tw_lb_drops_ack", "M3a_acceptq_abort0", "M4e_refused", "M7a_ipv6"])
def test_counters_of_the_kernel_of_today(shared, name):
    path = shared / "captures" / "modern" / name
    settings = Settings(backlog=4 if name.startswith("M3") else None)
    settings = settings.override(parse_sysctls((path / "sysctl.txt").read_text())[0])
    for host in ("s1", "s2"):
        tracked = track(open_capture([str(path / f"{host}.pcap")], host))
        server = Vantage(host, "server", tracked, replay(tracked, find_profile("6.18"), settings))
        texts = [(path / f"netstat_s_{host}_{when}.txt").read_text() for when in ("before", "after")]
        rows = reconcile(server, *map(read_counters, texts))
        assert [(row.name, row.residual) for row in rows if row.residual] == []
