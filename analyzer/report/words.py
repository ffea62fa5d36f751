"""Numbers and times as people read them."""

from datetime import UTC, datetime

from analyzer.units import NO_TIME, NS


def clock(ns: int) -> str:
    """Time of day in UTC with microseconds."""
    if ns == NO_TIME:
        return "-"
    moment = datetime.fromtimestamp(ns // NS, UTC)
    return f"{moment:%H:%M:%S}.{ns % NS // 1000:06d}"


def date(ns: int) -> str:
    """Date and time of day in UTC."""
    return "-" if ns == NO_TIME else f"{datetime.fromtimestamp(ns // NS, UTC):%Y-%m-%d %H:%M:%S} UTC"


def duration(ns: int) -> str:
    """A span in s, min or h."""
    seconds = ns / NS
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def span(seconds: float) -> str:
    """A short time with the unit that suits it: µs, ms, s, min."""
    if seconds < 1e-3:
        return f"{seconds * 1e6:.0f} µs"
    if seconds < 0.1:
        return f"{seconds * 1e3:.1f} ms"
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min"


def count(number: int, noun: str) -> str:
    """``1 SYN``, ``1,234 SYNs``, ``2 addresses``."""
    plural = "es" if noun.endswith("s") else "s"
    return f"{number:,} {noun}{'' if number == 1 else plural}"


def printable(text: str) -> str:
    """Text with control, direction and broken characters spelled out: names in captures may hold anything."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in text)


CAUSE_TITLES = {
    "answered": "answered",
    "peer_timestamp": "dropped by the per-host timestamp check",
    "time_wait_paws": "met a TIME-WAIT with a newer timestamp",
    "time_wait_sequence": "met a TIME-WAIT, sequence rule",
    "established_collision": "hit a connection still open",
    "accept_queue_full": "accept queue full",
    "syn_queue_full": "SYN queue full",
    "server_silent": "silence no TCP rule explains",
    "lost_before_server": "lost before the server",
    "syn_ack_lost": "answer lost on the way back",
    "answer_not_forwarded": "answer not forwarded by the load balancer",
    "not_forwarded": "not forwarded by the load balancer",
    "refused": "refused (RST)",
    "unreachable": "ICMP error",
    "no_evidence": "cannot be told from this capture",
}
