"""Scenario files: TOML in, checked options out; every key is a field of a class here or named by one."""

import re
import tomllib
import types
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

from analyzer.errors import InputError, UsageError
from analyzer.simulator.applications import LoggerOptions, ServerAppOptions
from analyzer.simulator.balancer import BalancerOptions
from analyzer.simulator.world import PathOptions

HOME = "analyzer.simulator.scenarios"
FOREVER_S = 1e9


@dataclass(frozen=True)
class ServerGroup:
    """Pool members that are alike.

    Attributes:
        name: Their names are name1, name2 …
        count: How many.
        address: The first one's address; the others follow it.
        kernel: Version text as the profiles know it.
        hz: Ticks per second of its timers.
        backlog: listen() argument.
        dual_stack: Whether the listener is an IPv6 one.
        sysctl: Settings by kernel name.
        clock_offset_s, clock_drift_ppm: Errors of their wall clocks, one for each member.
        role: ``old`` or ``new``: traffic migrates from old to new.
        app: The application.
    """

    name: str = "server"
    count: int = 1
    address: str = "10.2.0.80"
    kernel: str = "3.10.0-693.11.1.el7.x86_64"
    hz: int = 1000
    backlog: int = 128
    dual_stack: bool = False
    sysctl: dict[str, int] = field(default_factory=dict)
    clock_offset_s: tuple[float, ...] = (0.0,)
    clock_drift_ppm: tuple[int, ...] = (0,)
    role: str = "old"
    app: ServerAppOptions = field(default_factory=ServerAppOptions)


@dataclass(frozen=True)
class ClientGroup:
    """Client machines that are alike.

    Attributes:
        name, count, address: As of servers.
        kernel: Version text; its habits as a client come from it.
        hz: Ticks per second.
        timestamps: net.ipv4.tcp_timestamps; 0: none, 2: no offset.
        uptime_s: Shortest and longest time since boot at the start.
        skew_ppm: Most that its TSval clock runs ahead or behind.
        tsval_at: (second, TSval): fixes the clock (of a group of one).
        loggers: Programs on each that write to a VIP; 0: only what scripts make it do.
        ports: First and last local port; empty: the usual range.
        start_s: Loggers start within so many seconds.
        app: The program.
    """

    name: str = "cal"
    count: int = 1
    address: str = "10.1.0.11"
    kernel: str = "2.6.32"
    hz: int = 1000
    timestamps: int = 1
    uptime_s: tuple[int, int] = (86_400, 2_000_000)
    skew_ppm: int = 20
    tsval_at: tuple[float, int] | None = None
    loggers: int = 1
    ports: tuple[int, int] | None = None
    start_s: float = 20.0
    app: LoggerOptions = field(default_factory=LoggerOptions)


@dataclass(frozen=True)
class NetcatOptions:
    """The netcat loop: its machine, every so many seconds, with ``-w wait_s``."""

    address: str = "10.1.0.200"
    kernel: str = "2.6.32"
    hz: int = 1000
    every_s: float = 4.0
    wait_s: float = 5.0
    uptime_s: tuple[int, int] = (86_400, 2_000_000)
    tsval_at: tuple[float, int] | None = None


@dataclass(frozen=True)
class Script:
    """One connection spelled out: who, when, through which VIP, translated to what, closed when."""

    client: str
    at_s: float
    vip: str
    snat: str
    port: int
    server: str
    closes_s: float | None = None
    timeout_s: float = 20.0
    lines: int = 3


@dataclass(frozen=True)
class Firewall:
    """SYNs that a server's firewall drops behind the capture point."""

    server: str
    source: str = ""
    share: float = 1.0
    from_s: float = 0.0
    to_s: float = FOREVER_S


@dataclass(frozen=True)
class Flood:
    """Half-open SYNs from spoofed sources, straight to a server."""

    server: str
    source: str = "10.77.0.0"
    per_s: float = 20.0
    from_s: float = 0.0
    to_s: float = FOREVER_S


@dataclass(frozen=True)
class Paths:
    """The wires, each direction."""

    to_lb: PathOptions = field(default_factory=PathOptions)
    to_client: PathOptions = field(default_factory=PathOptions)
    to_server: PathOptions = field(default_factory=PathOptions)
    from_server: PathOptions = field(default_factory=PathOptions)


