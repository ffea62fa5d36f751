"""``no_evidence``: cannot be told from what was given; says what would tell."""

from analyzer.diagnosis.causes.base import Cause, Told, no_syn, strength
from analyzer.diagnosis.facts import POSSIBLE, Array, Facts


def weigh(facts: Facts) -> Array:
    """Whatever got no SYN-ACK and has no better explanation."""
    return strength(~facts.taken | facts.missing_at_client | facts.missing_at_lb, POSSIBLE)


def statement(told: Told) -> str:
    """How many, and what would settle it."""
    if told.given == {"lb"}:
        missing = "a capture on the server at the same time shows whether they arrived and what it answered"
    elif told.given == {"unknown"}:
        missing = "say where the capture was taken (--server, --lb), which its packets do not show"
    elif told.given == {"client"}:
        missing = "captures on the load balancer and on the server at the same time show how far they came"
    elif "server" in told.given and "lb" in told.sides:
        missing = "a capture on the server they were sent to, over the whole time, shows whether they arrived"
    else:
        missing = "a longer capture, and the host's counters before and after (--netstat), would settle it"
    return f"{told.who} failed for a reason that these captures cannot show; {missing}."


CAUSE = Cause(
    "no_evidence",
    weigh,
    statement,
    "Capture on the server and on both sides of the load balancer at the same time (tcpdump -s 128, SYN to RST and "
    "ACKs too), from two minutes before the failure, and save nstat -az on the server before and after.",
    "A second capture or the host's counters would settle it.",
    no_syn,
)
