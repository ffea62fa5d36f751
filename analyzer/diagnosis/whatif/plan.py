"""What the clients did, as a plan that can be acted out again before another server.

An attempt keeps what does not hang on the server's answer: when its first SYN came, its numbers, its
clock, how long its client goes on trying.  What follows a handshake is kept as a script of delays.
"""

from collections import Counter, defaultdict, namedtuple
from collections.abc import Iterator
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import numpy as np

from analyzer.connections.names import host_texts
from analyzer.diagnosis.model import Vantage
from analyzer.schema import (
    ANSWER_ACK,
    ANSWER_SYN_ACK,
    CAUSES,
    OPT_MSS,
    OPT_TS,
    OPT_WSCALE,
    SEEN_ESTABLISHED,
    SEEN_FIN_ORIG,
    SEEN_FIN_RESP,
    SEEN_FIN_RESP_ACKED,
    SEEN_RST_ORIG,
    SEEN_RST_RESP,
)
from analyzer.seqnum import add32, d32
from analyzer.units import MS, NO_TIME, NS

Records = np.ndarray[Any, np.dtype[np.void]]

MOST_ATTEMPTS = 200_000
DECIDED_BY_THE_KERNEL = frozenset(
    {"answered", "peer_timestamp", "time_wait_paws", "time_wait_sequence", "established_collision",
     "accept_queue_full", "syn_queue_full"}
)  # fmt: skip
"""Causes that a change of the server may lift; a SYN of another cause is lost again."""
USUAL_GAPS = (NS, 2 * NS, 4 * NS, 8 * NS, 16 * NS, 32 * NS)
USUAL_PATIENCE = 15 * NS
"""How long a client or its load balancer goes on trying where the capture shows no attempt that gave up."""
RATES = (100, 250, 1000)
LONG_ENOUGH = NS // 2
LAST_REPEAT = 4 * NS
"""A client that is left without an answer repeats its SYN by then; a flood or a scan does not."""
AT_ONCE = NS // 2
"""A reset that answers a bare ACK; a load balancer's own one comes after its handshake timer."""
FEW = 3
"""A habit or a pause shows in so many connections; one alone may be anything."""
NO_DELAY = -1


@dataclass(slots=True)
class Script:
    """What follows the last ACK of a handshake; delays in ns after it, NO_DELAY for what does not happen.

    Attributes:
        think: The SYN that was taken to the last ACK.
        data, answer: First data of the client, first data of the server.
        server_fin, client_fin: FINs.
        fin_acked: Server's FIN to its ACK.
        server_first: Whether the server's FIN came first.
        client_rst, server_rst: Resets.
        life: Until the last packet.
        served: Absolute time at which the application first showed that it had taken the connection.
    """

    think: int
    data: int = NO_DELAY
    answer: int = NO_DELAY
    server_fin: int = NO_DELAY
    client_fin: int = NO_DELAY
    fin_acked: int = NO_DELAY
    server_first: bool = True
    client_rst: int = NO_DELAY
    server_rst: int = NO_DELAY
    life: int = 0
    served: int = NO_TIME


@dataclass(slots=True)
class Attempt:
    """One handshake that a client wanted.

    Attributes:
        conn, source, server, sport, dport: As the capture names them; addresses are host ids.
        isn, wscale, mss: Of its SYN; None where the option is absent.
        times, tsvals, fates: Of each SYN seen; a fate is the cause that stands between it and the server's
            decision, or empty.
        ticks: Rate of its clock, per second.
        taken: Which of its SYNs was answered, -1 if none.
        lives: Whether the client goes on after a SYN-ACK; a flood does not.
        script: What it did afterwards, None if it never got so far.
        next_start: When the next attempt on the same four numbers began, NO_TIME if none did.
        last: Time and TSval of its last packet with one.
    """

    conn: int
    source: int
    server: int
    sport: int
    dport: int
    isn: int
    wscale: int | None
    mss: int | None
    times: list[int] = field(default_factory=list)
    tsvals: list[int | None] = field(default_factory=list)
    fates: list[str] = field(default_factory=list)
    ticks: float = 1000.0
    taken: int = -1
    lives: bool = True
    script: Script | None = None
    next_start: int = NO_TIME
    last: tuple[int, int] = (NO_TIME, 0)

    def tsval(self, now: int, number: int) -> int | None:
        """TSval of what the client sends at *now*, after *number* of its SYNs: between those seen, or beyond."""
        at = min(number, len(self.times) - 1)
        base, time = self.tsvals[at], self.times[at]
        if base is None:
            return None
        end, newest = self.last
        if end != NO_TIME and now >= end:
            return add32(newest, round((now - end) * self.ticks / NS))
        if end > time:
            return add32(base, round((now - time) * d32(newest, base) / (end - time)))
        return add32(base, round((now - time) * self.ticks / NS))


