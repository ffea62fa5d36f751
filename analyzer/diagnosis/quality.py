"""What limits the conclusion, said before it."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from analyzer.diagnosis.coverage import CLIENT_LEG, LB_SERVER_LEG
from analyzer.diagnosis.model import QualityNote, Vantage
from analyzer.diagnosis.tries import Tries, numbered
from analyzer.schema import ANSWER_NONE, NOT_THERE, OPT_CLIPPED, OPT_TS, SEEN_GAP_ORIG, SEEN_GAP_RESP, SEEN_MIDSTREAM
from analyzer.snat.model import Joined
from analyzer.units import MS, NS

Records = np.ndarray[Any, np.dtype[np.void]]

ENOUGH = 120 * NS
"""A capture this long has a lead-in of a minute and a minute to judge."""
BIG_SEGMENT = 2000
"""Mean payload per packet that no wire carries: segments were merged or not yet cut by the network card."""
STEP = 50 * MS
"""Packets of one file this far out of order are a clock step, not a reordering."""


def notes(vantages: Sequence[Vantage], joined: Joined) -> list[QualityNote]:
    """Flaws of the captures that bear on causes and verdicts, the weightiest first."""
    many = len(vantages) > 1
    found = list(_placing(vantages, joined))
    for vantage in vantages:
        own = list(_of_capture(vantage))
        found += [QualityNote(n.kind, f"{vantage.name}: {n.text}") for n in own] if many else own
    found += [QualityNote(kind, text) for kind, text in joined.notes]
    return [*found, *_lead_in(vantages), *_alike(vantages)]


def _placing(vantages: Sequence[Vantage], joined: Joined) -> Iterator[QualityNote]:
    """Where nothing was captured, and what that leaves open."""
    sides = {vantage.side for vantage in vantages}
    for vantage in vantages:
        if not vantage.placed and len(vantage.tracked.syns):
            yield QualityNote(
                "vantage",
                f"Nothing in {vantage.name} shows where it was taken: it is read as a server's, and silence in it "
                "proves little. Say it with --server or --lb.",
            )
    if sides == {"lb"}:
        yield QualityNote(
            "vantage",
            "Seen at the load balancer only: what the server received, and when, is not known. Capture there too.",
        )
    if sides == {"client"}:
        yield QualityNote("vantage", "Seen at the client's side only: nothing shows how far a lost SYN came.")
    for vantage in vantages:
        if vantage.side != "lb" or not len(vantage.tracked.syns):
            continue
        legs = joined.path(vantage.name, len(vantage.tracked.syns))["leg"]
        has = {leg: bool((legs == leg).any()) for leg in (CLIENT_LEG, LB_SERVER_LEG)}
        filters = sorted({i.capture_filter for i in vantage.tracked.interfaces if i.capture_filter})
        cause = f" (capture filter: {'; '.join(filters)})" if filters else ""
        if not has[LB_SERVER_LEG]:
            text = "only one side of the load balancer was recognised: SYNs that it did not forward cannot be told"
            yield QualityNote("one_leg", f"{vantage.name}: {text}{cause}.")
    yield from _unpaired(vantages, joined)


def _unpaired(vantages: Sequence[Vantage], joined: Joined) -> Iterator[QualityNote]:
    """A server's capture that shares no SYN with the load balancer's."""
    if not any(vantage.side == "lb" for vantage in vantages):
        return
    for vantage in vantages:
        if vantage.side != "server" or not len(vantage.tracked.syns):
            continue
        paths = joined.path(vantage.name, len(vantage.tracked.syns))
        if not ((paths["answer_lb"] != NOT_THERE) | (paths["answer_client"] != NOT_THERE)).any():
            text = "none of its SYNs was found in the load balancer's capture: other time, other traffic, or rewritten"
            yield QualityNote("unpaired", f"{vantage.name}: {text}.")


def _of_capture(vantage: Vantage) -> Iterator[QualityNote]:
    """Flaws of one capture."""
    tracked = vantage.tracked
    yield from (QualityNote(p.kind, str(p)) for p in tracked.problems)
    dropped = sum(i.dropped or 0 for i in tracked.interfaces)
    if dropped:
        yield QualityNote("dropped", f"The capturing program reports {dropped:,} dropped packets.")
    counts = _connection_counts(vantage)
    if counts["one_way"] > 0.5 * counts["all"] and not counts["answered"]:
        yield QualityNote("one_direction", "Nothing of the server's side was captured: answers cannot be seen.")
    if not Tries.of(tracked).hears_acks:
        text = "Only SYN, FIN and RST packets were captured: third ACKs, and bare ACKs that answer a SYN, are hidden."
        yield QualityNote("filter", text)
    if counts["gaps"]:
        text = f"{counts['gaps']:,} connections lack packets that were on the wire: the capture dropped some."
        yield QualityNote("gaps", text)
    if counts["midstream"]:
        yield QualityNote("midstream", f"{counts['midstream']:,} connections were open before the capture began.")
    yield from _of_syns(vantage)
    if counts["packets"] and counts["bytes"] > BIG_SEGMENT * counts["packets"]:
        text = (
            "Segments larger than the wire carries: taken before the network card cuts them, or after it merged them."
        )
        yield QualityNote("offload", text)


def _lead_in(vantages: Sequence[Vantage]) -> Iterator[QualityNote]:
    """The captures that verdicts rest on are too short to know what was before them."""
    judged = [v for v in vantages if v.side == vantages[0].side and len(v.tracked.syns)]
    span = min((v.tracked.last_time - v.tracked.first_time for v in judged), default=ENOUGH)
    if span < ENOUGH:
        text = f"The capture spans {span / NS:.0f} s; what the server knew before it is unknown for its first minute."
        yield QualityNote("lead_in", text)


def _of_syns(vantage: Vantage) -> Iterator[QualityNote]:
    """What the SYN rows show: cut options, copies, a clock that steps."""
    clipped = back = 0
    last = None
    for _, rows in numbered(vantage.tracked):
        clipped += int(np.count_nonzero(rows["opts"] & OPT_CLIPPED))
        seen = rows["time"] if last is None else np.concatenate(([last], rows["time"]))
        back += int(np.count_nonzero(np.diff(seen) < -STEP))
        last = rows["time"][-1] if len(rows) else last
    copies = int(np.count_nonzero(Tries.of(vantage.tracked).copy))
    if copies:
        text = f"{copies:,} SYNs were captured twice within 10 ms: one packet seen twice counts once."
        yield QualityNote("duplicates", text)
    if back:
        times = "once" if back == 1 else f"{back:,} times"
        yield QualityNote(
            "clock_step", f"The capture's clock steps backwards {times}: ages across a step are not sure."
        )
    if clipped:
        text = f"{clipped:,} SYNs have their options cut by the snap length; capture with -s 128 or more."
        yield QualityNote("snaplen", text)


def _connection_counts(vantage: Vantage) -> dict[str, int]:
    counts = dict.fromkeys(("all", "gaps", "midstream", "one_way", "answered", "packets", "bytes"), 0)
    for rows in vantage.tracked.connections.chunks():
        both = rows["packets_orig"].astype(np.int64) + rows["packets_resp"]
        counts["all"] += len(rows)
        counts["gaps"] += int(np.count_nonzero(rows["seen"] & (SEEN_GAP_ORIG | SEEN_GAP_RESP)))
        counts["midstream"] += int(np.count_nonzero(rows["seen"] & SEEN_MIDSTREAM))
        counts["one_way"] += int(np.count_nonzero((rows["packets_resp"] == 0) & (rows["packets_orig"] > 1)))
        counts["packets"] += int(both.sum())
        counts["bytes"] += int(rows["bytes_orig"].sum() + rows["bytes_resp"].sum())
    for rows in vantage.tracked.syns.chunks():
        counts["answered"] += int(np.count_nonzero(rows["answer"] != ANSWER_NONE))
    return counts


def _alike(vantages: Sequence[Vantage]) -> Iterator[QualityNote]:
    """Repeats without timestamps: which of them met what is told by their order only."""
    if len(vantages) < 2:
        return
    bare = 0
    for vantage in vantages[:1]:
        for _, rows in numbered(vantage.tracked):
            bare += int(np.count_nonzero((rows["attempt"] > 1) & ((rows["opts"] & OPT_TS) == 0)))
    if bare:
        text = f"{bare:,} repeated SYNs carry no timestamps: the captures' copies of them are matched by their order."
        yield QualityNote("alike", text)
