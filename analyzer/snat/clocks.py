"""The clocks behind an address, from the TSvals that it sends.

A TSval that goes backwards proves nothing: hosts restart, and kernels give every address pair, or every
connection, its own offset (Linux: ``secure_tcp_ts_off``; 4.10 and later).  Several hosts are claimed only
where two lines, each of several connections, run side by side towards the same address.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from analyzer.schema import CLOCK, ERAS, SEEN_ESTABLISHED
from analyzer.snat.hulls import contradiction, fitting, hull
from analyzer.snat.lines import APART, CIRCLE, NEAR, SKEW, Grouping, chains_of, distinct, group, linked
from analyzer.snat.model import Seen
from analyzer.snat.stamps import Floats, Ints, Stamps, stamps_of
from analyzer.units import NO_TIME, NS

Records = np.ndarray[Any, np.dtype[np.void]]
Bools = np.ndarray[Any, np.dtype[np.bool_]]

MOST_FITTED = 100
"""Lines whose skew is measured, those of most packets; the others of a capture are too many for one by one."""
FIRM_CHAINS = 5
"""Independent connections on each of two lines that prove two hosts."""
LOOSE = 0.25
"""Share of an address's connections on no line, beyond which offsets of connections must be reckoned with."""
NOT_IDENTIFIABLE, PER_HOST, PER_PAIR = (ERAS.index(w) for w in ("not identifiable", "per host", "per address pair"))


def clocks_of(seen: Sequence[Seen]) -> Records:
    """Clocks of every address that each capture shows.

    Args:
        seen: Captures; each is looked at by itself.

    Returns:
        CLOCK records, by vantage and host.  An address whose TSvals lie on no line (a clock per connection, none
        at all, or too short a look) has one record of era ``not identifiable``.
    """
    parts = [_clocks(index, one) for index, one in enumerate(seen) if one.tracked.connection_count]
    return np.concatenate(parts) if parts else np.zeros(0, CLOCK.dtype)


def _clocks(index: int, one: Seen) -> Records:
    stamps = stamps_of(one.tracked)
    if not len(stamps.host):
        return _unidentified(index, one, stamps, np.zeros(0, np.int64))
    found = group(stamps)
    line = _without_few(stamps, _merged(stamps, found, _without_loners(stamps, found)))
    several, unclear = _side_by_side(stamps, line, len(one.tracked.hosts))
    line = np.where(unclear[stamps.host], -1, line)
    rows = _rows(index, one, stamps, found, line, several)
    return np.concatenate((rows, _unidentified(index, one, stamps, line)))


def _without_loners(stamps: Stamps, found: Grouping) -> Ints:
    """Lines of each speaker that mean something.

    A line of one four-tuple does only between addresses that have no other; a line of answers only if most of the
    answers between two addresses lie on it, for a NAT may bring a few of them onto one line.
    """
    pair = np.unique(stamps.host << 32 | stamps.peer, return_inverse=True)[1]
    only = np.bincount(distinct(pair << 32 | stamps.chain) >> 32)[pair] == 1
    on = found.line >= 0
    in_company = np.zeros(len(on), np.bool_)
    in_company[on] = found.chains[found.line[on]] > 1
    together = np.unique(pair << 32 | (found.line + 1), return_inverse=True)[1]
    mostly = 2 * np.bincount(together)[together] > np.bincount(pair)[pair]
    return np.where(only | (in_company & (mostly | ~stamps.responds)), found.line, -1)


def _without_few(stamps: Stamps, line: Ints) -> Ints:
    """Lines without those of a few connections where many lie on none: there, offsets belong to connections.

    Behind a NAT they repeat as clients use their ports again, which the four numbers on this side do not show.
    """
    hosts = int(stamps.host.max()) + 1
    off = np.bincount(stamps.host[line < 0], minlength=hosts) > LOOSE * np.bincount(stamps.host, minlength=hosts)
    few = chains_of(stamps, line, int(line.max(initial=-1)) + 1) < FIRM_CHAINS
    return np.where((line >= 0) & off[stamps.host] & few[line], -1, line) if len(few) else line


def _merged(stamps: Stamps, found: Grouping, line: Ints) -> Ints:
    """Lines of one address and rate that are too near to each other to be two are one."""
    if not len(found.rate):
        return line
    host = np.zeros(len(found.rate), np.int64)
    host[line[line >= 0]] = stamps.host[line >= 0]
    _, rate = np.unique(found.rate, return_inverse=True)
    key = host * (int(rate.max()) + 1) + rate
    order = np.lexsort((found.origin % CIRCLE, key))
    label, _ = linked(key[order], (found.origin % CIRCLE)[order], (APART * found.rate)[order])
    representative = np.full(int(label.max()) + 1, -1, np.int64)
    by_size = np.argsort(found.chains[order], kind="stable")
    representative[label[by_size]] = order[by_size]
    to = np.empty(len(order), np.int64)
    to[order] = representative[label]
    return np.where(line >= 0, to[line], -1)


