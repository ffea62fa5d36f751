"""What packets tell of the server's kernel, besides the verdicts: its timestamp clock and its habits."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from analyzer.connections import Tracked
from analyzer.kernel.rules import RULE_NAMES
from analyzer.replay.run import Replayed
from analyzer.schema import (
    ANSWER_ACK,
    ANSWER_NONE,
    ANSWER_SYN_ACK,
    CONNECTION,
    FIN,
    OPT_TS,
    SEEN_SYN_ACK,
    SEEN_TS_RESP,
)
from analyzer.units import NO_TIME, NS

Records = np.ndarray[Any, np.dtype[np.void]]
RATES = (1000, 250, 100, 300)
"""Ticks per second of Linux timestamps."""
MOST_CONNECTIONS = 20_000
SPREAD_S = 0.25
"""Seconds by which one clock's readings may differ within a capture: drift and queueing."""
MOST_READINGS = 0.95
FEW = 3
"""So many connections, or addresses, at the least."""
DISTINCT = 0.8
"""Share of addresses, or connections, that must show a clock of their own."""
MOST_GROUPS = 200
ISN_STEP = 65_537
_LIMITED = [number for number, name in enumerate(RULE_NAMES) if name.endswith("_rate_limited")]
_SILENT = RULE_NAMES.index("live_silent")
_MEMORY = [RULE_NAMES.index(name) for name in ("listener", "peer_timestamp", "peer_timestamp_missing")]


@dataclass(frozen=True)
class ServerClock:
    """The timestamp clock that a server shows in its SYN-ACKs.

    Attributes:
        era: ``one`` clock for every peer (up to 4.9, or tcp_timestamps=2), one ``per address`` pair (4.10 and
            later) or ``per connection`` (4.10.0, and kernels of 2026), or empty where the capture cannot tell.
        hz: Its ticks per second, 0 if not known.
        peers: Client addresses it rests on.
    """

    era: str = ""
    hz: int = 0
    peers: int = 0


def server_clock(tracked: Tracked, fronts: frozenset[int] = frozenset()) -> ServerClock:
    """Which era's timestamp clock the busiest server shows.

    Args:
        tracked: The capture's tables.
        fronts: Host ids that a load balancer answers for: several servers may stand behind one.
    """
    parts = [rows[_stamped(rows)] for rows in tracked.connections.chunks()]
    rows = np.concatenate(parts) if parts else np.zeros(0, CONNECTION.dtype)
    rows = rows[~np.isin(rows["resp"], list(fronts))][:MOST_CONNECTIONS]
    if len(rows) < FEW:
        return ServerClock()
    servers, count = np.unique(rows["resp"], return_counts=True)
    rows = rows[rows["resp"] == servers[np.argmax(count)]]
    return _read_clock(rows) if len(rows) >= FEW else ServerClock()


