"""The worked example of a finding: one attempt, its packets in every capture, and the numbers that decided."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from analyzer.connections.names import host_text
from analyzer.diagnosis.causes import REGISTRY
from analyzer.diagnosis.clock import CommonClock
from analyzer.diagnosis.coverage import CLIENT_LEG, LB_SERVER_LEG, SERVER_LEG
from analyzer.diagnosis.model import Step, Story, Vantage
from analyzer.diagnosis.tries import numbered
from analyzer.kernel.rules import RULE_NAMES
from analyzer.schema import ANSWER_ACK, ANSWER_NONE, ANSWERS, CAUSES, OPT_TS, SEEN_RST_ORIG
from analyzer.snat.model import Joined
from analyzer.units import NO_TIME, NS

Records = np.ndarray[Any, np.dtype[np.void]]
Array = np.ndarray[Any, Any]

FIRST_TRIES = 3
"""So many SYNs of an attempt are told, and the last one."""
MOST_CONNECTIONS = 4
_ANSWER_WORDS = dict(zip(ANSWERS, ("", "SYN-ACK", "bare ACK instead of a SYN-ACK", "RST", "ICMP error"), strict=True))
_LANES = {CLIENT_LEG: ("client", "lb"), LB_SERVER_LEG: ("lb", "server"), SERVER_LEG: ("lb", "server")}


@dataclass(frozen=True)
class Example:
    """The SYN that a story is told of: capture, row number, SYN row, verdict."""

    vantage: int
    number: int
    syn: Any
    verdict: Any


class Teller:
    """Tells stories of one analysis."""

    def __init__(self, vantages: Sequence[Vantage], joined: Joined) -> None:
        self.vantages = vantages
        self.joined = joined
        self.clock = CommonClock(vantages, joined)
        self._has_lb = any(v.side == "lb" for v in vantages)

    def tell(self, at: int) -> Story | None:
        """The clearest case of cause number *at*; None if there is none."""
        example = self._clearest(at)
        if example is None:
            return None
        vantage, syn, verdict = self.vantages[example.vantage], example.syn, example.verdict
        steps = self._journey(example)
        ruled = RULE_NAMES[int(verdict["rule"])] in REGISTRY[at].rules
        compared = ruled and bool(verdict["compared"])
        if compared and verdict["peer_stamp_frame"]:
            steps += self._closing(vantage, verdict)
        hosts = vantage.tracked.hosts
        peer, server = host_text(hosts, int(syn["orig"])), host_text(hosts, int(syn["resp"]))
        has_ts = bool(syn["opts"] & OPT_TS)
        return Story(
            title=f"{peer} port {int(syn['orig_p'])} to {server} port {int(syn['resp_p'])}",
            steps=tuple(sorted(steps, key=lambda s: s.time)),
            peer=peer,
            server=server,
            tsval=int(syn["tsval"]) if has_ts else None,
            peer_tsval=int(verdict["peer_tsval"]) if compared else None,
            delta=int(verdict["tsval_delta"]) if compared and has_ts else None,
            age=int(verdict["stamp_age"]) / NS if compared else None,
            rule=RULE_NAMES[int(verdict["rule"])] if ruled else "",
            conn=int(syn["conn"]),
        )

    def _clearest(self, at: int) -> Example | None:
        """Certain, compared with a known frame, at the server, with most repeats: what a reader can check best."""
        best, example = -1.0, None
        for index, vantage in enumerate(self.vantages):
            assert vantage.replayed is not None
            tables = vantage.causes.chunks(), vantage.replayed.verdicts.chunks()
            for (first, rows), causes, verdicts in zip(numbered(vantage.tracked), *tables, strict=True):
                hit = (causes["cause"] == at) | ((causes["cause"] == 0) & (causes["aggravated_by"] == at))
                where = np.flatnonzero(hit)
                if not len(where):
                    continue
                _, which, repeats = np.unique(rows["conn"][where], return_inverse=True, return_counts=True)
                chosen = verdicts[where]
                score = (
                    4000.0 * (causes["cause"][where] == at)
                    + 1000.0 * (chosen["certainty"] == 2)
                    + 500.0 * (chosen["compared"] == 1)
                    + 400.0 * (chosen["peer_stamp_frame"] > 0)
                    + 200.0 * (vantage.side == "server")
                    + 50.0 * (rows["attempt"][where] == 1)
                    + np.minimum(repeats[which.ravel()], 9)
                )
                top = int(np.argmax(score))
                if score[top] > best:
                    row = int(where[top])
                    best, example = float(score[top]), Example(index, first + row, rows[row], verdicts[row])
        return example

    def _journey(self, example: Example) -> list[Step]:
        """SYNs and answers of the attempt in every capture, and the RST of who gave up."""
        steps: list[Step] = []
        for vantage, rows, paths in self._attempt(example):
            for number, (row, path) in enumerate(zip(rows, paths, strict=True), 1):
                if FIRST_TRIES < number < len(rows):
                    continue
                lanes = self._lanes(vantage, int(path["leg"]))
                steps.append(
                    self._step(
                        vantage, row["frame"], row["time"], _syn_text(row, number, len(rows)), lanes, file=row["file"]
                    )
                )
                if row["answer"] != ANSWER_NONE and row["answer_time"] != NO_TIME:
                    text = _ANSWER_WORDS[ANSWERS[int(row["answer"])]]
                    back = (lanes[1], lanes[0])
                    steps.append(
                        self._step(vantage, row["answer_frame"], row["answer_time"], text, back, "answer", row["file"])
                    )
            steps += self._given_up(vantage, rows, paths)
        return steps

    def _attempt(self, example: Example) -> Iterator[tuple[Vantage, Records, Records]]:
        """(capture, SYN rows, PATH rows) of the example's attempt, leg by leg."""
        origin = self.vantages[example.vantage]
        path = self.joined.path(origin.name, len(origin.tracked.syns))[example.number]
        journeys = np.array([path["journey"]]) if path["journey"] >= 0 else np.zeros(0, np.int64)
        journeys = np.union1d(journeys, self._journeys_of(origin, int(example.syn["conn"])))
        for vantage in self.vantages if len(journeys) else ():
            paths = self.joined.path(vantage.name, len(vantage.tracked.syns))
            front = np.isin(paths["journey"], journeys) & (paths["leg"] == CLIENT_LEG)
            for conn in np.unique(self._rows(vantage, front, -1)[0]["conn"]).tolist():
                journeys = np.union1d(journeys, self._journeys_of(vantage, conn))
        for vantage in self.vantages:
            paths = self.joined.path(vantage.name, len(vantage.tracked.syns))
            mine = np.isin(paths["journey"], journeys) if len(journeys) else np.zeros(len(paths), np.bool_)
            rows = self._rows(vantage, mine, int(example.syn["conn"]) if vantage is origin else -1)
            for leg in np.unique(paths["leg"][rows[1]]).tolist():
                own = paths["leg"][rows[1]] == leg
                yield vantage, rows[0][own], paths[rows[1]][own]

    def _journeys_of(self, vantage: Vantage, conn: int) -> Array:
        paths = self.joined.path(vantage.name, len(vantage.tracked.syns))
        numbers = self._rows(vantage, np.zeros(len(paths), np.bool_), conn)[1]
        found = paths["journey"][numbers]
        return np.unique(found[found >= 0])

    def _rows(self, vantage: Vantage, mine: Array, conn: int) -> tuple[Records, Array]:
        """(SYN rows, row numbers) that are marked or belong to *conn*."""
        rows, numbers = [], []
        for first, chunk in numbered(vantage.tracked):
            where = np.flatnonzero(mine[first : first + len(chunk)] | (chunk["conn"] == conn))
            rows.append(chunk[where])
            numbers.append(first + where)
        return np.concatenate(rows), np.concatenate(numbers)

    def _lanes(self, vantage: Vantage, leg: int) -> tuple[str, str]:
        if leg in _LANES and (self._has_lb or leg != SERVER_LEG):
            return _LANES[leg]
        if vantage.side == "client" and self._has_lb:
            return "client", "lb"
        return "client", "server"

    def _step(
        self,
        vantage: Vantage,
        frame: Any,
        time: Any,
        text: str,
        lanes: tuple[str, str],
        role: str = "syn",
        file: Any = 0,
    ) -> Step:
        when, where = self.clock.time(vantage.name, int(time)), _file_name(vantage, int(file), int(time))
        return Step(vantage.name, int(frame), when, text, role, *lanes, where)

    def _given_up(self, vantage: Vantage, rows: Records, paths: Records) -> list[Step]:
        """A RST from the originator of the unanswered attempt: it gave the handshake up."""
        steps = []
        for conn in np.unique(rows["conn"])[:MOST_CONNECTIONS].tolist():
            own = _connection(vantage, conn)
            if own is None or not own["seen"] & SEEN_RST_ORIG or own["rst_time"] == NO_TIME:
                continue
            first = rows[rows["conn"] == conn][0]
            after = (int(own["rst_time"]) - int(first["time"])) / NS
            lanes = self._lanes(vantage, int(paths["leg"][rows["conn"] == conn][0]))
            refuses = first["answer"] == ANSWER_ACK and after < 1
            why = "it never asked for that ACK" if refuses else f"it gives up {after:.3g} s after its SYN"
            text = f"RST from who sent the SYN: {why}"
            steps.append(self._step(vantage, own["rst_frame"], own["rst_time"], text, lanes, "rst", own["file"]))
        return steps

    def _closing(self, vantage: Vantage, verdict: Any) -> list[Step]:
        """The server's FIN and the packet whose TSval was remembered."""
        frame, time = int(verdict["peer_stamp_frame"]), int(verdict["peer_stamp_time"])
        text = f"its TSval {int(verdict['peer_tsval'])} is what the server kept"
        closing = _closing_connection(vantage, frame, int(verdict["peer_stamp_file"]))
        near = "lb" if self._has_lb else "client"
        steps = []
        if closing is not None:
            who = f"{host_text(vantage.tracked.hosts, int(closing['orig']))} port {int(closing['orig_p'])}"
            if closing["fin_resp_time"] != NO_TIME:
                fin = f"the server closes its connection with {who}: FIN"
                lanes = ("server", near)
                steps.append(
                    self._step(
                        vantage, closing["fin_resp_frame"], closing["fin_resp_time"], fin, lanes, "fin", closing["file"]
                    )
                )
            kind = "FIN" if int(closing["fin_orig_frame"]) == frame else "ACK"
            text = f"{kind} of {who}: {text}"
        return [*steps, self._step(vantage, frame, time, text, (near, "server"), "stamp", verdict["peer_stamp_file"])]