def _side_by_side(stamps: Stamps, line: Ints, hosts: int) -> tuple[Bools, Bools]:
    """Per host: whether several clocks stand behind it, and whether its lines mean nothing.

    Lines one after the other are no proof of several hosts: one may have been started anew, or the capture's
    clock may have stepped.  Lines that run at the same time towards the same peer are, if the host opened the
    connections and each line has several of them.  Behind an address that answers, a network address translator
    may hide which four numbers the clock's offset came from.
    """
    size = int(line.max(initial=-1)) + 1
    on = np.flatnonzero(line >= 0)
    start, end = np.full(size, np.iinfo(np.int64).max), np.full(size, -1)
    np.minimum.at(start, line[on], stamps.arrival[stamps.first[on]])
    np.maximum.at(end, line[on], stamps.arrival[stamps.last[on]])
    asks = 2 * np.bincount(line[on], stamps.responds[on], size) < np.bincount(line[on], minlength=size)
    firm = (chains_of(stamps, line, size) >= FIRM_CHAINS) & asks
    _, first = np.unique(line[on] << 32 | stamps.peer[on], return_index=True)
    met, host, peer = line[on][first], stamps.host[on][first], stamps.peer[on][first]
    several, shared = np.zeros(hosts, np.bool_), np.zeros(hosts, np.bool_)
    for out, chosen in ((shared, np.ones(len(met), np.bool_)), (several, firm[met])):
        order = np.lexsort((start[met[chosen]], peer[chosen], host[chosen]))
        h, p, at = host[chosen][order], peer[chosen][order], met[chosen][order]
        beside = (h[1:] == h[:-1]) & (p[1:] == p[:-1]) & (start[at][1:] < end[at][:-1])
        out[h[1:][beside]] = True
    return several, shared & ~several


def _rows(index: int, one: Seen, stamps: Stamps, found: Grouping, line: Ints, several: Any) -> Records:
    """One record per line."""
    used, speaker_line = np.unique(line[line >= 0], return_inverse=True)
    on = np.flatnonzero(line >= 0)
    rows = np.zeros(len(used), CLOCK.dtype)
    if not len(used):
        return rows
    at = np.zeros(len(used), np.int64)
    at[speaker_line] = on
    rows["vantage"], rows["host"], rows["hz"] = index, stamps.host[at], found.rate[used]
    rows["connections"] = np.bincount(speaker_line)
    rows["packets"] = np.bincount(speaker_line, stamps.packets[on])
    peers = distinct(speaker_line << 32 | stamps.peer[on]) >> 32
    one_peer = np.bincount(peers) == 1
    rows["peer"] = np.where(one_peer, stamps.peer[at], -1)
    mixed_host = several[rows["host"]]
    rows["era"] = np.where(one_peer | mixed_host, PER_PAIR, PER_HOST)
    rows["era"][chains_of(stamps, line, len(found.rate))[used] == 1] = NOT_IDENTIFIABLE
    rows["number"] = np.where(mixed_host, _ranks(rows), 1)
    _fit(rows, stamps, found.origin[used], np.where(line >= 0, np.searchsorted(used, line), -1), one.tracked.first_time)
    return rows[np.lexsort((rows["number"], rows["peer"], rows["host"]))]


def _ranks(rows: Records) -> Ints:
    """1, 2, ... within each host, most connections first."""
    order = np.lexsort((-rows["connections"].astype(np.int64), rows["host"]))
    host = rows["host"][order]
    first = np.flatnonzero(np.concatenate(([True], host[1:] != host[:-1])))
    ranks = np.empty(len(rows), np.int64)
    ranks[order] = np.arange(len(rows)) - np.repeat(first, np.diff(np.append(first, len(rows)))) + 1
    return ranks


