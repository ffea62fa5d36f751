"""The worked example of a finding: one SYN, the packets that decided its fate, and the numbers."""

from typing import Any

import numpy as np

from analyzer.connections.names import host_text
from analyzer.diagnosis.model import Step, Story, Vantage
from analyzer.kernel.rules import RULE_NAMES
from analyzer.schema import OPT_TS
from analyzer.units import NO_TIME, NS

Records = np.ndarray[Any, np.dtype[np.void]]


def tell(vantage: Vantage, cause: str, syns: Records, verdicts: Records, names: list[str]) -> Story | None:
    """Pick the clearest SYN of a cause and tell its story; None where there is nothing to compare."""
    if not len(syns):
        return None
    pick = _clearest(syns, verdicts)
    syn, verdict = syns[pick], verdicts[pick]
    tries = syns[syns["conn"] == syn["conn"]]
    steps = [_syn_step(vantage, row, i + 1, len(tries)) for i, row in enumerate(tries[:8])]
    steps += _answer_steps(vantage, tries)
    compared = bool(verdict["compared"])
    if compared and verdict["peer_stamp_frame"]:
        steps += _close_steps(vantage, verdict)
    peer, server = names[syn["orig"]], names[syn["resp"]]
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
        rule=RULE_NAMES[int(verdict["rule"])],
        conn=int(syn["conn"]),
    )


def _clearest(syns: Records, verdicts: Records) -> int:
    """First SYN of the attempt with most repeats, certain and compared with a known frame if possible."""
    _, inverse, repeats = np.unique(syns["conn"], return_inverse=True, return_counts=True)
    score = (
        1000 * (verdicts["certainty"] == 2)
        + 500 * (verdicts["compared"] == 1)
        + 400 * (verdicts["peer_stamp_frame"] > 0)
        + 50 * (syns["attempt"] == 1)
        + np.minimum(repeats[inverse], 9)
    )
    return int(np.argmax(score))


def _syn_step(vantage: Vantage, row: Any, number: int, tries: int) -> Step:
    text = f"SYN, TSval {int(row['tsval'])}" if row["opts"] & OPT_TS else "SYN without timestamps"
    if tries > 1:
        text += f" (try {number} of {tries})"
    return Step(vantage.name, int(row["frame"]), int(row["time"]), text, "syn")


def _answer_steps(vantage: Vantage, tries: Records) -> list[Step]:
    words = {1: "SYN-ACK", 2: "bare ACK instead of a SYN-ACK", 3: "RST", 4: "ICMP error"}
    return [
        Step(vantage.name, int(r["answer_frame"]), int(r["answer_time"]), words[int(r["answer"])], "answer")
        for r in tries[:8]
        if r["answer"] and r["answer_time"] != NO_TIME
    ]


def _close_steps(vantage: Vantage, verdict: Any) -> list[Step]:
    """The server's FIN and the packet whose TSval was remembered."""
    frame, time = int(verdict["peer_stamp_frame"]), int(verdict["peer_stamp_time"])
    text = f"its TSval {int(verdict['peer_tsval'])} is what the server kept"
    closing = _connection_of(vantage, frame, int(verdict["peer_stamp_file"]))
    steps = []
    if closing is not None:
        port = int(closing["orig_p"])
        who = host_text(vantage.tracked.hosts, int(closing["orig"]))
        if closing["fin_resp_time"] != NO_TIME:
            steps.append(
                Step(
                    vantage.name, int(closing["fin_resp_frame"]), int(closing["fin_resp_time"]),
                    f"the server closes its connection with {who} port {port}: FIN", "fin",
                )
            )  # fmt: skip
        kind = "FIN" if int(closing["fin_orig_frame"]) == frame else "ACK"
        text = f"{kind} of {who} port {port}: {text}"
    return [*steps, Step(vantage.name, frame, time, text, "stamp")]


def _connection_of(vantage: Vantage, frame: int, file: int) -> Any:
    """The connection whose close wrote the stamp at *frame*."""
    assert vantage.replayed is not None
    writes = vantage.replayed.peer_states
    where = np.flatnonzero((writes["frame"] == frame) & (writes["file"] == file))
    for chunk in vantage.tracked.connections.chunks():
        if len(where):
            hit = np.flatnonzero(chunk["conn"] == writes["conn"][where[0]])
        else:
            hit = np.flatnonzero((chunk["fin_orig_frame"] == frame) | (chunk["fin_resp_acked_frame"] == frame))
        if len(hit):
            return chunk[hit[0]]
    return None
