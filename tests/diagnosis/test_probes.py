"""Probe scripts, the lines they print, and the replay held against them."""

import csv
import gzip
import io

import pytest
import zstandard

from analyzer.capture import open_capture
from analyzer.connections import track
from analyzer.diagnosis.agreement import match
from analyzer.diagnosis.model import Vantage
from analyzer.diagnosis.probe_scripts import script
from analyzer.diagnosis.probes import load_probe_log, read_probe_log
from analyzer.errors import InputError, UsageError
from analyzer.kernel.profiles import find_profile
from analyzer.kernel.settings import Settings, parse_sysctls
from analyzer.replay.run import replay
from analyzer.units import NO_TIME
from tests.conftest import FIXTURES
from tests.replay import real

# ---- scripts -------------------------------------------------------------------------------------------


def test_each_kernel_gets_the_check_where_it_is():
    assert 'kernel.function("tcp_peer_is_proven").return' in script("systemtap", "3.10.0-1160.el7.x86_64")
    assert 'kernel.function("tcp_v4_conn_request").return' in script("systemtap", "el6")
    assert 'kernel.function("tcp_v4_conn_request").return' in script("systemtap", "3.4")


def test_a_kernel_without_reasons_is_not_asked_for_them():
    old, new = script("bpftrace", "5.4.0-100-generic"), script("bpftrace", "6.18")
    assert "SKB_DROP_REASON" not in old and "ksym(" in old
    assert "SKB_DROP_REASON_TCP_RFC7323_TW_PAWS" in new
    assert "SKB_DROP_REASON_TCP_RFC7323_TW_PAWS" not in script("bpftrace", "6.1")


@pytest.mark.parametrize(
    ("tool", "kernel", "instead"),
    [("systemtap", "6.1", "bpftrace"), ("bpftrace", "el7.9", "systemtap"), ("bpftrace", "4.4", "systemtap")],
)
def test_a_tool_that_can_show_nothing_names_the_other(tool, kernel, instead):
    with pytest.raises(UsageError, match=f"use --tool {instead}"):
        script(tool, kernel)


def test_command_prints_the_script_alone(synquest):
    run = synquest("probe", "--tool", "bpftrace", "--kernel", "6.18")
    assert run.returncode == 0 and run.stdout.decode() == script("bpftrace", "6.18")
    assert synquest("probe", "--tool", "gdb").returncode == 2


# ---- lines -----------------------------------------------------------------------------------------------


def one(text):
    log = read_probe_log(text.splitlines())
    assert len(log.lines) == 1, log
    return log.lines[0]


def test_own_check():
    line = one(
        "PROVEN time=1489482066.807255001 saddr=10.0.0.1 sport=20079 daddr=10.0.0.2 dport=1120 tsval=481284815 "
        "tcpm_ts=517740536 tcpm_stamp=1489482024 now=1489482066 ret=0"
    )
    assert (line.kind, line.word, line.time) == ("check", "PROVEN ret=0", 1489482066807255001)
    assert (line.source, line.sport, line.dport, line.tsval) == ("10.0.0.1", 20079, 1120, 481284815)
    assert line.stored == (517740536, 1489482024)


def test_check_of_a_syn_without_timestamps():
    text = "PROVEN time=1.5 saddr=a sport=1 daddr=b dport=2 tsval=none tcpm_ts=7 tcpm_stamp=1 now=1 ret=0"
    assert one(text).tsval is None and one(text).time == 1_500_000_000


def test_instrumented_kernel_says_check_and_outcome_on_two_lines():
    line = one(
        "1489482066.807250 <6>[   66.1] ORA PROVEN src=10.0.0.1 paws=1 tm=1 tcpm_ts=9 tcpm_stamp=5 ts_recent=3 "
        "saw_ts=1 rtt=0 now=6 ret=0 age_j=1\n"
        "1489482066.807255 <6>[   66.2] ORA SYN src=10.0.0.1 sport=20079 seq=77 tw_isn=0 v=drop why=paws_passive "
        "qlen=0 young=0 ackq=0 ackqmax=128 cookie=0 now=6 jif=1"
    )
    assert (line.word, line.sport, line.seq, line.tsval, line.stored) == ("drop paws_passive", 20079, 77, 3, (9, 5))


