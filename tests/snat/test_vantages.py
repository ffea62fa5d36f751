"""Captures given without a word are sorted into vantages."""

import shutil
import subprocess

import pytest
import zstandard

from analyzer.snat.vantages import group_captures
from tests.conftest import FIXTURES

CASE = FIXTURES / "v6.18-lb-drops-ack"
FILES = {name: str(CASE / f"{name}.pcap.zst") for name in ("lb_client", "lb_server", "s1", "s2")}


def shape(groups):
    return {g.name: {p.rsplit("/", 1)[-1].split(".")[0] for p in g.paths} for g in groups}


def test_four_files_are_three_vantages():
    sorted_out = {"lb": {"lb_client", "lb_server"}, "server1": {"s1"}, "server2": {"s2"}}
    assert shape(group_captures(list(FILES.values()), [], [])) == sorted_out
    assert shape(group_captures(list(FILES.values())[::-1], [], []))["lb"] == sorted_out["lb"]


def test_what_the_shell_left_behind_an_option_joins_the_others():
    """``--server s*.pcap`` gives the first to the option and the rest to nobody."""
    groups = group_captures([FILES["s2"]], [FILES["s1"]], [FILES["lb_client"], FILES["lb_server"]])
    assert shape(groups) == {"lb": {"lb_client", "lb_server"}, "server1": {"s1"}, "server2": {"s2"}}


def test_the_balancers_server_side_is_no_server():
    assert shape(group_captures([FILES["lb_server"], FILES["s1"]], [], [])) == {"lb": {"lb_server"}, "server": {"s1"}}


@pytest.mark.skipif(shutil.which("editcap") is None, reason="editcap is not installed")
def test_rotated_files_are_one_vantage(tmp_path):
    whole = tmp_path / "s1.pcap"
    whole.write_bytes(zstandard.ZstdDecompressor().decompress((CASE / "s1.pcap.zst").read_bytes()))
    subprocess.run(["editcap", "-c", "300", str(whole), str(tmp_path / "part.pcap")], check=True)
    parts = sorted(str(p) for p in tmp_path.glob("part_*"))
    assert len(parts) > 2
    assert shape(group_captures(parts, [], [])).keys() == {"server"}
    assert [len(g.paths) for g in group_captures(parts[1:], parts[:1], [])] == [len(parts)]


def test_one_file_is_left_to_the_whole_reading():
    (group,) = group_captures([FILES["s1"]], [], [])
    assert (group.side, group.name) == ("", "server")
