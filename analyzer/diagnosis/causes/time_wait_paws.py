"""``time_wait_paws``: met a TIME-WAIT on the same four numbers that holds a newer timestamp."""

import numpy as np

from analyzer.diagnosis.causes.base import Cause, Told, counted, foreseen, strength
from analyzer.diagnosis.facts import LIKELY, Array, Facts
from analyzer.schema import ANSWER_ACK

RULES = ("time_wait_paws", "time_wait_paws_rate_limited")


def weigh(facts: Facts) -> Array:
    """A bare ACK as foreseen, or silence where such ACKs are rate-limited; a filter may hide the ACK."""
    closed = strength(facts.unheard & facts.hit_closed & facts.behind, LIKELY)
    unheard = np.maximum(facts.hidden_ack(RULES), closed)
    met = np.maximum(facts.answered_by(RULES, "ack", ANSWER_ACK), unheard)
    return np.maximum(met, facts.dropped_by(RULES))


def statement(told: Told) -> str:
    """What came back, and whether it reached the client."""
    text = (
        f"{told.who} met a TIME-WAIT of an earlier connection on the same four numbers with a newer timestamp and "
        "got a bare ACK instead of a SYN-ACK"
    )
    if told.silent:
        text += f" ({counted(told.silent, 'SYN')} got nothing: such ACKs are rate-limited)"
    held = told.aggravated.get("answer_not_forwarded", 0)
    if held:
        text += f"; the load balancer did not pass on {counted(held, 'of these ACKs', '')}, so the client saw silence"
    return text + "."


def wrongly(facts: Facts) -> Array:
    """Answered by a SYN-ACK although the TIME-WAIT was to refuse it."""
    return foreseen(facts, RULES)


CAUSE = Cause(
    "time_wait_paws",
    weigh,
    statement,
    "Keep the load balancer from reusing a source port within 60 s of the server's close: more SNAT addresses, a "
    "larger port range handed out in sequence, or a hold-down of at least 60 s. Or let the client side close first, "
    "so that TIME-WAIT stays off the server. The load balancer must pass on the server's bare ACK and the client's "
    "RST: that RST ends the TIME-WAIT (with net.ipv4.tcp_rfc1337=0) and the next SYN is taken. The 60 s cannot be "
    "tuned; tcp_fin_timeout does not change them, and tcp_tw_reuse acts on the connecting host only.",
    "A bare ACK whose TSecr is not the remembered TSval, a TIME-WAIT that had ended before the SYN, or PAWSEstab "
    "(PAWSTimewait from 6.16 on) that does not rise with these SYNs.",
    wrongly,
    RULES,
)