@pytest.mark.parametrize(
    ("text", "word", "ends", "time"),
    [
        (
            "swapper  0 [001]  1795.250000: skb:kfree_skb: skbaddr=0xff protocol=2048 location=0xfe reason: NO_SOCKET",
            "DROP NO_SOCKET", ("", 0, "", 0), 1795_250_000_000,
        ),
        (
            "  <idle>-0  [003] ..s1.  12.000001: kfree_skb: skbaddr=0 protocol=2048 location=f reason: IP_RPFILTER",
            "DROP IP_RPFILTER", ("", 0, "", 0), 12_000_001_000,
        ),
        (
            "1795487864.891270 SKB_DROP_REASON_NETFILTER_DROP 10.20.0.101:40010 -> 10.20.0.12:1120",
            "DROP NETFILTER_DROP", ("10.20.0.101", 40010, "10.20.0.12", 1120), 1795487864_891_270_000,
        ),
        (
            "DROP time=9.1 saddr=a sport=1 daddr=b dport=2 seq=5 reason=SKB_DROP_REASON_TCP_CSUM code=10",
            "DROP TCP_CSUM", ("a", 1, "b", 2), 9_100_000_000,
        ),
        (
            "DROP time=9.1 saddr=a sport=1 daddr=b dport=2 seq=5 reason= code=99",
            "DROP code 99", ("a", 1, "b", 2), 9_100_000_000,
        ),
        (
            "drop at: tcp_v4_rcv+0x65/0xc40 (0xff)\norigin: software\n"
            "timestamp: Wed Nov 25 13:40:44 2026 000000500 nsec\nprotocol: 0x800\nlength: 74\ndrop reason: NO_SOCKET",
            "DROP NO_SOCKET", ("", 0, "", 0), 1795614044_000_000_500,
        ),
        ("drop at: f\ndrop reason: TCP_CLOSE", "DROP TCP_CLOSE", ("", 0, "", 0), NO_TIME),
    ],
)  # fmt: skip
def test_reasons_as_tools_print_them(text, word, ends, time):
    line = one(text)
    assert (line.word, line.time, (line.source, line.sport, line.dest, line.dport)) == (word, time, ends)


@pytest.mark.parametrize(
    "text", ["", "hello", "PROVEN", "PROVEN time=x", "DROP time=1.1.1 sport=x", "LISTEN time=1", "\0\0", "x" * 10_000]
)
def test_what_is_no_probe_line_is_counted_and_left(text):
    log = read_probe_log([text])
    assert not log.lines and log.ignored == (1 if text else 0)


def test_own_lines_that_decide_nothing_are_no_noise():
    log = read_probe_log(["# SYNs", "SENT time=1.0 what=rst sport=1 dport=2", "Attaching 7 probes..."])
    assert not log.lines and not log.ignored


