"""Streams and repeated SYNs against tshark's recorded answers for captures from public projects."""

import csv
import json

import numpy as np
import pytest

from analyzer.capture import open_capture
from analyzer.connections import track
from tests.capture.test_corpus import UNNAMED

EXPLAINED = UNNAMED | {
    "5d5dec": "packets in random order: tshark starts a second stream at a SYN that comes behind its SYN-ACK",
}


@pytest.mark.corpus
def test_streams_and_repeated_syns_equal_tsharks(shared):
    root = shared / "corpus"
    unscored = {row["sha256"] for row in csv.DictReader((root / "ambiguous.csv").open())}
    differing, compared = {}, 0
    for source in csv.DictReader((root / "SOURCES.csv").open()):
        answers = root / "reference" / f"{source['sha256']}.json"
        if source["sha256"] in unscored or not answers.exists() or source["format"] not in ("pcap", "pcapng"):
            continue
        truth = json.loads(answers.read_text())["tcp"]
        tracked = track(open_capture([str(root / "captures" / source["name"])], "x"))
        repeated = int(np.count_nonzero(tracked.syns.to_array()["attempt"] > 1))
        compared += 1
        if (tracked.connection_count, repeated) != (truth["streams"], truth["syn_same_isn"]):
            differing[source["name"]] = (tracked.connection_count, repeated, truth["streams"], truth["syn_same_isn"])
    unexplained = {name: what for name, what in differing.items() if not any(key in name for key in EXPLAINED)}
    assert not unexplained
    assert compared > 200
