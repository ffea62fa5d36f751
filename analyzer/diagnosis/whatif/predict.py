"""SYNs lost before and after a change, what that rests on, and cures that make it worse."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from analyzer.diagnosis.model import Analysis, Vantage, WhatIf
from analyzer.diagnosis.whatif.balancer import Balancer
from analyzer.diagnosis.whatif.changes import Change, read_change, split_changes
from analyzer.diagnosis.whatif.plan import Plan, plan_of
from analyzer.diagnosis.whatif.rerun import Outcome, Rerun
from analyzer.errors import UsageError
from analyzer.kernel.model import Server
from analyzer.kernel.profiles import Profile
from analyzer.kernel.settings import Settings
from analyzer.schema import CAUSES
from analyzer.units import NS

PLENTY_OF_BUCKETS = 262_144
"""tcp_max_tw_buckets of a server with some memory, where it was not given."""
MODEL_DEFAULT_BUCKETS = 4_096
BEFORE_THE_SERVER = ("lost_before_server", "not_forwarded")
WORSE_BY = 1.02
CLEAR_PART = 0.05


@dataclass(frozen=True)
class World:
    """One server capture's plan and the server that it was acted out before.

    Attributes:
        vantage: The capture.
        plan: Its clients' plan.
        profile, settings: Kernel and settings in force.
        seen: SYNs lost by cause, as the capture shows them.
        failed: Attempts that got no SYN-ACK.
        again: The plan acted out before the same server: what the model makes of it.
    """

    vantage: Vantage
    plan: Plan
    profile: Profile
    settings: Settings
    seen: Counter[str]
    failed: int
    again: Outcome


def predict(
    analysis: Analysis, changes: Mapping[str, object] | Sequence[tuple[str, object]], together: bool = True
) -> list[WhatIf]:
    """Replay the same traffic under each change, and under all of them *together* if there are several.

    Args:
        analysis: What was seen, with causes.
        changes: Keys and values: names of sysctls (``tcp_tw_recycle``), ``kernel``, ``backlog``,
            ``lb.timestamps`` with ``lb.share``, ``lb.snat_addresses``, ``lb.source_ports``, ``lb.hold_down``.
        together: Whether the last prediction is of all changes at once.

    Raises:
        UsageError: An unknown key or value, or no capture that shows what reached a server.
    """
    pairs = list(changes.items() if isinstance(changes, Mapping) else changes)
    wanted = [read_change(one) for one in split_changes(pairs, together)]
    worlds = [_world(vantage) for vantage in _judged(analysis)]
    worlds = [world for world in worlds if world.plan.attempts]
    if not worlds:
        raise UsageError("no SYN reached a server in these captures: there is nothing to replay")
    elsewhere = _elsewhere(analysis, worlds)
    return [_whatif(worlds, change, elsewhere) for change in wanted]


def _elsewhere(analysis: Analysis, worlds: Sequence[World]) -> tuple[str, ...]:
    """What the load balancer's capture shows lost before it reached a server."""
    lost = analysis.diagnosis.summary.by_cause
    here = sum((world.seen for world in worlds), Counter[str]())
    other = {cause: lost[cause] for cause in BEFORE_THE_SERVER if lost.get(cause, 0) > here[cause]}
    if not other:
        return ()
    counted = ", ".join(f"{cause} {count:,}" for cause, count in other.items())
    return (f"SYNs that never reached a server's capture stay lost and are not counted here: {counted}.",)


def _judged(analysis: Analysis) -> list[Vantage]:
    """The captures that show what reached the servers: theirs, else the load balancer's."""
    replayed = [v for v in analysis.vantages if v.replayed is not None]
    servers = [v for v in replayed if v.side == "server"]
    return servers or replayed[:1]


def _world(vantage: Vantage) -> World:
    assert vantage.replayed is not None
    hypothesis = vantage.replayed.hypothesis
    settings = hypothesis.settings
    if settings.max_tw_buckets == MODEL_DEFAULT_BUCKETS:
        settings = replace(settings, max_tw_buckets=PLENTY_OF_BUCKETS)
    plan = plan_of(vantage)
    seen, failed = _seen(vantage, plan)
    again = _act(vantage, plan, hypothesis.profile, settings, Change(""))
    return World(vantage, plan, hypothesis.profile, settings, seen, failed, again)


