"""Events × kernel model → one verdict per SYN: the driver around the engine."""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from heapq import heappop, heappush
from itertools import islice
from typing import Any

import numpy as np

from analyzer.connections import Tracked
from analyzer.kernel.profiles import Profile
from analyzer.kernel.rules import RULE_NAMES, WRITE_EVENTS
from analyzer.kernel.settings import Settings
from analyzer.replay.clock import Steps, steps_of
from analyzer.replay.engine import NEVER, Engine, Ev, Hypothesis, Write
from analyzer.replay.evidence import booted, capture_start
from analyzer.replay.judge import Ruling
from analyzer.replay.losses import losses_of
from analyzer.replay.queues import BACKLOG_UNKNOWN, Listeners
from analyzer.replay.reach import reach_of
from analyzer.replay.screen import Reasons, Screen, bucket_overflows, screen
from analyzer.replay.vantage import SERVER, Vantage
from analyzer.schema import ACK, ANSWER_SYN_ACK, PEER_STATE, SEEN_MIDSTREAM, SYN, VERDICT, VERDICTS
from analyzer.seqnum import d32
from analyzer.spool import Spool, pick
from analyzer.units import NO_TIME

Records = np.ndarray[Any, np.dtype[np.void]]

_RULE = {name: i for i, name in enumerate(RULE_NAMES)}
_VERDICT = {name: i for i, name in enumerate(VERDICTS)}
_EVENT = {name: i for i, name in enumerate(WRITE_EVENTS)}


@dataclass
class Replayed:
    """What one hypothesis says of every SYN of a capture.

    Attributes:
        hypothesis: Kernel, settings and vantage it was replayed under.
        verdicts: Spool of VERDICT, row for row beside the capture's SYN rows.
        peer_states: PEER_STATE records, every write of a remembered timestamp.
        reasons: Texts that ``VERDICT.reason`` indexes; 0 is empty.
        contradictions: (connection id, kind) where packets refute a certain prediction.
    """

    hypothesis: Hypothesis
    verdicts: Spool = field(default_factory=lambda: Spool(VERDICT))
    peer_states: Records = field(default_factory=lambda: np.zeros(0, PEER_STATE.dtype))
    reasons: list[str] = field(default_factory=lambda: [""])
    contradictions: list[tuple[int, str]] = field(default_factory=list)


class _Chains:
    """Who speaks on each chain: by its SYNs, or by its packets where the capture has no SYN of it."""

    def __init__(self, tracked: Tracked, profile: Profile, one_server: bool, dual_stack: bool = False) -> None:
        count = len(tracked.chain_syns)
        self.orig = np.full(count, -1, np.int32)
        self.resp = np.full(count, -1, np.int32)
        self.port = np.zeros(count, np.uint16)
        self._v6 = tracked.hosts["v6"] > 0
        self._profile, self._by_server = profile, profile.key == "local_remote" or not one_server
        self._v4_unchecked = dual_stack and profile.dual_stack == "never checked"
        for rows in tracked.connections.chunks():
            self.orig[rows["chain"]] = rows["orig"]
            self.resp[rows["chain"]] = rows["resp"]
            self.port[rows["chain"]] = rows["resp_p"]
        for rows in tracked.syns.chunks():
            self.orig[rows["chain"]] = rows["orig"]
            self.resp[rows["chain"]] = rows["resp"]
            self.port[rows["chain"]] = rows["resp_p"]
        self._orig, self._resp, self._port = self.orig.data, self.resp.data, self.port.data
        self.peers = self.keys(self.orig, self.resp).data

    def keys(self, orig: Any, resp: Any) -> Any:
        """Numbers of peer records, int64 like *orig*; -1 where the kernel keeps none (see ``rules.peer_key``)."""
        key = orig.astype(np.int64)
        if self._by_server:
            key += (resp.astype(np.int64) + 1) << 32
        unknown = orig < 0 if self._profile.ipv6_peers else (orig < 0) | self._v6[orig]
        if self._v4_unchecked:
            unknown = unknown | ~self._v6[orig]
        return np.where(unknown, -1, key)

    def turned_round(self, tracked: Tracked) -> dict[int, int]:
        """Connections from before the capture whose "originator" is a listener: id -> peer key of the true one.

        Where a capture begins in a connection its direction is a guess by the ports; SYNs tell who listens.
        """
        listening = np.unique(
            np.concatenate([_end(s["resp"], s["resp_p"]) for s in tracked.syns.chunks()] or [_NO_END])
        )
        found: dict[int, int] = {}
        for rows in tracked.connections.chunks():
            older = rows[(rows["seen"] & SEEN_MIDSTREAM) > 0]
            wrong = np.isin(_end(older["orig"], older["orig_p"]), listening)
            wrong &= ~np.isin(_end(older["resp"], older["resp_p"]), listening)
            keys = self.keys(older["resp"][wrong], older["orig"][wrong])
            found.update(zip(older["conn"][wrong].tolist(), keys.tolist(), strict=True))
        return found

    def originator(self, chain: int) -> int:
        """Host id of a chain's originator."""
        return self._orig[chain]

    def server(self, chain: int) -> int:
        """Host id of the server that a chain speaks to."""
        return self._resp[chain]

    def listener(self, chain: int) -> object:
        """Key of the listener that a chain speaks to."""
        return self._resp[chain], self._port[chain]


