"""What is changed: ``KEY=VALUE`` as typed, read into one object."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from analyzer.errors import UsageError
from analyzer.kernel.profiles import Profile, find_profile
from analyzer.kernel.settings import SYSCTLS, Settings

SHARE = "lb.share"
LB_KEYS = ("lb.timestamps", SHARE, "lb.snat_addresses", "lb.source_ports", "lb.hold_down")
MOST_ADDRESSES = 1024
MOST_SECONDS = 86_400


@dataclass(frozen=True)
class Change:
    """One world that differs from what was seen.

    Attributes:
        text: As typed.
        sysctls: Settings of the server, by name.
        profile: Another kernel, None for the same.
        timestamps: What the load balancer does to the timestamps option: empty, ``strip`` or ``rewrite``.
        share: On which part of the flows it does so.
        addresses: SNAT addresses in all, 0 for as many as there are.
        random_ports: Whether the load balancer draws a free source port at random.
        hold_down: Seconds for which it does not use four numbers again after their connection ended.
    """

    text: str
    sysctls: dict[str, int] = field(default_factory=dict)
    profile: Profile | None = None
    timestamps: str = ""
    share: float = 1.0
    addresses: int = 0
    random_ports: bool = False
    hold_down: int = 0

    def settings(self, before: Settings) -> Settings:
        """The server's settings after the change."""
        return before.override(self.sysctls)


def read_change(pairs: Sequence[tuple[str, object]]) -> Change:
    """One change of one or several settings at once.

    Raises:
        UsageError: A key or a value that does not exist; the message says what does.
    """
    change = Change(" ".join(f"{key}={value}" for key, value in pairs))
    for key, value in pairs:
        change = _with(change, key, str(value).strip())
    if SHARE in dict(pairs) and not change.timestamps:
        raise UsageError(f"{SHARE} says on which part of the flows lb.timestamps works: give both")
    return change


def split_changes(pairs: Sequence[tuple[str, object]], together: bool = True) -> list[list[tuple[str, object]]]:
    """Each change for itself, then all of them *together* where that is wanted and is one world.

    ``lb.share`` goes with ``lb.timestamps``; a key that stands there twice asks for two worlds.

    Raises:
        UsageError: There is none.
    """
    shares = [pair for pair in pairs if pair[0] == SHARE]
    alone = [[pair, *(shares if pair[0] == "lb.timestamps" else [])] for pair in pairs if pair[0] != SHARE]
    if not alone and shares:
        alone = [shares]
    if not alone:
        raise UsageError("nothing is changed: say --set KEY=VALUE, for example --set tcp_tw_recycle=0")
    one_world = len(alone) > 1 and len({key for key, _ in pairs}) == len(pairs)
    return [*alone, list(pairs)] if together and one_world else alone


def _with(change: Change, key: str, value: str) -> Change:
    if key == "kernel":
        try:
            return replace(change, profile=find_profile(value))
        except ValueError as error:
            raise UsageError(str(error)) from None
    if key == "lb.timestamps":
        return replace(change, timestamps=_word(key, value, ("strip", "rewrite")))
    if key == SHARE:
        return replace(change, share=_share(value))
    if key == "lb.snat_addresses":
        return replace(change, addresses=_number(key, value, 1, MOST_ADDRESSES))
    if key == "lb.source_ports":
        return replace(change, random_ports=bool(_word(key, value, ("random",))))
    if key == "lb.hold_down":
        return replace(change, hold_down=_number(key, value, 0, MOST_SECONDS))
    if key.startswith("lb."):
        raise UsageError(f"--set {key}: known are {', '.join(LB_KEYS)}")
    name = key if key == "backlog" or key in SYSCTLS else f"net.ipv4.{key}"
    if name not in SYSCTLS and key != "backlog":
        short = [n.removeprefix("net.ipv4.") for n in SYSCTLS]
        raise UsageError(f"--set {key}: known are kernel, backlog, {', '.join(short)}, {', '.join(LB_KEYS)}")
    return replace(change, sysctls={**change.sysctls, name: _number(key, value, 0, 2**31 - 1)})


def _word(key: str, value: str, words: tuple[str, ...]) -> str:
    if value not in words:
        raise UsageError(f"--set {key}={value}: say {' or '.join(words)}")
    return value


def _number(key: str, value: str, low: int, high: int) -> int:
    try:
        number = int(value)
    except ValueError:
        raise UsageError(f"--set {key}={value}: say a whole number") from None
    if not low <= number <= high:
        raise UsageError(f"--set {key}={value}: say {low} to {high}")
    return number


def _share(value: str) -> float:
    try:
        share = float(value)
    except ValueError:
        share = -1.0
    if not 0 < share <= 1:
        raise UsageError(f"--set {SHARE}={value}: say a part of the flows, above 0 and up to 1")
    return share