def tell(vantages: Sequence[Vantage], joined: Joined, word: str) -> Story | None:
    """The story of the clearest SYN of one cause; None where it explains none."""
    return Teller(vantages, joined).tell(CAUSES.index(word))


def _syn_text(row: Any, number: int, tries: int) -> str:
    text = f"SYN, TSval {int(row['tsval'])}" if row["opts"] & OPT_TS else "SYN without timestamps"
    return text + (f" (try {number} of {tries})" if tries > 1 else "")


def _file_name(vantage: Vantage, file: int, time: int) -> str:
    """Base name of the file that holds a packet; empty where the capture has only one.

    *file* is that of a packet of the same connection; in a rotated capture this one may lie in a later file.
    """
    files = vantage.tracked.files
    if len(files) < 2:
        return ""
    order = [file, *range(len(files))]
    holder = next((i for i in order if files[i].first_time <= time <= files[i].last_time), file)
    return Path(files[holder].path).name


def _connection(vantage: Vantage, conn: int) -> Any:
    for chunk in vantage.tracked.connections.chunks():
        hit = np.flatnonzero(chunk["conn"] == conn)
        if len(hit):
            return chunk[hit[0]]
    return None


def _closing_connection(vantage: Vantage, frame: int, file: int) -> Any:
    """The connection whose close wrote the stamp at *frame*."""
    assert vantage.replayed is not None
    writes = vantage.replayed.peer_states
    where = np.flatnonzero((writes["frame"] == frame) & (writes["file"] == file))
    if len(where):
        return _connection(vantage, int(writes["conn"][where[0]]))
    for chunk in vantage.tracked.connections.chunks():
        hit = np.flatnonzero((chunk["fin_orig_frame"] == frame) | (chunk["fin_resp_acked_frame"] == frame))
        if len(hit):
            return chunk[hit[0]]
    return None
