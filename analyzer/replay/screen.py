"""What need not be replayed one by one: SYNs on four-tuples that were used once, with room in the queues.

Such a SYN meets no socket and no bucket, so without a peer memory it goes through the listener and is
taken.  Bounds of the queues' fill come from the connections table; where they come near a limit, the
engine counts instead.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from analyzer.connections import Tracked
from analyzer.kernel import rules
from analyzer.kernel.profiles import Profile
from analyzer.replay.engine import Hypothesis
from analyzer.replay.judge import LEAD_IN, REQUEST_LIFE, lead_in_text
from analyzer.replay.losses import LACKS, Losses, losses_of
from analyzer.replay.queues import BACKLOG_UNKNOWN, FEW_REQUESTS, SMALLEST_BACKLOG
from analyzer.replay.reach import UNREACHED, Reach, reach_of
from analyzer.schema import (
    ACK,
    CERTAINTIES,
    OPT_CLIPPED,
    OPT_TS,
    SEEN_ESTABLISHED,
    SEEN_FIN_ORIG,
    SEEN_FIN_RESP,
    SEEN_GAP_ORIG,
    SEEN_MIDSTREAM,
    SYN,
    VERDICT,
    VERDICTS,
)
from analyzer.spool import Spool, pick
from analyzer.units import MS, NO_TIME, NS

Records = np.ndarray[Any, np.dtype[np.void]]
Times = np.ndarray[Any, np.dtype[np.int64]]

NEVER = np.iinfo(np.int64).max
FULL_MINUTE = 66 * NS
"""A TIME-WAIT's longest life, timer rounding included."""
QUICK_REPEAT = 600 * MS

_CERTAIN, _POSSIBLE = CERTAINTIES.index("certain"), CERTAINTIES.index("possible")
CLIPPED = "the capture cut the SYN's options; its TSval is not known"


@dataclass(frozen=True)
class Fill:
    """Sorted times at which connections enter and leave the listener's two queues."""

    requested: Times
    completed: Times
    queued: Times
    served: Times

    @cached_property
    def most_open(self) -> int:
        """Highest bound of the SYN queue that a SYN finds, itself included."""
        return int(self.half_open(self.requested).max(initial=0)) + 1

    @cached_property
    def most_waiting(self) -> int:
        """Highest bound of the accept queue that a SYN finds."""
        return int(self.waiting(self.requested).max(initial=0))

    def half_open(self, times: Times) -> Times:
        """Upper bound of the SYN queue's length at each time."""
        return np.searchsorted(self.requested, times, "left") - np.searchsorted(self.completed, times, "right")

    def waiting(self, times: Times) -> Times:
        """Upper bound of the accept queue's length at each time."""
        return np.searchsorted(self.queued, times, "left") - np.searchsorted(self.served, times, "right")


def fill_of(tracked: Tracked) -> Fill:
    """Bounds of the queues' fill, all listeners taken together.

    A request leaves when its handshake completes, it is reset, or after 63 s.  Connections leave the
    accept queue in order: data or a FIN of the responder shows that its application has taken that
    connection and every one queued before it.
    """
    requested, completed, queued, served = [], [], [], []
    for chunk in tracked.connections.chunks():
        rows = pick(chunk, chunk["syn_time"] != NO_TIME)
        ends = rows["syn_time"] + REQUEST_LIFE
        for column in ("established_time", "rst_time"):
            times = rows[column]
            ends = np.where(times != NO_TIME, np.minimum(ends, np.maximum(times, rows["syn_time"])), ends)
        requested.append(rows["syn_time"].copy())
        completed.append(ends)
        rows = pick(rows, (rows["seen"] & SEEN_ESTABLISHED) > 0)
        shown = [np.where(rows[c] == NO_TIME, NEVER, rows[c]) for c in ("first_data_resp", "fin_resp_time")]
        queued.append(rows["established_time"].copy())
        served.append(np.minimum(*shown))
    begun, ended, waited, left = (_joined(parts) for parts in (requested, completed, queued, served))
    order = np.argsort(waited, kind="stable")
    left = np.minimum.accumulate(left[order][::-1])[::-1]
    for times in (begun, ended, waited):
        times.sort()
    return Fill(begun, ended, waited, np.sort(left))


def _joined(parts: list[Times]) -> Times:
    """One array of all parts, which are let go."""
    whole = np.concatenate(parts) if parts else np.zeros(0, np.int64)
    parts.clear()
    return whole


@dataclass(frozen=True)
class Closes:
    """What of each connection a peer's memory may depend on.

    Attributes:
        orig, resp: int32 (chains,), host ids.
        writes: bool (chains,), a connection that the server closed first.
        unclear: bool (chains,), used several times, or from before the capture.
        established: int64 (connections,), frame that completed the handshake, -1 if none.
        begin: int64 (connections,), time of the server's FIN where it closes first, else NEVER.
        end: int64 (connections,), when both FINs were acknowledged, else NEVER.
        whole: bool (connections,), every event is needed.
    """

    orig: np.ndarray[Any, np.dtype[np.int32]]
    resp: np.ndarray[Any, np.dtype[np.int32]]
    writes: np.ndarray[Any, np.dtype[np.bool_]]
    unclear: np.ndarray[Any, np.dtype[np.bool_]]
    established: Times
    begin: Times
    end: Times
    whole: np.ndarray[Any, np.dtype[np.bool_]]