def test_a_file_that_is_no_log_is_said_in_one_line(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("nothing here\n")
    with pytest.raises(InputError, match=r"notes\.txt: no line of a probe"):
        load_probe_log(str(path))
    with pytest.raises(InputError, match="cannot be read"):
        load_probe_log(str(tmp_path / "absent"))
    broken = tmp_path / "broken.gz"
    broken.write_bytes(gzip.compress(b"x" * 1000)[:20])
    with pytest.raises(InputError, match="cannot be read"):
        load_probe_log(str(broken))


# ---- agreement -----------------------------------------------------------------------------------------------


def truth(name):
    raw = zstandard.ZstdDecompressor().stream_reader((FIXTURES / name / "truth.csv.zst").open("rb")).read()
    return list(csv.DictReader(io.StringIO(raw.decode())))


def checks(name):
    """PROVEN lines for every SYN that the kernel's own log says it checked."""
    return [
        f"PROVEN time={row['ts']} saddr={row['src']} sport={row['sport']} daddr={row['dst']} dport={row['dport']} "
        f"tsval={row['tsval']} tcpm_ts={row['tcpm_ts']} tcpm_stamp={row['tcpm_stamp']} now={row['now_s']} "
        f"ret={0 if row['verdict'] == 'rejected' else 1}"
        for row in truth(name)
        if row["tcpm_ts"]
    ]


def vantage(name="v4.9-recycle", kernel="4.9.337"):
    tracked = real.capture(name)
    return Vantage("server", "server", tracked, replay(tracked, find_profile(kernel), real.settings(name)))


def test_every_check_of_a_real_kernel_finds_its_packet_and_agrees():
    lines = checks("v4.9-recycle")
    found = match(read_probe_log(lines), vantage())
    dropped = {word: n for word, verdict, n in found.matrix if verdict == "drop (peer_timestamp)"}
    assert found.unmatched_lines == 0 and len(lines) > 1200
    assert dropped["PROVEN ret=0"] >= 700
    assert not [d for d in found.disagreements if d[3] == "unexplained"]
    assert len(found.disagreements) <= 5


def test_a_probe_on_another_clock_is_matched_all_the_same():
    lines = [line.replace("time=148948", "time=148949") for line in checks("v4.9-recycle")]
    found = match(read_probe_log(lines), vantage())
    assert found.unmatched_lines == 0 and len(found.disagreements) <= 5


def test_a_check_that_says_otherwise_is_reported_with_its_frame():
    lines = checks("v4.9-recycle")
    which = next(i for i, line in enumerate(lines) if line.endswith("ret=0") and i > 900)
    agreed = match(read_probe_log(lines), vantage()).disagreements
    lines[which] = lines[which][:-1] + "1"
    found = match(read_probe_log(lines), vantage()).disagreements
    (new,) = set(found) - set(agreed)
    frames = [int(f) for f in vantage().tracked.syns.to_array()["frame"]]
    assert new[0] in frames and new[1] == lines[which][:200]
    assert new[2] == "drop (peer_timestamp)" and new[3] == "unexplained"


def test_a_check_the_probe_lacks_is_noticed():
    lines = checks("v4.9-recycle")
    which = next(i for i, line in enumerate(lines) if line.endswith("ret=0") and i > 900)
    found = match(read_probe_log(lines[:which] + lines[which + 1 :]), vantage())
    assert ("no line", "drop (peer_timestamp)", 1) in found.matrix
    assert any(text == "no line" and "probe missed it" in why for _, text, _, why in found.disagreements)


def test_lines_of_packets_that_are_not_there():
    stranger = "DROP time=1489482066.8 saddr=192.0.2.1 sport=1 daddr=192.0.2.2 dport=2 reason=NO_SOCKET"
    assert match(read_probe_log([stranger]), vantage()).unmatched_lines == 1


def test_a_packet_filter_explains_the_disagreement():
    row = next(r for r in truth("v6.1-timewait") if r["verdict"] == "accepted")
    line = (
        f"DROP time={row['ts']} saddr={row['src']} sport={row['sport']} daddr={row['dst']} dport={row['dport']} "
        "reason=NETFILTER_DROP"
    )
    ((_, _, said, why),) = match(read_probe_log([line]), vantage("v6.1-timewait", "6.1")).disagreements
    assert said == "accept (listener)" and "before the rules of the model apply" in why


def test_accept_queue_as_the_listener_probe_sees_it():
    row = next(r for r in truth("v6.1-timewait") if r["verdict"] == "accepted")
    line = f"LISTEN time={row['ts']} saddr={row['src']} sport={row['sport']} daddr=x dport=1120 ackq={{}} ackqmax=8"
    roomy, full = (match(read_probe_log([line.format(n)]), vantage("v6.1-timewait", "6.1")) for n in (8, 9))
    assert not roomy.disagreements
    assert len(full.disagreements) == 1


KERNEL_LOGS = [
    "3.10.0-1160.el7/S1-recycle1", "3.10.0-1160.el7/S3a-interval", "3.10.108/S3b-cases", "3.10.108/S6a-mixed-recycle0",
    "4.9.337/S4-acceptq-abort0-cookies0", "4.9.337/S6a-mixed-recycle1", "4.9.337/S2-recycle0",
]  # fmt: skip
KERNELS = {"3.10.0-1160.el7": "el7.9", "3.10.108": "3.10.108", "4.9.337": "4.9.337"}


@pytest.mark.parametrize("name", KERNEL_LOGS)
def test_logs_of_instrumented_kernels(shared, name):
    folder = shared / "captures" / "kernel" / name
    first = lambda stem: str(next(folder.glob(stem)))  # noqa: E731
    backlog = int((folder / "listen.txt").read_text().split("backlog ")[1].split()[0])
    settings = Settings(backlog=backlog).override(parse_sysctls((folder / "sysctl.txt").read_text())[0])
    tracked = track(open_capture([first("server.pcap*")], "server"))
    found = match(
        load_probe_log(first("probe.log*")),
        Vantage("server", "server", tracked, replay(tracked, find_profile(KERNELS[name.split("/")[0]]), settings)),
    )
    assert found.unmatched_lines == 0
    assert not [d for d in found.disagreements if d[3] == "unexplained"]
    assert len(found.disagreements) <= 0.01 * len(tracked.syns)