def _seen(vantage: Vantage, plan: Plan) -> tuple[Counter[str], int]:
    """SYNs of the plan lost by cause, and attempts without an answer."""
    lost: Counter[str] = Counter()
    kept = {a.conn for a in plan.attempts} if plan.left_out else None
    assert vantage.replayed is not None
    spools = (vantage.tracked.syns, vantage.causes, vantage.replayed.verdicts)
    for syns, causes, verdicts in zip(*(s.chunks() for s in spools), strict=True):
        for conn, cause, rule in zip(
            syns["conn"].tolist(), causes["cause"].tolist(), verdicts["rule"].tolist(), strict=True
        ):
            if rule and CAUSES[cause] != "answered" and (kept is None or conn in kept):
                lost[CAUSES[cause]] += 1
    return lost, sum(a.taken < 0 for a in plan.attempts)


def _act(vantage: Vantage, plan: Plan, profile: Profile, settings: Settings, change: Change) -> Outcome:
    """Act a plan out under a change."""
    return _rerun(vantage, plan, profile, settings, change).run()


def _rerun(vantage: Vantage, plan: Plan, profile: Profile, settings: Settings, change: Change) -> Rerun:
    after = change.settings(settings)
    backlog = after.backlog if after.backlog is not None else max(after.somaxconn or 0, profile.somaxconn)
    if "backlog" in change.sysctls:
        after = replace(after, somaxconn=max(after.somaxconn or 0, backlog))

    def make(ports: set[int]) -> Server:
        server = Server(change.profile or profile, after)
        for port in ports:
            server.listen(port, backlog)
        return server

    pool: list[object] = list(dict.fromkeys(a.source for a in plan.attempts))
    at_server = vantage.side == "server"
    return Rerun(plan, make, Balancer(change, pool), at_server)


