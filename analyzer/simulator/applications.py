"""What runs on the machines: the pool's server, the loggers that write to it, and a netcat loop."""

from collections.abc import Callable
from dataclasses import dataclass, field

from analyzer.kernel.events import Accept, Close, Key, Send, Shutdown
from analyzer.kernel.sockets import State
from analyzer.simulator.hosts import Host
from analyzer.simulator.world import NS, US, Chance, World


@dataclass(frozen=True)
class ServerAppOptions:
    """The application on a pool member.

    Attributes:
        accept_us: How long it takes to accept a connection.
        accepts_per_s: Most connections that it accepts in a second; 0: no limit.
        pauses: (from, to) seconds from the start in which it accepts and answers nothing.
        closes: ``first`` (after *lifetime_s*) or ``last`` (when the client has closed).
        lifetime_s: Shortest and longest life of a connection that it closes first.
        how: ``close``, ``shutdown`` (the descriptor stays open until the client closes) or ``reset``.
        reply_bytes: Bytes that it answers each write with; 0: nothing.
        reply_us: How long an answer takes.
    """

    accept_us: int = 60
    accepts_per_s: float = 0.0
    pauses: tuple[tuple[float, float], ...] = ()
    closes: str = "first"
    lifetime_s: tuple[float, float] = (20.0, 60.0)
    how: str = "close"
    reply_bytes: int = 0
    reply_us: int = 400


class ServerApp:
    """Accepts, reads, answers, closes."""

    def __init__(self, world: World, host: Host, options: ServerAppOptions, port: int) -> None:
        self.world, self.host, self.options, self.port = world, host, options, port
        self.closing: dict[Key, int] = {}
        self.planned: dict[tuple[int, int], int] = {}
        self._chance = Chance(world.seed, f"app {host.name}")
        self._next_accept = 0
        self._pauses = [(world.start + round(a * NS), world.start + round(b * NS)) for a, b in options.pauses]

    def awake(self, time: int) -> int:
        """*time*, or the end of the pause that it falls into."""
        for begin, end in self._pauses:
            if begin <= time < end:
                return end
        return time

    def notice(self, word: str, key: Key, size: int) -> None:
        """The kernel tells."""
        now = self.world.now
        if word == "ready":
            time = max(now + self.options.accept_us * US, self._next_accept)
            if self.options.accepts_per_s:
                self._next_accept = time + round(NS / self.options.accepts_per_s)
            self.world.at(self.awake(time), self._accept)
        elif word == "taken":
            self._taken(key, size)
        elif word == "data" and self.options.reply_bytes:
            self.world.at(self.awake(now + self.options.reply_us * US), self._reply, key)
        elif word == "eof":
            self.world.at(self.awake(now + self._chance.between(60, 300) * US), self._finish, key, 0)
        elif word in ("reset", "gone"):
            self.closing.pop(key, None)

    def _accept(self) -> None:
        now = self.world.now
        if self.awake(now) > now:
            self.world.at(self.awake(now), self._accept)
            return
        self.host.act(Accept(self.host.own_time(), self.port))

    def _taken(self, key: Key, waiting: int) -> None:
        remote, port = key[2], key[3]
        assert isinstance(remote, int)
        planned = self.planned.pop((remote, port), None)
        if planned is None and self.options.closes == "first":
            low, high = (round(s * 1_000) for s in self.options.lifetime_s)
            planned = self.world.now + self._chance.between(low * 1_000, high * 1_000) * US
        if planned is not None:
            self.closing[key] = planned
            self.world.at(planned, self._finish, key, planned)
        if waiting:
            self.notice("data", key, waiting)
        conn = self.host.kernel.table.get(key)
        if getattr(conn, "state", None) is State.CLOSE_WAIT:
            self.notice("eof", key, 0)

    def _reply(self, key: Key) -> None:
        self.host.act(Send(self.host.own_time(), key, self.options.reply_bytes))

    def _finish(self, key: Key, planned: int) -> None:
        """Close, unless this plan was for an older connection on the same numbers."""
        if planned and self.closing.get(key) != planned:
            return
        now = self.world.now
        if self.awake(now) > now:
            self.world.at(self.awake(now), self._finish, key, planned)
            return
        self.closing.pop(key, None)
        own = self.host.own_time()
        if planned and self.options.how == "shutdown":
            self.host.act(Shutdown(own, key))
        else:
            self.host.act(Close(own, key, reset=bool(planned) and self.options.how == "reset"))


