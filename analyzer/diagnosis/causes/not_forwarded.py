"""``not_forwarded``: reached the load balancer's client side and never left its server side."""

from analyzer.diagnosis.causes.base import Cause, Told, counted, no_syn, strength
from analyzer.diagnosis.facts import Array, Facts


def weigh(facts: Facts) -> Array:
    """Absence on a server side that was captured at that time."""
    return strength(facts.at_lb_client & facts.silent, facts.covered)


def statement(told: Told) -> str:
    """How many ended inside the load balancer."""
    return (
        f"{told.who}, {counted(told.attempts, 'attempt')}, reached the load balancer's client side and never left "
        "its server side: no free source port, no pool member, a full connection table, or a rule that drops them."
    )


CAUSE = Cause(
    "not_forwarded",
    weigh,
    statement,
    "Look at the load balancer: free source ports of its SNAT pool (add addresses or widen the port range; shorten "
    "its TIME-WAIT only together with what the servers hold), pool members up, connection limits, a full connection "
    "table (conntrack -S: insert_failed, drop), neighbour entries of the members. Nothing on the server changes it.",
    "The same SYN on the server side under other numbers, or a capture filter that hides the server side.",
    no_syn,
)
