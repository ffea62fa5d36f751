"""From one capture's tables to the facts of its SYNs, chunk by chunk."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from analyzer.connections import Tracked
from analyzer.diagnosis import tries
from analyzer.diagnosis.coverage import (
    CLIENT_LEG,
    LB_SERVER_LEG,
    Forwarding,
    ServerCoverage,
)
from analyzer.diagnosis.facts import Facts, is_direct, nearest
from analyzer.diagnosis.model import CounterRow, Vantage
from analyzer.diagnosis.strain import CALM, Observed, Strain, strained
from analyzer.kernel.rules import RULE_NAMES
from analyzer.replay.queues import REFUSED_LATELY
from analyzer.schema import (
    ANSWER_ICMP,
    ANSWER_NONE,
    ANSWER_SYN_ACK,
    CONNECTION,
    OPT_TS,
    SEEN_ESTABLISHED,
    SEEN_FIN_ORIG,
    SEEN_FIN_RESP,
    SEEN_SYN_ACK,
    SYN_ROW,
    VERDICTS,
)
from analyzer.snat.model import Joined
from analyzer.spool import pick
from analyzer.units import NO_TIME, NS

Records = np.ndarray[Any, np.dtype[np.void]]
Array = np.ndarray[Any, Any]

ANSWER_WAIT = {"server": NS // 5, "lb": NS, "client": 3 * NS}
"""By side: an answer is due within this time; a capture that ends sooner shows no silence."""
SLOW = 3 * NS // 10
"""Median delay of answers above which a repeated SYN says nothing of a loss."""
ERROR_BEFORE, ERROR_AFTER = 10 * NS, 2 * NS
"""Rejected SYNs this long after or before an ICMP error may fall under its rate limit."""
MOST_FAILED = 16
"""Failed attempts on the same four numbers that are looked past."""
_BOTH_FINS = SEEN_FIN_ORIG | SEEN_FIN_RESP
_QUEUE_RULES = [RULE_NAMES.index(r) for r in ("listener", "accept_queue_full", "syn_queue_full", "last_quarter")]
_DROP = VERDICTS.index("drop")


@dataclass
class Known:
    """What is known beside the captures.

    Attributes:
        counters: By vantage name: deltas of the host's counters.
        cookies: Whether SYN cookies were stated to be on.
    """

    counters: dict[str, dict[str, int]] = field(default_factory=dict)
    cookies: bool = False


def deltas(counters: Sequence[CounterRow]) -> dict[str, dict[str, int]]:
    """What each host's counters did, by vantage name."""
    found: dict[str, dict[str, int]] = {}
    for row in counters:
        if row.seen is not None:
            found.setdefault(row.host, {})[row.name] = row.seen
    return found


