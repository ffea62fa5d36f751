"""What a capture file says about itself."""

from dataclasses import dataclass, field
from pathlib import Path

from analyzer.capture.links import LINK_NAMES
from analyzer.units import NO_TIME


@dataclass
class Interface:
    """One capturing interface, as the file describes it."""

    link_type: int
    name: str = ""
    description: str = ""
    capture_filter: str = ""
    snaplen: int = 0
    dropped: int | None = None
    file: int = 0

    @property
    def link_name(self) -> str:
        """Name of the link type as tcpdump.org lists it."""
        return LINK_NAMES.get(self.link_type, str(self.link_type))


@dataclass
class InputFile:
    """One file of a capture and what was found in it.

    Attributes:
        path: Its name as reports show it.
        place: Where it is read from; the same unless names are hidden.
    """

    path: str
    format: str = ""
    compression: str = ""
    size: int = 0
    sha256: str = ""
    packets: int = 0
    tcp_packets: int = 0
    first_time: int = NO_TIME
    last_time: int = NO_TIME
    interfaces: list[Interface] = field(default_factory=list)
    place: str = ""

    def __post_init__(self) -> None:
        self.place = self.place or self.path

    @property
    def readable_again(self) -> bool:
        """Whether a second pass finds the same bytes: pipes and standard input give theirs once."""
        return Path(self.place).is_file()

    @property
    def link_types(self) -> tuple[str, ...]:
        """Names of the link types, each once."""
        return tuple(dict.fromkeys(i.link_name for i in self.interfaces))
