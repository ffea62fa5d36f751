"""``answer_not_forwarded``: the load balancer had the SYN-ACK and did not pass it on to the client."""

from analyzer.diagnosis.causes.base import Cause, Told, no_syn, strength
from analyzer.diagnosis.facts import CERTAIN, Array, Facts
from analyzer.schema import ANSWER_SYN_ACK


def weigh(facts: Facts) -> Array:
    """A SYN-ACK on the LB's server side and none on its client side."""
    had = (facts.answer == ANSWER_SYN_ACK) & facts.missing_at_client & ~facts.missing_at_lb
    return strength(had, CERTAIN)


def statement(told: Told) -> str:
    """How many answers ended at the load balancer."""
    return (
        f"{told.who} got a SYN-ACK as far as the load balancer's server side, and the load balancer did not pass it "
        "on to the client."
    )


CAUSE = Cause(
    "answer_not_forwarded",
    weigh,
    statement,
    "Look at the load balancer: its connection table (full, or the entry had timed out: conntrack -S, insert_failed "
    "and invalid), rules that drop packets it calls invalid, asymmetric routing through two units, a checksum or "
    "sequence check that refuses the SYN-ACK. Nothing on the server changes it.",
    "The SYN-ACK in a capture on the client's side.",
    no_syn,
)
