"""What the rest of a capture says of each SYN: its repeats, its copies, and how its connection went on."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from analyzer.connections import Tracked
from analyzer.schema import (
    ANSWER_NONE,
    CONNECTION,
    KIND_TCP,
    OPT_TS,
    RST,
    SEEN_ESTABLISHED,
    SEEN_RST_ORIG,
    SEEN_RST_RESP,
    SEEN_SYN,
    SEEN_SYN_ACK,
    SEEN_TS_RESP,
)
from analyzer.spool import Spool, opaque, pick
from analyzer.units import MS, NO_TIME

Records = np.ndarray[Any, np.dtype[np.void]]
Array = np.ndarray[Any, Any]

COPY_GAP = 10 * MS
"""Two frames with the same SYN this close are one packet captured twice, not a timer."""
PROMPT = 500 * MS
"""A third ACK this soon answers the first SYN-ACK: whatever repeats came later were not needed."""
_WHOLE = SEEN_SYN | SEEN_SYN_ACK | SEEN_ESTABLISHED
_ENDED = SEEN_RST_ORIG | SEEN_RST_RESP


@dataclass
class Tries:
    """Connections that are not plain (one SYN, one SYN-ACK, established), and SYNs sent more than once.

    Attributes:
        conns: CONNECTION records sorted by connection id; a connection that is not here is plain.
        rows: Row numbers (sorted) of the SYNs of connections with several of them.
        gap: Beside ``rows``: ns to the next SYN of the same connection, NO_TIME if it is the last.
        copy: Beside ``rows``: True if the next SYN is the same packet captured again.
        answer: Beside ``rows``: ANSWER_*, that of the later copy where the row is a copy.
        one_sided: No packet of any responder was captured.
        hears_acks: False if a filter kept everything but SYN, FIN and RST out of the capture.
    """

    conns: Records
    rows: Array = field(default_factory=lambda: np.zeros(0, np.int64))
    gap: Array = field(default_factory=lambda: np.zeros(0, np.int64))
    copy: Array = field(default_factory=lambda: np.zeros(0, np.bool_))
    answer: Array = field(default_factory=lambda: np.zeros(0, np.uint8))
    one_sided: bool = False
    hears_acks: bool = True

    @classmethod
    def of(cls, tracked: Tracked) -> "Tries":
        """Read a capture's connections and SYNs; kept while its table of SYNs lives."""
        known = _KNOWN.get(tracked.syns)
        if known is None:
            known = _KNOWN[tracked.syns] = cls._read(tracked)
        return known

    @classmethod
    def _read(cls, tracked: Tracked) -> "Tries":
        parts, quiet, spoke, answers = [], 0, False, 0
        for chunk in tracked.connections.chunks():
            plain = ((chunk["seen"] & _WHOLE) == _WHOLE) & (chunk["syn_count"] == 1) & (chunk["syn_ack_count"] == 1)
            plain &= (chunk["seen"] & _ENDED) == 0
            parts.append(opaque(chunk)[~plain])
            spoke = spoke or bool(_said(chunk["history"], b"AaDd").any())
            answers += int(np.count_nonzero(chunk["packets_resp"]))
            quiet += int(np.count_nonzero(chunk["syn_ack_count"] > 0))
        conns = np.concatenate(parts).view(CONNECTION.dtype) if parts else np.zeros(0, CONNECTION.dtype)
        conns = pick(conns, np.argsort(conns["conn"], kind="stable"))
        return cls(conns, *_repeats(tracked, conns), one_sided=not answers, hears_acks=spoke or quiet < 5)

    def connection(self, conns: Array) -> tuple[Array, Array]:
        """(index in ``conns``, whether it is there) for connection ids; the index is 0 where it is not."""
        return _find(self.conns["conn"], conns)

    def row(self, rows: Array) -> tuple[Array, Array]:
        """(index in ``rows``, whether it is there) for row numbers."""
        return _find(self.rows, rows)


_KNOWN: WeakKeyDictionary[Spool, Tries] = WeakKeyDictionary()


def _find(keys: Array, wanted: Array) -> tuple[Array, Array]:
    if not len(keys):
        return np.zeros(len(wanted), np.int64), np.zeros(len(wanted), np.bool_)
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    there = keys[at] == wanted
    return np.where(there, at, 0), there


def _said(history: Array, letters: bytes) -> Array:
    """Whether a history holds one of *letters*."""
    codes = np.ascontiguousarray(history).view(np.uint8).reshape(len(history), -1)
    said: Array = np.any(np.isin(codes, np.frombuffer(letters, np.uint8)), axis=1)
    return said


