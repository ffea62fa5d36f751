"""The plan acted out before another server: the kernel model decides, the clients react to its answers."""

import heapq
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from analyzer.diagnosis.causes import CAUSE_OF_RULE
from analyzer.diagnosis.whatif.balancer import Balancer
from analyzer.diagnosis.whatif.plan import NO_DELAY, Attempt, Plan, Script
from analyzer.kernel.events import ACK, FIN, RST, SYN, Accept, Close, Decision, Key, Reply, Segment, Send, Timer
from analyzer.kernel.model import Server
from analyzer.kernel.settings import Settings
from analyzer.seqnum import add32
from analyzer.units import MS, NO_TIME, NS

ROUND_TRIP = MS // 2
"""Client's reaction time where the capture shows none."""
REQUEST_BYTES = 100
MINUTE = 60 * NS


@dataclass
class Outcome:
    """What became of the SYNs.

    Attributes:
        lost: SYNs without a SYN-ACK, by cause.
        syns: SYNs sent.
        failed: Attempts that never got a SYN-ACK.
        moved: Attempts on other four numbers than they had.
        ports: Most source ports in use on one address.
        counters: The server's counters.
        late: (SYNs sent, SYNs lost) in the minute after a switch.
    """

    lost: Counter[str] = field(default_factory=Counter)
    syns: int = 0
    failed: int = 0
    moved: int = 0
    ports: int = 0
    counters: Counter[str] = field(default_factory=Counter)
    late: tuple[int, int] = (0, 0)


@dataclass(slots=True)
class Talk:
    """One attempt while it is acted out."""

    attempt: Attempt
    source: object
    sport: int
    key: Key
    script: Script | None
    tries: int = 0
    state: str = "opening"
    seq: int = 0
    ack: int = 0
    begun: int = 0
    reset_answer: bool = False
    older: "Talk | None" = None

    @property
    def own(self) -> bool:
        """Whether it goes on as it was seen to, and not by another's script."""
        return self.script is self.attempt.script


