"""Which kernel? Candidates are replayed and scored by what the packets refute."""

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from analyzer.connections import Tracked
from analyzer.kernel.profiles import Profile, find_profile
from analyzer.kernel.settings import Settings
from analyzer.replay.evidence import OFFSETS_SINCE
from analyzer.replay.run import Replayed, Scope, hypothesis_of, replay
from analyzer.replay.screen import contested_chains, screen
from analyzer.replay.traces import server_clock
from analyzer.schema import CERTAINTIES, OPT_TS, SYN, VERDICT, VERDICTS
from analyzer.spool import Spool

Records = np.ndarray[Any, np.dtype[np.void]]

CANDIDATES = ("el6", "3.4", "3.10", "el7.9", "3.14", "3.17", "4.9.337", "6.1", "6.18")
"""Profiles whose rules differ on the wire; their neighbours behave like one of them."""

PROFILES_DIFFER = "depends on the kernel: plausible profiles decide differently (give --kernel)"
SERVERS_DIFFER = "depends on which server got it: their kernels or settings decide differently"
SCORED_EVENTS = 60_000
SLACK_SHARE = 0.02
_CERTAIN, _POSSIBLE = CERTAINTIES.index("certain"), CERTAINTIES.index("possible")
_EXPECTED = {"accept": 1, "cookie": 1, "drop": 0, "ack": 2, "rst": 3}


@dataclass(frozen=True)
class Score:
    """How one candidate fares: *agreed* and *missed* SYNs, *refuted* certain predictions.

    *excluded*: the server's timestamp clock is of another era.
    """

    profile: Profile
    tw_recycle: int
    agreed: int
    missed: int
    refuted: int
    excluded: bool = False

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


def timestamps_fall_back(tracked: Tracked) -> bool:
    """Whether any address sends a SYN more than one tick behind a TSval it showed before.

    Where none does, a remembered timestamp rejects nothing and tcp_tw_recycle leaves no trace.
    """
    who = np.full(len(tracked.chain_syns), -1, np.int32)
    for chunk in tracked.connections.chunks():
        who[chunk["chain"]] = chunk["orig"]
    base = np.full(len(tracked.hosts) + 1, -1, np.int64)
    highest = np.zeros(len(tracked.hosts) + 1, np.int64)
    for chunk in tracked.events.chunks():
        rows = chunk[(chunk["resp"] == 0) & ((chunk["opts"] & OPT_TS) > 0) & (chunk["kind"] == 0)]
        if _falls_back(rows, who[rows["chain"]], base, highest):
            return True
    return False


def _falls_back(rows: Records, host: Any, base: Any, highest: Any) -> bool:
    """One chunk of ``timestamps_fall_back``; *base* and *highest* carry each host's clock on."""
    order = np.argsort(host, kind="stable")
    host, tsval = host[order], rows["tsval"][order].astype(np.int64)
    is_syn = (rows["flags"][order] & SYN) > 0
    first = np.concatenate(([True], host[1:] != host[:-1])) if len(host) else np.zeros(0, np.bool_)
    new = host[first][base[host[first]] < 0]
    base[new] = tsval[first][base[host[first]] < 0]
    along = ((tsval - base[host] + 2**31) & 0xFFFFFFFF) - 2**31
    before = np.where(first, highest[host], np.roll(along, 1))  # what the host showed before this packet
    group = np.cumsum(first) * 2**33
    carried = np.maximum.accumulate(before + group) - group
    fell = bool(np.any(is_syn & (along <= carried - 2)))
    np.maximum.at(highest, host, along)
    return fell


def rank(tracked: Tracked, settings: Settings, scope: Scope, names: Sequence[str] = CANDIDATES) -> list[Score]:
    """All candidates, the best first.

    Args:
        tracked: The capture's tables.
        settings: What is known of the settings; a given tcp_tw_recycle is kept.
        scope: Vantage and what to leave out.
        names: Profiles to try, the oldest first; the given one where only its tcp_tw_recycle is not known.
    """
    limited = replace(scope, limit=SCORED_EVENTS)
    scores = []
    era = server_clock(tracked, scope.front_hosts).era
    fall_back = timestamps_fall_back(tracked)
    part = contested_part(tracked) if screens(tracked, settings, scope) and not fall_back else None
    for name in names:
        profile = find_profile(name)
        known = settings.tw_recycle
        for recycle in (0, 1) if profile.tw_recycle and known is None else (known or 0,):
            if recycle and (not profile.tw_recycle or (known is None and not fall_back)):
                continue
            what = part if not recycle and part is not None else tracked
            trial = replay(what, profile, replace(settings, tw_recycle=recycle), limited)
            scores.append(Score(profile, recycle, *_score(what, trial), contradicts(profile, era)))
    scores.sort(
        key=lambda s: (
            s.excluded,
            s.refuted * 4 + s.missed,
            era == "one" and s.profile.first >= OFFSETS_SINCE,
            -names.index(s.profile.name),
            s.tw_recycle,
        )
    )
    return scores


