"""Packets to connections: handshakes, closes, incarnations, and the events a kernel decides by."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from analyzer.connections.tracker import Tracked, Tracker, follow, track

__all__ = ["Tracked", "Tracker", "follow", "track"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from analyzer.connections import tracker

        return getattr(tracker, name)
    raise AttributeError(name)