_NO_END = np.zeros(0, np.int64)


def _end(host: Any, port: Any) -> Any:
    """A host and port as one number."""
    return (host.astype(np.int64) << 16) | port


_make_event = partial(tuple.__new__, Ev)


def events_of(tracked: Tracked, sieve: Screen | None = None) -> Iterator[Ev]:
    """The capture's events as tuples, in order of arrival; those that *sieve* lets through, if given."""
    steps, number = steps_of(tracked), 0
    for chunk in tracked.events.chunks():
        rows = steps.straighten(chunk, number) if sieve is None else pick(chunk, sieve.telling(chunk))
        number += len(chunk)
        columns = (rows[name].tolist() for name in Ev._fields)
        yield from map(_make_event, zip(*columns, strict=True))


def _row(ev: Ev, ruling: Ruling, reasons: Reasons, steps: Steps) -> tuple[int, ...]:
    """A ruling as a VERDICT row."""
    certainty = 2 if ruling.certain else 1 if ruling.verdict != "unknown" else 0
    compared, tsval, frame, file, time = 0, 0, 0, 0, NO_TIME
    if ruling.stamp is not None:
        stamp = ruling.stamp
        compared, tsval, frame, file, time = 1, stamp.tsval, stamp.frame, stamp.file, stamp.written
    elif ruling.compared_bucket is not None and ruling.compared_bucket.has_ts:
        bucket = ruling.compared_bucket
        compared, tsval, time = 1, bucket.ts_recent, bucket.ts_recent_time
        frame, file = bucket.ts_frame, bucket.ts_file
    delta = d32(ev.tsval, tsval) if compared else 0
    age = ev.time - time if compared and time != NO_TIME else 0
    if steps.events:
        time = steps.wall(time)
    return (
        _VERDICT[ruling.verdict], certainty, _RULE[ruling.rule], _RULE[ruling.alternative], compared,
        reasons.number(ruling.reason), tsval, frame, file, time, delta, age,
    )  # fmt: skip


@dataclass(frozen=True)
class Scope:
    """What of a capture is replayed, and from where it was seen.

    Attributes:
        vantage: Where the capture was taken.
        known_empty: Whether something proves that no state from before the capture exists.
        front_hosts: Host ids that a load balancer answers for: no server of ours judges their SYNs.
        limit: Events to read at the most, 0 for all; for scoring candidates.
        start: Time from which packets were read, where the user left earlier ones out; else the first packet's.
    """

    vantage: Vantage = SERVER
    known_empty: bool = False
    front_hosts: frozenset[int] = frozenset()
    limit: int = 0
    start: int = NO_TIME


@contextmanager
def _no_collection() -> Iterator[None]:
    """Keep the collector still: the engine makes many objects and no cycles."""
    running = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if running:
            gc.enable()


def replay(tracked: Tracked, profile: Profile, settings: Settings, scope: Scope = Scope()) -> Replayed:
    """Replay one capture under one kernel.

    Args:
        tracked: The capture's tables.
        profile: Kernel profile.
        settings: Given settings; the rest is the profile's default.
        scope: Vantage, and what to leave out.

    Returns:
        A verdict for each SYN row, in its order.
    """
    with _no_collection():
        overflows = bucket_overflows(tracked, settings.max_tw_buckets)
        return _replayed(tracked, hypothesis_of(tracked, profile, settings, scope), scope, overflows)


