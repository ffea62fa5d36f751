"""What was said of the servers: kernel and settings, one for all or one for each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from analyzer.errors import InputError, UsageError
from analyzer.kernel.profiles import find_profile
from analyzer.kernel.settings import Settings, parse_sysctls

Value = TypeVar("Value")


@dataclass(frozen=True)
class Given:
    """What is known of one server before its packets are looked at.

    Attributes:
        settings: Settings as far as they were given.
        kernel: Profile name, version, ``uname`` output, or ``auto``.
    """

    settings: Settings
    kernel: str


def read_given(kernel: str, sysctls: Mapping[str, int], files: Sequence[str], backlogs: Sequence[int]) -> list[Given]:
    """Options and files as one entry for all servers, or one for each in their order.

    Args:
        kernel: As given for all servers; ``auto`` leaves it to a file's ``kernel …`` line, then to the packets.
        sysctls: Settings of all servers by kernel name; they outweigh the files.
        files: Outputs of ``sysctl -a``.
        backlogs: Backlogs of the listeners.

    Raises:
        InputError: A file cannot be read.
        UsageError: A setting or profile that does not exist; several files and another number of backlogs.
    """
    count = max(len(files), len(backlogs), 1)
    for name, values in (("--sysctl-file", files), ("--backlog", backlogs)):
        if 1 < len(values) < count:
            raise UsageError(f"{name} given {len(values)} times: give it once, or once per server ({count} of them)")
    return [_one(kernel, sysctls, _at(files, i), _at(backlogs, i)) for i in range(count)]


def _at(values: Sequence[Value], index: int) -> Value | None:
    return values[index if len(values) > 1 else 0] if values else None


def _one(kernel: str, sysctls: Mapping[str, int], file: str | None, backlog: int | None) -> Given:
    values: dict[str, int] = {}
    if file is not None:
        try:
            text = Path(file).read_text(errors="replace")
        except OSError as error:
            raise InputError(f"{file}: cannot be read: {error.strerror}") from None
        values, named = parse_sysctls(text)
        kernel = named if kernel == "auto" and named is not None else kernel
    try:
        settings = Settings(backlog=backlog).override({**values, **sysctls})
        if kernel != "auto":
            find_profile(kernel)
    except ValueError as error:
        raise UsageError(str(error)) from None
    return Given(settings, kernel)


def shared_out(given: Sequence[Given], sides: Sequence[str]) -> list[tuple[Given, ...]]:
    """What holds for each capture: a server's own entry; all different ones where packets of all servers are seen.

    Args:
        given: One entry, or one per server.
        sides: Side of each capture, servers in the order they were given.

    Raises:
        UsageError: Several entries and another number of servers.
    """
    servers = sides.count("server")
    if len(given) > 1 and len(given) != servers:
        raise UsageError(
            f"--sysctl-file or --backlog given for {len(given)} servers, but there are captures of {servers}: "
            "give it once, or once per --server in their order"
        )
    if len(given) == 1:
        return [(given[0],)] * len(sides)
    own = iter(given)
    different = tuple(dict.fromkeys(given))
    return [(next(own),) if side == "server" else different for side in sides]
