"""``answered``: the SYN got its SYN-ACK."""

import numpy as np

from analyzer.diagnosis.causes.base import Cause, Told, no_syn, strength
from analyzer.diagnosis.facts import CERTAIN, LIKELY, NONE, POSSIBLE, TIMEOUT, Array, Facts
from analyzer.schema import ANSWER_SYN_ACK
from analyzer.units import NS

SOON = NS // 2
"""A repeat this soon after the SYN was no timeout: the answer may have been under way."""


def weigh(facts: Facts) -> Array:
    """A SYN-ACK is certain to have arrived where the client shows it, or the client's side of the LB does."""
    delivered = facts.paths["answer_client"] == ANSWER_SYN_ACK
    sure = (facts.answer == ANSWER_SYN_ACK) & (facts.arrived | (delivered & (facts.last_try | facts.prompt)))
    late = facts.at_lb_server & ~facts.last_try & ~facts.arrived & (facts.delay > TIMEOUT) & (not facts.slow)
    lost = facts.missing_at_lb | facts.missing_at_client | late
    repeated = ~facts.last_try & ~facts.prompt & (facts.gap > SOON)
    level = np.where(sure, CERTAIN, np.where(repeated & ~delivered, POSSIBLE, LIKELY))
    level = np.where(facts.overtaken, POSSIBLE, level)
    return strength(facts.taken, np.where(lost, NONE, level))


def statement(told: Told) -> str:
    """Nothing went wrong."""
    return f"{told.count:,} of {told.total:,} SYNs got their SYN-ACK."


CAUSE = Cause("answered", weigh, statement, "", "", no_syn)
