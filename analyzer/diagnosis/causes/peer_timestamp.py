"""``peer_timestamp``: dropped by the per-host timestamp check that tcp_tw_recycle switches on."""

from analyzer.diagnosis.causes.base import Cause, Told, foreseen, strength
from analyzer.diagnosis.facts import Array, Facts

RULES = ("peer_timestamp", "peer_timestamp_missing")


def weigh(facts: Facts) -> Array:
    """The replay's verdict, unless the host's own counter stood still."""
    return strength(not facts.never_counted("PAWSPassive"), facts.dropped_by(RULES))


def statement(told: Told) -> str:
    """Who was dropped, and by what memory."""
    return (
        f"{told.who} got no answer: the server's kernel dropped them because it remembered a newer timestamp for "
        "their source address (tcp_tw_recycle); several clients' clocks share that address."
    )


def wrongly(facts: Facts) -> Array:
    """Answered although the check was to drop it."""
    return foreseen(facts, RULES)


CAUSE = Cause(
    "peer_timestamp",
    weigh,
    statement,
    "On the server set net.ipv4.tcp_tw_recycle=0; it acts on the next SYN, running connections are not touched. "
    "Do not switch tcp_timestamps off instead: from 3.17 and on RHEL 7.3 and later every SYN of a remembered peer is "
    "then dropped for up to a minute. More SNAT addresses only dilute the loss. The option is gone from kernel 4.12 "
    "on (4.11 still has it); there a load balancer that reuses ports meets TIME-WAIT instead.",
    "One SYN answered while its TSval lies two ticks or more behind the remembered one and 60 s have not passed, or "
    'PAWSPassive ("passive connections rejected because of time stamp") that does not rise with these SYNs.',
    wrongly,
    RULES,
)
