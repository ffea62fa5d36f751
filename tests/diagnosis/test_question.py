"""Narrowing changes what is counted, never what is judged."""

import pytest

from analyzer.diagnosis.question import parse_address, parse_time
from analyzer.errors import UsageError
from analyzer.library import analyze
from tests.conftest import FIXTURES

CASE = FIXTURES / "el7-recycle"
KNOWN = {
    "server": str(CASE / "server.pcap.zst"), "sysctl_file": str(CASE / "sysctl.txt"), "kernel": "el7.9", "backlog": 128,
}  # fmt: skip
TWO = FIXTURES / "v6.18-lb-drops-ack"
BOTH = {
    "server": [str(TWO / f"{name}.pcap.zst") for name in ("s1", "s2")],
    "lb": [str(TWO / f"lb_{name}.pcap.zst") for name in ("client", "server")],
    "kernel": "6.18", "sysctl_file": str(TWO / "sysctl.txt"),
}  # fmt: skip


@pytest.fixture(scope="module")
def everything():
    return analyze(**KNOWN)


def test_since_keeps_the_past(everything):
    whole = everything.syns
    cut = whole["time"].iloc[600]
    asked = analyze(**KNOWN, since=cut.isoformat()).syns
    expected = whole[whole["time"] >= cut.floor("us")]
    assert len(asked) == len(expected) < len(whole)
    assert asked[["frame", "verdict", "certainty", "rule"]].equals(
        expected[["frame", "verdict", "certainty", "rule"]].reset_index(drop=True)
    )


def test_until_and_port(everything):
    assert (
        len(analyze(**KNOWN, until="2017-03-14T09:01:00").syns)
        == (everything.syns["time"] <= "2017-03-14T09:01:00Z").sum()
    )
    assert len(analyze(**KNOWN, port=1120).syns) == (everything.syns["dport"] == 1120).sum()
    assert analyze(**KNOWN, port=9).summary["syns"] == 0


def test_a_vip_keeps_all_three_legs():
    asked = analyze(**BOTH, vip="10.10.100.1").syns
    assert set(asked["capture"]) == {"lb", "server1", "server2"}
    client_leg = asked[(asked["capture"] == "lb") & asked["time_lb_client"].notna()]
    assert set(asked["dst"]) == {"10.10.100.1", "10.20.0.11", "10.20.0.12"}
    assert len(client_leg)


@pytest.mark.parametrize(
    "text", ["2017-03-14T09:00:02.5", "2017-03-14T10:00:02.5+01:00", "1489482002.5", "1489482002.500000000"]
)
def test_times_as_people_type_them(text):
    assert parse_time(text) == 1_489_482_002_500_000_000


def test_what_is_no_time_or_address():
    with pytest.raises(UsageError, match="no time"):
        parse_time("yesterday")
    with pytest.raises(UsageError, match="no IP address"):
        parse_address("web1")