def _read_clock(rows: Records) -> ServerClock:
    """The clock behind one server's SYN-ACKs."""
    peers = len(np.unique(rows["orig"]))
    if np.ptp(rows["syn_ack_time"]) > NS:
        for hz in RATES:
            if peers > 1 and _close(_offsets(rows, hz), hz):
                return ServerClock("one", hz, peers)
    hz = RATES[0]
    offset = _offsets(rows, hz)
    if len(np.unique(offset // max(int(SPREAD_S * hz), 1))) < DISTINCT * FEW:
        return ServerClock()
    for era, key in (
        ("per address", rows["orig"].astype(np.int64)),
        ("per connection", rows["chain"].astype(np.int64)),
    ):
        values, group, size = np.unique(key, return_inverse=True, return_counts=True)
        one_each = offset[np.unique(group, return_index=True)[1]]
        clusters = len(np.unique(one_each // max(int(SPREAD_S * hz), 1)))
        again = [offset[group == number] for number in np.flatnonzero(size > 1)[:MOST_GROUPS].tolist()]
        if len(values) >= FEW and clusters >= DISTINCT * len(values) and all(_close(g, hz) for g in again):
            return ServerClock(era, hz, peers)
    return ServerClock()


def _stamped(rows: Records) -> Any:
    wanted = SEEN_SYN_ACK | SEEN_TS_RESP
    return ((rows["seen"] & wanted) == wanted) & (rows["syn_ack_time"] != NO_TIME)


def _offsets(rows: Records, hz: int) -> Any:
    """Each connection's timestamp less the ticks since the first, int64, on the circle of 2**32."""
    ticks = (rows["syn_ack_time"] - rows["syn_ack_time"].min()) * hz // NS
    return (rows["first_tsval_resp"].astype(np.int64) - ticks) & 0xFFFFFFFF


def _close(offset: Any, hz: int) -> bool:
    """Whether nearly all readings are of one clock; a few may be of packets that spoke before the SYN-ACK."""
    around = ((offset - offset[len(offset) // 2] + 2**31) & 0xFFFFFFFF) - 2**31
    near = np.abs(around - np.median(around)) <= max(SPREAD_S * hz, 3)
    return bool(np.mean(near) >= MOST_READINGS)


def evidence(tracked: Tracked, replayed: Replayed) -> tuple[str, ...]:
    """What speaks for the kernel and settings of a replay, one sentence each."""
    syns, verdicts = tracked.syns.to_array(), replayed.verdicts.to_array()
    syns = syns[: len(verdicts)]
    said = (
        _dichotomy(syns, verdicts),
        _taken_over(tracked),
        _echoes(tracked, syns, verdicts),
        _held_back(syns, verdicts),
        _silent_on_live(syns, verdicts),
        _clock(server_clock(tracked)),
    )
    return tuple(text for text in said if text)


def _dichotomy(syns: Records, verdicts: Records) -> str:
    """SYNs of the same addresses, told apart by their timestamps alone."""
    told = (verdicts["compared"] == 1) & (verdicts["stamp_age"] < 60 * NS) & (verdicts["tsval_delta"] != 0)
    behind, ahead = told & (verdicts["tsval_delta"] < -1), told & (verdicts["tsval_delta"] >= -1)
    memory = np.isin(verdicts["rule"], _MEMORY)
    silent = int(np.count_nonzero(behind & memory & (syns["answer"] == ANSWER_NONE)))
    passed = int(np.count_nonzero(ahead & memory & (syns["answer"] == ANSWER_SYN_ACK)))
    odd = int(np.count_nonzero(behind & memory & (syns["answer"] == ANSWER_SYN_ACK)))
    if silent < 2 or passed < 2 or odd * 10 > silent:
        return ""
    return (
        f"{silent:,} SYNs more than one tick behind the timestamp last remembered for their address got no answer, "
        f"{passed:,} at or ahead of it were answered ({odd:,} exceptions): tcp_tw_recycle."
    )


def _taken_over(tracked: Tracked) -> str:
    """Server ISNs that continue the connection before: a SYN accepted by its TIME-WAIT."""
    ends: dict[int, int] = {}
    for rows in tracked.events.chunks():
        fins = rows[(rows["resp"] == 1) & ((rows["flags"] & FIN) > 0)]
        end = (fins["seq"].astype(np.int64) + fins["length"] + 1) & 0xFFFFFFFF
        ends.update(zip(fins["conn"].tolist(), end.tolist(), strict=True))
    count = 0
    for rows in tracked.connections.chunks():
        reused = rows[(rows["previous"] >= 0) & ((rows["seen"] & SEEN_SYN_ACK) > 0)]
        for previous, isn in reused[["previous", "isn_resp"]].tolist():
            count += previous in ends and (isn - ends[previous]) & 0xFFFFFFFF == ISN_STEP
    return f"{count:,} connections began at the old one's last number + 65537, out of TIME-WAIT." if count else ""


def _echoes(tracked: Tracked, syns: Records, verdicts: Records) -> str:
    """Bare ACKs whose TSecr is the timestamp that the replay holds for the bucket."""
    asked = (syns["answer"] == ANSWER_ACK) & (verdicts["compared"] == 1)
    held = dict(zip(syns["answer_frame"][asked].tolist(), verdicts["peer_tsval"][asked].tolist(), strict=True))
    right = wrong = 0
    for rows in tracked.events.chunks():
        acks = rows[(rows["resp"] == 1) & ((rows["opts"] & OPT_TS) > 0) & np.isin(rows["frame"], list(held))]
        for frame, tsecr in acks[["frame", "tsecr"]].tolist():
            right += held[frame] == tsecr
            wrong += held[frame] != tsecr
    if not right:
        return ""
    return f"{right:,} of {right + wrong:,} bare ACKs echo the timestamp that the replay holds for the old connection."


def _held_back(syns: Records, verdicts: Records) -> str:
    """Whether a second bare ACK within half a second is sent."""
    limited = np.isin(verdicts["rule"], _LIMITED)
    kept = int(np.count_nonzero(limited & (syns["answer"] == ANSWER_NONE)))
    sent = int(np.count_nonzero(limited & (syns["answer"] == ANSWER_ACK)))
    if kept <= sent:
        return ""
    return f"{kept:,} SYNs within 500 ms of a bare ACK got none ({sent:,} did): the ACK rate limit of 4.0 and el7.3."


def _silent_on_live(syns: Records, verdicts: Records) -> str:
    """SYNs on open connections that get no answer at all."""
    silent = int(np.count_nonzero((verdicts["rule"] == _SILENT) & (syns["answer"] == ANSWER_NONE)))
    return f"{silent:,} SYNs on open connections got no answer: 3.8 to 3.16." if silent else ""


def _clock(clock: ServerClock) -> str:
    if clock.era == "one":
        return (
            f"The server shows one timestamp clock of {clock.hz} Hz to {clock.peers:,} addresses: 4.9 or earlier, "
            "or tcp_timestamps=2."
        )
    if clock.era == "per address":
        return f"The server shows each of {clock.peers:,} addresses a timestamp offset of its own: 4.10 or later."
    if clock.era == "per connection":
        return "The server shows each connection a timestamp offset of its own: 4.10.0, or a kernel of 2026."
    return ""