def _fit(rows: Records, stamps: Stamps, origin: Floats, line: Ints, zero: int) -> None:
    """Fill in offset, skew, span and boot from each line's TSvals."""
    of = line[stamps.speaker]
    samples = np.flatnonzero(of >= 0)
    samples = samples[np.argsort(of[samples], kind="stable")]
    cuts = np.searchsorted(of[samples], np.arange(len(rows) + 1))
    times = stamps.time[samples]
    span = np.maximum.reduceat(times, cuts[:-1]) - np.minimum.reduceat(times, cuts[:-1])
    rows["span"] = np.round(span * NS)
    rows["skew_ppm"], rows["skew_bound"] = np.nan, np.inf
    shown = origin.copy()
    for number in np.argsort(-rows["packets"].astype(np.int64), kind="stable")[:MOST_FITTED].tolist():
        mine = samples[cuts[number] : cuts[number + 1]]
        packets = stamps.time[mine], stamps.after[mine], stamps.tsval[mine]
        fit = _fitted(*packets, float(rows["hz"][number]), float(origin[number]))
        shown[number], rows["skew_ppm"][number], rows["skew_bound"][number] = fit
    rows["offset"] = np.round(shown).astype(np.int64) % 2**32
    ago = np.round(rows["offset"] / rows["hz"] * NS).astype(np.int64)
    rows["boot"] = np.where(rows["era"] == PER_HOST, zero - ago, NO_TIME)


def _fitted(time: Floats, after: Floats, tsval: Ints, rate: float, origin: float) -> tuple[float, float, float]:
    """TSval at time 0, skew in ppm and the half-width of its bound, infinite where only one side is bounded.

    A clock that showed v had reached v when the packet was seen, and not yet v + 1 when the packet
    that it answers was seen.
    """
    away = tsval - origin - rate * time
    away -= CIRCLE * np.round(away / CIRCLE)
    near = np.abs(away) <= rate * (NEAR + SKEW * float(np.ptp(time))) * 2 + 2
    below = time[near], away[near]
    answers = near & np.isfinite(after)
    above = after[answers], away[answers] + 1 + rate * (time[answers] - after[answers])
    if not len(above[0]):
        return _from_below(*below, rate, origin)
    fits = fitting(above, below, SKEW * rate)
    if fits is None and (give := contradiction(above, below, SKEW * rate)) <= NEAR * rate:
        fits = fitting(above, below, SKEW * rate, 2 * give)
    if fits is None:
        return _from_below(*below, rate, origin)
    least, most = fits.slope[0] / rate * 1e6, fits.slope[-1] / rate * 1e6
    low, high = fits.bounds(0.0)
    return origin + (low + high) / 2, float(least + most) / 2, float(most - least) / 2


def _from_below(time: Floats, away: Floats, rate: float, origin: float) -> tuple[float, float, float]:
    """The line over all points that is nearest to them in the mean: the hull's edge over their middle."""
    x, y = hull(time, away, upper=True)
    if len(x) < 2:
        return origin + float(y[0]), 0.0, float("inf")
    at = min(max(int(np.searchsorted(x, time.mean())), 1), len(x) - 1)
    slope = (y[at] - y[at - 1]) / (x[at] - x[at - 1])
    slope = min(max(slope, -SKEW * rate), SKEW * rate)
    return origin + float(y[at] - slope * x[at]), float(slope / rate * 1e6), float("inf")


def _unidentified(index: int, one: Seen, stamps: Stamps, line: Ints) -> Records:
    """A record for each address that held connections, on what of its TSvals lies on no line."""
    hosts = len(one.tracked.hosts)
    off = np.flatnonzero(line < 0)
    packets, conns = np.zeros(hosts, np.int64), np.bincount(stamps.host[off], minlength=hosts)
    start, end = np.full(hosts, np.inf), np.full(hosts, -np.inf)
    np.add.at(packets, stamps.host[off], stamps.packets[off])
    np.minimum.at(start, stamps.host[off], stamps.time[stamps.first[off]])
    np.maximum.at(end, stamps.host[off], stamps.time[stamps.last[off]])
    known = np.bincount(stamps.host[line >= 0], minlength=hosts) > 0
    held = np.zeros(hosts, np.bool_)
    for chunk in one.tracked.connections.chunks():
        whole = (chunk["seen"] & SEEN_ESTABLISHED) > 0
        held[chunk["orig"][whole]] = held[chunk["resp"][whole]] = True
    unknown = np.flatnonzero(held & ((conns > 0) | ~known) & ~stamps.left_out)
    out = np.zeros(len(unknown), CLOCK.dtype)
    out["vantage"], out["host"], out["peer"] = index, unknown, -1
    out["era"], out["boot"], out["skew_bound"] = NOT_IDENTIFIABLE, NO_TIME, np.inf
    out["packets"], out["connections"] = packets[unknown], conns[unknown]
    lasts = np.where(conns[unknown] > 0, (end - start)[unknown], 0.0)
    out["span"] = np.round(lasts * NS)
    return out