@dataclass
class Plan:
    """All attempts at one capture's servers.

    Attributes:
        attempts: In order of their first SYN.
        names: Addresses by host id.
        gaps: Wait after the first, second … SYN, ns.
        patience: Waits after which an attempt that the capture saw succeed would give up, ns in all.
        resets: Whether a client that gets a bare ACK resets what sent it (a load balancer may swallow the ACK).
        quick: Wait after a bare ACK that was answered by a RST, ns.
        pauses: (start, end) of the times in which the application took no connection off the queue.
        end: Time of the capture's last packet.
        left_out: Attempts beyond ``MOST_ATTEMPTS``.
    """

    attempts: list[Attempt]
    names: list[str]
    gaps: tuple[int, ...] = USUAL_GAPS
    patience: int = USUAL_PATIENCE
    patience_seen: bool = False
    resets: bool = True
    quick: int = NS
    pauses: list[tuple[int, int]] = field(default_factory=list)
    end: int = 0
    left_out: int = 0


def plan_of(vantage: Vantage) -> Plan:
    """Read the clients' plan off a capture whose SYNs have their causes.

    Args:
        vantage: A capture with its causes; SYNs that a load balancer's own address answers are left out.
    """
    attempts, acked = _attempts(vantage)
    plan = Plan(list(attempts.values()), host_texts(vantage.tracked.hosts), end=vantage.tracked.last_time)
    plan.attempts.sort(key=lambda a: a.times[0])
    _scripts(vantage, attempts)
    _rates(plan.attempts)
    _habits(plan)
    _reactions(plan, acked, vantage)
    plan.pauses = _pauses([a for a in plan.attempts if a.script is not None])
    plan.left_out = max(0, len(plan.attempts) - MOST_ATTEMPTS)
    del plan.attempts[MOST_ATTEMPTS:]
    return plan


def _syn_rows(vantage: Vantage) -> Iterator[tuple[Any, ...]]:
    columns = (
        "time", "conn", "orig", "resp", "orig_p", "resp_p", "isn", "tsval", "opts", "wscale", "mss", "answer",
        "answer_time", "chain",
    )  # fmt: skip
    assert vantage.replayed is not None
    spools = (vantage.tracked.syns, vantage.causes, vantage.replayed.verdicts)
    for syns, causes, verdicts in zip(*(s.chunks() for s in spools), strict=True):
        judged = verdicts["rule"] > 0
        rows = syns[judged]
        yield from zip(*(rows[name].tolist() for name in columns), causes["cause"][judged].tolist(), strict=True)