@dataclass(frozen=True)
class LoggerOptions:
    """One long-lived client.

    Attributes:
        interval_ms: Mean wait between two writes.
        bytes: Smallest and largest write.
        lifetime_s: If set, the client closes first after so long.
        timeout_s: When connect() is given up and the next VIP is tried.
        pause_ms: Mean wait before it connects again.
        close_ms: Shortest and longest wait before it closes after the server has.
        reset: Whether it closes with a RST.
    """

    interval_ms: int = 800
    bytes: tuple[int, int] = (80, 320)
    lifetime_s: tuple[float, float] | None = None
    timeout_s: float = 20.0
    pause_ms: int = 300
    close_ms: tuple[int, int] = (0, 0)
    reset: bool = False


class ClientHost:
    """A client machine's sockets, dealt out to the programs on it."""

    def __init__(self, world: World, host: Host, last_port: int = 60_999, first_port: int = 32_768) -> None:
        self.world, self.host = world, host
        self.owners: dict[Key, Callable[[str, Key, int], None]] = {}
        chance = Chance(world.seed, f"ports {host.name}")
        self._first, self._span = first_port, last_port - first_port + 1
        self._next = chance.below(self._span)
        host.application = self

    def notice(self, word: str, key: Key, size: int) -> None:
        """Pass a notice on to the program that owns the socket."""
        owner = self.owners.get(key)
        if owner is not None:
            owner(word, key, size)

    def open(self, remote: tuple[int, int], owner: Callable[[str, Key, int], None], port: int = 0) -> Key | None:
        """Connect to *remote* from a free port; None when there is none."""
        for _ in range(self._span):
            local = port or self._first + self._next
            self._next = (self._next + 1) % self._span
            key: Key = (self.host.address, local, *remote)
            if key not in self.host.kernel.table:
                self.owners[key] = owner
                self.host.connect(local, *remote)
                return key
            if port:
                return None
        return None

    def drop(self, key: Key) -> None:
        """The program has no more use for *key*."""
        self.owners.pop(key, None)

    def abandon(self, key: Key) -> None:
        """Give a connect() up: nothing is sent."""
        self.host.kernel.forget(key)
        self.drop(key)


