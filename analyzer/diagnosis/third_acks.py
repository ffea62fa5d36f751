"""What the last segment of a handshake moved: requests that the accept queue had no room for.

A third ACK that finds the accept queue full counts like a dropped SYN, and so does every segment of
the same client until one is taken (kernel model A4).  The wire shows it afterwards: the client's data
lie unacknowledged, or it repeats its ACK because the SYN-ACK came again.
"""

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np

from analyzer.connections import Tracked
from analyzer.schema import ACK, FIN, KIND_TCP, RST, SEEN_ESTABLISHED, SEEN_SYN_ACK, SYN
from analyzer.spool import pick
from analyzer.units import MS

Records = np.ndarray[Any, np.dtype[np.void]]

PATIENCE = 300 * MS
"""No acknowledgment of data is held back this long (delayed ACKs wait 200 ms at the most)."""
CROSSING = 2 * MS
"""A word of the server later than this after a segment was sent in knowledge of it."""
ABORT_WITHIN = 20 * MS
MOST_SEGMENTS = 2_000_000


@dataclass
class ThirdAcks:
    """Segments of half-open handshakes by what became of them.

    Attributes:
        ignored: Segments dropped for want of room, as far as the packets prove it.
        doubtful: More segments that may have been dropped so.
        aborted: Handshakes that the server reset at the third ACK (tcp_abort_on_overflow).
        never_taken: Established from the client's side only.
        client_resets: RSTs of a client on its half-open request.
        resets: RSTs that the responders sent.
    """

    ignored: int = 0
    doubtful: int = 0
    aborted: int = 0
    never_taken: int = 0
    client_resets: int = 0
    resets: int = 0


def third_acks(tracked: Tracked, abort: bool, foreign: int = -1) -> ThirdAcks:
    """Follow every handshake from its SYN-ACK to the first word of the server.

    Args:
        tracked: A server-side capture.
        abort: Whether ``tcp_abort_on_overflow`` is on.
        foreign: Host id whose own connections are left out (the server's outgoing ones), -1 for none.
    """
    found = ThirdAcks()
    begun, ours = _begun(tracked, foreign)
    segments: dict[int, list[Any]] = defaultdict(list)
    spoke: dict[int, int] = {}
    kept = 0
    for chunk in tracked.events.chunks():
        packets = pick(chunk, (chunk["kind"] == KIND_TCP) & ours[chunk["conn"]])
        found.resets += int(np.count_nonzero((packets["resp"] == 1) & (packets["flags"] & RST > 0)))
        rows = pick(packets, begun[packets["conn"]])
        for time, conn, seq, ack, length, flags, seen, resp in rows[
            ["time", "conn", "seq", "ack", "length", "flags", "seen", "resp"]
        ].tolist():
            if conn in spoke or flags & SYN:
                continue
            if resp:
                heard = None if flags & RST else ack
                _settle(found, segments.pop(conn, []), time, bool(flags & RST), abort, heard=heard)
                spoke[conn] = time
            elif flags & RST:
                if conn not in segments and seen & SEEN_SYN_ACK and not seen & SEEN_ESTABLISHED:
                    found.client_resets += 1
                    spoke[conn] = time
            elif flags & ACK and kept < MOST_SEGMENTS:
                segments[conn].append((time, seq, length, bool(flags & FIN)))
                kept += 1
    for rest in segments.values():
        _settle(found, rest, tracked.last_time, False, abort, silent=True)
    return found


def _begun(tracked: Tracked, foreign: int) -> tuple[Any, Any]:
    """By connection id, bool: its SYN-ACK was seen; the server did not open it itself."""
    begun, ours = np.zeros((2, max(tracked.connection_count, 1)), np.bool_)
    for chunk in tracked.connections.chunks():
        ours[chunk["conn"]] = chunk["orig"] != foreign
        begun[chunk["conn"]] = (chunk["orig"] != foreign) & (chunk["seen"] & SEEN_SYN_ACK > 0)
    return begun, ours


def _settle(
    found: ThirdAcks,
    segments: list[Any],
    until: int,
    reset: bool,
    abort: bool,
    silent: bool = False,
    heard: int | None = None,
) -> None:
    """Judge the client's segments that came before the server's first word (or reset) at *until*.

    That word's acknowledgment *heard* proves more: a segment that begins there had not been taken.
    """
    if not segments:
        return
    if reset and abort and until - segments[0][0] < ABORT_WITHIN:
        found.aborted += 1
        found.never_taken += 1
        return
    waiting = [
        i
        for i, (time, seq, length, fin) in enumerate(segments)
        if (length or fin) and (until - time > PATIENCE or (seq == heard and until - time > CROSSING))
    ]
    ignored = waiting[-1] + 1 if waiting else 0
    if not ignored:
        first = segments[0][1]
        repeats = sum(not length and not fin and seq == first for _, seq, length, fin in segments[1:])
        found.doubtful += max(repeats, _before_a_repeat(segments))
        return
    rest = len(segments) - ignored
    if reset or silent:
        found.never_taken += 1
        found.ignored += ignored - (1 if reset and not rest else 0)
        return
    found.ignored += ignored
    found.doubtful += max(rest - 1, 0)


def _before_a_repeat(segments: list[Any]) -> int:
    """Segments up to the last one with data that the client sent again: it had not been acknowledged."""
    last = {seq: at for at, (_, seq, length, fin) in enumerate(segments) if length or fin}
    again = [at for at, (_, seq, length, fin) in enumerate(segments) if (length or fin) and last[seq] > at]
    return again[-1] + 1 if again else 0
