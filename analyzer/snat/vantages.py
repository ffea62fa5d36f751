"""Where each capture was taken, found out from a look at its beginning.

Files that were given without a word are sorted into vantages: both sides of the load balancer are one,
files of one server (rotated sets) are one, each other server is one of its own.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from analyzer.capture import Capture, open_capture
from analyzer.capture.files import expand
from analyzer.connections import Tracked, follow
from analyzer.connections.names import host_texts
from analyzer.errors import InputError
from analyzer.schema import ANSWER_SYN_ACK
from analyzer.snat.legs import side_of

Records = np.ndarray[Any, np.dtype[np.void]]

LOOK_PACKETS = 60_000
"""Packets of a file's beginning that are looked at."""
SHARED = 0.2
"""Share of a file's SYNs that must be seen in another to call both two points of one path."""


@dataclass(frozen=True)
class Group:
    """Files of one vantage; the side is empty where it is found out when all packets are read."""

    side: str
    name: str
    paths: tuple[str, ...]


@dataclass(frozen=True)
class Look:
    """What a file's beginning shows.

    Attributes:
        path: The file.
        side: As ``side_of`` tells it from this file alone.
        responders: Addresses that SYNs go to.
        originators: Addresses that they come from.
        isns: Initial sequence numbers; address translation leaves them alone.
        syns: (ISN, TSval): repeats of a SYN have another TSval.
        payloads: (direction, digest) of first payloads that no second connection of the file has.
        delay: Median time from a SYN to its SYN-ACK, ns: the nearer to the server, the shorter.
        first, last: Times of the first and the last packet looked at, ns.
    """

    path: str
    side: str
    responders: frozenset[str]
    originators: frozenset[str]
    isns: frozenset[int] = field(repr=False)
    syns: frozenset[tuple[int, int]] = field(repr=False)
    payloads: frozenset[tuple[str, int]] = field(repr=False)
    delay: int
    first: int
    last: int


def look_at(path: str) -> Look:
    """Read the beginning of one file.

    Raises:
        InputError: It cannot be read as a capture.
    """
    capture = open_capture([path], path, hashes=False, digests=True)
    tracked = follow(_first_blocks(capture), Tracked(path))
    tracked.identities = capture.identities
    names = host_texts(tracked.hosts)
    rows = tracked.syns.to_array()
    delays = (rows["answer_time"] - rows["time"])[rows["answer"] == ANSWER_SYN_ACK]
    return Look(
        path,
        side_of(tracked),
        frozenset(names[h] for h in np.unique(rows["resp"])),
        frozenset(names[h] for h in np.unique(rows["orig"])),
        frozenset(rows["isn"].tolist()),
        frozenset(zip(rows["isn"].tolist(), rows["tsval"].tolist(), strict=True)),
        _payloads(tracked),
        int(np.median(delays)) if len(delays) else 0,
        tracked.first_time,
        tracked.last_time,
    )


def _payloads(tracked: Tracked) -> frozenset[tuple[str, int]]:
    """First payloads that are the only ones of their kind."""
    conns = tracked.connections.to_array()
    found: set[tuple[str, int]] = set()
    for name in ("digest_orig", "digest_resp"):
        values, often = np.unique(conns[name], return_counts=True)
        found.update((name, value) for value in values[(often == 1) & (values != 0)].tolist())
    return frozenset(found)


def _first_blocks(capture: Capture) -> Iterator[Records]:
    seen = 0
    for block in capture.blocks():
        yield block
        seen += len(block)
        if seen >= LOOK_PACKETS:
            return


