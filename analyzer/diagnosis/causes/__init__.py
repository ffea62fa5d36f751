"""Why a SYN failed: one file per word, weighed against each other SYN by SYN."""

from typing import Any

import numpy as np

from analyzer.diagnosis.causes import (
    accept_queue_full,
    answer_not_forwarded,
    answered,
    established_collision,
    lost_before_server,
    no_evidence,
    not_forwarded,
    peer_timestamp,
    refused,
    server_silent,
    syn_ack_lost,
    syn_queue_full,
    time_wait_paws,
    time_wait_sequence,
    unreachable,
)
from analyzer.diagnosis.causes.base import Cause
from analyzer.diagnosis.facts import Facts
from analyzer.schema import ANSWER_NONE, ANSWER_SYN_ACK, CAUSE, CAUSES

Records = np.ndarray[Any, np.dtype[np.void]]

REGISTRY: tuple[Cause, ...] = tuple(
    module.CAUSE
    for module in (
        answered, peer_timestamp, time_wait_paws, time_wait_sequence, established_collision, accept_queue_full,
        syn_queue_full, server_silent, lost_before_server, syn_ack_lost, answer_not_forwarded, not_forwarded, refused,
        unreachable, no_evidence,
    )
)  # fmt: skip
"""In report order, which is that of ``schema.CAUSES``."""

PRECEDENCE = tuple(
    CAUSES.index(word)
    for word in (
        "syn_ack_lost", "answer_not_forwarded", "answered", "peer_timestamp", "time_wait_paws", "time_wait_sequence",
        "established_collision", "unreachable", "refused", "lost_before_server", "not_forwarded", "syn_queue_full",
        "accept_queue_full", "server_silent", "no_evidence",
    )
)  # fmt: skip
"""Which of two equally strong causes is taken: the one that rests on more."""

BY_WORD = {cause.word: cause for cause in REGISTRY}
CAUSE_OF_RULE = {rule: cause.word for cause in REGISTRY for rule in cause.rules}
"""The cause that a rule of the kernel model stands for, where packets agree with it."""


def weigh(facts: Facts) -> Records:
    """The strongest cause of each SYN.

    Returns:
        CAUSE records, entry for entry beside *facts*.
    """
    strengths = np.stack([REGISTRY[at].weigh(facts) for at in PRECEDENCE])
    best = np.argmax(strengths, axis=0)
    out = np.zeros(len(facts), CAUSE.dtype)
    out["cause"] = np.array(PRECEDENCE, np.uint8)[best]
    level = strengths[best, np.arange(len(facts))] if len(facts) else np.zeros(0, np.uint8)
    unknown = level == 0
    out["cause"][unknown] = CAUSES.index("no_evidence")
    out["certainty"] = np.maximum(level, 1) - 1
    out["aggravated_by"] = _aggravated(facts, out["cause"])
    return out


def _aggravated(facts: Facts, cause: Any) -> Any:
    """The second thing that went wrong: an answer other than a SYN-ACK that did not come through, an ignored ACK."""
    other = (facts.answer != ANSWER_NONE) & (facts.answer != ANSWER_SYN_ACK)
    out = np.zeros(len(facts), np.uint8)
    out[other & facts.missing_at_client] = CAUSES.index("answer_not_forwarded")
    out[other & facts.missing_at_lb] = CAUSES.index("syn_ack_lost")
    out[other & facts.at_lb_client & (facts.covered > 0)] = CAUSES.index("not_forwarded")
    out[(cause == CAUSES.index("answered")) & facts.ack_ignored] = CAUSES.index("accept_queue_full")
    return out
