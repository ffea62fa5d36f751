"""Files to packets: the only room that reads captures."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from analyzer.capture.files import Capture, open_capture

__all__ = ["Capture", "open_capture"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from analyzer.capture import files

        return getattr(files, name)
    raise AttributeError(name)