class Rerun:
    """One run of the plan; see :meth:`run`.

    Args:
        plan: What the clients want.
        make_server: Makes a fresh server; called once, or for each address where every one is its own host.
        balancer: The load balancer between them.
        one_host: Whether all server addresses belong to one kernel.
    """

    def __init__(self, plan: Plan, make_server: Callable[[set[int]], Server], balancer: Balancer, one_host: bool):
        self.plan = plan
        self.balancer = balancer
        self.out = Outcome()
        self._one_host = one_host
        ports = {a.dport for a in plan.attempts}
        hosts = {0} if one_host else {a.server for a in plan.attempts}
        self._servers = {host: make_server(ports) for host in hosts}
        self._queue: list[tuple[int, int, Callable[..., None], tuple[object, ...]]] = []
        self._order = 0
        self._talks: dict[Key, Talk] = {}
        self._donors = _Donors(plan.attempts)
        self._timers: dict[int, int] = {}
        self._switched = NO_TIME

    def switch(self, now: int, settings: Settings) -> None:
        """Have the servers' settings change at *now*, and count what is lost in the minute after it."""
        self._at(now, self._change, settings)

    def _change(self, now: int, settings: Settings) -> None:
        for server in self._servers.values():
            server.settings = settings.with_defaults(server.profile)
        self._switched = now

    def run(self) -> Outcome:
        """Act everything out, up to the time of the capture's last packet."""
        for attempt in self.plan.attempts:
            self._at(attempt.times[0], self._begin, attempt)
        while self._queue:
            now, _, act, args = heapq.heappop(self._queue)
            if now > self.plan.end:
                break
            act(now, *args)
        for server in self._servers.values():
            self.out.counters.update(server.counters)
        self.out.moved = self.balancer.moved
        self.out.ports = max((len(p) for p in self.balancer.used.values()), default=0)
        return self.out

    def _at(self, time: int, act: Callable[..., None], *args: object) -> None:
        self._order += 1
        heapq.heappush(self._queue, (time, self._order, act, args))

    # ---- SYNs -------------------------------------------------------------------------------------

    def _begin(self, now: int, attempt: Attempt) -> None:
        source, sport = self.balancer.numbers(attempt, now)
        key = (attempt.server, attempt.dport, source, sport)
        moved = (source, sport) != (attempt.source, attempt.sport)
        room = attempt.next_start - now if attempt.next_start != NO_TIME and not moved else None
        script = attempt.script if attempt.script is not None else self._donors.script(attempt, room)
        talk = Talk(attempt, source, sport, key, script, begun=now, older=self._talks.get(key))
        if talk.older is not None:
            talk.older.older = None
        self._talks[key] = talk
        self._syn(now, talk)

    def _syn(self, now: int, talk: Talk) -> None:
        if talk.state != "opening" or self._talks.get(talk.key) is not talk:
            return
        attempt, number = talk.attempt, talk.tries
        talk.tries += 1
        self.out.syns += 1
        self._late(now, 1, 0)
        fate = attempt.fates[number] if number < len(attempt.fates) else ""
        if fate not in ("", "syn_ack_lost", "answer_not_forwarded"):
            self._lost(now, talk, fate, number)
            return
        segment = Segment(
            now, talk.source, talk.sport, attempt.server, attempt.dport, SYN, attempt.isn,
            tsval=self.balancer.tsval(attempt, now, number), wscale=attempt.wscale, mss=attempt.mss,
        )  # fmt: skip
        decision = self._feed(attempt.server, segment)
        if decision.verdict in ("accept", "cookie") and not fate:
            return  # the SYN-ACK was taken by _reply
        self._lost(now, talk, fate or CAUSE_OF_RULE.get(decision.rule, "server_silent"), number)

    def _lost(self, now: int, talk: Talk, cause: str, number: int) -> None:
        self.out.lost[cause] += 1
        self._late(now, 0, 1)
        if cause == "refused":
            talk.state = "over"
            self.out.failed += 1
            return
        wait = self._wait(talk, now, number)
        if wait is None:
            talk.state = "over"
            self.out.failed += 1
            self.balancer.ended(talk.source, talk.sport, talk.attempt, now)
        else:
            self._at(now + wait, self._syn, talk)

    def _late(self, now: int, sent: int, lost: int) -> None:
        if self._switched != NO_TIME and now - self._switched < MINUTE:
            self.out.late = (self.out.late[0] + sent, self.out.late[1] + lost)

    def _wait(self, talk: Talk, now: int, number: int) -> int | None:
        """Until the next SYN; None when the client gives up."""
        times = talk.attempt.times
        if talk.attempt.taken < 0 and number + 1 >= len(times):
            return None  # it gave up here, or went on by another port
        if talk.reset_answer and number == 0:
            talk.reset_answer = False
            return self.plan.quick
        if number + 1 < len(times):
            return max(times[number + 1] - times[0] - (now - talk.begun), MS)
        gap = self.plan.gaps[min(number, len(self.plan.gaps) - 1)]
        return gap if now + gap - talk.begun <= self.plan.patience else None

    # ---- packets and answers --------------------------------------------------------------------------

    def _feed(self, host: int, event: Segment | Accept | Send | Close | Timer) -> Decision:
        server = self._servers[0 if self._one_host else host]
        decision = server.feed(event)
        for reply in decision.replies:
            self._reply(event.time, reply)
        for word, key, _ in decision.notices:
            self._notice(event.time, host, word, key)
        self._wake(host, server, event.time)
        return decision

    def _wake(self, host: int, server: Server, now: int) -> None:
        """Have timers run in time, so that SYN-ACKs are repeated when they are due."""
        due = server.next_timer()
        if due is not None and self._timers.get(host, 0) <= now:
            self._timers[host] = max(due, now + MS)
            self._at(self._timers[host], self._tick, host)

    def _tick(self, now: int, host: int) -> None:
        self._feed(host, Timer(now))

    def _reply(self, now: int, reply: Reply) -> None:
        talk = self._talks.get(reply.key)
        if talk is None:
            return
        syn_ack = reply.flags & (SYN | ACK) == SYN | ACK
        if talk.state == "opening" and talk.older is not None and (reply.length or reply.flags & FIN):
            talk = talk.older  # the connection before speaks on
        if talk.state == "opening":
            self._answer(now, talk, reply, syn_ack)
        elif talk.state == "open" and talk.script is not None:
            if syn_ack and talk.attempt.lives:
                self._at(now + ROUND_TRIP, self._send, talk, ACK, 0)
            elif reply.flags & RST:
                talk.state = "over"
            elif reply.length or reply.flags & FIN:
                talk.ack = add32(reply.seq, reply.length + bool(reply.flags & FIN))
                self._acknowledge(now, talk, talk.script, reply)

    def _answer(self, now: int, talk: Talk, reply: Reply, syn_ack: bool) -> None:
        """Something comes back for a SYN."""
        number = talk.tries - 1
        fate = talk.attempt.fates[number] if number < len(talk.attempt.fates) else ""
        if syn_ack and not fate and reply.ack == add32(talk.attempt.isn, 1):
            talk.state, talk.seq, talk.ack = "open", add32(talk.attempt.isn, 1), add32(reply.seq, 1)
            if talk.attempt.lives and talk.script is not None:
                think = talk.script.think if talk.own else ROUND_TRIP
                self._at(now + max(think, 1), self._third, talk, talk.script)
        elif reply.flags & (SYN | RST | FIN) == 0 and not reply.length and self.plan.resets:
            talk.reset_answer = True
            reset = Segment(
                now + ROUND_TRIP, talk.source, talk.sport, talk.attempt.server, talk.attempt.dport, RST, reply.ack
            )
            self._at(now + ROUND_TRIP, self._raw, talk, reset)

    def _raw(self, now: int, talk: Talk, segment: Segment) -> None:
        self._feed(talk.attempt.server, segment)

    def _send(self, now: int, talk: Talk, flags: int, length: int) -> None:
        """A segment of an open connection."""
        attempt = talk.attempt
        if talk.state != "open" or (self._talks.get(talk.key) is not talk and not talk.own):
            return  # the load balancer has given the four numbers to somebody else
        segment = Segment(
            now, talk.source, talk.sport, attempt.server, attempt.dport, flags, talk.seq,
            talk.ack, self.balancer.tsval(attempt, now, talk.tries - 1), length=length,
        )  # fmt: skip
        talk.seq = add32(talk.seq, length + bool(flags & FIN))
        self._feed(attempt.server, segment)

    def _third(self, now: int, talk: Talk, script: Script) -> None:
        """The handshake's last ACK, and what the client does after it."""
        self._send(now, talk, ACK, 0)
        if script.data != NO_DELAY:
            self._at(now + script.data, self._send, talk, ACK, REQUEST_BYTES)
        if script.client_fin != NO_DELAY and not script.server_first:
            self._at(now + script.client_fin, self._send, talk, FIN | ACK, 0)
        if script.client_rst != NO_DELAY:
            self._at(now + script.client_rst, self._send, talk, RST | ACK, 0)

    def _acknowledge(self, now: int, talk: Talk, script: Script, reply: Reply) -> None:
        """The client's answer to data and to the FIN, as late as it was."""
        if not reply.flags & FIN or reply.again:
            self._at(now + ROUND_TRIP, self._send, talk, ACK, 0)
            return
        wait = script.fin_acked if script.fin_acked != NO_DELAY else ROUND_TRIP
        if not script.server_first or script.client_fin == NO_DELAY:
            self._at(now + wait, self._send, talk, ACK, 0)
            self.balancer.ended(talk.source, talk.sport, talk.attempt, now)
            return
        later = max(script.client_fin - script.server_fin, 0)
        if later > wait:
            self._at(now + wait, self._send, talk, ACK, 0)
        self._at(now + max(later, wait), self._send, talk, FIN | ACK, 0)
        self.balancer.ended(talk.source, talk.sport, talk.attempt, now + max(later, wait))

    # ---- the application --------------------------------------------------------------------------------

    def _notice(self, now: int, host: int, word: str, key: Key) -> None:
        talk = self._talks.get(key)
        if word == "ready":
            self._at(max(now, self._awake(now)), self._accept, host, key[1])
        elif word == "taken" and talk is not None and talk.script is not None:
            self._serve(now, host, key, talk.script)
        elif word == "eof" and talk is not None and talk.script is not None and not talk.script.server_first:
            wait = talk.script.server_fin - talk.script.client_fin
            if talk.script.server_fin != NO_DELAY:
                self._at(now + max(wait, 0), self._close, host, key, False)

    def _awake(self, now: int) -> int:
        """When the application takes the next connection off its queue."""
        return next((end for start, end in self.plan.pauses if start <= now < end), now)

    def _accept(self, now: int, host: int, port: int) -> None:
        self._feed(host, Accept(now, port))

    def _serve(self, now: int, host: int, key: Key, script: Script) -> None:
        """What the application does with a connection that it has taken."""
        late = _waited(script, self.plan.pauses)
        if script.answer != NO_DELAY:
            self._at(now + max(script.answer - late, 0), self._say, host, key)
        if script.server_fin != NO_DELAY and script.server_first:
            self._at(now + max(script.server_fin - late, 0), self._close, host, key, False)
        if script.server_rst != NO_DELAY:
            self._at(now + max(script.server_rst - late, 0), self._close, host, key, True)

    def _say(self, now: int, host: int, key: Key) -> None:
        self._feed(host, Send(now, key, REQUEST_BYTES))

    def _close(self, now: int, host: int, key: Key, reset: bool) -> None:
        self._feed(host, Close(now, key, reset))


