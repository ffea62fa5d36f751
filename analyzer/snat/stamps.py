"""Every TSval that the tables keep a time of, by who sent it to whom."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from analyzer.connections import Tracked
from analyzer.schema import KIND_TCP, OPT_TS, RST, SEEN_SYN, SEEN_SYN_ACK, SEEN_TS_RESP
from analyzer.snat.sightings import arrival, connections_by_id
from analyzer.units import NO_TIME, NS

Ints = np.ndarray[Any, np.dtype[np.int64]]
Floats = np.ndarray[Any, np.dtype[np.float64]]

MOST_STAMPS = 8_000_000
"""Beyond this many packets, a sample of the connections."""
COLUMNS = (
    "chain", "orig", "resp", "seen", "packets_orig", "packets_resp", "syn_time", "syn_ack_time", "established_time",
    "first_tsval_resp", "syn_ack_frame", "file", "isn_orig",
)  # fmt: skip


@dataclass(frozen=True)
class Stamps:
    """TSvals in order of speaker and time.  A speaker is one side of one connection.

    Attributes:
        speaker: int64 per TSval, index into the arrays below.
        time: float64 s since the capture's first packet, when it was seen.
        after: float64 s, when the packet that it answers was seen: it was read between the two; NaN if unknown.
        tsval: int64.
        arrival: int64, rises in the order of the file, whatever the capture's clock does.
        host, peer, chain, isn, packets: int64 per speaker: who speaks to whom, on which four numbers, with which
            sequence number of the originator, packets sent in all.
        responds: bool per speaker, whether it answers connections.
        first, last: int64 per speaker, its first and last TSval's index.
    """

    speaker: Ints
    time: Floats
    after: Floats
    tsval: Ints
    arrival: Ints
    host: Ints
    peer: Ints
    chain: Ints
    isn: Ints
    packets: Ints
    responds: np.ndarray[Any, np.dtype[np.bool_]]
    first: Ints
    last: Ints


def stamps_of(tracked: Tracked) -> Stamps:
    """Gather what the tables of *tracked* keep."""
    conns = connections_by_id(tracked, COLUMNS)
    one_in = max(1, -(-(len(tracked.events) + len(tracked.syns)) // MOST_STAMPS))
    parts = [*_syns(tracked), _syn_acks(conns), *_events(tracked, conns)]
    side, time, after, tsval, place = (np.concatenate(column) for column in zip(*parts, strict=True))
    kept = (side >> 1) % one_in == 0
    order = np.lexsort((time[kept], side[kept]))
    side, time, after, tsval, place = (column[kept][order] for column in (side, time, after, tsval, place))
    named, first = np.unique(side, return_index=True)
    last = np.append(first[1:], len(side)) - 1
    conn, responds = named >> 1, (named & 1) == 1
    orig, resp = conns["orig"][conn].astype(np.int64), conns["resp"][conn].astype(np.int64)
    zero = tracked.first_time
    return Stamps(
        speaker=np.repeat(np.arange(len(named)), last - first + 1),
        time=(time - zero) / NS,
        after=np.where(after == NO_TIME, np.nan, (np.where(after == NO_TIME, zero, after) - zero) / NS),
        tsval=tsval,
        arrival=place,
        host=np.where(responds, resp, orig),
        peer=np.where(responds, orig, resp),
        chain=conns["chain"][conn].astype(np.int64),
        isn=conns["isn_orig"][conn].astype(np.int64),
        packets=np.where(responds, conns["packets_resp"][conn], conns["packets_orig"][conn]).astype(np.int64),
        responds=responds,
        first=first,
        last=last,
    )


Part = tuple[Ints, Ints, Ints, Ints, Ints]


def _syns(tracked: Tracked) -> Iterator[Part]:
    for chunk in tracked.syns.chunks():
        rows = chunk[(chunk["opts"] & OPT_TS) > 0]
        yield _part(
            rows["conn"].astype(np.int64) * 2, rows["time"], np.full(len(rows), NO_TIME), rows["tsval"], arrival(rows)
        )


def _syn_acks(conns: Any) -> Part:
    whole = SEEN_SYN | SEEN_SYN_ACK | SEEN_TS_RESP
    at = np.flatnonzero((conns["seen"] & whole) == whole)
    told = conns[at]
    place = arrival(told, "syn_ack_frame")
    return _part(at * 2 + 1, told["syn_ack_time"], told["syn_time"], told["first_tsval_resp"], place)


def _events(tracked: Tracked, conns: Any) -> Iterator[Part]:
    for chunk in tracked.events.chunks():
        # a RST may carry a TSval that its sender took from elsewhere
        rows = chunk[(chunk["kind"] == KIND_TCP) & ((chunk["opts"] & OPT_TS) > 0) & ((chunk["flags"] & RST) == 0)]
        told = conns[rows["conn"]]
        third = (rows["resp"] == 0) & (rows["time"] == told["established_time"]) & ((told["seen"] & SEEN_SYN_ACK) > 0)
        after = np.where(third, told["syn_ack_time"], NO_TIME)
        side = rows["conn"].astype(np.int64) * 2 + (rows["resp"] > 0)
        yield _part(side, rows["time"], after, rows["tsval"], arrival(rows))


def _part(side: Any, time: Any, after: Any, tsval: Any, place: Any) -> Part:
    return side, time.astype(np.int64), after.astype(np.int64), tsval.astype(np.int64), place
