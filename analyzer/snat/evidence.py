"""SYNs of all captures side by side, and the ways to find the same SYN in two places.

A SYN that passes a layer-4 NAT keeps its ISN, and mostly its TSval, options and IP id: 32 + 32 + 16 bits
that name it.  Where they repeat (no timestamps, IP id 0) the order of time decides.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from analyzer.schema import HOST, META_TUNNELLED, OPT_MSS, OPT_TS, OPT_WSCALE
from analyzer.snat.model import Records, Seen
from analyzer.spool import pick
from analyzer.units import MS

Array = np.ndarray[Any, np.dtype[Any]]

POINT = np.dtype(
    [
        ("time", "i8"),
        ("answer_time", "i8"),
        ("four", "i8"),  # id of the four numbers, the same in every capture
        ("service", "i8"),  # id of the destination's address and port
        ("conn", "i4"),
        ("isn", "u4"),
        ("tsval", "u4"),  # 0 without timestamps
        ("place", "u4"),  # where on the path it was seen: file, interface (11 bits), tunnel (1), TTL (8)
        ("orig", "i4"),  # host id over all captures
        ("resp", "i4"),
        ("vantage", "i2"),
        ("orig_p", "u2"),
        ("resp_p", "u2"),
        ("mss", "u2"),
        ("ipid", "u2"),
        ("wscale", "u1"),  # 255 without the option
        ("has_ts", "u1"),
        ("tunnelled", "u1"),
        ("answer", "u1"),
    ],
    align=True,
)

LATE = 5 * MS
"""Two taps of one host may stamp a packet in the wrong order by this much."""
COPY_SPAN = 1000 * MS
"""The same packet passes all taps of one capture within this time."""


@dataclass
class Points:
    """Every SYN packet of every capture.

    Attributes:
        rows: POINT records, all captures one after the other, each in its SYN rows' order.
        starts: Index of each capture's first row; one more for the end.
        hosts: HOST records that ``orig`` and ``resp`` index.
    """

    rows: Records
    starts: list[int]
    hosts: Records

    def of(self, vantage: int) -> Array:
        """Indices of one capture's rows."""
        return np.arange(self.starts[vantage], self.starts[vantage + 1])


def gather(seen: Sequence[Seen]) -> Points:
    """Put the SYN rows of all captures into one table with common ids of hosts and four-tuples."""
    tables = [one.tracked.hosts for one in seen]
    hosts, ids = np.unique(np.concatenate(tables) if tables else np.zeros(0, HOST.dtype), return_inverse=True)
    starts = [0]
    for one in seen:
        starts.append(starts[-1] + len(one.tracked.syns))
    rows = np.zeros(starts[-1], POINT)
    first_host = 0
    for vantage, one in enumerate(seen):
        common = ids[first_host : first_host + len(one.tracked.hosts)].astype(np.int32)
        first_host += len(one.tracked.hosts)
        at = starts[vantage]
        for chunk in one.tracked.syns.chunks():
            fill_points(rows[at : at + len(chunk)], chunk, vantage, common)
            at += len(chunk)
    source = rows["orig"].astype(np.int64) << 16 | rows["orig_p"]
    target = rows["resp"].astype(np.int64) << 16 | rows["resp_p"]
    rows["service"] = target
    rows["four"] = group_ids(source, target)
    return Points(rows, starts, hosts)


