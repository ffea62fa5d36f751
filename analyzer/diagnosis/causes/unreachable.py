"""``unreachable``: got an ICMP error, or none because such errors are rate-limited."""

import numpy as np

from analyzer.diagnosis.causes.base import Cause, Told, counted, no_syn, strength
from analyzer.diagnosis.facts import CERTAIN, LIKELY, Array, Facts
from analyzer.schema import ANSWER_ICMP


def weigh(facts: Facts) -> Array:
    """The ICMP error itself, or silence beside ICMP errors for the same source."""
    limited = facts.silent & facts.rejecting & (facts.at_server | facts.at_lb_server)
    return np.maximum(strength(facts.answer == ANSWER_ICMP, CERTAIN), strength(limited, LIKELY))


def statement(told: Told) -> str:
    """How many errors, and how many that the rate limit kept back."""
    told_errors = told.count - told.silent
    text = f"{told.who} {told.were} rejected with an ICMP error"
    if told.silent:
        text += (
            f": {told_errors:,} errors came, {counted(told.silent, 'SYN')} beside them got nothing, as the kernel's "
            "ICMP rate limit would have it"
        )
    return text + "."


CAUSE = Cause(
    "unreachable",
    weigh,
    statement,
    "Look at the rule that rejects (iptables -vnL, nft list ruleset: reject with icmp …) on the host that sent the "
    "error, at its routes and neighbour entries. Not every rejected SYN gets an error: net.ipv4.icmp_ratelimit lets "
    "about one a second out per destination; the client then repeats its SYN as if it had been dropped.",
    "For the silent ones: a firewall rule that drops and another that rejects, both for that source.",
    no_syn,
)