def group_captures(captures: Sequence[str], servers: Sequence[str], lbs: Sequence[str]) -> list[Group]:
    """Inputs as vantages, the load balancer's first.

    Args:
        captures: Files, folders or patterns whose vantage is to be found out; ``-`` stands alone.
        servers: Inputs taken on servers, one vantage each.
        lbs: Inputs taken at the load balancer, one vantage together.

    Raises:
        InputError: A name matches nothing, or nothing of *captures* can be read.
    """
    files = expand(captures) if captures else []
    alone = len(files) < 2 and not (files and (servers or lbs))
    if alone or "-" in (*files, *servers):
        return _named(lbs, [(path,) for path in servers], [("", tuple(files))] if files else [])
    looks: list[Look] = []
    broken: list[tuple[str, InputError]] = []
    for path in files:
        try:
            looks.append(look_at(path))
        except InputError as error:
            broken.append((path, error))
    if not looks and not (servers or lbs):
        raise broken[0][1]
    given = [look_at(expand([path])[0]) for path in servers]
    front, back, rest = _sorted_out(looks, given)
    members = [([look], [path]) for look, path in zip(given, servers, strict=True)]
    for look in back:
        mine = next((files for files in members if all(_rotated(look, other) for other in files[0])), None)
        if mine is None:
            members.append(([look], [look.path]))
        else:
            mine[0].append(look)
            mine[1].append(look.path)
    clients = [("client", tuple(look.path for look in rest))] if rest else []
    balancer = [*lbs, *(look.path for look in front)]
    groups = _named(balancer, [tuple(paths) for _, paths in members], clients)
    return _with_unreadable(groups, tuple(path for path, _ in broken))


def _with_unreadable(groups: list[Group], unread: tuple[str, ...]) -> list[Group]:
    """Files that cannot be read stay with the first vantage, whose reading says so."""
    if not unread or not groups:
        return groups
    first = groups[0]
    return [Group(first.side, first.name, first.paths + unread), *groups[1:]]


def _sorted_out(looks: list[Look], servers: list[Look]) -> tuple[list[Look], list[Look], list[Look]]:
    """(load balancer's, servers', clients') files among *looks*."""
    front: list[Look] = []
    back: list[Look] = []
    rest: list[Look] = []
    for look in looks:
        others = [other for other in (*looks, *servers) if other is not look]
        if look.side == "lb" or any(_translates(look, other) or _upstream(look, other) for other in others):
            front.append(look)
        else:
            (rest if look.side == "client" else back).append(look)
    ours = [*back, *servers]
    later = [look for look in rest if any(_rotated(look, other) for other in ours)]
    far = [look for look in rest if look not in later and any(look.responders & other.responders for other in ours)]
    return front + far, back + later, [look for look in rest if look not in later and look not in far]


def _share(a: frozenset[Any], b: frozenset[Any]) -> bool:
    """Whether two files' SYNs are in good part the same ones."""
    shared = len(a & b)
    return shared > 2 and shared >= SHARED * min(len(a), len(b))


def _translates(a: Look, b: Look) -> bool:
    """Whether *a* is the clients' side of a load balancer that *b* is behind: more senders, else slower answers.

    Members of one pool share ISNs too, of retries, and requests that a client repeats, but they are asked by the
    same addresses; where no address is translated on either side, only whole SYNs count.
    """
    if a.responders & b.responders:
        return False
    apart = 2 * len(a.originators & b.originators) <= min(len(a.originators), len(b.originators))
    passed = _share(a.isns, b.isns) if apart else _share(a.syns, b.syns)
    if not passed and not (apart and _share(a.payloads, b.payloads)):
        return False
    if len(a.originators) != len(b.originators):
        return len(a.originators) > len(b.originators)
    return passed and a.delay > b.delay


def _upstream(a: Look, b: Look) -> bool:
    """Whether both saw the same packets and *a* farther from the server: it is the load balancer's server side."""
    if not a.responders & b.responders or not _share(a.syns, b.syns):
        return False
    return a.responders > b.responders or (a.responders == b.responders and a.delay > b.delay)


def _rotated(a: Look, b: Look) -> bool:
    """Whether both may be files of one capture: the same server, one after the other."""
    return bool(a.responders & b.responders) and (a.last <= b.first or b.last <= a.first)


def _named(
    lbs: Sequence[str], servers: list[tuple[str, ...]], others: list[tuple[str, tuple[str, ...]]]
) -> list[Group]:
    """Vantages with their names: ``lb``, ``server`` (numbered if several), ``client``."""
    groups = [Group("lb", "lb", tuple(lbs))] if lbs else []
    many = len(servers) > 1
    groups += [Group("server", f"server{i + 1}" if many else "server", paths) for i, paths in enumerate(servers)]
    taken = {group.name for group in groups}
    for side, paths in others:
        name = side or "server"
        groups.append(Group(side, "capture" if name in taken else name, paths))
    return groups
