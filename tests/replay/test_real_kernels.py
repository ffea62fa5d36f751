"""The model against real kernels: a wrong 'certain' is the worst bug there is."""

import numpy as np
import pytest

from analyzer.capture import open_capture
from analyzer.connections import Tracked, follow
from analyzer.kernel.profiles import find_profile
from analyzer.replay.choice import plausible, rank
from analyzer.replay.run import Scope, replay
from analyzer.schema import ACK, SYN
from analyzer.spool import Spool
from analyzer.units import NS
from tests.conftest import FIXTURES
from tests.replay.real import capture, settings, tally, truth

CASES = [
    ("el7-recycle", "el7.9", 0.995),
    ("v4.9-recycle", "4.9.337", 0.995),
    ("v3.10-recycle", "3.10.108", 0.995),
    ("el7-norecycle", "el7.9", 0.999),
    ("v6.1-timewait", "6.1", 0.999),
]


@pytest.mark.parametrize(("name", "kernel", "accuracy"), CASES)
def test_verdicts_against_the_kernels_own(name, kernel, accuracy):
    count = tally(replay(capture(name), find_profile(kernel), settings(name)), truth(name))
    assert ("certain", False) not in count
    right = sum(n for (_, ok), n in count.items() if ok)
    assert right / sum(count.values()) >= accuracy


def without_syn_acks(tracked):
    from copy import copy

    blind = copy(tracked)
    rows = tracked.events.to_array()
    blind.events = Spool(tracked.events.table)
    blind.events.append(rows[(rows["flags"] & (SYN | ACK)) != SYN | ACK])
    syns = tracked.syns.to_array().copy()
    syns["answer"] = 0
    blind.syns = Spool(tracked.syns.table)
    blind.syns.append(syns)
    return blind


@pytest.mark.parametrize(("name", "kernel", "_"), CASES)
def test_predictions_do_not_look_at_answers(name, kernel, _):
    """Take every SYN-ACK away: not one verdict changes."""
    seen = replay(capture(name), find_profile(kernel), settings(name)).verdicts.to_array()
    blind = replay(without_syn_acks(capture(name)), find_profile(kernel), settings(name)).verdicts.to_array()
    for column in ("verdict", "certainty", "rule", "peer_tsval"):
        assert np.array_equal(seen[column], blind[column])


@pytest.mark.parametrize("name", ["el7-recycle", "v6.1-timewait"])
@pytest.mark.parametrize("keep", [100, 1500, 3000])
def test_a_verdict_rests_on_the_past_alone(name, keep):
    """Cut the capture's end off: the verdicts before it stay as they are."""
    from copy import copy

    kernel = find_profile("el7.9" if name.startswith("el7") else "6.1")
    whole = capture(name)
    early = copy(whole)
    early.events = Spool(whole.events.table)
    kept = whole.events.to_array()[:keep]
    early.events.append(kept)
    early.syns = Spool(whole.syns.table)
    early.syns.append(whole.syns.to_array()[: int(np.count_nonzero((kept["flags"] & (SYN | ACK)) == SYN))])
    some = replay(early, kernel, settings(name)).verdicts.to_array()
    everything = replay(whole, kernel, settings(name)).verdicts.to_array()[: len(some)]
    assert len(some) > 10
    assert np.array_equal(some["verdict"], everything["verdict"])
    assert np.array_equal(some["certainty"], everything["certainty"])


@pytest.mark.parametrize(
    ("name", "recycle"),
    [("el7-recycle", 1), ("v4.9-recycle", 1), ("v3.10-recycle", 1), ("el7-norecycle", 0), ("v6.1-timewait", 0)],
)
def test_the_kernel_is_found_by_the_packets(name, recycle):
    """Whether the server recycles is told by every candidate that the packets leave."""
    from analyzer.kernel.settings import Settings

    fits = plausible(rank(capture(name), Settings(), Scope()))
    assert {s.tw_recycle for s in fits} == {recycle}
    if name == "v3.10-recycle":
        assert fits[0].profile.live_syn == "silent"


CUTS = (1, 5, 9, 20, 40, 61, 100, 150)


@pytest.mark.parametrize(
    ("name", "kernel"), [("el7-recycle", "el7.9"), ("v4.9-recycle", "4.9.337"), ("v6.1-timewait", "6.1")]
)
def test_a_cut_head_widens_verdicts_and_flips_none(name, kernel):
    """What happened before the capture is unknown: no certain verdict may hang on it."""
    path = str(FIXTURES / name / "server.pcap.zst")
    packets = np.concatenate([block.copy() for block in open_capture([path], "x").blocks()])

    def verdicts(rows):
        tracked = follow([rows.view(np.recarray)], Tracked("x"))
        said = replay(tracked, find_profile(kernel), settings(name)).verdicts.to_array()
        return dict(
            zip(tracked.syns.to_array()["frame"].tolist(), said[["verdict", "certainty"]].tolist(), strict=True)
        )

    whole = verdicts(packets)
    for seconds in CUTS:
        late = packets[packets["time"] >= packets["time"][0] + seconds * NS]
        flipped = {
            frame: (whole[frame], cut)
            for frame, cut in verdicts(late).items()
            if cut[1] == whole[frame][1] == 2 and cut[0] != whole[frame][0]
        }
        assert not flipped, f"{seconds} s cut off"