def _waited(script: Script, pauses: list[tuple[int, int]]) -> int:
    """How long the connection had stood in the queue when it was seen, ns."""
    if script.served == NO_TIME:
        return 0
    queued = script.served - (script.answer if script.answer != NO_DELAY else script.server_fin)
    return next((end - queued for start, end in pauses if start <= queued < end), 0)


class _Donors:
    """Scripts for attempts that never got so far: those of the nearest completed ones to the same service."""

    def __init__(self, attempts: list[Attempt]) -> None:
        self._by: dict[tuple[int, ...], list[Attempt]] = {}
        for a in attempts:
            if a.script is not None:
                for kind in ((a.source, a.server, a.dport), (a.server, a.dport), ()):
                    self._by.setdefault(kind, []).append(a)

    def script(self, attempt: Attempt, room: int | None) -> Script | None:
        """The script of a completed attempt that ends within *room* ns; None if there is none at all."""
        wanted = ((attempt.source, attempt.server, attempt.dport), (attempt.server, attempt.dport), ())
        for kind in wanted:
            found = self._by.get(kind, [])
            near = _nearest(found, attempt.times[0])
            fits = [a for a in near if a.script is not None and (room is None or a.script.life + 10 * MS < room)]
            if fits:
                return fits[0].script
        return None


def _nearest(attempts: list[Attempt], time: int, count: int = 24) -> list[Attempt]:
    """Some attempts around *time*, the nearest first; *attempts* are in order of time."""
    low, high = 0, len(attempts)
    while low < high:
        middle = (low + high) // 2
        if attempts[middle].times[0] < time:
            low = middle + 1
        else:
            high = middle
    around = attempts[max(low - count, 0) : low + count]
    return sorted(around, key=lambda a: abs(a.times[0] - time))