def fill_points(rows: Records, chunk: Records, vantage: int, common: Array) -> None:
    """Fill POINT records from SYN rows; ``service`` and ``four`` stay."""
    opts = chunk["opts"]
    rows["vantage"] = vantage
    for name in ("time", "answer_time", "conn", "isn", "orig_p", "resp_p", "ipid", "answer"):
        rows[name] = chunk[name]
    rows["orig"], rows["resp"] = common[chunk["orig"]], common[chunk["resp"]]
    rows["has_ts"] = (opts & OPT_TS) > 0
    rows["tsval"] = np.where(rows["has_ts"], chunk["tsval"], 0)
    rows["mss"] = np.where(opts & OPT_MSS, chunk["mss"], 0)
    rows["wscale"] = np.where(opts & OPT_WSCALE, chunk["wscale"], 255)
    rows["tunnelled"] = (chunk["meta"] & META_TUNNELLED) > 0
    place = chunk["file"].astype(np.uint32) << 20 | (chunk["interface"].astype(np.uint32) & 0x7FF) << 9
    rows["place"] = place | rows["tunnelled"].astype(np.uint32) << 8 | chunk["ttl"]


def group_ids(*columns: Array) -> Array:
    """int64 ids of equal rows, 0 …, in the order of the columns' values."""
    count = len(columns[0])
    order = np.lexsort(columns[::-1])
    new = np.zeros(count, np.bool_)
    for column in columns:
        ordered = column[order]
        new[1:] |= ordered[1:] != ordered[:-1]
    ids = np.empty(count, np.int64)
    ids[order] = np.cumsum(new)
    return ids


def latest_before(keys: Array, times: Array, is_first: Array, late: int = LATE) -> tuple[Array, Array]:
    """Pair each later row with the last earlier one of the same key, one to one.

    Args:
        keys: int64 (n,), rows pair only under equal keys.
        times: int64 (n,), ns.
        is_first: bool (n,), the row is of the earlier place.
        late: How much a row of the later place may be stamped too early, ns.

    Returns:
        Indices of the earlier rows and of the later rows that belong to them.
    """
    shifted = np.where(is_first, times, times + late)
    order = np.lexsort((~is_first, shifted, keys))
    first = is_first[order]
    position = np.maximum.accumulate(np.where(first, np.arange(len(order)), -1))
    later = np.flatnonzero(~first & (position >= 0))
    partner = position[later]
    good = keys[order[later]] == keys[order[partner]]
    later, partner = later[good], partner[good]
    partner, kept = np.unique(partner, return_index=True)
    return order[partner], order[later[kept]]


def copies(rows: Records) -> Array:
    """For each row the index of the first sight of the same packet under the same four numbers; itself if it is that.

    A packet is the same if nothing in it changed and it was seen at another place (interface, file, TTL,
    in or out of a tunnel), or twice at one place within the time no sender repeats a SYN.
    """
    result = np.arange(len(rows))
    if not len(rows):
        return result
    several = np.flatnonzero(np.bincount(rows["four"])[rows["four"]] > 1)  # the others are alone on their numbers
    result[several] = several[_copies(pick(rows, several))]
    return result


def _copies(rows: Records) -> Array:
    keys = group_ids(
        rows["vantage"], rows["four"], rows["isn"], rows["has_ts"], rows["tsval"], rows["ipid"]
    )  # fmt: skip
    order = np.lexsort((rows["time"], keys))
    sorted_keys, times, places = keys[order], rows["time"][order], rows["place"][order]
    root = np.arange(len(order))
    starts = np.r_[True, sorted_keys[1:] != sorted_keys[:-1]] if len(order) else np.zeros(0, np.bool_)
    named = ((rows["has_ts"] > 0) | (rows["ipid"] != 0))[order]
    for step in range(1, 4):  # a packet is seen at four taps at most
        before = np.arange(len(order)) - step
        fits = before >= 0
        fits[fits] = sorted_keys[before[fits]] == sorted_keys[fits]
        gap = np.where(fits, times - times[np.maximum(before, 0)], COPY_SPAN)
        moved = places != places[np.maximum(before, 0)]
        same = fits & (gap < COPY_SPAN) & ((moved & (named | (gap < 100 * MS))) | (gap < MS))
        root = np.where(same & ~starts, np.minimum(root, np.maximum(before, 0)), root)
    for _ in range(2):
        root = root[root]
    result = np.empty(len(order), np.int64)
    result[order] = order[root]
    return result