def numbered(tracked: Tracked) -> Iterator[tuple[int, Records]]:
    """(number of the first row, SYN rows) chunk by chunk."""
    first = 0
    for chunk in tracked.syns.chunks():
        yield first, chunk
        first += len(chunk)


def _repeats(tracked: Tracked, conns: Records) -> tuple[Array, Array, Array, Array]:
    """Rows of connections with several SYNs, and what follows each."""
    several = conns["conn"][conns["syn_count"] > 1]
    parts, numbers = [], []
    for first, chunk in numbered(tracked):
        where = np.flatnonzero(_find(several, chunk["conn"])[1])
        parts.append(chunk[where][["conn", "time", "tsval", "opts", "ipid", "answer"]])
        numbers.append(first + where)
    if not parts:
        none = np.zeros(0, np.int64)
        return none, none, np.zeros(0, np.bool_), np.zeros(0, np.uint8)
    syns, rows = np.concatenate(parts), np.concatenate(numbers)
    order = np.lexsort((rows, syns["conn"]))
    syns, rows = syns[order], rows[order]
    follows = np.zeros(len(syns), np.bool_)
    follows[:-1] = syns["conn"][1:] == syns["conn"][:-1]
    after = np.roll(syns, -1)
    gap = np.where(follows, after["time"] - syns["time"], NO_TIME)
    told_apart = ((syns["opts"] & OPT_TS) != 0) | (syns["ipid"] != 0)
    copy = follows & (gap >= 0) & (gap < COPY_GAP) & told_apart
    copy &= (syns["ipid"] == after["ipid"]) & (syns["tsval"] == after["tsval"])
    answer = syns["answer"].copy()
    for at in np.flatnonzero(copy)[::-1].tolist():
        if answer[at] == ANSWER_NONE:
            answer[at] = answer[at + 1]
    back = np.argsort(rows, kind="stable")
    return rows[back], gap[back], copy[back], answer[back]


def went_on(conns: Records) -> Array:
    """The originator sent acknowledgments or data although no SYN-ACK was captured: there was one."""
    out: Array = ((conns["seen"] & SEEN_SYN_ACK) == 0) & _said(conns["history"], b"AD")
    return out


def ack_ignored(tracked: Tracked, conns: Records) -> Array:
    """The SYN-ACK came again, though the third ACK had promptly come: the listener did not take that ACK.

    A listener that did not take it says nothing else; a server that answers it otherwise had another reason.
    """
    prompt = (conns["established_time"] != NO_TIME) & (conns["established_time"] - conns["syn_ack_time"] < PROMPT)
    talked = (conns["bytes_orig"] > 0) & (conns["syn_ack_time"] != NO_TIME)
    out: Array = prompt & talked & (conns["syn_ack_count"] > 1) & (conns["syn_count"] == 1)
    ids = conns["conn"][out]
    for chunk in tracked.events.chunks() if len(ids) else ():
        spoke = pick(chunk, (chunk["resp"] == 1) & (chunk["kind"] == KIND_TCP))
        at, there = _find(ids, spoke["conn"])
        where = np.searchsorted(conns["conn"], ids[at[there]])
        soon = spoke["time"][there] - conns["established_time"][where] < PROMPT
        out[where[soon]] = False
    return out


def aborted(tracked: Tracked, conns: Records) -> Array:
    """The third ACK was answered by a bare RST with its own ACK number: no socket took it (tcp_abort_on_overflow).

    An application that closes sends its RST with the ACK flag.
    """
    young = (conns["established_time"] != NO_TIME) & (conns["first_data_resp"] == NO_TIME)
    young &= ((conns["seen"] & SEEN_RST_RESP) != 0) & (conns["rst_time"] - conns["established_time"] < PROMPT)
    young &= conns["established_time"] - conns["syn_ack_time"] < PROMPT
    out = np.zeros(len(conns), np.bool_)
    ids = conns["conn"][young]
    if not len(ids):
        return out
    for chunk in tracked.events.chunks():
        resets = chunk[(chunk["flags"] == RST) & (chunk["resp"] == 1) & (chunk["kind"] == KIND_TCP)]
        at, there = _find(ids, resets["conn"])
        where = np.flatnonzero(young)[at[there]]
        out[where] |= resets["seq"][there] == conns["isn_resp"][where] + np.uint32(1)
    return out


def echoes(conns: Records, tsval: Array, has_ts: Array) -> Array:
    """The first SYN-ACK captured echoes *tsval*: the request was made from the SYN that carried it."""
    known = (conns["seen"] & SEEN_TS_RESP) != 0
    return known & has_ts & (conns["first_tsecr_resp"] == tsval)
