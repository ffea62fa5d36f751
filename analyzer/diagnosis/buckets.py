"""TIME-WAIT buckets of the server, for the counters TW and TWKilled.

A bucket counts as TW when its timer was a minute, as TWKilled when it was short (up to 4 s, so the ones
that tcp_tw_recycle shortened).  Kernels before 5.18 count when the timer fires, later ones when it is set.
net/ipv4/inet_timewait_sock.c ``tw_timer_handler``, ``__inet_twsk_schedule``.
"""

from typing import Any

import numpy as np

from analyzer.diagnosis.model import Vantage
from analyzer.kernel.rules import bucket_life_ns, fin_time_ns, rto_bounds_ns
from analyzer.schema import (
    ANSWER_SYN_ACK,
    CLOSER_BOTH,
    SEEN_FIN_ORIG,
    SEEN_FIN_RESP_ACKED,
    SEEN_TS_AGREED,
)
from analyzer.units import NO_TIME, NS, US

Records = np.ndarray[Any, np.dtype[np.void]]

COUNTED_AT_ARMING = (5, 18)
SHORT_NS = 4 * NS


def buckets(vantage: Vantage, foreign: int = -1) -> dict[str, tuple[int, int, int]]:
    """Low, likeliest and high rise of TW and TWKilled until the capture's last packet.

    Args:
        vantage: A server-side capture with its replay.
        foreign: Host id whose own connections are left out, -1 for none.
    """
    assert vantage.replayed is not None
    profile = vantage.replayed.hypothesis.profile
    reused = _next_accepted(vantage)
    sums = {"TW": [0, 0, 0], "TWKilled": [0, 0, 0]}
    for chunk in vantage.tracked.connections.chunks():
        rows = chunk[_closed_first(chunk) & (chunk["seen"] & SEEN_FIN_RESP_ACKED > 0) & (chunk["orig"] != foreign)]
        born = _born(rows)
        lives = _lives(vantage, rows)
        end = _killed(rows, born, reused)
        short = lives[0] <= SHORT_NS
        for name, kind in (("TW", ~short), ("TWKilled", short)):
            counts = [_fired(vantage, born, life, end, kind) for life in (lives[1], (lives[0] + lives[1]) // 2)]
            counts.append(int(np.count_nonzero(kind & (born + lives[0] < end))))  # however late the snapshot is
            armed = int(np.count_nonzero(kind & (born < end)))
            if profile.first >= COUNTED_AT_ARMING:
                counts = [armed] * 3
            elif profile.last >= COUNTED_AT_ARMING:
                counts = [counts[0], armed, armed]
            sums[name] = [a + b for a, b in zip(sums[name], counts, strict=True)]
    return {name: (low, likely, high) for name, (low, likely, high) in sums.items()}


def _closed_first(rows: Records) -> Any:
    """Whether the server's FIN was not an answer to the client's."""
    later = (rows["seen"] & SEEN_FIN_ORIG == 0) | (rows["fin_resp_time"] < rows["fin_orig_time"])
    return (rows["fin_resp_time"] != NO_TIME) & (later | (rows["closer"] == CLOSER_BOTH))


def _born(rows: Records) -> Any:
    """When each bucket entered TIME_WAIT: at the client's FIN, or at the ACK of the server's if that was later."""
    fin = np.where(rows["seen"] & SEEN_FIN_ORIG > 0, rows["fin_orig_time"], rows["fin_resp_acked"])
    return np.maximum(fin, rows["fin_resp_acked"])


def _lives(vantage: Vantage, rows: Records) -> tuple[Any, Any]:
    """Shortest and longest life of each bucket, ns."""
    assert vantage.replayed is not None
    hypothesis = vantage.replayed.hypothesis
    profile, settings = hypothesis.profile, hypothesis.settings
    long = bucket_life_ns(profile, settings, False, 0)
    waits = rows["seen"] & SEEN_FIN_ORIG == 0
    low = np.where(waits, fin_time_ns(settings, 0), long[0])
    high = np.where(waits, fin_time_ns(settings, 0), long[1])
    if hypothesis.remembers:
        recycled = np.flatnonzero(~waits & (rows["seen"] & SEEN_TS_AGREED > 0))
        for i in recycled:
            rto = rto_bounds_ns(int(rows["rtt_min"][i]) * US, int(rows["rtt_max"][i]) * US)
            low[i] = bucket_life_ns(profile, settings, True, rto[0])[0]
            high[i] = bucket_life_ns(profile, settings, True, rto[1])[1]
    return low, high


def _killed(rows: Records, born: Any, reused: Any) -> Any:
    """When each bucket ended before its time: a RST, or a new connection on its four numbers."""
    never = np.iinfo(np.int64).max
    reset = np.where((rows["rst_time"] != NO_TIME) & (rows["rst_time"] >= born), rows["rst_time"], never)
    again = reused[rows["conn"]]
    return np.minimum(reset, again)


def _next_accepted(vantage: Vantage) -> Any:
    """int64 by connection id: when the next connection on its four numbers was answered or reset; far off if never."""
    never = np.iinfo(np.int64).max
    tracked = vantage.tracked
    answered = np.full(max(tracked.connection_count, 1), never, np.int64)
    for chunk in tracked.syns.chunks():
        rows = chunk[chunk["answer"] == ANSWER_SYN_ACK]
        np.minimum.at(answered, rows["conn"], rows["time"])
    again = np.full(len(answered), never, np.int64)
    for chunk in tracked.connections.chunks():
        rows = chunk[chunk["previous"] >= 0]
        reset = np.where(rows["rst_time"] != NO_TIME, rows["rst_time"], never)
        np.minimum.at(again, rows["previous"], np.minimum(answered[rows["conn"]], reset))
    return again


def _fired(vantage: Vantage, born: Any, life: Any, end: Any, kind: Any) -> int:
    fires = born + life
    return int(np.count_nonzero(kind & (fires < end) & (fires <= vantage.tracked.last_time)))
