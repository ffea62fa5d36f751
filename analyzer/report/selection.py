"""Which frames are evidence, and what each has to say: failed SYNs, their answers, who wrote the memory.

Comments name a cause by its word (``cause=peer_timestamp``) on SYNs only, so that a display filter on
that word selects exactly the SYNs; other packets speak of it in plain words.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from analyzer.diagnosis.model import Analysis, Vantage
from analyzer.kernel.rules import RULE_NAMES
from analyzer.report.words import CAUSE_TITLES
from analyzer.schema import ANSWERS, CAUSE_CERTAINTIES, CAUSES, CERTAINTIES, OPT_TS, VERDICTS
from analyzer.units import NO_TIME, NS

Records = np.ndarray[Any, np.dtype[np.void]]

MOST_SYNS = 50_000
"""SYNs of one capture that evidence is gathered for."""
ANSWER_ID = 1 << 62
"""Added to a journey's id for the packet id of the answer."""


@dataclass
class Mark:
    """What is said of one frame; *time* tells it from the same number in another file of a rotated set."""

    time: int
    comments: list[str] = field(default_factory=list)
    packet_id: int | None = None

    @property
    def comment(self) -> str:
        """All comments, a line each."""
        return "\n".join(dict.fromkeys(self.comments))


Marks = dict[tuple[int, int], Mark]
"""By (index of the file, frame number)."""


@dataclass
class Selection:
    """Marked frames of one capture, and how many SYNs found no room."""

    vantage: Vantage
    marks: Marks = field(default_factory=dict)
    left_out: int = 0

    def add(self, file: int, frame: int, time: int, comment: str, packet_id: int | None = None) -> None:
        """Mark a frame; *file* is a hint, checked against the files' spans."""
        if not frame or time == NO_TIME:
            return
        mark = self.marks.setdefault((self._file(file, time), frame), Mark(time))
        if comment:
            mark.comments.append(comment)
        if packet_id is not None:
            mark.packet_id = packet_id

    def _file(self, hint: int, time: int) -> int:
        files = self.vantage.tracked.files
        if len(files) == 1 or files[hint].first_time <= time <= files[hint].last_time:
            return hint
        spans = (i for i, info in enumerate(files) if info.first_time <= time <= info.last_time)
        return next(spans, hint)


@dataclass(frozen=True)
class Judged:
    """One SYN row beside all that is known of it."""

    syn: Any
    verdict: Any | None
    cause: Any | None
    path: Any


def judged(analysis: Analysis, vantage: Vantage) -> Iterator[tuple[Records, Records | None, Records | None, Records]]:
    """Chunks of (SYN rows, verdicts, causes, paths) of one capture, row for row."""
    count = len(vantage.tracked.syns)
    paths = analysis.joined.path(vantage.name, count)
    verdicts = iter(vantage.replayed.verdicts.chunks()) if vantage.replayed is not None else iter(())
    causes = iter(vantage.causes.chunks()) if len(vantage.causes) == count else iter(())
    start = 0
    for rows in vantage.tracked.syns.chunks():
        yield rows, next(verdicts, None), next(causes, None), paths[start : start + len(rows)]
        start += len(rows)


def select(analysis: Analysis, everything: bool = False) -> list[Selection]:
    """Mark the frames of every capture.

    Args:
        analysis: What was found.
        everything: Whether answered SYNs carry their verdict too.
    """
    journeys = _failed_journeys(analysis)
    return [_select(analysis, vantage, journeys, everything) for vantage in analysis.vantages]


def _failed_journeys(analysis: Analysis) -> Any:
    """Ids of journeys that some capture saw fail."""
    found = [
        paths["journey"][causes["cause"] != 0]
        for vantage in analysis.vantages
        for _, _, causes, paths in judged(analysis, vantage)
        if causes is not None
    ]
    journeys = np.unique(np.concatenate(found)) if found else np.zeros(0, np.int64)
    return journeys[journeys >= 0]


def _select(analysis: Analysis, vantage: Vantage, journeys: Any, everything: bool) -> Selection:
    chosen = Selection(vantage)
    conns = _failed_conns(analysis, vantage, journeys)
    stamps: set[tuple[int, int]] = set()
    taken = 0
    for rows, verdicts, causes, paths in judged(analysis, vantage):
        hit = np.ones(len(rows), np.bool_) if everything else np.isin(rows["conn"], conns)
        where = np.flatnonzero(hit)
        chosen.left_out += max(0, len(where) - (MOST_SYNS - taken))
        for i in where[: MOST_SYNS - taken].tolist():
            cause = None if causes is None else causes[i]
            one = Judged(rows[i], None if verdicts is None else verdicts[i], cause, paths[i])
            _mark_syn(chosen, one, stamps)
        taken = min(MOST_SYNS, taken + len(where))
    _mark_closes(chosen, conns, stamps)
    return chosen


def _failed_conns(analysis: Analysis, vantage: Vantage, journeys: Any) -> Any:
    """Connections of which a SYN failed, here or at another point of its journey."""
    found = [np.zeros(0, np.int32)]
    for rows, _, causes, paths in judged(analysis, vantage):
        failed = np.isin(paths["journey"], journeys)
        if causes is not None:
            failed |= causes["cause"] != 0
        found.append(np.unique(rows["conn"][failed]))
    return np.unique(np.concatenate(found))


