"""The command as a user types it."""

import json
import subprocess
import sys

import pytest

from tests.conftest import FIXTURES
from tests.frames import A, S, Segment, pcap, write

CASE = FIXTURES / "el7-recycle"
GIVEN = (
    "--server",
    CASE / "server.pcap.zst",
    "--sysctl-file",
    CASE / "sysctl.txt",
    "--kernel",
    "el7.9",
    "--backlog",
    128,
)


def test_the_main_job(synquest, tmp_path):
    done = synquest("analyze", *GIVEN, "-o", tmp_path / "r")
    text = " ".join(done.stdout.decode().split())
    assert done.returncode == 0, done.stderr
    assert "706 of 1,265 SYNs (from 2 addresses) got no answer" in text
    assert "tcp_tw_recycle=0" in text
    assert len(done.stdout.decode().splitlines()) <= 30
    assert max(map(len, done.stdout.decode().splitlines()[:-1])) <= 80
    names = {p.name for p in (tmp_path / "r").iterdir()}
    assert {
        "report.html",
        "report.md",
        "findings.json",
        "syns.parquet",
        "connections.parquet",
        "peer_states.parquet",
        "figures",
    } <= names
    assert len(list((tmp_path / "r" / "figures").glob("*.png"))) >= 2


def test_json_is_clean_and_complete(synquest):
    done = synquest("analyze", *GIVEN, "--json")
    found = json.loads(done.stdout)
    assert found["summary"]["syns"] == 1265
    assert found["summary"]["by_cause"]["peer_timestamp"] == 706
    assert found["findings"][0]["story"]["delta"] < -1
    assert found["inputs"][0]["packets"] == 6343


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_other_table_formats(synquest, tmp_path, form):
    assert synquest("analyze", *GIVEN, "-o", tmp_path, "--no-figures", "--tables", form).returncode == 0
    lines = (tmp_path / f"syns.{form}").read_text().splitlines()
    assert len(lines) == 1265 + (form == "csv")
    assert "peer_timestamp" in "".join(lines)
    assert not (tmp_path / "report.html").exists()


def test_fail_on(synquest):
    done = synquest("analyze", *GIVEN, "--fail-on", "peer_timestamp")
    assert done.returncode == 3
    assert b"peer_timestamp (706 SYNs)" in done.stderr
    assert synquest("analyze", *GIVEN, "--fail-on", "refused").returncode == 0


BAD = [
    (["analyze"], 2),
    (["analyze", "--server", "/nonexistent.pcap"], 1),
    (["analyze", "--server", __file__], 1),
    (["analyze", "--server", str(CASE / "server.pcap.zst"), "--kernel", "dos"], 2),
    (["analyze", "--server", str(CASE / "server.pcap.zst"), "--sysctl", "nonsense"], 2),
    (["analyze", "--server", str(CASE / "server.pcap.zst"), "-o", __file__], 1),
    (["analyze", "--server", str(CASE / "server.pcap.zst"), "--fail-on", "gremlins"], 2),
    (["analyze", "--server", str(CASE / "server.pcap.zst"), "--sysctl-file", "/nonexistent"], 1),
    (["kernels", "plan9"], 2),
]


@pytest.mark.parametrize(("words", "code"), BAD)
def test_an_error_is_one_line(synquest, words, code):
    done = synquest(*words)
    assert done.returncode == code
    lines = done.stderr.decode().strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("synquest: ")
    assert not done.stdout


def test_damage_is_a_warning_and_the_rest_is_analysed(synquest, tmp_path):
    syn = Segment(0, "10.0.0.1", 1, "10.0.0.2", 2, S, 5).frame()
    path = tmp_path / "cut.pcap"
    path.write_bytes(pcap([(0, syn), (1, syn)])[:-3])
    done = synquest("analyze", "--server", path)
    assert done.returncode == 0
    assert b"cut.pcap: offset" in done.stderr
    assert b"1 packet," in done.stdout


def test_a_healthy_capture_says_so(synquest, tmp_path):
    ends = ("10.0.0.1", 1, "10.0.0.2", 80)
    segments = [
        Segment(0, *ends, S, 5),
        Segment(0.001, *ends[2:], *ends[:2], S | A, 9, 6),
        Segment(0.002, *ends, A, 6, 10),
    ]
    done = synquest(
        "analyze", "--server", write(tmp_path / "h.pcap", segments), "-o", tmp_path / "r", "--kernel", "6.1"
    )
    assert b"Nothing is wrong: the only SYN was answered" in done.stdout
    assert "Nothing is wrong" in (tmp_path / "r" / "report.html").read_text()


def test_a_hostile_file_name_stays_text(synquest, tmp_path):
    bad = tmp_path / "<script>alert(1)<"
    bad.mkdir()
    path = write(bad / "x.pcap", [Segment(0, "10.0.0.1", 1, "10.0.0.2", 2, S, 5)])
    assert synquest("analyze", "--server", path, "-o", tmp_path / "r", "--kernel", "6.1").returncode == 0
    page = (tmp_path / "r" / "report.html").read_text()
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert" in page


def test_kernels(synquest):
    assert b"el7.9" in synquest("kernels").stdout
    side = " ".join(synquest("kernels", "3.10", "el7.9").stdout.decode().split())
    assert "remote local_remote" in side
    assert b"the same rules" in synquest("kernels", "6.1", "5.10").stdout


def test_version(synquest):
    assert synquest("--version").stdout.startswith(b"synquest 0.")


def test_help_loads_nothing_heavy():
    code = (
        "import sys\nsys.argv = ['synquest', 'analyze', '--help']\n"
        "from analyzer.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "heavy = {'pandas', 'numba', 'matplotlib', 'pyarrow', 'numpy', 'scipy', 'jinja2'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert b"Examples" in done.stdout


def test_no_colour_in_a_pipe(synquest):
    assert b"\x1b[" not in synquest("analyze", *GIVEN).stdout


def test_failures_in_another_capture_are_not_passed_over(synquest, tmp_path):
    ends = ("10.0.0.1", 1, "10.0.0.2", 80)
    fine = [Segment(0, *ends, S, 5), Segment(0.001, *ends[2:], *ends[:2], S | A, 9, 6), Segment(0.002, *ends, A, 6, 10)]
    lost = [*fine, Segment(1, "10.0.0.1", 2, "10.0.0.2", 80, S, 77)]
    server, lb = write(tmp_path / "s.pcap", fine), write(tmp_path / "l.pcap", lost)
    done = synquest("analyze", "--server", server, "--lb", lb, "--kernel", "6.1")
    text = " ".join(done.stdout.decode().split())
    assert "1 of 2 SYNs got no SYN-ACK" in text
    assert "Nothing is wrong" not in text


def test_silence_at_the_load_balancer_is_not_laid_on_the_server(synquest, tmp_path):
    """The SYN may not have arrived: that takes a second capture to tell. The last one ends the capture."""
    path = write(tmp_path / "l.pcap", [Segment(t, "10.0.0.1", 2, "10.0.0.2", 80, S, 77) for t in (100, 101, 103)])
    causes = {}
    for side in ("--lb", "--server"):
        causes[side] = json.loads(synquest("analyze", side, path, "--kernel", "6.1", "--json").stdout)["summary"][
            "by_cause"
        ]
    assert causes == {"--lb": {"no_evidence": 3}, "--server": {"server_silent": 2, "no_evidence": 1}}
