"""Causes against real load balancers and kernels, whose truth is one line per SYN packet of a client."""

import csv

import numpy as np
import pandas as pd
import pytest

from analyzer.library import analyze
from tests.conftest import SHARED

MODERN = SHARED / "captures" / "modern"
SCENARIOS = sorted(path.name for path in MODERN.glob("M*")) if MODERN.is_dir() else ["missing"]
pytestmark = pytest.mark.corpus
CROSSING = 0.01
"""Share of SYNs whose answer crosses their repeat between two captures, so that either word may be right."""


def report(folder, lbs=True, servers=True):
    at_lb = [folder / name for name in ("lb_client.pcap", "lb_server.pcap", "lb_server.pcapng")]
    at_servers = [folder / name for name in ("s1.pcap", "s2.pcap")]
    return analyze(
        lb=[str(p) for p in at_lb if p.exists()] if lbs else [],
        server=[str(p) for p in at_servers if p.exists()] if servers else [],
        kernel="6.18",
        sysctl_file=str(folder / "sysctl.txt"),
    )


def client_legs(folder):
    """(time, client, port, isn, acceptable words) of each judged SYN that the load balancer saw."""
    with (folder / "cause_truth.csv").open() as file:
        rows = [r for r in csv.DictReader(file) if r["causes"] and r["time_lb_in"]]
    return [
        (float(r["time_lb_in"]), r["client_h"], int(r["client_p"]), int(r["isn"]), r["causes"].split("|")) for r in rows
    ]


def matched(folder, syns):
    """(acceptable words, SYN row) for each truth line: same client and ISN, nearest in time."""
    groups = dict(list(syns.groupby(["src", "sport", "isn"], observed=True)))
    times = {key: group["time"].astype("int64").to_numpy() / 1e9 for key, group in groups.items()}
    for time, client, port, isn, words in client_legs(folder):
        key = (client, port, isn)
        yield words, groups[key].iloc[int(np.argmin(abs(times[key] - time)))]


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_both_sides(shared, scenario):
    folder = MODERN / scenario
    found = [(words, row["cause"], row["cause_certainty"]) for words, row in matched(folder, report(folder).syns)]
    wrong = [(words, cause, certainty) for words, cause, certainty in found if cause not in words]
    assert len(wrong) <= CROSSING * len(found)
    assert not [line for line in wrong if line[2] == "certain"]
    assert len(found) >= 100


@pytest.mark.parametrize("scenario", ["M2a_tw_reuse", "M3e_synq_cookies0", "M4b_loss_after", "M4c_loss_synack"])
def test_the_load_balancer_alone_never_accuses_wrongly(shared, scenario):
    folder = MODERN / scenario
    for words, row in matched(folder, report(folder, servers=False).syns):
        assert row["cause"] in words or row["cause_certainty"] != "certain"
    assert pd.notna(row["cause"])