def _replayed(
    tracked: Tracked, hypothesis: Hypothesis, scope: Scope, overflows: Callable[[int], bool] | None
) -> Replayed:
    profile = hypothesis.profile
    filled = hypothesis.settings
    replayed = Replayed(hypothesis)
    chains = _Chains(tracked, profile, scope.vantage.at_server, bool(filled.dual_stack))
    steps = steps_of(tracked)
    sieve = screen(tracked, hypothesis) if not scope.front_hosts and not steps.events else None
    reach = reach_of(tracked)
    engine = Engine(
        hypothesis,
        chains.peers,
        Listeners(profile, filled, chains, reach, scope.vantage.at_server) if sieve is None else None,
        lambda chain, now: reach.shown(chains.originator(chain), now),
    )
    engine.overflows = overflows
    engine.judge.losses = losses_of(tracked, scope.vantage.at_server)
    engine.turned_round = chains.turned_round(tracked)
    reasons = Reasons(replayed.reasons)
    answers = _answers(tracked) if sieve is None else None
    rulings = _rulings(engine, events_of(tracked, sieve), _Reading(_front(chains, scope), scope.limit, answers))
    for syns in tracked.syns.chunks():
        if sieve is None:
            rows = [_row(ev, ruling, reasons, steps) for ev, ruling in islice(rulings, len(syns))]
            out = np.array(rows, VERDICT.dtype)
        else:
            out = sieve.verdicts(syns, reasons)
            where = np.flatnonzero(sieve.needed[syns["chain"]])
            rows = [_row(ev, ruling, reasons, steps) for ev, ruling in islice(rulings, len(where))]
            engine_says = np.array(rows, VERDICT.dtype)
            where = where[: len(rows)]
            unsure = out["reason"][where] == reasons.number(BACKLOG_UNKNOWN)
            out[where] = engine_says
            _lower(out, where[unsure], reasons.number(BACKLOG_UNKNOWN))
            if scope.limit and len(rows) < len(where):
                out = out[: where[len(rows) - 1] + 1 if rows else 0]
        replayed.verdicts.append(out)
        if scope.limit and len(out) < len(syns):
            break
    replayed.contradictions = engine.contradictions
    replayed.peer_states = _peer_states(engine.writes, chains, steps)
    return replayed


def hypothesis_of(tracked: Tracked, profile: Profile, settings: Settings, scope: Scope) -> Hypothesis:
    """What a replay assumes, with the profile's defaults filled in."""
    filled = settings.with_defaults(profile)
    vantage = replace(scope.vantage, steps=steps_of(tracked))
    if scope.start != NO_TIME:
        return Hypothesis(profile, filled, vantage, scope.start, scope.known_empty)
    boot = booted(tracked, profile)
    empty_from = NEVER if boot is None else boot.proven
    return Hypothesis(profile, filled, vantage, capture_start(tracked), scope.known_empty, empty_from)


def _lower(out: Records, where: Any, reason: int) -> None:
    """A certain 'accept' is only possible where the queues are in doubt."""
    taken = where[(out["certainty"][where] == 2) & (out["verdict"][where] == _VERDICT["accept"])]
    out["certainty"][taken], out["reason"][taken] = 1, reason


def _front(chains: _Chains, scope: Scope) -> Any:
    """Bool (chains,): True where a load balancer answers; None if there is no such host."""
    return np.isin(chains.resp, list(scope.front_hosts)) if scope.front_hosts else None


@dataclass(frozen=True)
class _Reading:
    """How events are read: chains of a load balancer's own, the most events, each SYN's SYN-ACK time."""

    front: Any
    limit: int
    answers: Iterator[int] | None


def _answers(tracked: Tracked) -> Iterator[int]:
    """For each SYN when its SYN-ACK was seen, NO_TIME if it got none."""
    for syns in tracked.syns.chunks():
        yield from np.where(syns["answer"] == ANSWER_SYN_ACK, syns["answer_time"], NO_TIME).tolist()


def _rulings(engine: Engine, events: Iterator[Ev], reading: _Reading) -> Iterator[tuple[Ev, Ruling]]:
    """The engine's ruling on each SYN among *events*, in order.

    A SYN-ACK is told to the engine after its own SYN was judged, and before any packet that came later than it.
    """
    front, limit, answers = reading.front, reading.limit, reading.answers
    told: list[tuple[int, int, int]] = []
    for count, ev in enumerate(events):
        if limit and count >= limit:
            return
        while told and told[0][0] < ev.time:
            _, chain, born = heappop(told)
            engine.answered(chain, born)
        if front is not None and front[ev.chain]:
            if ev.flags & (SYN | ACK) == SYN and not ev.resp and ev.kind == 0:
                if answers is not None:
                    next(answers)
                yield ev, UNJUDGED
            continue
        ruling = engine.feed(ev)
        if ruling is not None:
            if answers is not None and (seen := next(answers, NO_TIME)) != NO_TIME:
                later = seen - engine.vantage.steps.wall(ev.time)
                heappush(told, (ev.time + max(later, 0), ev.chain, ev.time))
            yield ev, ruling


UNJUDGED = Ruling(
    "unknown", False, "", "seen on the client's side of the load balancer: no server has judged this packet"
)


def _peer_states(writes: list[Write], chains: _Chains, steps: Steps) -> Records:
    rows = [
        (
            steps.wall(w.time), w.frame, w.file, w.conn, chains.server(w.chain), chains.originator(w.chain),
            w.tsval, w.second, _EVENT[w.event], w.certain, w.stored,
        )
        for w in writes
    ]  # fmt: skip
    return np.array(rows, PEER_STATE.dtype)