def _attempts(vantage: Vantage) -> tuple[dict[int, Attempt], dict[int, int]]:
    """Attempts by connection id, and the connections whose SYN met a bare ACK, with its time."""
    found: dict[int, Attempt] = {}
    newest: dict[int, Attempt] = {}
    acked: dict[int, int] = {}
    for time, conn, orig, resp, sport, dport, isn, tsval, opts, wscale, mss, answer, back, chain, cause in _syn_rows(
        vantage
    ):
        attempt = found.get(conn)
        if attempt is None:
            attempt = found[conn] = Attempt(
                conn, orig, resp, sport, dport, isn, wscale if opts & OPT_WSCALE else None,
                mss if opts & OPT_MSS else None,
            )  # fmt: skip
            if chain in newest:
                newest[chain].next_start = time
            newest[chain] = attempt
        word = CAUSES[cause]
        attempt.times.append(time)
        attempt.tsvals.append(tsval if opts & OPT_TS else None)
        attempt.fates.append("" if word in DECIDED_BY_THE_KERNEL else word)
        if answer == ANSWER_SYN_ACK and attempt.taken < 0:
            attempt.taken = len(attempt.times) - 1
        if answer == ANSWER_ACK:
            acked[conn] = back
    return found, acked


_CONNECTION = (
    "conn", "seen", "established_time", "syn_ack_time", "first_data_orig", "first_data_resp", "fin_orig_time",
    "fin_resp_time", "fin_resp_acked", "rst_time", "end", "last_tsval_orig",
)  # fmt: skip
_Row = namedtuple("_Row", _CONNECTION)  # type: ignore[misc]


def _scripts(vantage: Vantage, attempts: dict[int, Attempt]) -> None:
    """Give every completed handshake what followed it, and every clock its rate where the connection shows it."""
    completed: set[int] = set()
    for chunk in vantage.tracked.connections.chunks():
        rows = chunk[(chunk["seen"] & SEEN_ESTABLISHED > 0) & (chunk["syn_ack_time"] != NO_TIME)]
        for values in zip(*(rows[name].tolist() for name in _CONNECTION), strict=True):
            row: Any = _Row(*values)
            attempt = attempts.get(row.conn)
            if attempt is not None:
                completed.add(attempt.source)
                _complete(attempt, row)
    for attempt in attempts.values():
        repeats = len(attempt.times) > 1 or vantage.tracked.last_time - attempt.times[0] < LAST_REPEAT
        honest = repeats and (len(attempt.times) > 1 or attempt.source in completed)
        attempt.lives = attempt.script is not None or (attempt.taken < 0 and honest)
        if attempt.script is None:
            attempt.ticks = 0.0


def _complete(attempt: Attempt, row: Any) -> None:
    """What followed one handshake, and the rate of its clock (0 where it was too short to show one)."""
    attempt.script = _script(row)
    if attempt.taken >= 0:
        attempt.script.think = max(row.established_time - attempt.times[attempt.taken], 0)
    attempt.ticks = 0.0
    first = attempt.tsvals[0]
    if first is None:
        return
    attempt.last = (row.end, row.last_tsval_orig)
    span = row.end - attempt.times[0]
    if span > LONG_ENOUGH:
        attempt.ticks = max(d32(row.last_tsval_orig, first), 0) * NS / span


def _script(row: Any) -> Script:
    """The delays of one connection."""
    start = row.established_time

    def after(time: int, bit: int = 0) -> int:
        return NO_DELAY if time == NO_TIME or (bit and not row.seen & bit) else max(time - start, 0)

    client, server = after(row.fin_orig_time, SEEN_FIN_ORIG), after(row.fin_resp_time, SEEN_FIN_RESP)
    acked = after(row.fin_resp_acked, SEEN_FIN_RESP_ACKED)
    served = [time for time in (row.first_data_resp, row.fin_resp_time) if time != NO_TIME]
    reset = NO_DELAY in (client, server)
    return Script(
        think=max(start - row.syn_ack_time, 0),
        data=after(row.first_data_orig),
        answer=after(row.first_data_resp),
        server_fin=server,
        client_fin=client,
        fin_acked=max(acked - server, 0) if NO_DELAY not in (acked, server) else NO_DELAY,
        server_first=server != NO_DELAY and (client == NO_DELAY or server <= client),
        client_rst=after(row.rst_time, SEEN_RST_ORIG) if reset else NO_DELAY,
        server_rst=after(row.rst_time, SEEN_RST_RESP) if reset and not row.seen & SEEN_RST_ORIG else NO_DELAY,
        life=max(row.end - start, 0),
        served=min(served, default=NO_TIME),
    )