class Gatherer:
    """The facts of one capture."""

    def __init__(self, index: int, vantages: Sequence[Vantage], joined: Joined, known: Known) -> None:
        self.vantage = vantages[index]
        assert self.vantage.replayed is not None
        self._joined = joined
        tracked = self.vantage.tracked
        self.paths = joined.path(self.vantage.name, len(tracked.syns))
        self.tries = tries.Tries.of(tracked)
        self.lb_hears_acks = True
        self._refused_acks = self._refused(tracked)
        self._deaf = self.tries.one_sided and bool(tries.went_on(self.tries.conns).any())
        self.counters = known.counters.get(self.vantage.name, {})
        self._servers = ServerCoverage(self.vantage, vantages, joined) if self.vantage.side == "lb" else None
        self._forwarding = Forwarding(index, self.vantage, joined) if self.vantage.side == "lb" else None
        self._errors = _icmp_errors(self.vantage)
        self.strain = self._strain(known.cookies)
        self._overflows = self._unexplained_overflows()
        self._open_is_silent = self.vantage.replayed.hypothesis.profile.live_syn == "silent"
        self._guesses = [at for at, text in enumerate(self.vantage.replayed.reasons) if text == REFUSED_LATELY]
        self._last_time = _last_time(self.vantage)
        self._slow = _median_delay(self.vantage) > SLOW

    def _refused(self, tracked: Tracked) -> Array:
        """Connections whose third ACK reached a listener that did not take it; only the server's capture tells."""
        conns = self.tries.conns
        if self.vantage.side != "server" or self.tries.copy.any():
            return np.zeros(len(conns), np.bool_)
        return tries.ack_ignored(tracked, conns) | tries.aborted(tracked, conns)

    def chunks(self) -> Iterator[tuple[int, Facts]]:
        """(number of the first row, facts of a chunk)."""
        assert self.vantage.replayed is not None
        verdicts = self.vantage.replayed.verdicts.chunks()
        for (first, rows), ruled in zip(tries.numbered(self.vantage.tracked), verdicts, strict=True):
            yield first, self._facts(first, rows, ruled)

    def _facts(self, first: int, rows: Records, verdicts: Records) -> Facts:
        numbers = np.arange(first, first + len(rows))
        paths = self.paths[first : first + len(rows)]
        at, several = self.tries.row(numbers)
        conn_at, there = self.tries.connection(rows["conn"])
        conns = pick(self.tries.conns, conn_at) if len(self.tries.conns) else np.zeros(len(rows), CONNECTION.dtype)
        answer = np.where(several, self.tries.answer[at], rows["answer"]) if several.any() else rows["answer"].copy()
        gap = np.where(several, self.tries.gap[at], NO_TIME) if several.any() else _nothing(len(rows))
        established = ~there | ((conns["seen"] & SEEN_ESTABLISHED) != 0)
        silent = answer == ANSWER_NONE
        last = gap == NO_TIME
        hit_open, hit_closed = self._before(rows, conns, there, answer)
        since, until = nearest(_pair(rows), rows["time"], *self._errors)
        return Facts(
            rows=rows,
            verdicts=verdicts,
            paths=paths,
            side=self.vantage.side,
            answer=answer,
            cut=silent & (rows["time"] > self._last_time - ANSWER_WAIT[self.vantage.side]),
            established=established,
            prompt=there & established & (conns["established_time"] - rows["time"] < gap),
            gap=gap,
            went_on=silent & last & there & (tries.went_on(conns) | established),
            ack_ignored=there & self._refused_acks[conn_at] if len(self.tries.conns) else there,
            repeated_answers=there & (conns["syn_ack_count"] > conns["syn_count"]),
            echoed=silent & ~last & there & tries.echoes(conns, rows["tsval"], (rows["opts"] & OPT_TS) != 0),
            hit_open=hit_open,
            hit_closed=hit_closed,
            rejecting=(since < ERROR_BEFORE) | (until < ERROR_AFTER),
            guessed=np.isin(verdicts["reason"], self._guesses),
            queue=self.strain.of(numbers),
            above_load=np.isin(numbers, self.strain.refuted),
            overflowed=np.full(len(rows), self._overflows),
            covered=self._covered(rows, paths),
            slow=self._slow,
            deaf=self._deaf,
            direct=is_direct(paths, self._joined.flows),
            open_is_silent=self._open_is_silent,
            hears_acks=self.tries.hears_acks,
            lb_hears_acks=self.lb_hears_acks,
            counters=self.counters,
            placed=self.vantage.placed,
        )

    def _covered(self, rows: Records, paths: Records) -> Array:
        """Strength of absence at the next place of each SYN."""
        out = np.zeros(len(rows), np.uint8)
        if self._servers is not None:
            lb_server = np.flatnonzero(paths["leg"] == LB_SERVER_LEG)
            out[lb_server] = self._servers.of(rows[lb_server])
        if self._forwarding is not None:
            client = paths["leg"] == CLIENT_LEG
            out[client] = self._forwarding.of(rows[client])
        return out

    def _before(self, rows: Records, conns: Records, there: Array, answer: Array) -> tuple[Array, Array]:
        """Where no SYN-ACK came: whether the four numbers' last use was left open, or closed by FINs."""
        odd = there & (answer != ANSWER_SYN_ACK) & (conns["previous"] >= 0)
        odd &= (answer != ANSWER_NONE) | (not self.tries.hears_acks)
        hit_open, hit_closed = np.zeros(len(rows), np.bool_), np.zeros(len(rows), np.bool_)
        where = np.flatnonzero(odd)
        if not len(where):
            return hit_open, hit_closed
        previous = self._last_use(conns["previous"][where])
        for chunk in self.vantage.tracked.connections.chunks():
            order = np.argsort(chunk["conn"])
            ids = chunk["conn"][order]
            place = np.minimum(np.searchsorted(ids, previous), len(ids) - 1)
            found = ids[place] == previous
            closed = (chunk["seen"][order[place]] & _BOTH_FINS) == _BOTH_FINS
            hit_closed[where[found & closed]] = True
            hit_open[where[found & ~closed]] = True
        return hit_open, hit_closed

    def _last_use(self, previous: Array) -> Array:
        """The incarnation before that was answered: attempts that failed left nothing behind."""
        for _ in range(MOST_FAILED):
            at, there = self.tries.connection(previous)
            failed = there & ((self.tries.conns["seen"][at] & SEEN_SYN_ACK) == 0)
            failed &= self.tries.conns["previous"][at] >= 0
            if not failed.any():
                break
            previous = np.where(failed, self.tries.conns["previous"][at], previous)
        return previous

    def _strain(self, cookies: bool) -> Strain:
        """Listeners whose silence follows the load of their queues."""
        assert self.vantage.replayed is not None
        if self.vantage.side == "client":
            return CALM
        parts = []
        verdicts = self.vantage.replayed.verdicts.chunks()
        for (first, rows), ruled in zip(tries.numbered(self.vantage.tracked), verdicts, strict=True):
            parts.append(self._observed(first, rows, ruled))
        if not parts or not any(part.silent.any() for part in parts):
            return CALM
        seen = Observed(*(np.concatenate([vars(part)[name] for part in parts]) for name in vars(parts[0])))
        profile = self.vantage.replayed.hypothesis.profile
        return strained(self.vantage.tracked, seen, young_only=profile.accept_queue != "always", cookies=cookies)

    def _observed(self, first: int, rows: Records, verdicts: Records) -> Observed:
        """SYNs that a listener's queues may have decided over."""
        numbers = np.arange(first, first + len(rows))
        legs = self.paths["leg"][first : first + len(rows)]
        at, several = self.tries.row(numbers)
        answer = np.where(several, self.tries.answer[at], rows["answer"]) if several.any() else rows["answer"]
        conn_at, there = self.tries.connection(rows["conn"])
        conns = self.tries.conns
        silent = answer == ANSWER_NONE
        if len(conns):
            silent &= ~(there & tries.went_on(conns)[conn_at])
            repeats = there & (conns["syn_ack_time"][conn_at] != NO_TIME)
            repeats &= conns["syn_ack_time"][conn_at] < rows["time"]
        else:
            repeats = np.zeros(len(rows), np.bool_)
        others = (verdicts["verdict"] == _DROP) & ~np.isin(verdicts["rule"], _QUEUE_RULES)
        asked = np.full(len(rows), True) if self.vantage.side == "server" else legs == LB_SERVER_LEG
        good = asked & ~repeats & ~(silent & others)
        good &= silent | (answer == ANSWER_SYN_ACK)
        where = np.flatnonzero(good)
        return Observed(rows["resp"][where], rows["resp_p"][where], rows["time"][where], silent[where], numbers[where])

    def _unexplained_overflows(self) -> bool:
        """ListenOverflows rose by more than the SYNs already laid on a full accept queue, and enough for the rest."""
        overflows = self.counters.get("ListenOverflows", 0)
        if not overflows or self.strain.listeners:
            return False
        assert self.vantage.replayed is not None
        silent = 0
        verdicts = self.vantage.replayed.verdicts.chunks()
        for rows, ruled in zip(self.vantage.tracked.syns.chunks(), verdicts, strict=True):
            silent += int(np.count_nonzero((rows["answer"] == ANSWER_NONE) & (ruled["verdict"] != _DROP)))
        return overflows >= silent


def _nothing(count: int) -> Array:
    return np.full(count, NO_TIME)


def _pair(rows: Records) -> Array:
    return rows["orig"].astype(np.int64) << 32 | rows["resp"]


def _icmp_errors(vantage: Vantage) -> tuple[Array, Array]:
    """(source and destination, time) of every SYN that got an ICMP error."""
    parts = [chunk[chunk["answer"] == ANSWER_ICMP] for chunk in vantage.tracked.syns.chunks()]
    rows = np.concatenate([np.zeros(0, SYN_ROW.dtype), *parts])
    return _pair(rows), rows["answer_time"]


def _median_delay(vantage: Vantage) -> float:
    """Median time to the SYN-ACK, ns."""
    parts = []
    for chunk in vantage.tracked.syns.chunks():
        got = chunk[chunk["answer"] == ANSWER_SYN_ACK]
        parts.append(got["answer_time"] - got["time"])
    delays = np.concatenate([np.zeros(0, np.int64), *parts])
    return float(np.median(delays)) if len(delays) else 0.0


def _last_time(vantage: Vantage) -> int:
    """Time of the capture's last packet."""
    return max([vantage.tracked.last_time, *(info.last_time for info in vantage.tracked.files)])