class Logger:
    """Writes lines to a VIP picked at random; another after a timeout or refusal; again after a close."""

    def __init__(self, client: ClientHost, number: int, options: LoggerOptions, vips: list[tuple[int, int]]) -> None:
        self.client, self.options, self.vips = client, options, vips
        self.world = client.world
        self._chance = Chance(self.world.seed, f"logger {client.host.name} {number}")
        self._vip = 0
        self._key: Key | None = None
        self._life = 0
        self.number = number
        self.closes = 0
        self.burst: Callable[[Logger, Key], bool] | None = None

    def start(self) -> None:
        """Connect for the first time."""
        self._vip = self._chance.below(len(self.vips))
        self._connect()

    def _connect(self) -> None:
        self._life += 1
        self._key = self.client.open(self.vips[self._vip], self._notice)
        if self._key is None:
            self._again(False)
            return
        self.world.at(self.world.now + round(self.options.timeout_s * NS), self._give_up, self._life)

    def _give_up(self, life: int) -> None:
        if life == self._life and self._key is not None and not self._open(self._key):
            self.client.abandon(self._key)
            self._again(True)

    def _open(self, key: Key) -> bool:
        return hasattr(self.client.host.kernel.table.get(key), "state")

    def _writable(self, key: Key) -> bool:
        """A program that has read the server's end writes no more."""
        return getattr(self.client.host.kernel.table.get(key), "state", None) is State.ESTABLISHED

    def _notice(self, word: str, key: Key, size: int) -> None:
        if key != self._key:
            if word in ("gone", "reset", "timeout"):
                self.client.drop(key)
            return
        if word == "connected":
            life = self.options.lifetime_s
            if life is not None:
                wait = self._chance.between(round(life[0] * 1_000_000), round(life[1] * 1_000_000)) * US
                self.closes = self.world.now + wait
                self.world.at(self.closes, self._close, self._life)
            self.world.at(self.world.now + self._chance.between(200, 900) * US, self._write, self._life)
        elif word == "eof" and self.options.close_ms[1]:
            wait = self._chance.between(*self.options.close_ms) * 1_000 * US
            self.world.at(self.world.now + wait, self._close, self._life)
        elif word == "eof":
            self._close(self._life)
        elif word in ("refused", "reset", "timeout"):
            self.client.drop(key)
            self._again(word != "reset")

    def _write(self, life: int) -> None:
        key = self._key
        if life != self._life or key is None or not self._writable(key):
            return
        if self.burst is not None and self.burst(self, key):
            return
        self.client.host.act(Send(self.client.host.own_time(), key, self._chance.between(*self.options.bytes)))
        self.world.at(self.world.now + self.wait(), self._write, life)

    def wait(self) -> int:
        """Ns until the next write."""
        return max(self._chance.exponential(self.options.interval_ms * 1_000_000), NS // 1_000)

    def resume(self, time: int) -> None:
        """Go on writing at *time*, after a burst."""
        self.world.at(time, self._write, self._life)

    def _close(self, life: int) -> None:
        key = self._key
        if life != self._life or key is None:
            return
        self.client.host.act(Close(self.client.host.own_time(), key, reset=self.options.reset))
        self._again(False)

    def _again(self, other: bool) -> None:
        """Forget this connection; the next one goes to another VIP after a failure."""
        if self._key is not None:
            self.client.drop(self._key)
        self._key = None
        self._life += 1
        if other:
            self._vip = (self._vip + 1) % len(self.vips)
        else:
            self._vip = self._chance.below(len(self.vips))
        wait = self._chance.exponential(self.options.pause_ms * 1_000_000)
        self.world.at(self.world.now + wait + US, self._connect)


@dataclass
class OneShot:
    """One connection that the scenario spells out: connects, writes a few lines, closes when the server does."""

    client: ClientHost
    remote: tuple[int, int]
    port: int
    timeout_s: float
    lines: int = 3
    key: Key | None = field(default=None)

    def start(self) -> None:
        """Connect."""
        self.key = self.client.open(self.remote, self._notice, self.port)
        if self.key is not None:
            world = self.client.world
            world.at(world.now + round(self.timeout_s * NS), self._give_up)

    def _give_up(self) -> None:
        if self.key is not None and not hasattr(self.client.host.kernel.table.get(self.key), "state"):
            self.client.abandon(self.key)
            self.key = None

    def _notice(self, word: str, key: Key, size: int) -> None:
        host, world = self.client.host, self.client.world
        if word == "connected":
            for line in range(self.lines):
                world.at(world.now + (line + 1) * 150_000 * US, self._write)
        elif word == "eof":
            host.act(Close(host.own_time(), key))
            self.key = None
        elif word in ("refused", "reset", "timeout"):
            self.client.drop(key)
            self.key = None

    def _write(self) -> None:
        if self.key is not None:
            self.client.host.act(Send(self.client.host.own_time(), self.key, 160))


class Netcat:
    """``nc -zv -w N VIP PORT`` again and again; ``lines`` is what it prints."""

    def __init__(self, client: ClientHost, vips: list[tuple[int, int, str]], every_s: float, wait_s: float) -> None:
        self.client, self.vips, self.every, self.wait = client, vips, round(every_s * NS), round(wait_s * NS)
        self.lines: list[str] = []
        self.failures = 0
        self._chance = Chance(client.world.seed, f"nc {client.host.name}")
        self._count = 0
        self._begun = 0
        self._key: Key | None = None
        self._vip = vips[0]

    def start(self) -> None:
        """One check; the next follows when it has ended."""
        world = self.client.world
        self._vip = self.vips[self._count % len(self.vips)]
        self._count += 1
        self._begun = world.now
        self._key = self.client.open(self._vip[:2], self._notice)
        world.at(world.now + self.wait, self._give_up, self._count)

    def _give_up(self, count: int) -> None:
        if count == self._count and self._key is not None:
            self.client.abandon(self._key)
            self._say("timed out: Operation now in progress")

    def _notice(self, word: str, key: Key, size: int) -> None:
        if key != self._key:
            return
        if word == "connected":
            self._say("")
            host = self.client.host
            host.act(Close(host.own_time(), key))
            self.client.drop(key)
        elif word == "refused":
            self.client.drop(key)
            self._say("failed: Connection refused")

    def _say(self, failure: str) -> None:
        self._key = None
        self.failures += bool(failure)
        world = self.client.world
        world.at(world.now + self.every + self._chance.between(0, 50_000) * US, self.start)
        text, port = self._vip[2], self._vip[1]
        spent = (world.now - self._begun) // 1_000_000
        words = (
            f"nc: connect to {text} port {port} (tcp) {failure}"
            if failure
            else f"Connection to {text} {port} port [tcp/*] succeeded!"
        )
        self.lines.append(f"{self._begun // NS}.{self._begun % NS:09d} {words} ms={spent}")