def _rates(attempts: list[Attempt]) -> None:
    """Clocks that a short attempt does not show run at the usual rate of their address, in round numbers."""
    seen: dict[int, Counter[int]] = defaultdict(Counter)
    everywhere: Counter[int] = Counter()
    for attempt in attempts:
        first, last = attempt.tsvals[0], attempt.tsvals[-1]
        span = attempt.times[-1] - attempt.times[0]
        if attempt.ticks == 0.0 and first is not None and last is not None and span > LONG_ENOUGH:
            attempt.ticks = max(d32(last, first), 0) * NS / span
        near = min(RATES, key=lambda rate, had=attempt.ticks: abs(had - rate))  # type: ignore[misc]
        if attempt.ticks and abs(attempt.ticks - near) < near / 5:
            seen[attempt.source][near] += 1
            everywhere[near] += 1
    usual = everywhere.most_common(1)[0][0] if everywhere else RATES[-1]
    for attempt in attempts:
        if not attempt.ticks:
            attempt.ticks = seen[attempt.source].most_common(1)[0][0] if seen[attempt.source] else usual


def _habits(plan: Plan) -> None:
    """How clients repeat, and how long: learned from those that were left without an answer."""
    waits: dict[int, list[int]] = defaultdict(list)
    lasted: list[int] = []
    for attempt in plan.attempts:
        for i, (a, b) in enumerate(zip(attempt.times, attempt.times[1:], strict=False)):
            if b - a > LONG_ENOUGH:
                waits[i].append(b - a)
        if attempt.taken < 0 and len(attempt.times) > 1:
            lasted.append(attempt.times[-1] - attempt.times[0])
    usual = list(USUAL_GAPS)
    for i, seen in waits.items():
        if i < len(usual) and len(seen) >= FEW:
            usual[i] = int(median(seen))
    plan.gaps = tuple(usual)
    if len(lasted) >= FEW:
        plan.patience, plan.patience_seen = int(median(lasted)), True


def _reactions(plan: Plan, acked: dict[int, int], vantage: Vantage) -> None:
    """Whether a bare ACK reaches the client: then a RST comes at once, and the SYN again soon after it."""
    if not acked:
        return
    reset: set[int] = set()
    wanted = np.array(sorted(acked))
    for chunk in vantage.tracked.connections.chunks():
        rows = chunk[np.isin(chunk["conn"], wanted) & (chunk["seen"] & SEEN_RST_ORIG > 0)]
        for conn, time in rows[["conn", "rst_time"]].tolist():
            if abs(time - acked[conn]) < AT_ONCE:
                reset.add(conn)
    plan.resets = 2 * len(reset) >= len(wanted)
    tried = [a for a in plan.attempts if a.conn in reset and len(a.times) > 1]
    waits = [a.times[1] - a.times[0] for a in tried]
    if len(waits) >= FEW:
        plan.quick = max(int(median(waits)), MS)


def _pauses(attempts: list[Attempt]) -> list[tuple[int, int]]:
    """Times in which connections waited much longer than usual for the application's first sign.

    It takes them in order: the first one that waited shows when the pause ends.
    """
    waits = []
    for attempt in attempts:
        script = attempt.script
        if script is None or script.served == NO_TIME:
            continue
        queued = script.served - (script.answer if script.answer != NO_DELAY else script.server_fin)
        waits.append((queued, script.served, script.served - queued - max(script.data, 0)))
    if not waits:
        return []
    limit = max(LONG_ENOUGH, 4 * median(wait for _, _, wait in waits))
    found: list[tuple[int, int]] = []
    for queued, served, wait in sorted(waits):
        if wait > limit and not (found and queued <= found[-1][1]):
            found.append((queued, served))
    return [pause for pause in found if sum(pause[0] <= q <= pause[1] for q, _, _ in waits) >= FEW]
