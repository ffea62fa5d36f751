"""What every cause has to say for itself."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from analyzer.diagnosis.facts import Facts
from analyzer.diagnosis.strain import Listener

Array = np.ndarray[Any, Any]


@dataclass
class Told:
    """What a finding's sentence is made of: counts over the SYNs of one cause.

    Attributes:
        count, total: SYNs of this cause, and all SYNs, each counted once however many captures saw it.
        attempts: Connection attempts that they belong to.
        peers, services: Source addresses and ``address:port`` texts as the deciding capture has them.
        silent: SYNs of this cause that nothing came back for.
        aggravated: SYNs by the second thing that went wrong.
        sides: Sides of the captures that decided: ``server``, ``lb``, ``client``.
        given: Sides of all captures given, ``unknown`` where a side is only assumed.
        listeners: Queues found full.
        ignored: Handshakes whose third ACK the listener did not take.
        notes: Further sentences.
    """

    count: int
    total: int
    attempts: int = 0
    peers: set[str] = field(default_factory=set)
    services: set[str] = field(default_factory=set)
    silent: int = 0
    aggravated: dict[str, int] = field(default_factory=dict)
    sides: set[str] = field(default_factory=set)
    given: set[str] = field(default_factory=set)
    listeners: tuple[Listener, ...] = ()
    ignored: int = 0
    notes: tuple[str, ...] = ()

    @property
    def who(self) -> str:
        """Subject of the sentence: how many, and from how many addresses."""
        return f"{self.count:,} of {self.total:,} SYNs (from {counted(len(self.peers), 'address', 'es')})"

    @property
    def were(self) -> str:
        """Was or were."""
        return "was" if self.count == 1 else "were"


@dataclass(frozen=True)
class Cause:
    """One word of the cause table.

    Attributes:
        word: As in ``schema.CAUSES``.
        weigh: Facts → uint8 strength per SYN: 0 not this, 1 possible, 2 likely, 3 certain.
        statement: One plain sentence with numbers.
        remedy: Setting, where, what it changes and what not.
        refutation: What would prove the cause wrong.
        wrongly: Facts → bool per SYN: the same explanation would have hit it, yet it got its SYN-ACK.
        rules: Rules of the kernel model that stand for it.
    """

    word: str
    weigh: Callable[[Facts], Array]
    statement: Callable[[Told], str]
    remedy: str
    refutation: str
    wrongly: Callable[[Facts], Array]
    rules: tuple[str, ...] = ()


def counted(number: int, noun: str, plural: str = "s") -> str:
    """``3 SYNs``, ``1 SYN``."""
    return f"{number:,} {noun}{'' if number == 1 else plural}"


def loads(listeners: tuple[Listener, ...], queue: int, entry: str) -> str:
    """From which load on listeners were silent, all of one queue together."""
    mine = [one for one in listeners if one.queue == queue]
    if not mine:
        return ""
    ports = ", ".join(str(port) for port in sorted({one.port for one in mine})[:5])
    least, most = min(one.load for one in mine), max(one.load for one in mine)
    many = f"{least}" if least == most else f"{least} to {most}"
    return (
        f"at port {ports} with {many} or more {entry} {sum(o.silent for o in mine):,} SYNs got nothing and "
        f"{sum(o.answered for o in mine):,} an answer, with fewer {sum(o.below_silent for o in mine):,} of "
        f"{sum(o.below for o in mine):,} got nothing"
    )


def no_syn(facts: Facts) -> Array:
    """A cause that is seen and not foreseen foresees nothing wrongly."""
    return np.zeros(len(facts), np.bool_)


def strength(where: Array | bool, value: Array | int) -> Array:
    """*value* where true, 0 elsewhere, as uint8."""
    return np.where(where, value, 0).astype(np.uint8)


def foreseen(facts: Facts, rules: tuple[str, ...]) -> Array:
    """SYNs that one of *rules* was to drop, answer or reset, and that got their SYN-ACK all the same."""
    return facts.taken & ~facts.verdict("accept") & ~facts.verdict("cookie") & facts.ruled(rules)
