"""``refused``: got a RST."""

import numpy as np

from analyzer.diagnosis.causes.base import Cause, Told, no_syn, strength
from analyzer.diagnosis.facts import CERTAIN, LIKELY, POSSIBLE, Array, Facts
from analyzer.schema import ANSWER_RST
from analyzer.units import NS

PROMPT = 2 * NS
"""A RST later than this is a timer (a load balancer gives a handshake up after its own time), no refusal."""
RULES = ("no_listener",)


def weigh(facts: Facts) -> Array:
    """A prompt RST is a refusal; a late one at the server only may be one."""
    reset = facts.answer == ANSWER_RST
    prompt = facts.delay <= PROMPT
    late = np.where(facts.at_server, POSSIBLE, 0)
    foreseen_otherwise = facts.verdict("rst") & ~facts.ruled(RULES)
    level = np.where(prompt, np.where(foreseen_otherwise, LIKELY, CERTAIN), late)
    return strength(reset, np.where(foreseen_otherwise & prompt, POSSIBLE, level))


def statement(told: Told) -> str:
    """Who refused whom."""
    text = f"{told.who} {told.were} answered by a RST"
    if len(told.services) > 20 and len(told.peers) <= 3:
        text += f", on {len(told.services):,} different ports, as in a scan"
    elif len(told.services) == 1:
        text += f" from {next(iter(told.services))}"
    return text + ": nothing listened there at that moment, or something on the path resets."


CAUSE = Cause(
    "refused",
    weigh,
    statement,
    "See whether the application listens on that address and port (ss -ltn), whether it was restarting, and whether "
    "the load balancer's health check takes such a member out of the pool; else look for a firewall rule that rejects "
    "with a RST (iptables: REJECT --reject-with tcp-reset).",
    "A listener that took other SYNs at the same moment.",
    no_syn,
    RULES,
)