def contradicts(profile: Profile, era: str) -> bool:
    """Whether the server's timestamp clock rules a profile out: offsets per address came with 4.10."""
    return era.startswith("per ") and profile.first < OFFSETS_SINCE


def plausible(scores: list[Score]) -> list[Score]:
    """Candidates that the packets do not tell from the best one."""
    best = scores[0]
    scores = [s for s in scores if s.excluded == best.excluded]
    slack = max(2, int(SLACK_SHARE * (best.agreed + best.missed)))
    return [s for s in scores if s.refuted <= best.refuted and s.missed <= best.missed + slack]


def agree(first: Replayed, others: list[Replayed], tracked: Tracked, why: str = PROFILES_DIFFER) -> Replayed:
    """The first replay's verdicts, certain only where every other replay is certain of the same.

    Args:
        first: Replay of the whole capture.
        others: Replays of the whole capture, or of its ``contested_part``.
        tracked: The whole capture.
        why: Reason given for a verdict that they do not agree on.
    """
    if not others:
        return first
    if len(others[0].verdicts) != len(first.verdicts):
        return _agree_on_part(first, others, tracked, _reason(first, why))
    merged = Spool(VERDICT)
    reason = _reason(first, why)
    for chunks in zip(first.verdicts.chunks(), *(o.verdicts.chunks() for o in others), strict=True):
        own = chunks[0].copy()
        for other in chunks[1:]:
            _lower(own, np.arange(len(own)), other, reason)
        merged.append(own)
    first.verdicts = merged
    return first


def _reason(first: Replayed, why: str) -> int:
    first.reasons.append(why)
    return len(first.reasons) - 1


def _lower(own: Records, where: Any, other: Records, reason: int) -> None:
    """Make ``own[where]`` possible where *other* is not certain of the same."""
    mine = own[where]
    same = (mine["verdict"] == other["verdict"]) & (other["certainty"] == _CERTAIN)
    differ = where[(mine["certainty"] == _CERTAIN) & ~same]
    own["certainty"][differ] = _POSSIBLE
    own["reason"][differ] = reason


def _agree_on_part(first: Replayed, others: list[Replayed], tracked: Tracked, reason: int) -> Replayed:
    contested = contested_chains(tracked)
    said = [o.verdicts.to_array() for o in others]
    merged, done = Spool(VERDICT), 0
    for syns, verdicts in zip(tracked.syns.chunks(), first.verdicts.chunks(), strict=True):
        own = verdicts.copy()
        where = np.flatnonzero(contested[syns["chain"]])
        for rows in said:
            _lower(own, where, rows[done : done + len(where)], reason)
        done += len(where)
        merged.append(own)
    first.verdicts = merged
    return first


def contested_part(tracked: Tracked) -> Tracked:
    """The same capture with SYNs and events of contested chains only: where kernels can differ."""
    contested = contested_chains(tracked)
    part = copy(tracked)
    part.syns, part.events = Spool(tracked.syns.table), Spool(tracked.events.table)
    for chunk in tracked.syns.chunks():
        part.syns.append(chunk[contested[chunk["chain"]]])
    for chunk in tracked.events.chunks():
        part.events.append(chunk[contested[chunk["chain"]]])
    return part


def screens(tracked: Tracked, settings: Settings, scope: Scope) -> bool:
    """Whether, without a peer memory, only contested chains need the engine under every candidate."""
    if scope.front_hosts:
        return False
    off = replace(settings, tw_recycle=0)
    return all(
        screen(tracked, hypothesis_of(tracked, find_profile(name), off, scope)) is not None for name in CANDIDATES
    )
