"""Servers of one pool with a kernel of their own each."""

import json

from tests.conftest import FIXTURES

OLD, NEW = FIXTURES / "el7-recycle", FIXTURES / "v6.1-timewait"
BOTH = ("--server", OLD / "server.pcap.zst", "--server", NEW / "server.pcap.zst")


def test_each_server_is_judged_under_its_own_settings(synquest, tmp_path):
    files = []
    for case, kernel in ((OLD, "el7.9"), (NEW, "6.1")):
        files.append(tmp_path / f"{case.name}.txt")
        files[-1].write_text(f"kernel {'3.10.0-1160.el7.x86_64' if kernel == 'el7.9' else '6.1.0'}\n")
        with files[-1].open("a") as file:
            file.write((case / "sysctl.txt").read_text())
    done = synquest(
        "analyze",
        *BOTH,
        "--sysctl-file",
        files[0],
        "--sysctl-file",
        files[1],
        "--backlog",
        128,
        "--backlog",
        64,
        "--json",
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["kernel"]["profile"] == "el7.9"
    assert "server2: 6.1" in found["kernel"]["why"]
    assert found["summary"]["by_cause"]["peer_timestamp"] == 706
    assert found["summary"]["by_cause"]["time_wait_paws"] > 0


def test_as_many_files_as_servers(synquest):
    given = ("--sysctl-file", OLD / "sysctl.txt") * 3
    done = synquest("analyze", *BOTH, *given)
    assert done.returncode == 2
    assert done.stdout == b""
    assert b"given for 3 servers, but there are captures of 2" in done.stderr
    assert len(done.stderr.splitlines()) == 1
