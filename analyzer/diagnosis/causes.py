"""One cause per SYN: the verdict, and what came back, weighed against each other."""

from typing import Any

import numpy as np

from analyzer.kernel.rules import RULE_NAMES
from analyzer.schema import (
    ANSWER_ACK,
    ANSWER_ICMP,
    ANSWER_NONE,
    ANSWER_RST,
    ANSWER_SYN_ACK,
    CAUSE,
    CAUSES,
    CERTAINTIES,
    VERDICTS,
)

Records = np.ndarray[Any, np.dtype[np.void]]

CAUSE_OF_RULE = {
    "peer_timestamp": "peer_timestamp",
    "peer_timestamp_missing": "peer_timestamp",
    "time_wait_paws": "time_wait_paws",
    "time_wait_sequence": "time_wait_sequence",
    "time_wait_paws_rate_limited": "time_wait_paws",
    "time_wait_sequence_rate_limited": "time_wait_sequence",
    "fin_wait2_ack": "established_collision",
    "fin_wait2_reset": "established_collision",
    "fin_wait2_rate_limited": "established_collision",
    "syn_recv_paws": "established_collision",
    "syn_recv_ack": "established_collision",
    "syn_recv_reset": "established_collision",
    "syn_recv_rate_limited": "established_collision",
    "live_challenge": "established_collision",
    "live_silent": "established_collision",
    "live_abort": "established_collision",
    "live_rate_limited": "established_collision",
    "accept_queue_full": "accept_queue_full",
    "syn_queue_full": "syn_queue_full",
    "last_quarter": "syn_queue_full",
    "no_listener": "refused",
}
"""The cause that a rule of the model stands for, when packets agree with it."""

_ID = {name: i for i, name in enumerate(CAUSES)}
_RULE_CAUSE = np.array([_ID[CAUSE_OF_RULE.get(rule, "server_silent")] for rule in RULE_NAMES], np.uint8)
_DROP, _ACK, _RST, _UNKNOWN = (VERDICTS.index(v) for v in ("drop", "ack", "rst", "unknown"))
_CERTAIN = CERTAINTIES.index("certain")
POSSIBLE, LIKELY, CERTAIN = 0, 1, 2


def weigh(syns: Records, verdicts: Records, at_server: bool = True) -> Records:
    """Cause of each SYN from one capture.

    Args:
        syns: SYN_ROW records.
        verdicts: VERDICT records, row for row.
        at_server: Whether the capture shows what reached the server.

    Returns:
        CAUSE records, row for row.  Where nothing came back and the model would have answered it is
        ``server_silent`` at the server and ``no_evidence`` elsewhere, for the SYN may not have arrived.
        A verdict that packets contradict never names the cause.
    """
    out = np.zeros(len(syns), CAUSE.dtype)
    answer, verdict = syns["answer"], verdicts["verdict"]
    sure = np.where(verdicts["certainty"] == _CERTAIN, CERTAIN, LIKELY).astype(np.uint8)
    by_rule = _RULE_CAUSE[verdicts["rule"]]
    out["cause"], out["certainty"] = _ID["no_evidence"], POSSIBLE
    _set(out, answer == ANSWER_SYN_ACK, _ID["answered"], CERTAIN)
    silent = answer == ANSWER_NONE
    _set(out, silent & (verdict == _DROP), by_rule, sure)
    _set(out, silent & (verdict != _DROP) & (verdict != _UNKNOWN) & at_server, _ID["server_silent"], LIKELY)
    other = _RULE_CAUSE[verdicts["alternative"]]
    known = (verdicts["alternative"] > 0) & (other != _ID["server_silent"])
    _set(out, silent & (verdict != _DROP) & known, other, LIKELY)
    acked = answer == ANSWER_ACK
    _set(out, acked & (verdict == _ACK), by_rule, sure)
    _set(out, acked & (verdict != _ACK), _ID["established_collision"], POSSIBLE)
    reset = answer == ANSWER_RST
    _set(out, reset & (verdict == _RST), by_rule, sure)
    _set(out, reset & (verdict != _RST), _ID["refused"], CERTAIN)
    _set(out, answer == ANSWER_ICMP, _ID["unreachable"], CERTAIN)
    return out


def _set(out: Records, where: Any, cause: Any, certainty: Any) -> None:
    out["cause"] = np.where(where, cause, out["cause"])
    out["certainty"] = np.where(where, certainty, out["certainty"])
