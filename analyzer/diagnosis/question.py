"""Narrowing the question: which SYNs are asked about.

The replay has seen the whole capture by then, so what happened before ``--since`` or on another port
still counts as the SYNs' past; only what is judged, counted and reported is narrowed.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import ip_address
from typing import Any

import numpy as np

from analyzer.diagnosis.model import Vantage
from analyzer.errors import UsageError
from analyzer.schema import PATH, SYN_ROW, VERDICT
from analyzer.snat.model import Joined
from analyzer.spool import Spool
from analyzer.units import NO_TIME, NS

Records = np.ndarray[Any, np.dtype[np.void]]
Bools = np.ndarray[Any, np.dtype[np.bool_]]


@dataclass(frozen=True)
class Question:
    """What is asked about; None asks about everything.

    Attributes:
        port: Port of the virtual address or of the server.
        vip: Address that clients connect to, or a server's.
        since, until: ns UTC, on the clock of the capture that saw the SYN first.
    """

    port: int | None = None
    vip: str | None = None
    since: int | None = None
    until: int | None = None

    @property
    def narrow(self) -> bool:
        """Whether anything is left out."""
        return self != Question()


def parse_time(text: str) -> int:
    """A time as people type it, in ns UTC: ISO 8601 (UTC where no zone is said) or seconds since 1970.

    Raises:
        UsageError: Neither of them.

    >>> parse_time("2017-03-14T09:00:02.5"), parse_time("1489482002.5")
    (1489482002500000000, 1489482002500000000)
    """
    try:
        whole, _, part = text.partition(".")
        return int(whole) * NS + int((part + "0" * 9)[:9])
    except ValueError:
        pass
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(f"{text}: no time; say 2017-03-14T09:00:02 (UTC) or seconds since 1970") from None
    when = when if when.tzinfo is not None else when.replace(tzinfo=UTC)
    return int(when.timestamp()) * NS + when.microsecond * 1000


def parse_address(text: str) -> str:
    """An address as the tables spell it.

    Raises:
        UsageError: No IP address.
    """
    try:
        return str(ip_address(text.strip("[]")))
    except ValueError:
        raise UsageError(f"--vip {text}: no IP address") from None


def narrow(vantages: list[Vantage], joined: Joined, question: Question) -> None:
    """Leave only the SYNs that are asked about in every vantage, with their verdicts and paths.

    Args:
        vantages: Captures after their replay; their SYN and verdict spools are replaced.
        joined: Its paths are narrowed alike; ``PATH.server_row`` is renumbered.
        question: What is asked.
    """
    if not question.narrow:
        return
    numbers = []
    for vantage in vantages:
        kept = _narrow_one(vantage, joined, question)
        numbers.append(np.where(kept, np.cumsum(kept) - 1, -1))
    for paths in joined.paths.values():
        for server, new in enumerate(numbers):
            mine = (paths["server"] == server) & (paths["server_row"] >= 0)
            paths["server_row"][mine] = new[paths["server_row"][mine]]


def _narrow_one(vantage: Vantage, joined: Joined, question: Question) -> Bools:
    """Narrow one vantage; returns which of its rows are kept."""
    paths = joined.path(vantage.name, len(vantage.tracked.syns))
    syns, verdicts, kept, done = Spool(SYN_ROW), Spool(VERDICT), [], 0
    said = iter(vantage.replayed.verdicts.chunks()) if vantage.replayed is not None else None
    for rows in vantage.tracked.syns.chunks():
        asked = _asked(vantage, rows, paths[done : done + len(rows)], joined, question)
        syns.append(rows[asked])
        if said is not None:
            verdicts.append(next(said)[asked])
        kept.append(asked)
        done += len(rows)
    mask = np.concatenate(kept) if kept else np.zeros(0, np.bool_)
    vantage.tracked.syns = syns
    if vantage.replayed is not None:
        vantage.replayed.verdicts = verdicts
    joined.paths[vantage.name] = np.asarray(paths[mask]).view(PATH.dtype)
    return mask


def _asked(vantage: Vantage, rows: Records, paths: Records, joined: Joined, question: Question) -> Bools:
    asked = np.ones(len(rows), np.bool_)
    flows = joined.flows[np.maximum(paths["flow"], 0)] if len(joined.flows) else None
    paired = (paths["flow"] >= 0) if flows is not None else np.zeros(len(rows), np.bool_)
    if question.port is not None:
        hit = rows["resp_p"] == question.port
        if flows is not None:
            hit |= paired & ((flows["vip_p"] == question.port) | (flows["server_p"] == question.port))
        asked &= hit
    if question.vip is not None:
        asked &= _at_address(vantage, rows, flows, paired, question.vip)
    first = np.full(len(rows), NO_TIME, np.int64)
    for name in ("time_server", "time_lb_server", "time_lb_client"):
        first = np.where(paths[name] != NO_TIME, paths[name], first)
    first = np.where(first == NO_TIME, rows["time"], first)
    if question.since is not None:
        asked &= first >= question.since
    if question.until is not None:
        asked &= first <= question.until
    return asked


def _at_address(vantage: Vantage, rows: Records, flows: Records | None, paired: Bools, text: str) -> Bools:
    address = ip_address(text)
    value = int(address) if address.version == 6 else 0xFFFF << 32 | int(address)
    high, low = value >> 64, value & 0xFFFFFFFFFFFFFFFF
    hosts = vantage.tracked.hosts
    mine = np.flatnonzero((hosts["hi"] == high) & (hosts["lo"] == low))
    hit: Bools = np.isin(rows["resp"], mine)
    if flows is not None:
        for end in ("vip", "server"):
            hit |= paired & (flows[f"{end}_hi"] == high) & (flows[f"{end}_lo"] == low)
    return hit
