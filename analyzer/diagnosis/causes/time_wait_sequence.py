"""``time_wait_sequence``: met a TIME-WAIT and had neither a newer timestamp nor a higher sequence number."""

import numpy as np

from analyzer.diagnosis.causes.base import Cause, Told, counted, foreseen
from analyzer.diagnosis.facts import POSSIBLE, Array, Facts
from analyzer.schema import ANSWER_ACK

RULES = ("time_wait_sequence", "time_wait_sequence_rate_limited")


def weigh(facts: Facts) -> Array:
    """A bare ACK as foreseen, or silence where such ACKs are rate-limited; else a bare ACK after both FINs."""
    met = np.maximum(facts.answered_by(RULES, "ack", ANSWER_ACK), facts.hidden_ack(RULES))
    other_ack = (facts.answer == ANSWER_ACK) & ~facts.verdict("ack")
    after_close = np.where((other_ack | (facts.unheard & ~facts.behind)) & facts.hit_closed, POSSIBLE, 0)
    return np.maximum(np.maximum(met, facts.dropped_by(RULES)), after_close.astype(np.uint8))


def statement(told: Told) -> str:
    """What came back, and whether it reached the client."""
    text = (
        f"{told.who} met a TIME-WAIT of an earlier connection on the same four numbers; without a newer timestamp "
        "and with a sequence number not above the old one they got a bare ACK"
    )
    if told.silent:
        text += f" ({counted(told.silent, 'SYN')} got nothing: such ACKs are rate-limited)"
    held = told.aggravated.get("answer_not_forwarded", 0)
    if held:
        text += f"; the load balancer did not pass on {counted(held, 'of these ACKs', '')}"
    return text + "."


def wrongly(facts: Facts) -> Array:
    """Answered by a SYN-ACK although the TIME-WAIT was to refuse it."""
    return foreseen(facts, RULES)


CAUSE = Cause(
    "time_wait_sequence",
    weigh,
    statement,
    "Keep timestamps on along the whole path (clients, load balancer, server), for without them only the sequence "
    "number saves a reused port, about every second time. And hold ports back at the load balancer for at least "
    "60 s after the server's close, or let the client side close first.",
    "A TIME-WAIT that had ended before the SYN, or a sequence number above the old connection's last.",
    wrongly,
    RULES,
)
