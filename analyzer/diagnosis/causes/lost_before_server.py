"""``lost_before_server``: left the load balancer and never reached the server's capture."""

import numpy as np

from analyzer.diagnosis.causes.base import Cause, Told, no_syn, strength
from analyzer.diagnosis.facts import LIKELY, Array, Facts


def weigh(facts: Facts) -> Array:
    """Absence at a server whose capture ran and shows that service."""
    level = np.where(facts.overtaken, np.minimum(facts.covered, LIKELY), facts.covered)
    gone = (facts.silent | facts.cut) & (facts.answer == 0)
    return strength(facts.at_lb_server & (gone | facts.overtaken), level)


def statement(told: Told) -> str:
    """How many were lost."""
    return (
        f"{told.who} left the load balancer's server side and never reached the server's capture: lost on the wire "
        "between them, or dropped before the server's capture point."
    )


CAUSE = Cause(
    "lost_before_server",
    weigh,
    statement,
    "Look between the load balancer and the server: error and drop counters of switch ports and of both network "
    "cards (ethtool -S, ip -s link), an access list or security group in between, MTU, a wrong VLAN, neighbour "
    "entries (ip neigh) that fail. Nothing on the server's TCP changes it.",
    "A server's capture that lost packets (the capturing program's drop count) or did not cover that interface.",
    no_syn,
)