def _mark_syn(chosen: Selection, one: Judged, stamps: set[tuple[int, int]]) -> None:
    syn, verdict = one.syn, one.verdict
    frame, file, journey = int(syn["frame"]), int(syn["file"]), int(one.path["journey"])
    chosen.add(file, frame, int(syn["time"]), syn_comment(one), journey + 1 if journey >= 0 else None)
    if syn["answer"] and syn["answer_time"] != NO_TIME:
        same = journey >= 0 and _answers_travel(one.path)
        chosen.add(
            file, int(syn["answer_frame"]), int(syn["answer_time"]), answer_comment(one),
            ANSWER_ID + journey if same else None,
        )  # fmt: skip
    if verdict is not None and verdict["compared"] and verdict["peer_stamp_frame"]:
        key = (int(verdict["peer_stamp_file"]), int(verdict["peer_stamp_frame"]))
        stamps.add(key)
        chosen.add(*key, int(verdict["peer_stamp_time"]), stamp_comment(one))


def _answers_travel(path: Any) -> bool:
    """Whether one and the same kind of answer was seen at several points."""
    kinds = [int(path[name]) for name in ("answer_server", "answer_lb", "answer_client")]
    seen = [kind for kind in kinds if 0 < kind < len(ANSWERS)]
    return len(seen) > 1 and len(set(seen)) == 1


def _mark_closes(chosen: Selection, conns: Any, stamps: set[tuple[int, int]]) -> None:
    """Ends of what the SYNs met: FINs of the connections whose close was remembered, or that came before."""
    writers = _writers(chosen.vantage, stamps)
    connections = chosen.vantage.tracked.connections
    before: list[Any] = [np.array(sorted(writers), np.int32)]
    for rows in connections.chunks():
        mine = rows[np.isin(rows["conn"], conns)]
        before.append(mine["previous"][mine["previous"] >= 0])
        for row in mine[:MOST_SYNS]:
            for name in ("established", "rst"):
                chosen.add(int(row["file"]), int(row[f"{name}_frame"]), int(row[f"{name}_time"]), "")
    earlier = np.unique(np.concatenate(before))[:MOST_SYNS]
    for rows in connections.chunks():
        for row in rows[np.isin(rows["conn"], earlier)]:
            for name in ("fin_orig", "fin_resp"):
                chosen.add(int(row["file"]), int(row[f"{name}_frame"]), int(row[f"{name}_time"]), "")
                acked = int(row[f"{name}_acked"])
                chosen.add(int(row["file"]), int(row[f"{name}_acked_frame"]), acked, "")


def _writers(vantage: Vantage, stamps: set[tuple[int, int]]) -> set[int]:
    """Connections whose close wrote the stamps at these (file, frame)."""
    if vantage.replayed is None or not stamps:
        return set()
    states = vantage.replayed.peer_states
    keys = (states["file"].astype(np.int64) << 32) | states["frame"].astype(np.int64)
    wanted = np.array([file << 32 | frame for file, frame in stamps], np.int64)
    return set(states["conn"][np.isin(keys, wanted)].tolist())


def syn_comment(one: Judged) -> str:
    """A SYN's cause, verdict and numbers in one line."""
    cause = None if one.cause is None else CAUSES[int(one.cause["cause"])]
    parts = []
    if cause is not None:
        assert one.cause is not None
        parts.append(f"cause={cause} ({CAUSE_CERTAINTIES[int(one.cause['certainty'])]})")
        if one.cause["aggravated_by"]:
            parts.append(f"aggravated_by={CAUSES[int(one.cause['aggravated_by'])]}")
    verdict = one.verdict
    if verdict is not None and verdict["verdict"]:
        rule = RULE_NAMES[int(verdict["rule"])]
        word = f"verdict={VERDICTS[int(verdict['verdict'])]} ({CERTAINTIES[int(verdict['certainty'])]})"
        parts.append(f"{word} rule={rule}" if rule and _fits(rule, cause) else word)
        parts += _numbers(one.syn, verdict)
    parts.append(f"try {int(one.syn['attempt'])}, answer={ANSWERS[int(one.syn['answer'])]}")
    return "synquest: " + "; ".join(parts)


def _fits(rule: str, cause: str | None) -> bool:
    """A rule that shares its name with another cause would make filters on the cause's word lie."""
    return not any(word != cause and word in rule for word in CAUSES)


def _numbers(syn: Any, verdict: Any) -> list[str]:
    if not verdict["compared"] or not syn["opts"] & OPT_TS:
        return []
    delta = int(verdict["tsval_delta"])
    way = "behind" if delta < 0 else "ahead of"
    text = f"TSval {int(syn['tsval'])} is {abs(delta)} ticks {way} {int(verdict['peer_tsval'])}"
    if verdict["peer_stamp_time"] != NO_TIME:
        text += (
            f", remembered {int(verdict['stamp_age']) / NS:.6f} s earlier (frame {int(verdict['peer_stamp_frame'])})"
        )
    return [text]


def answer_comment(one: Judged) -> str:
    """What an answer answers."""
    delay = (int(one.syn["answer_time"]) - int(one.syn["time"])) / NS
    what = ANSWERS[int(one.syn["answer"])].replace("_", "-").upper()
    failed = one.cause is not None and one.cause["cause"]
    fate = f" ({CAUSE_TITLES[CAUSES[int(one.cause['cause'])]]})" if failed else ""  # type: ignore[index]
    return f"synquest: {what} {delay:.6f} s after the SYN in frame {int(one.syn['frame'])}{fate}"


def stamp_comment(one: Judged) -> str:
    """Whose memory a packet wrote."""
    assert one.verdict is not None
    frame = int(one.syn["frame"])
    return f"synquest: wrote TSval {int(one.verdict['peer_tsval'])}, which the SYN in frame {frame} was compared with"
