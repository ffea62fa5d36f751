"""``syn_ack_lost``: was answered, but the answer never reached the load balancer."""

import numpy as np

from analyzer.diagnosis.causes.base import Cause, Told, no_syn, strength
from analyzer.diagnosis.facts import CERTAIN, LIKELY, NONE, TIMEOUT, Array, Facts
from analyzer.schema import ANSWER_NONE, ANSWER_SYN_ACK, NOT_THERE


def weigh(facts: Facts) -> Array:
    """Seen at the server and not at the LB; from one side: a repeat after the SYN-ACK, or an echo of this SYN."""
    answered = facts.answer == ANSWER_SYN_ACK
    lost = answered & facts.missing_at_lb
    unseen = facts.paths["answer_lb"] == NOT_THERE
    waited = (facts.gap > TIMEOUT) & (facts.delay < facts.gap // 2)
    from_server = answered & facts.at_server & unseen & ~facts.direct & ~facts.arrived & waited
    late = answered & ~facts.last_try & ~facts.arrived & (facts.delay > TIMEOUT)
    from_lb = facts.at_lb_server & (late | (facts.silent & facts.echoed)) & (facts.covered == NONE) & (not facts.slow)
    never = (facts.paths["answer_lb"] == ANSWER_NONE) & ~facts.repeated_answers
    level = np.where(lost, np.where(never, CERTAIN, LIKELY), np.where(from_server | from_lb, LIKELY, NONE))
    return strength(lost | from_server | from_lb, level)


def statement(told: Told) -> str:
    """How many, and how it is known."""
    text = f"{told.who} {told.were} answered by the server, but the SYN-ACK did not reach the load balancer"
    if "lb" not in told.given:
        text += ": the client repeated its SYN a timeout after it (a capture at the load balancer tells where it ended)"
    elif "server" not in told.given:
        text += ": a later SYN-ACK echoes the timestamp of a SYN that had seemed unanswered"
    return text + "."


CAUSE = Cause(
    "syn_ack_lost",
    weigh,
    statement,
    "Look on the way back, from the server to the load balancer: the server's outgoing filter rules, its route to "
    "the SNAT address (asymmetric routing), drop counters of switch ports and network cards, an access list that "
    "lets SYNs in and SYN-ACKs not out. Nothing on the server's TCP changes it.",
    "The SYN-ACK in a capture at the load balancer; a load balancer's capture that lost packets.",
    no_syn,
)
