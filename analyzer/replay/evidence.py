"""What proves that a server remembers nothing from before the capture.

In the first minute of a capture most verdicts hang on what may have happened before it.  Two things
show that nothing did: a server that had only just booted when the capture began, and counters that
count from boot and show no connection but those in the capture.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from analyzer.connections import Tracked
from analyzer.kernel.profiles import Profile
from analyzer.schema import KIND_TCP, OPT_TS, RST, SEEN_ESTABLISHED, SEEN_MIDSTREAM, SYN
from analyzer.spool import Spool
from analyzer.units import MS, NO_TIME, NS

JUST_BOOTED = NS
"""No server takes, serves and closes a connection within this time of its kernel's start."""
TICKS_PER_SECOND = (100, 250, 300, 1000)
"""CONFIG_HZ of the kernels whose timestamps count ticks."""
FIRST_JIFFIES_S = -300
"""Ticks start five minutes before their wrap (INITIAL_JIFFIES, include/linux/jiffies.h)."""
OFFSETS_SINCE = (4, 10)
"""From here on timestamps carry a random offset and tell no uptime."""
JITTER = 20 * MS
DRIFT_PPM = 500

_NEVER = np.iinfo(np.int64).max


@dataclass(frozen=True)
class Boot:
    """A server's start, read off its own timestamps.

    Attributes:
        proven: Capture time from which packets had shown it, ns.
        booted: When the kernel started, ns.
        hz: Ticks per second of its timestamps.
    """

    proven: int
    booted: int
    hz: int


_BOOTS: WeakKeyDictionary[Spool, tuple[Boot | None]] = WeakKeyDictionary()


def booted(tracked: Tracked, profile: Profile) -> Boot | None:
    """The server's start, if it lies less than a second before the capture's first packet.

    Kernels up to 4.9 send their tick counter, which starts at -300 s at boot.  All timestamps of all
    servers of the capture must tell the same start at one of the kernels' tick rates, and no
    connection may be older than the capture.  A counter that has wrapped looks the same once in 50 days or
    more, for one second.  SYN-ACKs are not read.

    Returns:
        None where nothing is proven: later kernels, other clocks, a later start of the capture.
    """
    if profile.first >= OFFSETS_SINCE:
        return None
    known = _BOOTS.get(tracked.events)
    if known is None:
        known = _BOOTS[tracked.events] = (_read(tracked),)
    return known[0]


def capture_start(tracked: Tracked) -> int:
    """Time of the capture's first packet of any protocol, ns: from there on nothing was missed."""
    times = [info.first_time for info in tracked.files if info.packets and info.first_time != NO_TIME]
    return max(min([*times, tracked.first_time]), 0) if tracked.first_time != NO_TIME else 0


def _read(tracked: Tracked) -> Boot | None:
    server = np.full(len(tracked.chain_syns), -1, np.int32)
    for rows in tracked.connections.chunks():
        if np.any(rows["seen"] & SEEN_MIDSTREAM):
            return None
        server[rows["chain"]] = rows["resp"]
    for rows in tracked.syns.chunks():
        server[rows["chain"]] = rows["resp"]
    servers = np.unique(server[server >= 0])
    proven = np.full(len(tracked.hosts), _NEVER, np.int64)
    boot: Boot | None = None
    for rows in tracked.events.chunks():
        said = _own_clock(rows)
        if not len(said):
            continue
        if boot is None:
            boot = _start_of(said, capture_start(tracked))
        if boot is None or not np.all(_agrees(said, boot)):
            return None
        np.minimum.at(proven, server[said["chain"]], said["time"])
    if boot is None or not len(servers) or np.any(proven[servers] == _NEVER):
        return None
    return Boot(int(proven[servers].max()), boot.booted, boot.hz)


def _own_clock(rows: Any) -> Any:
    """The responders' packets that carry their own timestamps, SYN-ACKs left out."""
    told = (rows["resp"] == 1) & (rows["kind"] == KIND_TCP) & ((rows["opts"] & OPT_TS) > 0)
    return rows[told & ((rows["flags"] & (SYN | RST)) == 0)]


def _start_of(said: Any, first_time: int) -> Boot | None:
    """The start that the first timestamp tells, if the capture began within a second of it."""
    for hz in TICKS_PER_SECOND:
        ticks = (int(said["tsval"][0]) - FIRST_JIFFIES_S * hz) & 0xFFFFFFFF
        start = int(said["time"][0]) - ticks * NS // hz
        if -JITTER <= first_time - start <= JUST_BOOTED:
            return Boot(0, start, hz)
    return None


def _agrees(said: Any, boot: Boot) -> Any:
    """Which timestamps fit the tick rate and the start."""
    elapsed = said["time"] - boot.booted
    expected = elapsed // (NS // boot.hz) if NS % boot.hz == 0 else elapsed * boot.hz // NS
    shown = (said["tsval"].astype(np.int64) - FIRST_JIFFIES_S * boot.hz) & 0xFFFFFFFF
    allowed = 2 + (JITTER + elapsed // 1_000_000 * DRIFT_PPM) * boot.hz // NS
    return np.abs(shown - expected) <= allowed


def empty_by_counters(before: Mapping[str, int], after: Mapping[str, int], handshakes: int) -> str:
    """Whether counters prove that the capture holds every connection since boot.

    Args:
        before: Counters by their /proc names (``PassiveOpens``, ``TW``, ``ListenOverflows`` …), ``Tcp:`` and
            ``TcpExt:`` together, taken before the capture.
        after: The same, taken after it.
        handshakes: Completed handshakes that the capture shows, see :func:`completed_handshakes`.

    Returns:
        One sentence that says why, or an empty text where nothing is proven.  The server must have
        accepted nothing before, and afterwards exactly what the capture shows: then nothing happened between
        the first snapshot and the first packet either, and a capture whose head was cut off proves nothing.
    """
    needed = ("PassiveOpens", "TW", "TWKilled")
    if any(name not in before for name in needed) or "PassiveOpens" not in after or not handshakes:
        return ""
    if any(before[name] for name in needed) or after["PassiveOpens"] != handshakes:
        return ""
    if after.get("ListenOverflows", 0) or after.get("SyncookiesRecv", 0):
        return ""
    return (
        f"The server had accepted nothing before (PassiveOpens = 0), and its {handshakes:,} connections since "
        "are all in the capture."
    )


def completed_handshakes(tracked: Tracked) -> int:
    """Handshakes that were completed in the capture."""
    return sum(int(np.count_nonzero(rows["seen"] & SEEN_ESTABLISHED)) for rows in tracked.connections.chunks())
