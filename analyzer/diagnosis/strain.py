"""Queues of a listener, read from who was answered: a full queue drops every SYN, chance does not.

For each SYN two loads are counted: connections that wait for the application (it has not been heard on
them, nor on a later one) and half-open requests.  Where SYNs above some load are silent and those below
it are answered, that load is the backlog and the queue was full; silence that does not depend on the
load has another reason.  kernel-model L5, L6, L9.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from analyzer.connections import Tracked
from analyzer.spool import pick
from analyzer.units import NO_TIME, NS

Records = np.ndarray[Any, np.dtype[np.void]]
Array = np.ndarray[Any, Any]

REQUEST_LIFE = 63 * NS
NEVER = np.iinfo(np.int64).max
FEWEST_SILENT = 3
"""Silent SYNs above the threshold that it takes to speak of a full queue."""
SMALLEST_LOAD = 2
"""A queue that one entry fills is not told from chance."""
MOSTLY_SILENT = 0.6
"""Share of silent SYNs above the threshold: less than all, for the application may accept unheard."""
CLEAR = 15.0
"""Twice the log-likelihood that a threshold must gain over one silent share for all: p < 0.001 with many tries."""

_WANTED = (
    "resp", "resp_p", "syn_ack_time", "established_time", "first_data_resp", "fin_resp_time", "rst_time",
)  # fmt: skip

AT_ONCE = 250_000
"""Connections of a capture beyond which its listeners are looked at in several rounds, to bound the memory."""

NOT_FULL, ACCEPT_FULL, SYN_FULL = 0, 1, 2


@dataclass(frozen=True)
class Listener:
    """What a listener's SYNs say of its queues.

    Attributes:
        host, port: Host id of the responder and its port.
        queue: ``ACCEPT_FULL`` or ``SYN_FULL``.
        load: Entries from which on SYNs were silent.
        silent, answered: SYNs at or above that load.
        below, below_silent: SYNs under it, and how many of them were silent.
    """

    host: int
    port: int
    queue: int
    load: int
    silent: int
    answered: int
    below: int
    below_silent: int


@dataclass(frozen=True)
class Observed:
    """SYNs that reached listeners, in order of time: those that a queue may have decided over.

    Attributes:
        host, port: Of the listener.
        time: ns.
        silent: True if nothing came back, False if a SYN-ACK did.
        row: Row number in the capture.
    """

    host: Array
    port: Array
    time: Array
    silent: Array
    row: Array


@dataclass(frozen=True)
class Strain:
    """Listeners whose queues were full, and the silent SYNs that this explains.

    Attributes:
        listeners: One entry per listener with a full queue.
        rows: Row numbers, sorted.
        queue: Beside ``rows``: ``ACCEPT_FULL`` or ``SYN_FULL``.
        refuted: Row numbers of SYNs that were answered above the load.
    """

    listeners: tuple[Listener, ...]
    rows: Array
    queue: Array
    refuted: Array

    def of(self, rows: Array) -> Array:
        """The full queue that explains each row's silence, ``NOT_FULL`` for most."""
        if not len(self.rows):
            return np.zeros(len(rows), np.uint8)
        at = np.minimum(np.searchsorted(self.rows, rows), len(self.rows) - 1)
        return np.where(self.rows[at] == rows, self.queue[at], NOT_FULL).astype(np.uint8)


CALM = Strain((), np.zeros(0, np.int64), np.zeros(0, np.uint8), np.zeros(0, np.int64))


