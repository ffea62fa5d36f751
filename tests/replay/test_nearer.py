"""A server's own capture outweighs what the load balancer's shows."""

import numpy as np

from analyzer.kernel.profiles import find_profile
from analyzer.kernel.rules import RULE_NAMES
from analyzer.kernel.settings import Settings
from analyzer.replay.engine import Hypothesis
from analyzer.replay.nearer import WHY, defer
from analyzer.replay.run import Replayed
from analyzer.replay.vantage import LOAD_BALANCER
from analyzer.schema import CERTAINTIES, VERDICT, VERDICTS
from analyzer.snat.model import blank_paths


def replayed(*rows: tuple[str, str, str]) -> Replayed:
    table = np.zeros(len(rows), VERDICT.dtype)
    for row, (verdict, rule, certainty) in zip(table, rows, strict=True):
        row["verdict"], row["rule"] = VERDICTS.index(verdict), RULE_NAMES.index(rule)
        row["certainty"], row["compared"], row["peer_tsval"] = CERTAINTIES.index(certainty), 1, 7
    profile = find_profile("6.1")
    found = Replayed(Hypothesis(profile, Settings().with_defaults(profile), LOAD_BALANCER, 0))
    found.verdicts.append(table)
    return found


def test_the_servers_word_counts_where_its_capture_shows_the_syn():
    lb = replayed(*[("accept", "listener", "certain")] * 5)
    server = replayed(
        ("drop", "syn_queue_full", "certain"),
        ("accept", "listener", "possible"),
        ("accept", "listener", "certain"),
        ("accept", "time_wait_reuse", "certain"),
    )
    paths = blank_paths(5)
    paths["server"][:4] = 2
    paths["server_row"][:4] = range(4)
    defer(lb, paths, {2: server})
    rows = lb.verdicts.to_array()
    assert [VERDICTS[v] for v in rows["verdict"]] == ["drop", "accept", "accept", "accept", "accept"]
    assert [CERTAINTIES[c] for c in rows["certainty"]] == ["possible", "possible", "certain", "certain", "certain"]
    assert [RULE_NAMES[r] for r in rows["rule"]][::3] == ["syn_queue_full", "time_wait_reuse"]
    assert [lb.reasons[r] == WHY for r in rows["reason"]] == [True, True, False, True, False]
    assert rows["compared"].tolist() == [0, 1, 1, 0, 1]  # the state of another capture has frames of another file
