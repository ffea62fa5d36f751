"""The clock of each capture against the first's, from packets that both saw.

Nothing is assumed to be synchronous.  A packet is never seen before it was sent: packets one way bound
the offset from above, packets the other way from below, and a clock that does not step leaves a straight
line between the two.  What remains is at most the smallest round trip and the resolution of the stamps.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from analyzer.schema import SEEN_ESTABLISHED, SEEN_SYN, SEEN_SYN_ACK
from analyzer.snat.hulls import PPM, Floats, Lines
from analyzer.snat.model import ClockOffset, OffsetSegment, Seen
from analyzer.snat.segments import Pieces, Points, pieces
from analyzer.snat.sightings import Book, Pairs, pairs, resolution
from analyzer.snat.splits import Split, split_of
from analyzer.units import NS

FEWEST_PAIRS = 2
PICTURE_BINS = 400

Bools = np.ndarray[Any, np.dtype[np.bool_]]


def align(seen: Sequence[Seen]) -> list[ClockOffset]:
    """Offsets of the captures' clocks against the load balancer's, or the first capture's if there is none.

    Args:
        seen: Captures with their vantages.

    Returns:
        One entry for each other capture that shares packets with the reference.
    """
    if len(seen) < 2:
        return []
    reference = next((s for s in seen if s.side == "lb"), seen[0])
    book = Book(reference.tracked)
    found = (_align(reference, book, other, Book(other.tracked)) for other in seen if other is not reference)
    return [offset for offset in found if offset is not None]


def _align(first: Seen, first_book: Book, second: Seen, second_book: Book) -> ClockOffset | None:
    shared = pairs(first_book, second_book)
    if len(shared) < FEWEST_PAIRS:
        return None
    splits = split_of(first_book, shared.first_conn), split_of(second_book, shared.second_conn)
    notes = _split_notes((first.name, second.name), splits)
    forward = _towards_second(shared, first_book, second_book, second.side, splits)
    shared = _on_originators_clocks(shared, splits)
    base = int(np.median(shared.second - shared.first))
    origin = int(shared.first.min())
    points = _points(shared, forward, splits, (origin, base))
    if not points.two_sided and not splits[1].found:
        points = _with_causal(points, _echoed(shared, forward, second_book), (origin, base))
    told = not any(split.contradictory for split in splits)
    cut = pieces(points) if told else Pieces([], 0)
    segments = [_segment(points[span], cut.slack, (origin, base)) for span in cut.spans]
    if told:
        notes += _notes(second.name, points, cut, shared.level)
    began = (origin - first.tracked.first_time) / NS
    picture = (_picture(points, began, base, True), _picture(points, began, base, False))
    return ClockOffset(first.name, second.name, tuple(segments), *picture, tuple(notes))


def _towards_second(shared: Pairs, a: Book, b: Book, side: str, splits: tuple[Split, Split]) -> Bools:
    """Which packets travelled from the first capture to the second.

    A capture is the nearer to a host the sooner it sees that host's answer.  Where the stamps cannot tell
    (clocks apart, no whole handshake), servers' captures are near the responder and clients' near the originator.
    """
    by_side = shared.from_resp if side == "client" else ~shared.from_resp
    if splits[0].found or splits[1].found:
        return by_side
    conns, at = np.unique(shared.second_conn, return_index=True)
    first, second = a.conns[shared.first_conn[at]], b.conns[conns]
    gaps = []
    whole = SEEN_SYN | SEEN_SYN_ACK
    usable = np.ones(len(conns), np.bool_)
    for told in (first, second):
        usable &= ((told["seen"] & whole) == whole) & (told["syn_count"] == 1) & (told["syn_ack_count"] == 1)
        gaps.append(told["syn_ack_time"] - told["syn_time"])
    vote = np.where(usable, np.sign(gaps[0] - gaps[1]), 0)
    hosts = np.zeros(len(b.tracked.hosts), np.int64)
    np.add.at(hosts, second["resp"], vote)
    np.add.at(hosts, second["orig"], -vote)
    nearer = (hosts[b.conns["resp"]] - hosts[b.conns["orig"]])[shared.second_conn]
    return np.where(nearer == 0, by_side, (nearer > 0) != shared.from_resp)


def _on_originators_clocks(shared: Pairs, splits: tuple[Split, Split]) -> Pairs:
    """The responders' packets moved by the middle of each capture's split."""
    first, second = (
        times - np.where(shared.from_resp, split.middle, 0)
        for times, split in ((shared.first, splits[0]), (shared.second, splits[1]))
    )
    return replace(shared, first=first, second=second)


def _points(shared: Pairs, forward: Bools, splits: tuple[Split, Split], zero: tuple[int, int]) -> Points:
    """Pairs as points; what is not known of the stamps is given to the bounds."""
    origin, base = zero
    x = (shared.first - origin) / NS
    y = (shared.second - shared.first - base).astype(np.float64)
    unsure = np.where(shared.from_resp, sum(split.half_width for split in splits), 0)
    y = np.where(forward, y + resolution(shared.second) + unsure, y - resolution(shared.first) - unsure)
    return Points(x, y, forward)


def _echoed(shared: Pairs, forward: Bools, second: Book) -> Any:
    """(first, second) times of third ACKs at the first capture and of the SYN-ACKs that they answer at the second.

    With direct server return the SYN-ACK never passes the first capture; the client's ACK, which it causes, does.
    """
    told, conn = second.conns, shared.second_conn
    whole = SEEN_SYN_ACK | SEEN_ESTABLISHED
    third = forward & ~shared.from_resp & ((told["seen"] & whole) == whole)[conn]
    third &= shared.second == told["established_time"][conn]
    return np.column_stack((shared.first[third], told["syn_ack_time"][conn[third]]))


def _with_causal(points: Points, causal: Any, zero: tuple[int, int]) -> Points:
    origin, base = zero
    x = (causal[:, 0] - origin) / NS
    y = (causal[:, 1] - causal[:, 0] - base).astype(np.float64) - resolution(causal[:, 0])
    return Points(
        np.concatenate((points.x, x)),
        np.concatenate((points.y, y)),
        np.concatenate((points.above, np.zeros(len(x), np.bool_))),
    )


def _segment(points: Points, slack: float, zero: tuple[int, int]) -> OffsetSegment:
    origin, base = zero
    start, end = float(points.x.min()), float(points.x.max())
    span = (origin + round(start * NS), origin + round(end * NS))
    lines = points.lines(slack) if points.two_sided else None
    if lines is None:
        # one direction only: the packet with the smallest delay, and no bound on the other side
        best = points.y.min() if points.above.all() else points.y.max()
        open_ended = float("inf")
        return OffsetSegment(*span, (base + float(best)) / NS, open_ended, 0.0, open_ended, len(points), open_ended)
    return _bounded(lines, (start, end), span, base, len(points))


def _bounded(lines: Lines, ends: tuple[float, float], span: tuple[int, int], base: int, count: int) -> OffsetSegment:
    """The line through the middle of the bounds at both ends."""
    (low0, high0), (low1, high1) = (lines.bounds(x) for x in ends)
    middle0, middle1 = (low0 + high0) / 2, (low1 + high1) / 2
    least, most = float(lines.slope[0]), float(lines.slope[-1])
    slope = (middle1 - middle0) / (ends[1] - ends[0]) if ends[1] > ends[0] else (least + most) / 2
    return OffsetSegment(
        *span,
        seconds=base / NS + middle0 / NS,
        half_width=(high0 - low0) / 2 / NS,
        drift_ppm=slope / PPM,
        drift_bound=max(most - slope, slope - least) / PPM,
        pairs=count,
        half_width_end=(high1 - low1) / 2 / NS,
    )


def _picture(points: Points, began: float, base: int, above: bool) -> Floats:
    """The points nearest to the true offset, one per slice of time."""
    x, y = points.sides()[0 if above else 1]
    if not len(x):
        return np.zeros((0, 2))
    slices = np.minimum((x - x.min()) / max(float(np.ptp(x)), 1e-9) * PICTURE_BINS, PICTURE_BINS - 1).astype(np.int64)
    order = np.lexsort((y if above else -y, slices))
    first = np.concatenate(([True], np.diff(slices[order]) > 0))
    at = np.sort(order[first])
    return np.column_stack((x[at] + began, (y[at] + base) / NS))


def _split_notes(names: tuple[str, str], splits: tuple[Split, Split]) -> list[str]:
    notes = []
    for name, split in zip(names, splits, strict=True):
        if split.contradictory:
            notes.append(
                f"In {name} the two directions carry clocks about {split.middle / NS:+.3f} s apart, "
                "and not by a constant: no offset can be told."
            )
        elif split.found:
            notes.append(
                f"In {name} responders' packets carry a clock {split.middle / NS:+.6f} s against that of originators' "
                f"packets (± {split.half_width / NS:.6f} s): sent and received packets are stamped by "
                "different clocks. Offsets speak of the originators' packets."
            )
    return notes


def _notes(name: str, points: Points, cut: Pieces, level: str) -> list[str]:
    notes = []
    if len(cut.spans) > 1:
        times = "once" if len(cut.spans) == 2 else f"{len(cut.spans) - 1} times"
        notes.append(f"The clocks step or change pace {times} against each other; the stretches are kept apart.")
    if not cut.spans:
        notes.append(f"The stamps of {name} contradict the others' all over: no offset can be told.")
    elif cut.removed:
        notes.append(f"{cut.removed} packets of {name} fit no line and were left out of the offset.")
    if cut.slack:
        notes.append(f"Stamps contradict each other by up to {cut.slack / 1e3:.0f} µs; the bounds are widened by that.")
    if cut.spans and not points.two_sided:
        notes.append(f"{name} shares packets of one direction only: its offset is bounded from one side.")
    if level == "relative":
        notes.append(f"Sequence numbers differ between the captures; packets of {name} were paired by their distances.")
    return notes