def strained(tracked: Tracked, seen: Observed, *, young_only: bool, cookies: bool) -> Strain:
    """Find listeners whose silence follows the load of a queue.

    Args:
        tracked: The capture's connections.
        seen: SYNs at listeners, answered and silent.
        young_only: The kernel drops at a full accept queue only while two young requests wait.
        cookies: SYN cookies are known to be on: a full SYN queue is not silent.
    """
    keys = _key(seen.host, seen.port)
    names, silent_syns = np.unique(keys[seen.silent], return_counts=True)
    names = names[silent_syns >= FEWEST_SILENT]
    if not len(names):
        return CALM
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    found: list[Fit] = []
    for some in np.array_split(names, 1 + tracked.connection_count // AT_ONCE):
        conns, of = _at(tracked, some)
        for name, syns, own in zip(some.tolist(), _groups(keys, some), _groups(of, some), strict=True):
            found += _judge(name, seen, order[syns], conns[own], young_only, cookies)
    if not found:
        return CALM
    rows = np.concatenate([fit.silent for fit in found])
    queue = np.concatenate([np.full(len(fit.silent), fit.listener.queue, np.uint8) for fit in found])
    by_row = np.argsort(rows)
    refuted = np.unique(np.concatenate([fit.answered for fit in found]))
    return Strain(tuple(fit.listener for fit in found), rows[by_row], queue[by_row], refuted)


def _key(host: Array, port: Array) -> Array:
    return host.astype(np.int64) << 16 | port


def _groups(keys: Array, names: Array) -> list[slice]:
    """Where each name stands in sorted keys."""
    starts, ends = np.searchsorted(keys, names), np.searchsorted(keys, names, side="right")
    return [slice(a, b) for a, b in zip(starts.tolist(), ends.tolist(), strict=True)]


@dataclass(frozen=True)
class Fit:
    """One full queue: its listener, the silent rows that it explains, and rows answered at its load."""

    listener: Listener
    silent: Array
    answered: Array


def _judge(name: int, seen: Observed, mine: Array, conns: Records, young_only: bool, cookies: bool) -> Iterator[Fit]:
    """The full queues of one listener, the clearer one first; the second explains what the first leaves."""
    times = seen.time[mine]
    half_open = _half_open(conns, times)
    waiting = _waiting(conns, times)
    loads = {ACCEPT_FULL: np.where(half_open > 1, waiting, 0) if young_only else waiting}
    if not cookies:
        loads[SYN_FULL] = half_open
    left = np.ones(len(mine), np.bool_)
    while loads and np.count_nonzero(seen.silent[mine[left]]) >= FEWEST_SILENT:
        silent = seen.silent[mine[left]]
        fits = [(*_threshold(load[left], silent), queue) for queue, load in loads.items()]
        gain, least, queue = max(fits)
        if gain < CLEAR:
            return
        load = loads.pop(queue)[left]
        above = (load >= least) | _peaks(load, silent, times[left])
        counts = [int(np.count_nonzero(x)) for x in (above & silent, above & ~silent, ~above, ~above & silent)]
        rows = seen.row[mine[left]]
        yield Fit(
            Listener(name >> 16, name & 0xFFFF, queue, least, *counts), rows[above & silent], rows[above & ~silent]
        )
        left[np.flatnonzero(left)[above & silent]] = False


def _at(tracked: Tracked, names: Array) -> tuple[Records, Array]:
    """Connections of the named listeners, sorted by listener, and whose each is."""
    conns = tracked.connections.columns(_WANTED, lambda rows: _is_one_of(_key(rows["resp"], rows["resp_p"]), names))
    keys = _key(conns["resp"], conns["resp_p"])
    order = np.argsort(keys, kind="stable")
    return pick(conns, order), keys[order]


def _is_one_of(keys: Array, names: Array) -> Array:
    """Whether each key is among the sorted names."""
    if not len(names):
        return np.zeros(len(keys), np.bool_)
    return names[np.minimum(np.searchsorted(names, keys), len(names) - 1)] == keys


def _time(column: Array) -> Array:
    return np.where(column == NO_TIME, NEVER, column)


def _waiting(conns: Records, times: Array) -> Array:
    """Connections in the accept queue at the most: established, and the application not heard since.

    The queue is first in, first out: what the application says on one connection, it had accepted all before.
    """
    done = conns[conns["established_time"] != NO_TIME]
    done = done[np.argsort(done["established_time"], kind="stable")]
    heard = np.minimum(_time(done["first_data_resp"]), _time(done["fin_resp_time"]))
    accepted = np.minimum.accumulate(heard[::-1])[::-1]
    accepted = np.minimum(accepted, _time(done["rst_time"]))
    return _count(done["established_time"], times) - _count(np.sort(accepted), times)


def _half_open(conns: Records, times: Array) -> Array:
    """Requests at the most: a SYN-ACK was sent, and no third ACK or RST has come."""
    born = conns[conns["syn_ack_time"] != NO_TIME]
    end = np.minimum(_time(born["established_time"]), _time(born["rst_time"]))
    end = np.minimum(end, born["syn_ack_time"] + REQUEST_LIFE)
    return _count(np.sort(born["syn_ack_time"]), times) - _count(np.sort(end), times)


def _count(times: Array, until: Array) -> Array:
    return np.searchsorted(times, until, side="left")


def _peaks(load: Array, silent: Array, times: Array) -> Array:
    """Silent SYNs under a load above that of the answered SYNs next to them in time: a shorter jam of the queue."""
    heard = np.flatnonzero(~silent)
    known = np.concatenate(([-1], load[heard], [-1]))
    place = np.searchsorted(times[heard], times)
    return silent & (load >= SMALLEST_LOAD) & (load > known[place]) & (load > known[place + 1])


def _threshold(load: Array, silent: Array) -> tuple[float, int]:
    """(gain, load): the load that parts silent SYNs from answered ones best; gain 0 where none does.

    The gain is twice the log-likelihood of one silent share above and one below, over that of one share.
    """
    order = np.argsort(load, kind="stable")
    levels, first = np.unique(load[order], return_index=True)
    quiet = np.concatenate(([0], np.cumsum(silent[order])))
    total, all_quiet = len(load), int(quiet[-1])
    best = (0.0, 0)
    for level, start in zip(levels.tolist(), first.tolist(), strict=True):
        above, quiet_above = total - start, all_quiet - int(quiet[start])
        if level < SMALLEST_LOAD or not start or quiet_above < FEWEST_SILENT or quiet_above < MOSTLY_SILENT * above:
            continue
        parted = _log_likelihood(quiet_above, above) + _log_likelihood(int(quiet[start]), start)
        gain = 2 * (parted - _log_likelihood(all_quiet, total))
        if gain > best[0]:
            best = (gain, level)
    return best


def _log_likelihood(hits: int, total: int) -> float:
    share = hits / total
    parts = [(hits, share), (total - hits, 1 - share)]
    return float(sum(n * np.log(p) for n, p in parts if n))
