"""``accept_queue_full``: the SYN, or its handshake's last ACK, met an accept queue that was full."""

import numpy as np

from analyzer.diagnosis.causes.base import Cause, Told, counted, foreseen, loads, strength
from analyzer.diagnosis.facts import LIKELY, Array, Facts
from analyzer.diagnosis.strain import ACCEPT_FULL

RULES = ("accept_queue_full",)


def weigh(facts: Facts) -> Array:
    """The replay's verdict where the backlog is known, else silence that follows the load of the queue."""
    by_load = strength(facts.silent & (facts.queue == ACCEPT_FULL), LIKELY)
    by_count = strength(facts.overflowed & facts.silent & facts.verdict("accept"), LIKELY)
    return strength(
        not facts.never_counted("ListenOverflows"),
        np.maximum(np.maximum(facts.dropped_by(RULES), by_load), by_count),
    )


def statement(told: Told) -> str:
    """How many, from which load on, and third ACKs that were not taken."""
    parts = []
    if told.count:
        parts.append(f"{told.who} found the accept queue full: the application did not accept fast enough")
    if by_load := loads(told.listeners, ACCEPT_FULL, "connections waiting"):
        parts.append(by_load)
    if told.ignored:
        parts.append(
            f"{counted(told.ignored, 'handshake')} had the last ACK ignored or reset: the client took the "
            "connection for open, the server did not"
        )
    return "; ".join(parts) + "."


def wrongly(facts: Facts) -> Array:
    """Answered although the queue was to be full."""
    return foreseen(facts, RULES) | (facts.taken & facts.above_load & (facts.queue == 0))


CAUSE = Cause(
    "accept_queue_full",
    weigh,
    statement,
    "The application accepts too slowly: look at it first (threads, garbage collection, locks). A larger queue only "
    "bridges bursts: raise the backlog in listen() together with net.core.somaxconn (the smaller of both counts; "
    "128 by default, 4096 from 5.4 on) and restart the listener, for a running one keeps its backlog. "
    "net.ipv4.tcp_abort_on_overflow=1 makes clients fail at once instead of waiting; it loses more.",
    "ListenOverflows that does not rise with these SYNs (it counts dropped SYNs from 3.8 on), or ss -ltn showing "
    "Recv-Q not above Send-Q at that moment.",
    wrongly,
    RULES,
)
