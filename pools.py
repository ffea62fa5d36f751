"""SYNs of several captures as one pool on one clock, and the keys that say which are the same SYN."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analyzer.schema import PROOF_EXACT, PROOF_STRONG
from analyzer.snat.matching import Matches, Window, candidates, match
from analyzer.snat.views import Ints, Keys, View, has_timestamps, mix, options_of
from analyzer.spool import Records
from analyzer.units import MS, NS

Flags = NDArray[np.bool_]


@dataclass
class Pool:
    """SYN rows of one or more captures of one place.

    Attributes:
        rows: SYN_ROW, shared host ids.
        four: Key of the four numbers.
        time: On the clock that the stage works in, ns.
        capture: Position of the row's capture among the pool's views.
        row: Row in that capture's SYN table.
        conn: Row in that capture's connections, -1 if none.
    """

    rows: Records
    four: Keys
    time: Ints
    capture: Ints
    row: Ints
    conn: Ints

    @classmethod
    def of(cls, views: Sequence[View]) -> "Pool":
        """Pool the SYNs of *views* (at least one)."""
        return cls(
            np.concatenate([v.syns for v in views]),
            np.concatenate([v.syn_four for v in views]),
            np.concatenate([v.syns["time"] for v in views]).astype(np.int64),
            np.concatenate([np.full(len(v.syns), i, np.int64) for i, v in enumerate(views)]),
            np.concatenate([np.arange(len(v.syns)) for v in views]),
            np.concatenate([v.syn_conn for v in views]),
        )

    def part(self, chosen: Any) -> "Pool":
        """The rows of a mask or index."""
        columns = (self.rows, self.four, self.time, self.capture, self.row, self.conn)
        return Pool(*(column[chosen] for column in columns))

    def service(self) -> Keys:
        """Key of the address and port that each SYN goes to."""
        return mix(self.rows["resp"], self.rows["resp_p"])


def exact_key(pool: Pool) -> Keys:
    """ISN, TSval, IP-ID and options: the packet itself."""
    r = pool.rows
    stamped = has_timestamps(r)
    return mix(r["isn"], np.where(stamped, r["tsval"], 0), stamped, r["ipid"], options_of(r))


def clock_key(pool: Pool) -> Keys:
    """ISN and TSval: the same SYN, its IP-ID or MSS rewritten on the way."""
    stamped = has_timestamps(pool.rows)
    return mix(pool.rows["isn"], np.where(stamped, pool.rows["tsval"], 0), stamped)


def isn_key(pool: Pool) -> Keys:
    """ISN alone: timestamps stripped, shifted or replaced by a SYN proxy."""
    return mix(pool.rows["isn"])


def ipid_key(pool: Pool) -> Keys:
    """IP-ID and options: ISN and TSval rewritten."""
    r = pool.rows
    return mix(r["ipid"], options_of(r), r["window"])


def four_key(pool: Pool) -> Keys:
    """The four numbers alone."""
    return pool.four


def with_four(key: Callable[[Pool], Keys]) -> Callable[[Pool], Keys]:
    """*key* between rows of the same four numbers."""
    return lambda pool: mix(pool.four, key(pool))


def _any(pool: Pool) -> Flags:
    return np.ones(len(pool.rows), bool)


def _stamped(pool: Pool) -> Flags:
    return has_timestamps(pool.rows)


def _numbered(pool: Pool) -> Flags:
    return np.asarray(pool.rows["ipid"] != 0)


@dataclass(frozen=True)
class Evidence:
    """One kind of evidence: rows of equal key within *latest* ns are the same SYN."""

    proof: int
    key: Callable[[Pool], Keys]
    latest: int
    usable: Callable[[Pool], Flags] = _any


REWRITTEN = Evidence(PROOF_STRONG, ipid_key, NS // 2, _numbered)

SAME_PACKET = (
    Evidence(PROOF_EXACT, exact_key, 60 * NS),
    Evidence(PROOF_EXACT, clock_key, 60 * NS, _stamped),
    Evidence(PROOF_STRONG, isn_key, 30 * NS),
)

SAME_FOUR = (
    *(Evidence(e.proof, with_four(e.key), e.latest, e.usable) for e in (*SAME_PACKET, REWRITTEN)),
    Evidence(PROOF_STRONG, four_key, 2 * NS),
)


@dataclass
class Links:
    """SYN packets of a pool found again in another: ``up`` and ``down`` rows, proof, margin, and rejected rivals."""

    up: Ints
    down: Ints
    proof: Ints
    margin: NDArray[np.float64]
    rivals: list[tuple[Ints, Ints, int]]


class Linker:
    """Links two pools by one kind of evidence after another, each on what the ones before left over."""

    def __init__(self, up: Pool, down: Pool) -> None:
        self.up, self.down = up, down
        self.free_up = np.ones(len(up.rows), bool)
        self.free_down = np.ones(len(down.rows), bool)
        self._found: list[tuple[Matches, int]] = []
        self._rivals: list[tuple[Ints, Ints, int]] = []

    def pass_over(self, evidence: Evidence, early: int, *, other_four: bool = False) -> None:
        """Link rows by *evidence*; *early* is how far, in ns, a row may precede its cause (clock doubt)."""
        ups = np.flatnonzero(self.free_up & evidence.usable(self.up))
        downs = np.flatnonzero(self.free_down & evidence.usable(self.down))
        up, down = self.up.part(ups), self.down.part(downs)
        window = Window(-early, evidence.latest)
        i, j = candidates((evidence.key(up), evidence.key(down)), (up.time, down.time), window)
        if other_four:
            differs = up.four[i] != down.four[j]
            i, j = i[differs], j[differs]
        delay = down.time[j] - up.time[i]
        # all candidates of a pass have the same evidence: the usual delay decides among them
        usual = np.median(delay) if len(delay) else 0
        found = match((ups[i], downs[j]), np.abs(delay - usual) / 1e9)
        self.take(found, evidence.proof)

    def take(self, found: Matches, proof: int) -> None:
        """Record matches and withdraw their rows."""
        self._found.append((found, proof))
        if len(found.rival_up):
            self._rivals.append((found.rival_up, found.rival_down, proof))
        self.free_up[found.up] = False
        self.free_down[found.down] = False

    def constant_shift(self, early: int) -> None:
        """Link rows whose ISNs differ by a constant that several pairs share (a box that adds a fixed number)."""
        ups, downs = np.flatnonzero(self.free_up), np.flatnonzero(self.free_down)
        up, down = self.up.part(ups), self.down.part(downs)
        i, j = candidates((options_of(up.rows), options_of(down.rows)), (up.time, down.time), Window(-early, NS))
        if not len(i):
            return
        shift = (down.rows["isn"][j].astype(np.int64) - up.rows["isn"][i]) & 0xFFFFFFFF
        value, inverse, count = np.unique(shift, return_inverse=True, return_counts=True)
        # by chance one value recurs among n differences about n**2 / 2**33 times
        common = (count >= 4) & (value != 0)
        chosen = common[inverse]
        delay = down.time[j] - up.time[i]
        self.take(match((ups[i[chosen]], downs[j[chosen]]), np.abs(delay[chosen]) / 1e9), PROOF_STRONG)

    def links(self) -> Links:
        """All that was found."""
        if not self._found:
            none = np.zeros(0, np.int64)
            return Links(none, none, none, np.zeros(0), [])
        return Links(
            np.concatenate([m.up for m, _ in self._found]),
            np.concatenate([m.down for m, _ in self._found]),
            np.concatenate([np.full(len(m.up), proof, np.int64) for m, proof in self._found]),
            np.concatenate([m.margin for m, _ in self._found]),
            self._rivals,
        )


EARLY_SAME_CLOCK = MS
"""Packets of one machine are stamped out of order by at most this (writers reorder by tenths of a millisecond)."""
