"""Everything known of some SYNs, side by side: what the causes are weighed on."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from analyzer.diagnosis.coverage import CLIENT_LEG, LB_SERVER_LEG
from analyzer.kernel.rules import RULE_NAMES
from analyzer.schema import (
    ANSWER_ACK,
    ANSWER_NONE,
    ANSWER_SYN_ACK,
    CERTAINTIES,
    FLOW_KINDS,
    NOT_THERE,
    VERDICTS,
)
from analyzer.units import NO_TIME, NS

Records = np.ndarray[Any, np.dtype[np.void]]
Array = np.ndarray[Any, Any]

NONE, POSSIBLE, LIKELY, CERTAIN = 0, 1, 2, 3
"""Strength of a cause for one SYN; above 0 it is the index in CAUSE_CERTAINTIES plus one."""

TIMEOUT = 9 * NS // 10
"""Timers of SYN and SYN-ACK do not run out sooner."""

_RULE = {name: i for i, name in enumerate(RULE_NAMES)}
_VERDICT = {name: i for i, name in enumerate(VERDICTS)}
_SURE = CERTAINTIES.index("certain")


@dataclass(frozen=True)
class Facts:
    """SYNs of one capture that speak for their journeys, one entry each.

    Attributes:
        rows, verdicts, paths: SYN_ROW, VERDICT and PATH records.
        side: The capture's side.
        placed: The side is known, not assumed.
        answer: ANSWER_*, that of a later copy where a packet was captured twice.
        cut: The capture ends before an answer could have been seen.
        established: The handshake was completed.
        prompt: It was completed before the next SYN of the same attempt.
        gap: ns to the next SYN of the same attempt, NO_TIME if none.
        went_on: No SYN-ACK was captured, and yet the client went on as after one.
        ack_ignored: The listener did not take the third ACK: it repeated its SYN-ACK, or reset.
        repeated_answers: The server sent more SYN-ACKs than SYNs came: its timer repeated some.
        echoed: A SYN-ACK to a later try echoes the TSval of this one.
        hit_open, hit_closed: The four numbers were used before, not closed or closed.
        rejecting: The server sent ICMP errors to this source shortly before or after.
        guessed: The verdict rests on the silence of the SYNs before it, which proves no rule.
        queue: Full queue that explains the silence (``strain.ACCEPT_FULL`` …).
        above_load: Answered although the listener's load was that of its silent SYNs.
        overflowed: The host's ListenOverflows leaves room for this silent SYN.
        covered: For a SYN that the next capture did not show: strength with which absence is proof there.
        slow: Answers take so long on this path that a client's timer may run out before they come.
        deaf: Packets of responders were not captured, though connections went on.
        direct: The answer does not come back through the load balancer.
        open_is_silent: This kernel says nothing to a SYN on a connection that is open.
        hears_acks: Whether the capture shows bare ACKs at all.
        lb_hears_acks: The same of the load balancer's capture.
        counters: Deltas of the host's counters by name, where they were given.
    """

    rows: Records
    verdicts: Records
    paths: Records
    side: str
    answer: Array
    cut: Array
    established: Array
    prompt: Array
    gap: Array
    went_on: Array
    ack_ignored: Array
    repeated_answers: Array
    echoed: Array
    hit_open: Array
    hit_closed: Array
    rejecting: Array
    guessed: Array
    queue: Array
    above_load: Array
    overflowed: Array
    covered: Array
    direct: Array
    slow: bool = False
    deaf: bool = False
    open_is_silent: bool = False
    hears_acks: bool = True
    lb_hears_acks: bool = True
    counters: dict[str, int] = field(default_factory=dict)
    placed: bool = True

    def __len__(self) -> int:
        return len(self.rows)

    # ---- where the SYN was seen -------------------------------------------------------------------

    @cached_property
    def at_server(self) -> Array:
        """The server's own capture shows the SYN."""
        return np.full(len(self), self.side == "server" and self.placed)

    @cached_property
    def at_lb_server(self) -> Array:
        """The load balancer's server side is the last place where it was seen."""
        return (self.paths["leg"] == LB_SERVER_LEG) & ~self.at_server

    @cached_property
    def at_lb_client(self) -> Array:
        """It was never seen behind the load balancer's client side."""
        return (self.paths["leg"] == CLIENT_LEG) & ~self.at_server

    # ---- what came back -----------------------------------------------------------------------------

    @cached_property
    def silent(self) -> Array:
        """Nothing came back here, though the capture went on long enough to see it."""
        return (self.answer == ANSWER_NONE) & ~self.cut & ~self.went_on & (not self.deaf)

    @cached_property
    def taken(self) -> Array:
        """A SYN-ACK was sent for it."""
        return (self.answer == ANSWER_SYN_ACK) | self.went_on

    @cached_property
    def last_try(self) -> Array:
        """No SYN of the same attempt follows."""
        return self.gap == NO_TIME

    @cached_property
    def arrived(self) -> Array:
        """The client proved that it has the SYN-ACK: it completed the handshake before it sent any further SYN."""
        return self.established & (self.last_try | self.prompt)

    @cached_property
    def delay(self) -> Array:
        """Ns until the answer, NO_TIME without one."""
        answered = self.rows["answer_time"] != NO_TIME
        return np.where(answered, self.rows["answer_time"] - self.rows["time"], NO_TIME)

    @cached_property
    def overtaken(self) -> Array:
        """The SYN-ACK that came answers an earlier try: this one never reached the server, whose capture ran."""
        again = self.at_lb_server & (self.rows["attempt"] > 1) & (self.answer == ANSWER_SYN_ACK)
        return again & (self.covered > NONE)

    @cached_property
    def missing_at_lb(self) -> Array:
        """The answer that the server's capture shows is missing at the load balancer's server side, or came late.

        Late is a repeat that the server's timer sent, about when the client repeated its SYN.
        """
        at_lb = self.paths["time_answer_lb"] - self.paths["time_lb_server"]
        repeat = (self.answer == ANSWER_SYN_ACK) & ~self.last_try & (at_lb - self.delay > TIMEOUT)
        repeat &= self.paths["time_answer_lb"] != NO_TIME
        seen = (self.paths["time_lb_server"] != NO_TIME) & ((self.paths["answer_lb"] == ANSWER_NONE) | repeat)
        return seen & self.at_server & self._passes & ~self.direct & ~self.arrived

    @cached_property
    def _passes(self) -> Array:
        """There is an answer that the load balancer's capture would show."""
        return (self.answer != ANSWER_NONE) & ((self.answer != ANSWER_ACK) | self.lb_hears_acks)

    @cached_property
    def missing_at_client(self) -> Array:
        """The load balancer had the answer on its server side and sent none out on the client's."""
        lb = np.where(self.at_lb_server, self.answer, self.paths["answer_lb"])
        had = (lb != ANSWER_NONE) & (lb != NOT_THERE)
        seen = (self.paths["time_lb_client"] != NO_TIME) & (self.paths["answer_client"] == ANSWER_NONE)
        return had & seen & self._passes & ~self.direct & ~self.arrived

    # ---- what the kernel model says --------------------------------------------------------------------

    def ruled(self, rules: Iterable[str]) -> Array:
        """Whether the deciding rule is one of *rules*."""
        return np.isin(self.verdicts["rule"], [_RULE[rule] for rule in rules])

    def verdict(self, word: str) -> Array:
        """Whether the verdict is *word*."""
        return self.verdicts["verdict"] == _VERDICT[word]

    @cached_property
    def sure(self) -> Array:
        """Whether the verdict is certain."""
        return self.verdicts["certainty"] == _SURE

    def dropped_by(self, rules: Iterable[str]) -> Array:
        """Strength of "one of *rules* dropped it": foreseen and silent, or foreseen by another feasible state."""
        names = list(rules)
        alternative = np.isin(self.verdicts["alternative"], [_RULE[rule] for rule in names])
        quiet = (self.answer == ANSWER_NONE) & ~self.went_on
        dropped = quiet & self.verdict("drop") & self.ruled(names) & ~self.guessed & (self.sure | ~self.cut)
        beyond = self.at_server | self.at_lb_server | self.sure
        first = np.where(self.sure & self.at_server & ~self.cut, CERTAIN, np.where(beyond, LIKELY, POSSIBLE))
        other = self.silent & ~self.verdict("drop") & alternative & ~self.guessed
        return np.where(dropped, first, np.where(other & beyond, LIKELY, NONE)).astype(np.uint8)

    def answered_by(self, rules: Iterable[str], verdict: str, answer: int) -> Array:
        """Strength of "one of *rules* answered it": foreseen, and the answer is as foreseen."""
        met = (self.answer == answer) & self.verdict(verdict) & self.ruled(rules)
        return np.where(met, np.where(self.sure, CERTAIN, LIKELY), NONE).astype(np.uint8)

    def hidden_ack(self, rules: Iterable[str]) -> Array:
        """Strength of "one of *rules* answered it with a bare ACK" where a filter hides bare ACKs."""
        return np.where(self.unheard & self.ruled(rules), LIKELY, NONE).astype(np.uint8)

    @cached_property
    def unheard(self) -> Array:
        """A bare ACK was due, in a capture that shows none."""
        return self.silent & self.verdict("ack") & (not self.hears_acks)

    @cached_property
    def behind(self) -> Array:
        """Its TSval lies behind the one that it was compared with."""
        return (self.verdicts["compared"] == 1) & (self.verdicts["tsval_delta"] < 0)

    def never_counted(self, *names: str) -> bool:
        """Whether all of these counters were given and none of them moved."""
        return all(self.counters.get(name) == 0 for name in names)


