"""The same packet in two captures, known by its content."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from analyzer.connections import Tracked
from analyzer.schema import (
    CONNECTION,
    KIND_TCP,
    OPT_CLIPPED,
    OPT_TS,
    SEEN_SYN,
    SEEN_SYN_ACK,
    SEEN_TS_ORIG,
    SEEN_TS_RESP,
    SYN,
)
from analyzer.spool import pick
from analyzer.units import MS, NS

Records = np.ndarray[Any, np.dtype[np.void]]
Ints = np.ndarray[Any, np.dtype[np.int64]]
Keys = np.ndarray[Any, np.dtype[np.uint64]]

MOST_SIGHTINGS = 1_000_000
"""Beyond this many, a sample chosen by content, which is the same in every capture."""
COPIES_WITHIN = 5 * MS
"""Equal packets this close are one packet captured twice; farther apart they are repeats, and of no use."""

DECIMALS = (NS, 100_000_000, 10_000_000, 1_000_000, 100_000, 10_000, 1_000, 100, 10)

LEVELS = ("whole", "without_ipid", "relative")
"""What must agree: all a packet says; all but its IP id; the distances to the connection's first numbers."""

_SYN, _SYN_ACK, _OTHER = 1, 2, 3


BOOK_COLUMNS = (
    "conn", "chain", "orig", "resp", "orig_p", "resp_p", "seen", "file", "isn_orig", "isn_resp", "syn_count",
    "syn_ack_count", "syn_time", "syn_ack_time", "syn_ack_frame", "established_time", "first_tsval_orig",
    "first_tsval_resp",
)  # fmt: skip


def connections_by_id(tracked: Tracked, columns: Sequence[str]) -> Records:
    """Some columns of the CONNECTION rows, in the order of their ids."""
    rows = np.zeros(tracked.connection_count, np.dtype([(name, CONNECTION.dtype[name]) for name in columns]))
    for chunk in tracked.connections.chunks():
        for name in columns:
            rows[name][chunk["conn"]] = chunk[name]
    return rows


@dataclass(frozen=True)
class Sightings:
    """Packets of one capture, each once.

    Attributes:
        key: uint64, digest of the content.
        time: int64 ns.
        arrival: int64, rises in the order of the file.
        conn: int64, row of ``Book.conns``.
        from_resp: bool, sent by the connection's responder.
    """

    key: Keys
    time: Ints
    arrival: Ints
    conn: Ints
    from_resp: np.ndarray[Any, np.dtype[np.bool_]]

    def __getitem__(self, at: Any) -> "Sightings":
        return Sightings(self.key[at], self.time[at], self.arrival[at], self.conn[at], self.from_resp[at])


class Book:
    """A capture's connections by id, with digests of their four numbers."""

    def __init__(self, tracked: Tracked) -> None:
        self.tracked = tracked
        self.conns = connections_by_id(tracked, BOOK_COLUMNS)
        hosts = tracked.hosts
        address = mixed(hosts["hi"], hosts["lo"], hosts["v6"])
        c = self.conns
        self.orig_address, self.resp_address = address[c["orig"]], address[c["resp"]]
        self.four = mixed(self.orig_address, self.resp_address, c["orig_p"], c["resp_p"])
        order = np.lexsort((c["conn"], c["chain"]))
        chain = c["chain"][order]
        first = (
            np.flatnonzero(np.concatenate(([True], chain[1:] != chain[:-1]))) if len(chain) else np.zeros(0, np.int64)
        )
        count = np.diff(np.concatenate((first, [len(chain)])))
        turn = np.empty(len(chain), np.int64)
        turn[order] = np.arange(len(chain)) - np.repeat(first, count)
        of = np.empty(len(chain), np.int64)
        of[order] = np.repeat(count, count)
        self.incarnation = mixed(self.four, turn, of)

    def sightings(self, level: str, one_in: int) -> Sightings:
        """Packets that the tables keep a time of, by what must agree at this *level*."""
        found = (part[part.key % np.uint64(one_in) == 0] for part in self._all(level))
        parts = [(s.key, s.time, s.arrival, s.conn, s.from_resp) for s in found]
        return _once(Sightings(*(np.concatenate(column) for column in zip(*parts, strict=True))))

    def _all(self, level: str) -> Iterator[Sightings]:
        yield from self._syns(level)
        yield self._syn_acks(level)
        yield from self._events(level)

    def _base(self, level: str, conn: Ints) -> Keys:
        return (self.incarnation if level == "relative" else self.four)[conn]

    def _syns(self, level: str) -> Iterator[Sightings]:
        for chunk in self.tracked.syns.chunks():
            rows = chunk[(chunk["opts"] & OPT_CLIPPED) == 0]
            conn = rows["conn"].astype(np.int64)
            stamped = (rows["opts"] & OPT_TS) > 0
            if level == "relative":
                told = self.conns[conn]
                numbers = (
                    rows["isn"] - told["isn_orig"],
                    np.where(stamped, rows["tsval"] - told["first_tsval_orig"], 0),
                )
            else:
                numbers = (rows["isn"], np.where(stamped, rows["tsval"], 0))
            ident = np.where(level == "without_ipid", 0, rows["ipid"])
            yield Sightings(
                mixed(self._base(level, conn), _SYN, *numbers, ident),
                rows["time"].astype(np.int64),
                arrival(rows),
                conn,
                np.zeros(len(rows), np.bool_),
            )

    def _syn_acks(self, level: str) -> Sightings:
        both = SEEN_SYN | SEEN_SYN_ACK
        conn = np.flatnonzero((self.conns["seen"] & both) == both)
        told = self.conns[conn]
        stamped = (told["seen"] & SEEN_TS_RESP) > 0
        if level == "relative":
            numbers: tuple[Any, ...] = (told["isn_resp"],)
        else:
            numbers = (told["isn_resp"], told["isn_orig"], np.where(stamped, told["first_tsval_resp"], 0))
        return Sightings(
            mixed(self._base(level, conn), _SYN_ACK, *numbers),
            told["syn_ack_time"].astype(np.int64),
            arrival(told, "syn_ack_frame"),
            conn,
            np.ones(len(conn), np.bool_),
        )

    def _events(self, level: str) -> Iterator[Sightings]:
        for chunk in self.tracked.events.chunks():
            whole = (chunk["kind"] == KIND_TCP) & ((chunk["opts"] & OPT_CLIPPED) == 0)
            rows = pick(chunk, whole & ((chunk["flags"] & SYN) == 0))
            conn = rows["conn"].astype(np.int64)
            yield Sightings(
                self._event_keys(level, rows, conn),
                rows["time"].astype(np.int64),
                arrival(rows),
                conn,
                rows["resp"] > 0,
            )

    def _event_keys(self, level: str, rows: Records, conn: Ints) -> Keys:
        stamped = (rows["opts"] & OPT_TS) > 0
        tsval, tsecr = np.where(stamped, rows["tsval"], 0), np.where(stamped, rows["tsecr"], 0)
        seq, ack, ident = rows["seq"], rows["ack"], rows["ipid"]
        if level == "without_ipid":
            ident = np.zeros_like(ident)
        if level == "relative":
            told, back = self.conns[conn], rows["resp"] > 0
            mine, theirs = _sides(told, "isn", back)
            stamp, echo = _sides(told, "first_tsval", back)
            known = _both_sides_stamped(told) & stamped
            seq, ack = seq - mine, ack - theirs
            tsval, tsecr = np.where(known, tsval - stamp, 0), np.where(known, tsecr - echo, 0)
        return mixed(
            self._base(level, conn),
            _OTHER,
            seq,
            ack,
            tsval,
            tsecr,
            rows["length"],
            rows["flags"] & 63,
            ident,
            rows["resp"],
        )


