"""Against tshark's recorded answers for captures from public projects."""

import csv
import hashlib
import json

import numpy as np
import pytest

from analyzer.capture import open_capture
from analyzer.schema import ACK, META_TUNNELLED, OPT_TS_CUT, SYN

UNNAMED = {
    "01c13b": "CAPWAP tunnel, not opened",
    "4ee650": "MikroTik EoIP tunnel, not opened",
    "5139e3": "NFLOG link type",
    "903cfc": "TCP inside sFlow samples",
    "263d5e": "Juniper link type",
    "42667f": "TCP inside an sFlow sample",
    "ce27bd": "ARCNET link type",
    "f51ba8": "ARCNET link type",
}


@pytest.mark.corpus
def test_counts_and_timestamps_equal_tsharks(shared):
    root = shared / "corpus"
    unscored = {row["sha256"] for row in csv.DictReader((root / "ambiguous.csv").open())}
    differing, compared = {}, 0
    for source in csv.DictReader((root / "SOURCES.csv").open()):
        answers = root / "reference" / f"{source['sha256']}.json"
        if source["sha256"] in unscored or not answers.exists():
            continue
        if not source["linktype_names"] and source["format"] not in ("pcap", "pcapng"):
            continue
        compared += 1
        wrong = _difference(root / "captures" / source["name"], json.loads(answers.read_text())["tcp"])
        if wrong:
            differing[source["name"]] = wrong
    unexplained = {name: wrong for name, wrong in differing.items() if not any(key in name for key in UNNAMED)}
    assert not unexplained
    assert compared > 200


def _difference(path, truth):
    capture = open_capture([str(path)], "x")
    blocks = [b.copy() for b in capture.blocks()]
    rows = (
        np.concatenate(blocks)
        if blocks
        else np.zeros(0, [("kind", "u1"), ("flags", "u2"), ("meta", "u2"), ("opts", "u2")])
    )
    rows = rows[rows["kind"] == 0]
    plain = rows[(rows["meta"] & META_TUNNELLED) == 0]
    syn = int(np.count_nonzero((rows["flags"] & (SYN | ACK)) == SYN))
    digest = hashlib.sha256()
    for row in rows[(rows["opts"] & 1) != 0] if len(rows) else ():
        echo = "" if row["opts"] & OPT_TS_CUT else row["tsecr"]
        digest.update(f"{row['frame']} {row['tsval']} {echo}\n".encode())
    mine = (len(rows), len(plain), syn)
    theirs = (truth["full_header"], truth["full_header_plain"], truth["syn"])
    if mine != theirs:
        return f"packets, plain, SYNs {mine} instead of {theirs}"
    if truth["with_ts"] and digest.hexdigest() != truth["ts_digest"]:
        return "timestamps differ"
    return None