def is_direct(paths: Records, flows: Records) -> Array:
    """Whether a SYN's flow answers past the load balancer."""
    kind = FLOW_KINDS.index("direct")
    known = paths["flow"] >= 0
    if not len(flows):
        return np.zeros(len(paths), np.bool_)
    return known & (flows["kind"][np.maximum(paths["flow"], 0)] == kind)


def nearest(keys: Array, times: Array, ref_keys: Array, ref_times: Array) -> tuple[Array, Array]:
    """For each (key, time): ns since the last reference of the same key, and ns until the next.

    Both are very large where there is none.
    """
    far = np.iinfo(np.int64).max
    if not len(ref_keys):
        return np.full(len(keys), far), np.full(len(keys), far)
    order = np.lexsort((ref_times, ref_keys))
    ref_keys, ref_times = ref_keys[order], ref_times[order]
    names, firsts = np.unique(ref_keys, return_index=True)
    lasts = np.append(firsts[1:], len(ref_keys))
    since, until = np.full(len(keys), far), np.full(len(keys), far)
    at = np.minimum(np.searchsorted(names, keys), len(names) - 1)
    for number in np.unique(at[names[at] == keys]).tolist():
        mine = np.flatnonzero((at == number) & (names[at] == keys))
        own = ref_times[firsts[number] : lasts[number]]
        place = np.searchsorted(own, times[mine], side="right")
        before, after = place > 0, place < len(own)
        since[mine[before]] = times[mine[before]] - own[place[before] - 1]
        until[mine[after]] = own[place[after]] - times[mine[after]]
    return since, until