def _switching(world: World, change: Change) -> tuple[int, int]:
    """(SYNs sent, SYNs lost) in the minute after the settings change in mid-capture, for what a switch does itself."""
    rerun = _rerun(world.vantage, world.plan, world.profile, world.settings, Change(""))
    first = world.plan.attempts[0].times[0]
    rerun.switch((first + world.plan.end) // 2, change.settings(world.settings))
    return rerun.run().late


def _whatif(worlds: Sequence[World], change: Change, elsewhere: tuple[str, ...]) -> WhatIf:
    before: Counter[str] = Counter()
    again: Counter[str] = Counter()
    after: Counter[str] = Counter()
    outcomes = [_act(w.vantage, w.plan, w.profile, w.settings, change) for w in worlds]
    for world, outcome in zip(worlds, outcomes, strict=True):
        before.update(world.seen)
        again.update(world.again.lost)
        after.update(outcome.lost)
    return WhatIf(
        change=change.text,
        before={cause: before[cause] for cause in CAUSES if before[cause]},
        after={cause: after[cause] for cause in CAUSES if after[cause]},
        assumptions=(*_checks(before, again), *_assumptions(worlds, change), *elsewhere),
        warnings=_warnings(worlds, change, sum(again.values()), sum(after.values())),
        failed_before=sum(world.failed for world in worlds),
        failed_after=sum(outcome.failed for outcome in outcomes),
        syns_before=sum(len(a.times) for world in worlds for a in world.plan.attempts),
        syns_after=sum(outcome.syns for outcome in outcomes),
    )


# ---- what it rests on ------------------------------------------------------------------------------------


def _checks(seen: Counter[str], again: Counter[str]) -> tuple[str, ...]:
    """How well the model reproduces what was seen, with nothing changed."""
    total, model = sum(seen.values()), sum(again.values())
    off = sum(abs(seen[cause] - again[cause]) for cause in {*seen, *again})
    text = f"Check: with nothing changed the same model loses {model:,} SYNs; {total:,} were seen lost."
    if off > max(5, CLEAR_PART * total):
        causes = sorted({*seen, *again}, key=lambda c: -abs(seen[c] - again[c]))[:2]
        worst = ", ".join(f"{c} {again[c]:,} for {seen[c]:,}" for c in causes)
        text += f" It differs by cause ({worst}): take the prediction for a direction, not for a number."
    return (text,)


def _assumptions(worlds: Sequence[World], change: Change) -> tuple[str, ...]:
    plans = [world.plan for world in worlds]
    found = [
        "Every change is in force from the first packet on; what a switch itself does is not counted.",
        "New connections come when they came; a client that was spared a failure does not come back more often.",
        "Connections that failed would have gone like the nearest completed ones to the same service.",
    ]
    if all(plan.patience_seen for plan in plans):
        found.append(f"A client without an answer gives up after {max(p.patience for p in plans) / NS:.0f} s, as seen.")
    else:
        found.append("A client without an answer repeats its SYN for 15 s; the capture shows too few that gave up.")
    if not all(plan.resets for plan in plans):
        found.append("Bare ACKs do not come back to the clients, as seen: no RST ends a TIME-WAIT.")
    if any(world.settings.backlog is None for world in worlds) and "backlog" not in change.sysctls:
        found.append("The backlog is not known (--backlog): taken as large as the kernel allows.")
    if any(world.vantage.side != "server" for world in worlds):
        found.append("Seen at the load balancer: every server address is taken for a host of its own.")
    if change.addresses or change.hold_down or change.random_ports:
        found.append("The load balancer finds a free port whenever it wants one.")
    if change.timestamps == "rewrite":
        found.append("The load balancer writes one clock for all flows (1000 ticks per second).")
    if change.addresses:
        found.append(
            "Connections are spread over the addresses in turn, whoever the client is; a pool that keeps each client "
            "on one address mixes fewer clocks."
        )
    left_out = sum(plan.left_out for plan in plans)
    if left_out:
        found.append(f"{left_out:,} later attempts are left out.")
    return tuple(found)


def _warnings(worlds: Sequence[World], change: Change, before: int, after: int) -> tuple[str, ...]:
    """Cures that make it worse, or none at all; the facts of the kernels."""
    profile = change.profile or worlds[0].profile
    settings = change.settings(worlds[0].settings)
    recycles = profile.tw_recycle and bool(settings.tw_recycle)
    found = []
    if change.sysctls.get("net.ipv4.tcp_timestamps") == 0 and recycles and profile.drop_without_ts:
        sent, lost = (sum(counts) for counts in zip(*(_switching(world, change) for world in worlds), strict=True))
        found.append(
            "With tcp_tw_recycle on, switching tcp_timestamps off makes this kernel (3.17 - 4.11, RHEL 7.3 and later) "
            "drop every SYN of a remembered address for up to 60 s, again after each close of a connection from "
            f"before the switch: in the minute after it {lost:,} of {sent:,} SYNs are lost. Set tcp_tw_recycle=0 "
            "instead."
        )
    if change.timestamps == "strip" and change.share < 1 and recycles:
        found.append(
            "Timestamps taken from only part of the flows: "
            + ("the SYNs without them are dropped" if profile.drop_without_ts else "the other flows are still dropped")
            + " while another flow from the same address is remembered."
        )
    elif change.timestamps == "strip":
        found.append(
            "Without timestamps a TIME-WAIT on the same four numbers only gives way to a higher sequence number, and "
            "nothing protects against wrapped sequence numbers any more (PAWS is gone)."
        )
    need, seen = _port_need(worlds, change.hold_down)
    if need > seen:
        found.append(
            f"The hold-down keeps up to {need:,} source ports of one address busy at a time; the capture shows "
            f"{seen:,} in use: without more ports or addresses the pool runs out."
        )
    if change.timestamps == "rewrite" and change.share < 1:
        found.append("Two clocks behind one address remain where only part of the flows is rewritten.")
    if "net.ipv4.tcp_tw_recycle" in change.sysctls and not profile.tw_recycle:
        found.append(f"Kernel {profile.name} has no tcp_tw_recycle (removed in 4.12): the setting changes nothing.")
    elif change.sysctls.get("net.ipv4.tcp_tw_recycle"):
        found.append("tcp_tw_recycle breaks clients behind a common address; it was removed in 4.12.")
    if after > before * WORSE_BY + 1:
        found.insert(0, f"This makes it worse: {after:,} SYNs lost instead of {before:,}.")
    return tuple(found)


def _port_need(worlds: Sequence[World], hold_down: int) -> tuple[int, int]:
    """Most ports of one address that a hold-down keeps busy towards one server, and the ports seen in use there."""
    ends: dict[tuple[int, int, int], list[tuple[int, int]]] = defaultdict(list)
    ports: dict[tuple[int, int, int], set[int]] = defaultdict(set)
    for world in worlds:
        for a in world.plan.attempts:
            key = (a.source, a.server, a.dport)
            over = a.times[-1] + (a.script.life if a.script is not None else 0) + hold_down * NS
            ends[key] += [(a.times[0], 1), (over, -1)]
            ports[key].add(a.sport)
    need = {key: max(accumulate(step for _, step in sorted(times))) for key, times in ends.items()}
    worst = max(need, key=lambda key: need[key] - len(ports[key]))
    return (need[worst], len(ports[worst])) if hold_down else (0, 0)