@dataclass(frozen=True)
class Captures:
    """What is captured and how well.

    Attributes:
        client: Whether the first client machine captures too.
        snaplen: Bytes kept of each frame.
        lb_offset_s, lb_drift_ppm: The balancer's clock error.
        lb_drops, server_drops: One packet in so many is lost by the capture; 0: none.
    """

    client: bool = False
    snaplen: int = 65_535
    lb_offset_s: float = 0.0
    lb_drift_ppm: int = 0
    lb_drops: int = 0
    server_drops: int = 0


@dataclass(frozen=True)
class Scenario:
    """A whole estate and what happens in it.

    Attributes:
        name, shows: Its name and one sentence on what it shows.
        duration_s: Simulated seconds.
        start: Begin, seconds since 1970.
        seed: Seed of every draw.
        bulk: Whether writes on clean paths are simulated in bursts (same packets, much faster).
        migration_s: From when to when traffic moves to the ``new`` members.
    """

    name: str = "scenario"
    shows: str = ""
    duration_s: float = 300.0
    start: int = 1_520_935_200
    seed: int = 1
    bulk: bool = False
    migration_s: tuple[float, float] = (0.0, 1.0)
    server: tuple[ServerGroup, ...] = (ServerGroup(),)
    lb: tuple[BalancerOptions, ...] = (BalancerOptions(),)
    clients: tuple[ClientGroup, ...] = (ClientGroup(),)
    netcat: NetcatOptions | None = None
    script: tuple[Script, ...] = ()
    firewall: tuple[Firewall, ...] = ()
    flood: tuple[Flood, ...] = ()
    path: Paths = field(default_factory=Paths)
    capture: Captures = field(default_factory=Captures)


def shipped() -> list[str]:
    """Names of the scenarios that come with the program."""
    return sorted(entry.name.removesuffix(".toml") for entry in files(HOME).iterdir() if entry.name.endswith(".toml"))


def load(name: str, changes: list[str] | None = None, seed: int | None = None) -> Scenario:
    """A shipped scenario by name, or a TOML file by path.

    Args:
        name: ``cal-incident`` … or the path of a file.
        changes: ``KEY=VALUE`` in TOML's values; keys are dotted, lists by number or all of it.
        seed: In place of the file's.

    Raises:
        InputError: The file cannot be read or is no TOML.
        UsageError: No such scenario, key or value.
    """
    values = _read(name)
    for change in changes or []:
        _set(values, change)
    if seed is not None:
        values["seed"] = seed
    scenario = _build(Scenario, values, "")
    assert isinstance(scenario, Scenario)
    _check(scenario)
    return scenario


_WORDS: dict[str, tuple[str, ...]] = {
    "policy": ("random", "sequential", "lowest", "preserve"),
    "timestamps": ("pass", "strip", "rewrite"),
    "role": ("old", "new"),
    "closes": ("first", "last"),
    "mode": ("layer4", "layer7"),
    "how": ("close", "shutdown", "reset"),
}
_SHARES = ("loss", "loss_syn", "loss_syn_ack", "duplicate", "reorder", "share")
_ABOVE_ZERO = (
    "duration_s", "interval_ms", "per_s", "every_s", "wait_s", "timeout_s", "hz", "backlog", "handshake_s", "idle_s",
)  # fmt: skip
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,40}")
MOST_MACHINES = 4_096


def _check(part: Any, where: str = "") -> None:
    """Values that have the right type and are still impossible.

    Raises:
        UsageError: Says where and what.
    """
    if isinstance(part, tuple):
        for index, item in enumerate(part):
            _check(item, f"{where}.{index}")
    if not is_dataclass(part):
        return
    for f in fields(part):
        value, place = getattr(part, f.name), f"{where}.{f.name}" if where else f.name
        if isinstance(value, str) and f.name in _WORDS and value not in _WORDS[f.name]:
            raise UsageError(f"{place}: {value!r}; known are {', '.join(_WORDS[f.name])}")
        if f.name == "name" and not _NAME.fullmatch(value):
            raise UsageError(f"{place}: {value!r}: letters, digits, - and _ only")
        if f.name in _SHARES and not 0 <= value <= 1:
            raise UsageError(f"{place}: {value} is no share from 0 to 1")
        if f.name in _ABOVE_ZERO and not 0 < value < 1e9:
            raise UsageError(f"{place}: {value} is not above 0")
        if f.name in ("count", "loggers") and not 0 <= value <= MOST_MACHINES:
            raise UsageError(f"{place}: {value} is not between 0 and {MOST_MACHINES}")
        if f.name == "ports" and value is not None and not 0 < value[0] <= value[1] < 65_536:
            raise UsageError(f"{place}: {value[0]} to {value[1]} is no range of ports")
        if f.name in ("lb", "server", "vips", "snat") and not value:
            raise UsageError(f"{place}: at least one is wanted")
        if isinstance(value, int) and not isinstance(value, bool) and value < 0 and not f.name.endswith("ppm"):
            raise UsageError(f"{place}: {value} is below 0")
        _check(value, place)


