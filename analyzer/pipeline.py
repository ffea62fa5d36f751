"""The program on one page: each stage is a function from tables to tables."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from analyzer.anonymize import Anonymizer
from analyzer.capture import open_capture
from analyzer.connections import Tracked, track
from analyzer.diagnosis.agreement import match_any
from analyzer.diagnosis.blast import blast_radius
from analyzer.diagnosis.counters import reconcile_all
from analyzer.diagnosis.coverage import LB_SERVER_LEG, front_hosts
from analyzer.diagnosis.diagnose import diagnose
from analyzer.diagnosis.gather import Known, deltas
from analyzer.diagnosis.model import Analysis, KernelChoice, Vantage
from analyzer.diagnosis.netstat import Snapshots, load_pairs
from analyzer.diagnosis.probes import load_probe_log
from analyzer.diagnosis.question import Question, narrow, parse_address, parse_time
from analyzer.diagnosis.whatif import suggested
from analyzer.errors import InputError, UsageError
from analyzer.kernel.profiles import find_profile
from analyzer.kernel.settings import SYSCTLS, Settings
from analyzer.replay.choice import CANDIDATES, SERVERS_DIFFER, Score, agree, contested_part, plausible, rank, screens
from analyzer.replay.doubt import doubt_refuted
from analyzer.replay.evidence import completed_handshakes, empty_by_counters
from analyzer.replay.given import Given, read_given, shared_out
from analyzer.replay.nearer import defer
from analyzer.replay.placing import NOT_THE_SERVERS_NUMBERS, doubt
from analyzer.replay.run import Replayed, Scope, replay
from analyzer.replay.traces import evidence
from analyzer.replay.vantage import LOAD_BALANCER, SERVER
from analyzer.snat.joining import join
from analyzer.snat.legs import Place, place_of, side_of, virtual_hosts
from analyzer.snat.model import Joined, Seen
from analyzer.snat.vantages import group_captures
from analyzer.version import VERSION

Progress = Callable[[int, int, int], None]


@dataclass
class AnalyzeOptions:
    """The question, as the command line puts it.

    Attributes:
        captures: Inputs whose vantage is to be found out.
        servers, lbs: Inputs taken on a server, at the load balancer.
        kernel: Profile name, version, ``uname`` output, or ``auto``.
        sysctls: Settings by kernel name.
        sysctl_file: Output of ``sysctl -a``; several: one per server in their order, each with its own kernel line.
        backlog: The listener's backlog (Send-Q of ``ss -ltn``); several: one per server in their order.
        netstat: (before, after) files of the hosts' counters, one pair per server in their order.
        probe_log: Output of a probe on the server.
        port, vip: Narrow the question to this port, to this virtual (or server's) address.
        since, until: Narrow it to SYNs of this time: ISO 8601 (UTC) or seconds since 1970.
        anonymizer: Maps every address before anything is said of it; None leaves them.
    """

    captures: Sequence[str] = ()
    servers: Sequence[str] = ()
    lbs: Sequence[str] = ()
    kernel: str = "auto"
    sysctls: dict[str, int] = field(default_factory=dict)
    sysctl_file: str | Sequence[str] | None = None
    backlog: int | Sequence[int] | None = None
    netstat: Sequence[tuple[str, str]] = ()
    probe_log: str | None = None
    port: int | None = None
    vip: str | None = None
    since: str | None = None
    until: str | None = None
    anonymizer: Anonymizer | None = None

    @property
    def given(self) -> list[Given]:
        """Kernel and settings of all servers, or of each."""
        files = [self.sysctl_file] if isinstance(self.sysctl_file, str) else self.sysctl_file
        backlogs = [self.backlog] if isinstance(self.backlog, int) else self.backlog
        return read_given(self.kernel, self.sysctls, files or (), backlogs or ())

    @property
    def question(self) -> Question:
        """Which SYNs are asked about."""
        since, until = (None if text is None else parse_time(text) for text in (self.since, self.until))
        vip = None if self.vip is None else parse_address(self.vip)
        if vip is not None and self.anonymizer is not None:
            vip = self.anonymizer.text(vip)
        return Question(self.port, vip, since, until)


def analyze(options: AnalyzeOptions, progress: Progress | None = None) -> Analysis:
    """Captures in, a verdict and a cause for every SYN out.

    Args:
        options: What to read and what is known of the server.
        progress: Called with (bytes read, bytes in all, packets so far) of each capture.

    Raises:
        InputError: Nothing readable.
        UsageError: A setting or profile that does not exist, or no input at all.
    """
    given = options.given
    question = options.question
    snapshots = load_pairs(options.netstat)
    hide = None if options.anonymizer is None else options.anonymizer.text
    log = None if options.probe_log is None else load_probe_log(options.probe_log, hide)
    captures = _read(options, progress)
    order = {"server": 0, "lb": 1, "client": 2}
    placed = [Place(side, True) if side else place_of(tracked) for side, tracked in captures]
    assumed = {tracked.name for place, (_, tracked) in zip(placed, captures, strict=True) if not place.known}
    sides = [(place.side, tracked) for place, (_, tracked) in zip(placed, captures, strict=True)]
    sides.sort(key=lambda pair: order[pair[0]])
    known = shared_out(given, [side for side, _ in sides])
    joined = join([Seen(tracked.name, side, tracked) for side, tracked in sides])
    empty = [_begins_empty(side, tracked, snapshots[i : i + 1]) for i, (side, tracked) in enumerate(sides)]
    scopes = [_scope(side, tracked, joined, empty[i]) for i, (side, tracked) in enumerate(sides)]
    vantages = [_judge(tracked, side, known[i], scopes[i]) for i, (side, tracked) in enumerate(sides)]
    seen = [vantage for vantage, _ in vantages]
    _defer(seen, joined)
    for vantage in seen:
        vantage.placed = vantage.name not in assumed
        if vantage.side != "server" and vantage.replayed is not None:
            legs = joined.path(vantage.name, len(vantage.tracked.syns))["leg"]
            doubt(vantage.replayed, legs != LB_SERVER_LEG, NOT_THE_SERVERS_NUMBERS)
    counters = reconcile_all(seen, snapshots)
    probe = None if log is None else match_any(log, seen)
    narrow(seen, joined, question)
    cookies = any(one.settings.syncookies for one in given)
    diagnosis = diagnose(seen, joined, _kernel(vantages), Known(deltas(counters), cookies))
    diagnosis.counters, diagnosis.probe = counters, probe
    diagnosis.blast = blast_radius(seen, joined)
    problems = [problem for vantage in seen for problem in vantage.tracked.problems]
    analysis = Analysis(seen, diagnosis, problems, VERSION, joined, options.anonymizer)
    diagnosis.whatif = [] if question.narrow else suggested(analysis)
    return analysis


def _read(options: AnalyzeOptions, progress: Progress | None) -> list[tuple[str, Tracked]]:
    """Each vantage's packets, tracked; the side is empty where it is to be found out."""
    groups = group_captures(options.captures, options.servers, options.lbs)
    if not groups:
        raise UsageError("no capture given; see synquest analyze --help")
    read = []
    for group in groups:
        payload = group.side != "server"  # proxied legs are joined by it
        tracked = track(open_capture(group.paths, group.name, digests=payload, progress=progress))
        if not group.side and side_of(tracked) != "server":
            tracked.name = side_of(tracked)
        if not tracked.tcp_packets:
            problem = f" ({tracked.problems[0]})" if tracked.problems else ""
            raise InputError(f"{', '.join(group.paths)}: no readable TCP packet{problem}")
        if options.anonymizer is not None:
            options.anonymizer.hide(tracked)
        read.append((group.side, tracked))
    return read


def _begins_empty(side: str, tracked: Tracked, snapshots: Sequence[Snapshots]) -> bool:
    """Whether the host's counters prove that no state from before the capture exists."""
    proofs = (empty_by_counters(before, after, completed_handshakes(tracked)) for before, after in snapshots)
    return side == "server" and any(proofs)


def _scope(side: str, tracked: Tracked, joined: Joined, empty: bool) -> Scope:
    """From where a capture was taken, and whose SYNs in it no server has judged."""
    if side == "server":
        return Scope(SERVER, known_empty=empty)
    front = front_hosts(tracked, joined.path(tracked.name, len(tracked.syns))) | virtual_hosts(tracked)
    return Scope(LOAD_BALANCER, known_empty=empty, front_hosts=front)


def _judge(tracked: Tracked, side: str, given: Sequence[Given], scope: Scope) -> tuple[Vantage, KernelChoice]:
    """Replay one capture; where it shows several unlike servers, certain is what all of them agree on."""
    (replayed, choice), *others = [_replay(tracked, one, scope) for one in given]
    replayed = agree(replayed, [other for other, _ in others], tracked, SERVERS_DIFFER)
    doubt_refuted(tracked, replayed)
    in_force = replayed.hypothesis.settings
    choice = replace(
        choice,
        settings={name: v for name, field_ in SYSCTLS.items() if (v := getattr(in_force, field_)) is not None},
        evidence=evidence(tracked, replayed),
    )
    return Vantage(tracked.name, side, tracked, replayed), choice


def _replay(tracked: Tracked, given: Given, scope: Scope) -> tuple[Replayed, KernelChoice]:
    """Under the given kernel, or under the one that fits best; a tcp_tw_recycle that is not known is weighed too."""
    if given.kernel == "auto":
        return _chosen(tracked, given.settings, scope)
    profile = find_profile(given.kernel)
    told = f"given as {given.kernel!r}"
    if profile.tw_recycle and given.settings.tw_recycle is None:
        replayed, choice = _chosen(tracked, given.settings, scope, (profile.name,))
        return replayed, replace(choice, profile=profile.name, why=f"{told}; tcp_tw_recycle was not, {choice.why}")
    return replay(tracked, profile, given.settings, scope), KernelChoice(profile.name, profile.covers, told)


def _defer(seen: Sequence[Vantage], joined: Joined) -> None:
    """Let servers' own captures decide over the SYNs that they show."""
    servers = {i: v.replayed for i, v in enumerate(seen) if v.side == "server" and v.replayed is not None}
    for vantage in seen:
        if vantage.side == "lb" and vantage.replayed is not None and servers:
            defer(vantage.replayed, joined.path(vantage.name, len(vantage.tracked.syns)), servers)


def _kernel(vantages: Sequence[tuple[Vantage, KernelChoice]]) -> KernelChoice:
    """The decisive capture's kernel, with a word on servers that have another."""
    first = vantages[0][1]
    unlike = [(v.name, c) for v, c in vantages if v.side == "server" and c.profile != first.profile]
    told = ", ".join(f"{name}: {choice.profile}" for name, choice in unlike)
    return replace(first, why=f"{first.why}; {told}") if told else first


def _chosen(
    tracked: Tracked, settings: Settings, scope: Scope, names: Sequence[str] = CANDIDATES
) -> tuple[Replayed, KernelChoice]:
    """Score the candidates on the capture; verdicts are certain where the plausible ones agree."""
    scores = rank(tracked, settings, scope, names)
    fits = plausible(scores)
    best, *others = _unlike(fits)
    small = not any(s.tw_recycle for s in fits) and screens(tracked, settings, scope)
    part = contested_part(tracked) if small and others else tracked
    first = replay(tracked, best.profile, replace(settings, tw_recycle=best.tw_recycle), scope)
    rest = [replay(part, s.profile, replace(settings, tw_recycle=s.tw_recycle), scope) for s in others]
    alike = ", ".join(s.name for s in fits[1:])
    why = "chosen by the packets" if not alike else f"the packets do not tell it from {alike}"
    ranked = tuple((s.name, s.agreed, s.missed) for s in scores)
    return agree(first, rest, tracked), KernelChoice(best.name, best.profile.covers, why, ranked)


def _unlike(fits: list[Score]) -> list[Score]:
    """The best of each behaviour: candidates that decide over a SYN by the same rules need one replay."""
    kept: dict[tuple[object, ...], Score] = {}
    for score in fits:
        p = score.profile
        memory = (p.key, p.drop_without_ts, p.wide_seconds) if score.tw_recycle else ()
        kept.setdefault((p.live_syn, p.ack_ratelimit, p.tw_timer, p.accept_queue, p.syn_queue, *memory), score)
    return list(kept.values())