@dataclass(frozen=True)
class Screen:
    """Which chains the engine must replay, and what the others' SYNs get.

    Attributes:
        hypothesis: What is assumed about the server.
        needed: bool (chains,), True where the engine decides.
        fill: The queues' bounds.
        reach: Which networks the server is known to answer.
        closes: When each connection's close begins to matter.
        losses: When the capture lacks packets.
    """

    hypothesis: Hypothesis
    needed: np.ndarray[Any, np.dtype[np.bool_]]
    fill: Fill
    reach: Reach
    closes: Closes
    losses: Losses

    def verdicts(self, syns: Records, reasons: "Reasons") -> Records:
        """VERDICT rows for *syns*, right for every SYN whose chain is not needed."""
        out = np.zeros(len(syns), VERDICT.dtype)
        out["verdict"] = VERDICTS.index("accept")
        out["certainty"] = _CERTAIN
        first, repeat = rules.RULE_NAMES.index("listener"), rules.RULE_NAMES.index("syn_recv_repeat")
        out["rule"] = np.where(syns["attempt"] > 1, repeat, first)
        out["peer_stamp_time"] = NO_TIME
        if self.hypothesis.settings.backlog is None:
            self._doubt(out, self.unsure_queues(syns["time"]), reasons.number(BACKLOG_UNKNOWN))
        clipped = ((syns["opts"] & OPT_CLIPPED) > 0) & ((syns["opts"] & OPT_TS) == 0)
        self._doubt(out, clipped, reasons.number(CLIPPED))
        self._doubt(out, self.reach.ready[syns["orig"]] >= syns["time"], reasons.number(UNREACHED))
        if self.losses:
            self._doubt(out, self.losses.near(syns["time"]), reasons.number(LACKS))
        if not self.hypothesis.known_empty:
            missing = -((syns["time"] - self.hypothesis.start - LEAD_IN) // NS)
            missing[syns["time"] > self.hypothesis.empty_from] = 0
            early = missing > 0
            for seconds in np.unique(missing[early]).tolist():
                self._doubt(out, missing == seconds, reasons.number(lead_in_text(seconds)))
        return out

    def telling(self, events: Records) -> Any:
        """Bool per event: whether the engine must see it.

        On four numbers that are used once only a SYN, the ACK that completes its handshake, and a close that the
        server begins can matter, and these only for the memory of a peer.
        """
        chain, conn = events["chain"], events["conn"]
        told = self.needed[chain]
        if not self.hypothesis.remembers:
            return told
        close = self.closes
        syn = (events["flags"] & (SYN | ACK)) == SYN
        third = (events["frame"] == close.established[conn]) & (events["resp"] == 0)
        closing = (events["time"] >= close.begin[conn]) & (events["time"] <= close.end[conn])
        return told & (close.whole[conn] | syn | third | closing)

    def unsure_queues(self, times: Times) -> Any:
        """Where an unknown backlog may have been too small."""
        return (self.fill.waiting(times) > SMALLEST_BACKLOG) | (self.fill.half_open(times) > FEW_REQUESTS)

    @staticmethod
    def _doubt(out: Records, where: Any, reason: int) -> None:
        out["certainty"][where] = _POSSIBLE
        out["reason"][where] = reason


def bucket_overflows(tracked: Tracked, most: int | None) -> Callable[[int], bool] | None:
    """Whether more than *most* buckets may stand at a time: closes that the server began in the minute before.

    None where tcp_max_tw_buckets is not known or is never reached.
    """
    if most is None:
        return None
    begin = np.sort(closes_of(tracked).begin)
    begin = begin[: np.searchsorted(begin, NEVER)]
    standing = np.arange(len(begin)) - np.searchsorted(begin, begin - FULL_MINUTE) + 1
    if int(standing.max(initial=0)) < most:
        return None

    def overflows(now: int) -> bool:
        return int(np.searchsorted(begin, now, "right") - np.searchsorted(begin, now - FULL_MINUTE)) >= most

    return overflows


def closes_of(tracked: Tracked) -> Closes:
    """Read the connections table once per capture."""
    known = _CLOSES.get(tracked.connections)
    if known is not None:
        return known
    chains, conns = len(tracked.chain_syns), tracked.connection_count
    contested = contested_chains(tracked)
    out = Closes(
        np.full(chains, -1, np.int32),
        np.full(chains, -1, np.int32),
        np.zeros(chains, np.bool_),
        contested.copy(),
        np.full(conns, -1, np.int64),
        np.full(conns, NEVER, np.int64),
        np.full(conns, NEVER, np.int64),
        np.ones(conns, np.bool_),
    )
    for rows in tracked.connections.chunks():
        chain, conn, seen = rows["chain"], rows["conn"], rows["seen"]
        out.orig[chain], out.resp[chain] = rows["orig"], rows["resp"]
        first = (seen & SEEN_FIN_RESP > 0) & (
            (seen & SEEN_FIN_ORIG == 0) | (rows["fin_resp_time"] <= rows["fin_orig_time"])
        )
        older = seen & SEEN_MIDSTREAM > 0
        out.writes[chain[first]] = True
        out.unclear[chain[older]] = True
        complete = seen & SEEN_ESTABLISHED > 0
        out.established[conn[complete]] = rows["established_frame"][complete]
        out.begin[conn[first]] = rows["fin_resp_time"][first]
        both = np.minimum(rows["fin_orig_acked"], rows["fin_resp_acked"]) != NO_TIME
        ended = first & both & (seen & SEEN_GAP_ORIG == 0)
        out.end[conn[ended]] = np.maximum(rows["fin_orig_acked"], rows["fin_resp_acked"])[ended]
        out.whole[conn] = older | ~complete | contested[chain]
    _CLOSES[tracked.connections] = out
    return out


def contested_chains(tracked: Tracked) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Chains on which a SYN may meet anything but room: reused, or repeated faster than ACKs may follow.

    A lone handshake's repeats meet their own request and are answered again (``syn_recv_repeat``).
    """
    known = _CONTESTED.get(tracked.syns)
    if known is not None:
        return known
    contested = np.zeros(len(tracked.chain_syns), np.bool_)
    _CONTESTED[tracked.syns] = contested
    for chunk in tracked.connections.chunks():
        contested[chunk["chain"][chunk["previous"] >= 0]] = True
    several = tracked.chain_syns > 1
    parts = [c[["chain", "conn", "time"]][several[c["chain"]]] for c in tracked.syns.chunks()]
    rows = np.concatenate(parts) if parts else None
    if rows is None or len(rows) < 2:
        return contested
    rows = rows[np.argsort(rows["chain"], kind="stable")]
    same = rows["chain"][1:] == rows["chain"][:-1]
    reused = rows["conn"][1:] != rows["conn"][:-1]
    gap = rows["time"][1:] - rows["time"][:-1]
    odd = same & (reused | (gap < QUICK_REPEAT) | (gap > REQUEST_LIFE))
    contested[rows["chain"][1:][odd]] = True
    return contested


class Reasons:
    """Texts numbered as they first appear; 0 is empty."""

    def __init__(self, texts: list[str]) -> None:
        self.texts = texts
        self._numbers = {text: i for i, text in enumerate(texts)}

    def number(self, text: str) -> int:
        """Index of *text*, added if new."""
        found = self._numbers.get(text)
        if found is None:
            found = len(self.texts)
            self._numbers[text] = found
            self.texts.append(text)
        return found


_CONTESTED: WeakKeyDictionary[Spool, np.ndarray[Any, np.dtype[np.bool_]]] = WeakKeyDictionary()
_CLOSES: WeakKeyDictionary[Spool, Closes] = WeakKeyDictionary()
_FILLS: WeakKeyDictionary[Spool, Fill] = WeakKeyDictionary()


def _fill_once(tracked: Tracked) -> Fill:
    """``fill_of``, kept while the capture's tables live: every candidate kernel asks for it."""
    fill = _FILLS.get(tracked.connections)
    if fill is None:
        fill = _FILLS[tracked.connections] = fill_of(tracked)
    return fill


def screen(tracked: Tracked, hypothesis: Hypothesis) -> Screen | None:
    """A screen where one is sound, else None: then every event goes through the engine.

    It is sound at the server, and while the queues stay away from their limits.
    """
    if not hypothesis.vantage.at_server:
        return None
    fill = _fill_once(tracked)
    settings, profile = hypothesis.settings, hypothesis.profile
    most_open = fill.most_open
    backlog = settings.backlog
    if backlog is not None:
        limit = rules.syn_queue_limit(profile, backlog, settings.max_syn_backlog or 0)
        near = rules.accept_queue_full(fill.most_waiting, backlog) or rules.syn_queue_full(
            profile, most_open + 2, limit
        )
    else:
        near = rules.syn_queue_full(profile, most_open + 2, rules.syn_queue_limit(profile, settings.somaxconn or 0, 64))
    quarter = rules.last_quarter(most_open, settings.max_syn_backlog or 0, settings.syncookies or 0)
    if near or quarter:
        return None
    contested, closes = contested_chains(tracked), closes_of(tracked)
    needed = contested | _remembered(tracked, profile, closes) if hypothesis.remembers else contested
    return Screen(hypothesis, needed, fill, reach_of(tracked), closes, losses_of(tracked, True))


def _remembered(tracked: Tracked, profile: Profile, closes: Closes) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Chains of peers of which the server may remember a timestamp: it closed a connection of theirs first."""
    both = profile.key == "local_remote"
    server, peer = closes.resp.astype(np.int64), closes.orig.astype(np.int64)
    size = len(tracked.hosts) + 1
    key = peer * size + server if both else peer
    turned = server * size + peer if both else server  # before the capture's first packet direction is a guess
    marked = np.unique(np.concatenate([key[closes.writes], key[closes.unclear], turned[closes.unclear]]))
    return np.isin(key, marked)
