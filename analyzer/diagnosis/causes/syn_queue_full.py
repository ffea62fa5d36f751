"""``syn_queue_full``: the SYN queue was full, or in its last quarter, and cookies were off."""

import numpy as np

from analyzer.diagnosis.causes.base import Cause, Told, foreseen, loads, strength
from analyzer.diagnosis.facts import LIKELY, Array, Facts
from analyzer.diagnosis.strain import SYN_FULL

RULES = ("syn_queue_full", "last_quarter")


def weigh(facts: Facts) -> Array:
    """The replay's verdict, or silence that follows the number of half-open requests."""
    by_load = strength(facts.silent & (facts.queue == SYN_FULL), LIKELY)
    return strength(not facts.never_counted("ListenDrops"), np.maximum(facts.dropped_by(RULES), by_load))


def statement(told: Told) -> str:
    """How many, and from which load on."""
    text = f"{told.who} found the SYN queue full, with SYN cookies off or its last quarter kept for known peers"
    by_load = loads(told.listeners, SYN_FULL, "handshakes half open")
    return text + (f"; {by_load}." if by_load else ".")


def wrongly(facts: Facts) -> Array:
    """Answered although the queue was to be full."""
    return foreseen(facts, RULES)


CAUSE = Cause(
    "syn_queue_full",
    weigh,
    statement,
    "Set net.ipv4.tcp_syncookies=1 (the default): it acts at once, and a full SYN queue then answers with cookies "
    "instead of silence. Raise net.ipv4.tcp_max_syn_backlog and the backlog of listen() with net.core.somaxconn; the "
    "listener must be restarted for its backlog. Find out who leaves handshakes half open (ss -n state syn-recv).",
    "TCPReqQFullDrop (from 3.4 on) or ListenDrops (from 3.8 on) that do not rise with these SYNs; a SYN-ACK that is "
    "a cookie.",
    wrongly,
    RULES,
)