def _read(name: str) -> dict[str, Any]:
    if name in shipped():
        return tomllib.loads((files(HOME) / f"{name}.toml").read_text())
    path = Path(name)
    if not path.suffix == ".toml":
        raise UsageError(f"no scenario {name!r}: known are {', '.join(shipped())}, or give a .toml file")
    try:
        return tomllib.loads(path.read_text())
    except OSError as error:
        raise InputError(f"{name}: cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{name}: not a scenario: {error}") from None


def _set(values: dict[str, Any], change: str) -> None:
    key, separator, text = change.partition("=")
    if not separator:
        raise UsageError(f"--set {change}: say KEY=VALUE, for example path.to_server.loss_syn=0.1")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    if key.strip().startswith("net."):
        for server in values.setdefault("server", [{}]):
            server.setdefault("sysctl", {})[key.strip()] = value
        return
    _put(values, key.strip().split("."), value, change)


def _put(values: Any, words: list[str], value: Any, change: str) -> None:
    word, *rest = words
    if isinstance(values, list):
        if word.isdigit():
            if int(word) >= len(values):
                raise UsageError(f"--set {change}: there is no number {word}")
            _put(values[int(word)], rest, value, change)
            return
        for item in values:
            _put(item, words, value, change)
        return
    if not isinstance(values, dict):
        raise UsageError(f"--set {change}: {word} is no part of a value")
    if word == "sysctl" and rest:
        values.setdefault("sysctl", {})[".".join(rest)] = value
    elif rest:
        _put(values.setdefault(word, {}), rest, value, change)
    else:
        values[word] = value


def _build(kind: Any, value: Any, where: str) -> Any:
    """*value* as *kind*, a class or type of this module; says where it does not fit."""
    if is_dataclass(kind) and isinstance(kind, type):
        return _build_class(kind, value, where)
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        inner = next(a for a in get_args(kind) if a is not type(None))
        return None if value is None else _build(inner, value, where)
    if origin is tuple:
        return _build_tuple(get_args(kind), value, where)
    if origin is dict:
        if not isinstance(value, dict) or not all(isinstance(v, int) for v in value.values()):
            raise UsageError(f"{where}: numbers by name are wanted")
        return dict(value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise UsageError(f"{where}: {value!r} is no {kind.__name__}")
    return value


def _build_class(kind: type, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise UsageError(f"{where}: a table is wanted, not {value!r}")
    hints = get_type_hints(kind)
    known = {f.name: f for f in fields(kind)}
    for key in value:
        if key not in known:
            raise UsageError(f"{where}{'.' if where else ''}{key}: no such key; known are {', '.join(known)}")
    for name, f in known.items():
        if name not in value and f.default is MISSING and f.default_factory is MISSING:
            raise UsageError(f"{where}: {name} is missing")
    made = {key: _build(hints[key], item, f"{where}.{key}" if where else key) for key, item in value.items()}
    return kind(**made)


def _build_tuple(kinds: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise UsageError(f"{where}: a list is wanted, not {value!r}")
    if len(kinds) == 2 and kinds[1] is ...:
        return tuple(_build(kinds[0], item, f"{where}.{i}") for i, item in enumerate(value))
    if len(value) != len(kinds):
        raise UsageError(f"{where}: {len(kinds)} values are wanted")
    return tuple(_build(kind, item, f"{where}.{i}") for i, (kind, item) in enumerate(zip(kinds, value, strict=True)))


def toml_value(value: Any) -> str:
    """A value as TOML writes it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(toml_value(item) for item in value) + "]"
    return repr(value)
