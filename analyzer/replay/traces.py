"""What packets tell of the server's kernel, besides the verdicts: its timestamp clock and its habits."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from analyzer.connections import Tracked
from analyzer.kernel.rules import RULE_NAMES
from analyzer.replay.run import Replayed
from analyzer.schema import (
    ANSWER_ACK,
    ANSWER_NONE,
    ANSWER_SYN_ACK,
    FIN,
    OPT_TS,
    SEEN_SYN_ACK,
    SEEN_TS_RESP,
)
from analyzer.spool import pick
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
    rows = tracked.connections.columns(("orig", "resp", "chain", "syn_ack_time", "first_tsval_resp"), _stamped)
    rows = rows[~np.isin(rows["resp"], list(fronts))][:MOST_CONNECTIONS]
    if len(rows) < FEW:
        return ServerClock()
    servers, count = np.unique(rows["resp"], return_counts=True)
    rows = pick(rows, rows["resp"] == servers[np.argmax(count)])
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


@dataclass
class _Tally:
    """SYNs by what their rule foretold and what came back."""

    behind_silent: int = 0
    ahead_taken: int = 0
    behind_taken: int = 0
    held_back: int = 0
    not_held_back: int = 0
    live_silent: int = 0
    acked: list[tuple[int, int]] = field(default_factory=list)  # (frame of the bare ACK, timestamp held)

    def add(self, syns: Records, verdicts: Records) -> None:
        """Count SYN_ROW records with their VERDICT records."""
        answer, delta = syns["answer"], verdicts["tsval_delta"]
        told = (verdicts["compared"] == 1) & (verdicts["stamp_age"] < 60 * NS) & np.isin(verdicts["rule"], _MEMORY)
        behind = told & (delta < -1)
        self.behind_silent += int(np.count_nonzero(behind & (answer == ANSWER_NONE)))
        self.behind_taken += int(np.count_nonzero(behind & (answer == ANSWER_SYN_ACK)))
        self.ahead_taken += int(np.count_nonzero(told & ~behind & (answer == ANSWER_SYN_ACK)))
        limited = np.isin(verdicts["rule"], _LIMITED)
        self.held_back += int(np.count_nonzero(limited & (answer == ANSWER_NONE)))
        self.not_held_back += int(np.count_nonzero(limited & (answer == ANSWER_ACK)))
        self.live_silent += int(np.count_nonzero((verdicts["rule"] == _SILENT) & (answer == ANSWER_NONE)))
        acked = (answer == ANSWER_ACK) & (verdicts["compared"] == 1)
        room = MOST_CONNECTIONS - len(self.acked)
        held = zip(syns["answer_frame"][acked].tolist(), verdicts["peer_tsval"][acked].tolist(), strict=True)
        self.acked.extend(list(held)[:room])


def evidence(tracked: Tracked, replayed: Replayed) -> tuple[str, ...]:
    """What speaks for the kernel and settings of a replay, one sentence each."""
    tally = _Tally()
    for syns, verdicts in zip(tracked.syns.chunks(), replayed.verdicts.chunks(), strict=False):
        tally.add(syns[: len(verdicts)], verdicts)
    said = (
        _memory_and_live(tally),
        _taken_over(tracked),
        _echoes(tracked, dict(tally.acked)),
        _clock(server_clock(tracked)),
    )
    return tuple(text for texts in said for text in texts if text)


def _memory_and_live(t: _Tally) -> tuple[str, ...]:
    """The memory's dichotomy, the rate limit of bare ACKs, and silence on open connections."""
    dichotomy = limit = silent = ""
    if t.behind_silent > 1 and t.ahead_taken > 1 and t.behind_taken * 10 <= t.behind_silent:
        dichotomy = (
            f"{t.behind_silent:,} SYNs more than one tick behind the timestamp remembered for their address got no "
            f"answer, {t.ahead_taken:,} at or ahead of it were taken ({t.behind_taken:,} exceptions): tcp_tw_recycle."
        )
    if t.held_back > t.not_held_back:
        limit = (
            f"{t.held_back:,} SYNs within 500 ms of a bare ACK got none ({t.not_held_back:,} did): the ACK rate limit "
            "of 4.0 and el7.3."
        )
    if t.live_silent:
        silent = f"{t.live_silent:,} SYNs on open connections got no answer: 3.8 to 3.16."
    return dichotomy, limit, silent


def _taken_over(tracked: Tracked) -> tuple[str, ...]:
    """Server ISNs that continue the connection before: a SYN accepted by its TIME-WAIT."""
    parts = []
    for rows in tracked.connections.chunks():
        reused = (rows["previous"] >= 0) & ((rows["seen"] & SEEN_SYN_ACK) > 0)
        parts.append(rows[["previous", "isn_resp"]][reused])
    if not parts:
        return ()
    pairs: Records = np.concatenate(parts)[:MOST_CONNECTIONS]
    if not len(pairs):
        return ()
    ends: dict[int, int] = {}
    for rows in tracked.events.chunks():
        fins = rows[(rows["resp"] == 1) & ((rows["flags"] & FIN) > 0) & np.isin(rows["conn"], pairs["previous"])]
        end = (fins["seq"].astype(np.int64) + fins["length"] + 1) & 0xFFFFFFFF
        ends.update(zip(fins["conn"].tolist(), end.tolist(), strict=True))
    count = sum((isn - ends.get(old, isn)) & 0xFFFFFFFF == ISN_STEP for old, isn in pairs.tolist())
    return (f"{count:,} connections began at the old one's last number + 65537, out of TIME-WAIT.",) if count else ()


def _echoes(tracked: Tracked, held: dict[int, int]) -> tuple[str, ...]:
    """Bare ACKs whose TSecr is the timestamp that the replay holds for the bucket."""
    right = wrong = 0
    frames = np.array(list(held), np.int64)
    for rows in tracked.events.chunks() if held else ():
        acks = rows[(rows["resp"] == 1) & ((rows["opts"] & OPT_TS) > 0) & np.isin(rows["frame"], frames)]
        for frame, tsecr in acks[["frame", "tsecr"]].tolist():
            right += held[frame] == tsecr
            wrong += held[frame] != tsecr
    if not right:
        return ()
    return (f"{right:,} of {right + wrong:,} bare ACKs echo the timestamp that the replay holds for the connection.",)


def _clock(clock: ServerClock) -> tuple[str, ...]:
    """What the timestamp clock says of the kernel's era."""
    if clock.era == "one":
        text = (
            f"The server shows one timestamp clock of {clock.hz} Hz to {clock.peers:,} addresses: 4.9 or earlier, "
            "or tcp_timestamps=2."
        )
    elif clock.era == "per address":
        text = f"The server shows each of {clock.peers:,} addresses a timestamp offset of its own: 4.10 or later."
    elif clock.era == "per connection":
        text = "The server shows each connection a timestamp offset of its own: 4.10.0, or a kernel of 2026."
    else:
        return ()
    return (text,)
