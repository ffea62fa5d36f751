"""All captures in one numbering: hosts, four-tuples and connections that every stage can join on."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from analyzer.schema import CONNECTION, HOST, OPT_SACK_OK, OPT_TS, OPT_WSCALE, SYN_ROW
from analyzer.spool import Records, Spool

Ints = NDArray[np.int64]
Keys = NDArray[np.uint64]


class TrackedLike(Protocol):
    """What this room needs of a tracked capture."""

    hosts: Records
    connections: Spool
    syns: Spool


@dataclass
class View:
    """One capture: its rows with shared host ids, and keys to join them by.

    Attributes:
        capture: Index in the order given, load balancer captures first.
        conns: CONNECTION rows in order of connection id, ``orig`` and ``resp`` as shared host ids.
        syns: SYN_ROW rows in their own order, shared host ids likewise.
        conn_four: Key of the four numbers, one per connection.
        syn_four: The same, one per SYN.
        syn_conn: Row in ``conns`` of each SYN, -1 if it has none.
        home: Own host id of each shared host, -1 where this capture never saw it.
    """

    capture: int
    conns: Records
    syns: Records
    conn_four: Keys
    syn_four: Keys
    syn_conn: Ints
    home: Ints


def mix(*columns: NDArray[Any]) -> Keys:
    """Hash integer columns row by row to 64 bits (the finalizer of splitmix64 after each)."""
    key = np.full(len(columns[0]), 0x9E3779B97F4A7C15, np.uint64)
    for column in columns:
        key = (key ^ column.astype(np.uint64)) * np.uint64(0xBF58476D1CE4E5B9)
        key ^= key >> np.uint64(27)
        key *= np.uint64(0x94D049BB133111EB)
        key ^= key >> np.uint64(31)
    return key


def options_of(rows: Records) -> Keys:
    """Key of what a SYN offers besides its clock: MSS, window scale, SACK (a forwarding LB leaves them alone)."""
    scale = np.where(rows["opts"] & OPT_WSCALE, rows["wscale"], 255)
    return mix(rows["mss"], scale, rows["opts"] & OPT_SACK_OK)


def has_timestamps(rows: Records) -> NDArray[np.bool_]:
    """Whether each SYN row carries a TSval."""
    return (rows["opts"] & OPT_TS) != 0


def share_hosts(captures: Sequence[TrackedLike]) -> tuple[Records, list[Ints]]:
    """Number the hosts of all captures together.

    Returns:
        HOST rows, sorted by address, and per capture the shared id of each of its own ids.
    """
    parts = [np.asarray(tracked.hosts, HOST.dtype) for tracked in captures]
    every = np.concatenate(parts) if parts else np.zeros(0, HOST.dtype)
    order = np.lexsort((every["lo"], every["hi"], every["v6"]))
    ordered = every[order]
    new = np.ones(len(every), bool)
    if len(every) > 1:
        new[1:] = (
            (np.diff(ordered["lo"]) != 0) | (np.diff(ordered["hi"]) != 0) | (ordered["v6"][1:] != ordered["v6"][:-1])
        )
    shared = np.empty(len(every), np.int64)
    shared[order] = np.cumsum(new) - 1
    bounds = np.cumsum([0, *(len(part) for part in parts)])
    return ordered[new], [shared[bounds[i] : bounds[i + 1]] for i in range(len(parts))]


def view(capture: int, tracked: TrackedLike, shared: Ints, hosts: int) -> View:
    """Read one capture's tables into memory under shared host ids."""
    conns = tracked.connections.to_array().astype(CONNECTION.dtype, copy=True)
    conns = conns[np.argsort(conns["conn"], kind="stable")]
    syns = tracked.syns.to_array().astype(SYN_ROW.dtype, copy=True)
    syn_conn = np.searchsorted(conns["conn"], syns["conn"]).astype(np.int64)
    known = syn_conn < len(conns)
    known[known] = conns["conn"][syn_conn[known]] == syns["conn"][known]
    syn_conn[~known] = -1
    for rows in (conns, syns):
        rows["orig"] = shared[rows["orig"]]
        rows["resp"] = shared[rows["resp"]]
    home = np.full(hosts, -1, np.int64)
    home[shared] = np.arange(len(shared))
    fours = [mix(rows["orig"], rows["resp"], rows["orig_p"], rows["resp_p"]) for rows in (conns, syns)]
    return View(capture, conns, syns, fours[0], fours[1], syn_conn, home)
