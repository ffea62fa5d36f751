"""Which kernel? Candidates are replayed and scored by what the packets refute."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from analyzer.connections import Tracked
from analyzer.kernel.profiles import Profile, find_profile
from analyzer.kernel.settings import Settings
from analyzer.replay.run import Replayed, Scope, replay
from analyzer.schema import CERTAINTIES, VERDICT, VERDICTS
from analyzer.spool import Spool

Records = np.ndarray[Any, np.dtype[np.void]]

CANDIDATES = ("el6", "3.4", "3.10", "el7.9", "3.14", "3.17", "4.9.337", "6.1", "6.18")
"""Profiles whose rules differ on the wire; their neighbours behave like one of them."""

SCORED_EVENTS = 300_000
SLACK_SHARE = 0.02
_CERTAIN, _POSSIBLE = CERTAINTIES.index("certain"), CERTAINTIES.index("possible")
_EXPECTED = {"accept": 1, "cookie": 1, "drop": 0, "ack": 2, "rst": 3}


@dataclass(frozen=True)
class Score:
    """How one candidate fares: *agreed* and *missed* SYNs, and *refuted* certain predictions."""

    profile: Profile
    tw_recycle: int
    agreed: int
    missed: int
    refuted: int

    @property
    def name(self) -> str:
        """The candidate in words."""
        return (
            f"{self.profile.name} with tcp_tw_recycle={self.tw_recycle}"
            if self.profile.tw_recycle
            else self.profile.name
        )


def _score(tracked: Tracked, replayed: Replayed) -> tuple[int, int, int]:
    expected = np.array([_EXPECTED.get(word, 255) for word in VERDICTS], np.uint8)
    agreed = missed = refuted = 0
    for chunk, verdicts in zip(tracked.syns.chunks(), replayed.verdicts.chunks(), strict=False):
        rows = chunk[: len(verdicts)]
        want = expected[verdicts["verdict"]]
        judged = want != 255
        same = want == rows["answer"]
        agreed += int(np.count_nonzero(judged & same))
        missed += int(np.count_nonzero(judged & ~same))
        spoke = (rows["answer"] == 1) | (rows["answer"] == 2)
        refuted += int(np.count_nonzero(judged & ~same & spoke & (verdicts["certainty"] == _CERTAIN)))
    return agreed, missed, refuted


def rank(tracked: Tracked, settings: Settings, scope: Scope) -> list[Score]:
    """All candidates, the best first.

    Args:
        tracked: The capture's tables.
        settings: What is known of the settings; a given tcp_tw_recycle is kept.
        scope: Vantage and what to leave out.
    """
    limited = replace(scope, limit=SCORED_EVENTS)
    scores = []
    for name in CANDIDATES:
        profile = find_profile(name)
        known = settings.tw_recycle
        for recycle in (0, 1) if profile.tw_recycle and known is None else (known or 0,):
            if recycle and not profile.tw_recycle:
                continue
            trial = replay(tracked, profile, replace(settings, tw_recycle=recycle), limited)
            scores.append(Score(profile, recycle, *_score(tracked, trial)))
    scores.sort(key=lambda s: (s.refuted * 4 + s.missed, -CANDIDATES.index(s.profile.name), s.tw_recycle))
    return scores


def plausible(scores: list[Score]) -> list[Score]:
    """Candidates that the packets do not tell from the best one."""
    best = scores[0]
    slack = max(2, int(SLACK_SHARE * (best.agreed + best.missed)))
    return [s for s in scores if s.refuted <= best.refuted and s.missed <= best.missed + slack]


def agree(first: Replayed, others: list[Replayed]) -> Replayed:
    """The first replay's verdicts, certain only where every other replay is certain of the same."""
    if not others:
        return first
    merged = Spool(VERDICT)
    reason = len(first.reasons)
    first.reasons.append("depends on the kernel: plausible profiles decide differently (give --kernel)")
    for chunks in zip(first.verdicts.chunks(), *(o.verdicts.chunks() for o in others), strict=True):
        own = chunks[0].copy()
        for other in chunks[1:]:
            differ = (own["certainty"] == _CERTAIN) & (
                (own["verdict"] != other["verdict"]) | (other["certainty"] != _CERTAIN)
            )
            own["certainty"][differ] = _POSSIBLE
            own["reason"][differ] = reason
        merged.append(own)
    first.verdicts = merged
    return first
