"""What the load balancer makes of an attempt: source address, port and timestamps, as it is or changed."""

import random
import zlib
from collections import defaultdict
from dataclasses import dataclass, field

from analyzer.diagnosis.whatif.changes import Change
from analyzer.diagnosis.whatif.plan import Attempt
from analyzer.seqnum import MASK32
from analyzer.units import NS

FIRST_PORT, PORTS = 1024, 64_512
REWRITTEN_TICKS = 1000
SEED = 20170314


@dataclass
class Balancer:
    """Chooses the four numbers and the clock of each attempt, in order of their first SYNs.

    Attributes:
        change: What is different.
        pool: The SNAT addresses in use, in order of appearance.
        moved: Attempts that got other numbers than they had.
    """

    change: Change
    pool: list[object]
    moved: int = 0
    _turn: int = 0
    _busy: dict[tuple[object, int, object, int], int] = field(default_factory=dict)
    _random: random.Random = field(default_factory=lambda: random.Random(SEED))
    _fresh: dict[object, int] = field(default_factory=lambda: defaultdict(lambda: FIRST_PORT))
    used: dict[object, set[int]] = field(default_factory=lambda: defaultdict(set))

    def __post_init__(self) -> None:
        if self.change.addresses:
            extra = [("added", i) for i in range(self.change.addresses - len(self.pool))]
            self.pool = [*self.pool[: self.change.addresses], *extra]

    def numbers(self, attempt: Attempt, now: int) -> tuple[object, int]:
        """Source address and port of an attempt that begins at *now*."""
        source: object = attempt.source
        port = attempt.sport
        if self.change.addresses:
            source = self.pool[self._turn % len(self.pool)]
            self._turn += 1
        if self.change.random_ports:
            port = self._draw(source, attempt, now)
        held = self._busy.get((source, port, attempt.server, attempt.dport), 0)
        if self.change.hold_down and held and now < held + self.change.hold_down * NS:
            port = self._free(source, attempt, now)
        if (source, port) != (attempt.source, attempt.sport):
            self.moved += 1
        self.used[source].add(port)
        self._busy[source, port, attempt.server, attempt.dport] = now
        return source, port

    def ended(self, source: object, port: int, attempt: Attempt, now: int) -> None:
        """The connection on these numbers is over."""
        self._busy[source, port, attempt.server, attempt.dport] = now

    def _draw(self, source: object, attempt: Attempt, now: int) -> int:
        """A random port that is not in use and was not for a minute."""
        for _ in range(64):
            port = FIRST_PORT + self._random.randrange(PORTS)
            if self._busy.get((source, port, attempt.server, attempt.dport), -(10**19)) + 60 * NS <= now:
                return port
        return port

    def _free(self, source: object, attempt: Attempt, now: int) -> int:
        """A port beyond those in use; the longest unused one when all are taken."""
        for _ in range(PORTS):
            port = self._fresh[source]
            self._fresh[source] = FIRST_PORT + (port - FIRST_PORT + 1) % PORTS
            held = self._busy.get((source, port, attempt.server, attempt.dport))
            if held is None or held + self.change.hold_down * NS <= now:
                return port
        return attempt.sport

    def tsval(self, attempt: Attempt, now: int, number: int) -> int | None:
        """TSval as the server sees it."""
        value = attempt.tsval(now, number)
        if value is None or not self.change.timestamps or not self._touched(attempt):
            return value
        return None if self.change.timestamps == "strip" else now * REWRITTEN_TICKS // NS & MASK32

    def _touched(self, attempt: Attempt) -> bool:
        """Whether this flow is in the share that the load balancer works on: drawn by a hash, the same every time."""
        drawn = zlib.crc32(f"{attempt.source} {attempt.sport} {attempt.conn}".encode())
        return drawn < self.change.share * 2**32