def arrival(rows: Records, frame: str = "frame") -> Ints:
    """A number per row that rises in the order of the capture's files and of their frames."""
    return np.asarray((rows["file"].astype(np.int64) << 32) | rows[frame].astype(np.int64))


def _sides(told: Records, name: str, back: Any) -> tuple[Any, Any]:
    """A pair of columns as the sender's and as the receiver's."""
    orig, resp = told[f"{name}_orig"], told[f"{name}_resp"]
    return np.where(back, resp, orig), np.where(back, orig, resp)


def _both_sides_stamped(told: Records) -> Any:
    both = SEEN_TS_ORIG | SEEN_TS_RESP
    return (told["seen"] & both) == both


def _once(seen: Sightings) -> Sightings:
    """Each packet once, where it was first seen; packets that were sent again are left out."""
    order = np.lexsort((seen.time, seen.key))
    key, time = seen.key[order], seen.time[order]
    if not len(key):
        return seen
    first = np.flatnonzero(np.concatenate(([True], key[1:] != key[:-1])))
    last = np.concatenate((first[1:], [len(key)])) - 1
    at = order[first[time[last] - time[first] <= COPIES_WITHIN]]
    return seen[at]


def resolution(times: Any) -> int:
    """Step of the stamps, ns: the largest power of ten that divides them all; cut off, they may be early by it."""
    return next((step for step in DECIMALS if not (times % step).any()), 1)


def mixed(*values: Any) -> Keys:
    """One 64-bit digest per row of several integer columns (SplitMix64's finaliser after each)."""
    state: Any = np.uint64(0x9E3779B97F4A7C15)
    with np.errstate(over="ignore"):
        for value in values:
            word = np.asarray(value).astype(np.uint64)
            state = (state ^ word) + np.uint64(0x9E3779B97F4A7C15)
            state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            state = state ^ (state >> np.uint64(31))
    return np.atleast_1d(state)


@dataclass(frozen=True)
class Pairs:
    """Packets seen in two captures, in the order in which the second has them.

    Attributes:
        first, second: int64 ns, on each capture's clock.
        first_conn, second_conn: int64, connection ids.
        from_resp: bool, sent by the connection's responder.
        level: Word of ``LEVELS``.
    """

    first: Ints
    second: Ints
    first_conn: Ints
    second_conn: Ints
    from_resp: np.ndarray[Any, np.dtype[np.bool_]]
    level: str

    def __len__(self) -> int:
        return len(self.first)


ENOUGH = 10
"""Pairs of the stricter level that make looser ones needless."""


def pairs(first: Book, second: Book) -> Pairs:
    """Packets that both captures hold, by the strictest level that finds enough of them."""
    rows = [len(b.tracked.events) + len(b.tracked.syns) + b.tracked.connection_count for b in (first, second)]
    one_in = max(1, -(-max(rows) // MOST_SIGHTINGS))
    best: Pairs | None = None
    for level in LEVELS:
        found = _matched(first.sightings(level, one_in), second.sightings(level, one_in), level)
        if best is None or len(found) > len(best):
            best = found
        if len(best) >= ENOUGH:
            break
    assert best is not None
    return best


def _matched(a: Sightings, b: Sightings, level: str) -> Pairs:
    _, at_a, at_b = np.intersect1d(a.key, b.key, assume_unique=True, return_indices=True)
    same_side = a.from_resp[at_a] == b.from_resp[at_b]
    at_a, at_b = at_a[same_side], at_b[same_side]
    in_order = np.argsort(b.arrival[at_b], kind="stable")
    at_a, at_b = at_a[in_order], at_b[in_order]
    return Pairs(a.time[at_a], b.time[at_b], a.conn[at_a], b.conn[at_b], b.from_resp[at_b], level)
