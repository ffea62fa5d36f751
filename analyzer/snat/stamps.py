"""Every TSval that the tables keep a time of, by who sent it to whom."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from analyzer.connections import Tracked
from analyzer.schema import KIND_TCP, OPT_TS, RST, SEEN_SYN, SEEN_SYN_ACK, SEEN_TS_ORIG, SEEN_TS_RESP
from analyzer.snat.sightings import arrival, connections_by_id, mixed
from analyzer.spool import pick
from analyzer.units import NO_TIME, NS

Ints = np.ndarray[Any, np.dtype[np.int64]]
Floats = np.ndarray[Any, np.dtype[np.float64]]

MOST_STAMPS = 8_000_000
"""Beyond this many packets, a sample of the connections."""
MOST_SPEAKERS = 30_000
"""Sides of connections that are looked at."""
ENOUGH = 1_000
"""Connections of one address that show its clocks as well as any more would."""
FEW = 16
"""The same where addresses are many, for all but the busiest of them."""
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
        left_out: bool per host, whether none of its connections is looked at because other addresses have more.
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
    left_out: np.ndarray[Any, np.dtype[np.bool_]]


def stamps_of(tracked: Tracked) -> Stamps:
    """Gather what the tables of *tracked* keep."""
    conns = connections_by_id(tracked, COLUMNS)
    chosen, left_out = _looked_at(conns, len(tracked.hosts))
    one_in = max(1, -(-(len(tracked.events) + len(tracked.syns)) // MOST_STAMPS))
    chosen[np.arange(len(chosen)) % one_in > 0] = False
    parts = [*_syns(tracked, chosen), _syn_acks(conns, chosen), *_events(tracked, conns, chosen)]
    side, time, after, tsval, place = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.lexsort((time, side))
    side, time, after, tsval, place = (column[order] for column in (side, time, after, tsval, place))
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
        left_out=left_out,
    )


def _looked_at(conns: Any, hosts: int) -> tuple[Any, Any]:
    """Which sides of which connections are looked at, (connections, 2), and which hosts not at all."""
    spoke = np.stack([(conns["seen"] & bit) > 0 for bit in (SEEN_TS_ORIG, SEEN_TS_RESP)], axis=1)
    host = np.stack([conns["orig"], conns["resp"]], axis=1)
    counts = np.bincount(host[spoke], minlength=hosts)
    given = _allowance(counts)
    dice = mixed(np.arange(spoke.size)).reshape(spoke.shape) >> np.uint64(32)
    threshold = (given / np.maximum(counts, 1) * 2**32).astype(np.uint64)
    return spoke & (dice < threshold[host]), (counts > 0) & (given == 0)


def _allowance(counts: Ints) -> Ints:
    """How many connections of each address are looked at, the busiest addresses first."""
    order = np.argsort(-counts, kind="stable")
    whole = np.minimum(counts[order], ENOUGH)
    few = np.where(np.cumsum(whole) <= MOST_SPEAKERS // 2, whole, np.minimum(whole, FEW))
    given = np.empty_like(counts)
    given[order] = np.where(np.cumsum(few) <= MOST_SPEAKERS, few, 0)
    return given


Part = tuple[Ints, Ints, Ints, Ints, Ints]


def _syns(tracked: Tracked, chosen: Any) -> Iterator[Part]:
    for chunk in tracked.syns.chunks():
        rows = pick(chunk, chosen[chunk["conn"], 0] & ((chunk["opts"] & OPT_TS) > 0))
        yield _part(
            rows["conn"].astype(np.int64) * 2, rows["time"], np.full(len(rows), NO_TIME), rows["tsval"], arrival(rows)
        )


def _syn_acks(conns: Any, chosen: Any) -> Part:
    whole = SEEN_SYN | SEEN_SYN_ACK | SEEN_TS_RESP
    at = np.flatnonzero(((conns["seen"] & whole) == whole) & chosen[:, 1])
    told = conns[at]
    place = arrival(told, "syn_ack_frame")
    return _part(at * 2 + 1, told["syn_ack_time"], told["syn_time"], told["first_tsval_resp"], place)


def _events(tracked: Tracked, conns: Any, chosen: Any) -> Iterator[Part]:
    for chunk in tracked.events.chunks():
        rows = pick(chunk, chosen[chunk["conn"], chunk["resp"]])
        # a RST may carry a TSval that its sender took from elsewhere
        rows = pick(rows, (rows["kind"] == KIND_TCP) & ((rows["opts"] & OPT_TS) > 0) & ((rows["flags"] & RST) == 0))
        told = conns[rows["conn"]]
        third = (rows["resp"] == 0) & (rows["time"] == told["established_time"]) & ((told["seen"] & SEEN_SYN_ACK) > 0)
        after = np.where(third, told["syn_ack_time"], NO_TIME)
        side = rows["conn"].astype(np.int64) * 2 + (rows["resp"] > 0)
        yield _part(side, rows["time"], after, rows["tsval"], arrival(rows))


def _part(side: Any, time: Any, after: Any, tsval: Any, place: Any) -> Part:
    return side, time.astype(np.int64), after.astype(np.int64), tsval.astype(np.int64), place
