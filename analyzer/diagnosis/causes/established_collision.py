"""``established_collision``: met a connection still open on the same four numbers."""

import numpy as np

from analyzer.diagnosis.causes.base import Cause, Told, counted, foreseen, strength
from analyzer.diagnosis.facts import LIKELY, POSSIBLE, Array, Facts
from analyzer.schema import ANSWER_ACK, ANSWER_RST

BUCKETS = ("fin_wait2_ack", "fin_wait2_reset", "fin_wait2_rate_limited")
"""Half closed: the kernel keeps it as a small TIME-WAIT socket, so "open" is a matter of words."""
RULES = (
    "live_challenge",
    "live_silent",
    "live_abort",
    "live_rate_limited",
    *BUCKETS,
    "syn_recv_paws",
    "syn_recv_ack",
    "syn_recv_reset",
    "syn_recv_rate_limited",
)


def weigh(facts: Facts) -> Array:
    """As foreseen; a bare ACK that was not foreseen speaks for a connection that the capture does not show."""
    met = np.maximum(facts.answered_by(RULES, "ack", ANSWER_ACK), facts.answered_by(RULES, "rst", ANSWER_RST))
    met = np.maximum(met, np.where(facts.hit_closed, 0, facts.hidden_ack(RULES)))
    met = np.maximum(met, facts.dropped_by(RULES))
    met = np.where(facts.ruled(BUCKETS), np.minimum(met, LIKELY), met).astype(np.uint8)
    still_open = facts.silent & facts.ruled(BUCKETS) & ~facts.sure & facts.open_is_silent
    met = np.maximum(met, strength(still_open, LIKELY))
    unforeseen = (facts.answer == ANSWER_ACK) & ~facts.verdict("ack") & ~facts.hit_closed
    alike = np.where(unforeseen, np.where(facts.hit_open, LIKELY, POSSIBLE), 0).astype(np.uint8)
    return np.maximum(met, alike)


def statement(told: Told) -> str:
    """What the server answered, if anything."""
    who = f"{told.who} hit a connection that the server still had open on the same four numbers: "
    if told.silent == told.count:
        return who + "this kernel drops such a SYN without a word, or its ACK was held back by the rate limit."
    text = who + "it answered with a challenge ACK"
    if told.silent:
        text += f", {counted(told.silent, 'time')} not at all (rate-limited)"
    held = told.aggravated.get("answer_not_forwarded", 0)
    if held:
        text += f"; the load balancer did not pass on {counted(held, 'of these ACKs', '')}"
    return text + "."


def wrongly(facts: Facts) -> Array:
    """Answered by a SYN-ACK although a connection was to stand in its way."""
    return foreseen(facts, RULES)


CAUSE = Cause(
    "established_collision",
    weigh,
    statement,
    "The load balancer forgets connections before the server does: raise its idle timeout above the server's (or "
    "switch on keepalives below it: net.ipv4.tcp_keepalive_time, 7200 s by default, and SO_KEEPALIVE in the "
    "application), let it send a RST to both sides when it gives a flow up, and hold ports back before reuse.",
    "A close of the old connection that the capture missed; TCPSYNChallenge and TCPChallengeACK that do not rise "
    "(3.8 - 3.16 drop such a SYN without a counter).",
    wrongly,
    RULES,
)
