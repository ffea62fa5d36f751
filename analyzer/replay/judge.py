"""What the kernel does with one SYN, over every state that the packets allow.

Each feasible state of the four-tuple is one branch, the likeliest first; a verdict is certain when
all branches agree.  Order of the tests: kernel-model steps K1-K2, then per state 2.2-2.6.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING

from analyzer.kernel import rules
from analyzer.kernel.rules import Bucket, Outcome
from analyzer.replay.losses import LACKS
from analyzer.replay.memory import SILENCE
from analyzer.replay.reach import UNREACHED
from analyzer.replay.sockets import LIVE, Phase, Socket
from analyzer.schema import OPT_CLIPPED, OPT_TS
from analyzer.seqnum import add32, d32
from analyzer.units import MS, NO_TIME, NS

if TYPE_CHECKING:
    from analyzer.replay.engine import Ev, Hypothesis
    from analyzer.replay.losses import Losses
    from analyzer.replay.memory import PeerMemory, Stamp
    from analyzer.replay.queues import Listeners

LEAD_IN = 60 * NS
RECYCLED_LIFE = 11 * NS
"""A recycled bucket is gone by then, even of a connection whose round trip was never measured."""
REQUEST_LIFE = 63 * NS
"""A request is gone after five SYN-ACK timeouts (tcp_synack_retries = 5, initial RTO 1 s)."""


@dataclass(slots=True)
class Ruling:
    """What happens to one SYN.

    Attributes:
        verdict: ``accept``, ``drop``, ``ack``, ``rst``, ``cookie`` or ``unknown``.
        certain: Whether every feasible state gives this verdict.
        rule: Name of the deciding rule.
        reason: What the verdict rests on when it is not certain; empty otherwise.
        alternative: Rule that another feasible state would apply.
        stamp: The remembered TSval it was compared with, if any.
        compared_bucket: Socket whose ts_recent it was compared with, if any.
        rearm, destroys, repeats, by_listener: What becomes of the four-tuple's state.
    """

    verdict: str
    certain: bool
    rule: str
    reason: str = ""
    alternative: str = ""
    stamp: Stamp | None = None
    compared_bucket: Socket | None = None
    rearm: bool = False
    destroys: bool = False
    repeats: bool = False
    by_listener: bool = False


def lead_in_text(seconds: int) -> str:
    """What is in doubt during the first minute of a capture."""
    return f"assumes no TIME-WAIT from before the capture; {seconds} s of lead-in missing"


class Judge:
    """Applies one hypothesis to SYNs; remembers only which four-tuples a state from before the capture may hold."""

    losses: Losses | None = None

    def __init__(
        self, hypothesis: Hypothesis, queues: Listeners | None, reached: Callable[[int, int], bool] | None = None
    ) -> None:
        self.hypothesis = hypothesis
        self.profile = hypothesis.profile
        self.settings = hypothesis.settings
        self.vantage = hypothesis.vantage
        self.queues = queues
        self.reached = reached
        self.doubted: dict[int, int] = {}
        self.settled: set[int] = set()

    def syn(self, ev: Ev, socket: Socket | None, memory: PeerMemory | None) -> Ruling:
        """Judge the SYN *ev* that finds *socket* on its four numbers."""
        branches = self._branches(socket, ev.time)
        if socket is not None and not socket.sure and len(branches) > 1 and ev.time - socket.born > SILENCE:
            branches = [*branches[1:], socket]  # a handshake not completed by now was hardly begun
        rulings = [self._branch(ev, branch, memory) for branch in branches]
        first = rulings[0]
        if len(rulings) > 1:
            differing = next((other for other in rulings[1:] if other.verdict != first.verdict), None)
            if differing is not None:
                first.certain = False
                first.alternative = first.alternative or differing.rule
                first.reason = first.reason or self._doubt(socket)
            elif not all(other.certain for other in rulings):
                first.certain = False
                first.reason = first.reason or next(r.reason for r in rulings if not r.certain)
        if (socket is None or not socket.sure) and not self.hypothesis.empty_before(ev.time):
            self._doubt_the_past(ev, first)
        if first.certain and self._repeats_in_silence(ev, socket):
            first.certain, first.reason = False, "the client repeats a SYN that should have been taken"
        if first.certain and ev.opts & OPT_CLIPPED and not ev.opts & OPT_TS:
            first.certain, first.reason = False, "the capture cut the SYN's options; its TSval is not known"
        if first.certain and self.losses and self._missed(ev.time, socket):
            first.certain, first.reason = False, LACKS
        return first

    def _missed(self, now: int, socket: Socket | None) -> bool:
        """Whether packets that the capture lacks may have changed what this SYN meets."""
        assert self.losses is not None
        if self.losses.near(now):
            return True
        return socket is not None and not socket.is_bucket and self.losses.since(socket.born, now)

    def _repeats_in_silence(self, ev: Ev, socket: Socket | None) -> bool:
        """Where a live socket drops SYNs without a word, one from before the capture may be the reason."""
        silent = self.profile.live_syn == "silent" and socket is not None and socket.phase is Phase.SYN_RECV
        return silent and socket is not None and ev.time - socket.born > SILENCE

    def _doubt_the_past(self, ev: Ev, ruling: Ruling) -> None:
        """In the first minute a TIME-WAIT from before the capture may stand on any four numbers.

        Each SYN that it refuses may have kept it for another minute.
        """
        if ev.chain in self.settled:
            return
        since = max(self.hypothesis.start, self.doubted.get(ev.chain, self.hypothesis.start))
        missing = since + LEAD_IN - ev.time
        if ruling.verdict == "drop":  # a memory that rejects also shortens the lives of most buckets
            missing -= LEAD_IN - RECYCLED_LIFE
        if missing > 0:
            self.doubted[ev.chain] = ev.time
            ruling.reason = ruling.reason if not ruling.certain else lead_in_text(-(-missing // NS))
            ruling.certain = False

    def settle(self, chain: int, now: int) -> None:
        """A handshake on these four numbers was completed: what stood on them before is gone."""
        if chain in self.doubted or now < self.hypothesis.start + LEAD_IN:
            self.doubted.pop(chain, None)
            self.settled.add(chain)

    def _doubt(self, socket: Socket | None) -> str:
        if socket is None or not socket.sure:
            return "depends on whether an earlier SYN on these four numbers was taken"
        if socket.phase is Phase.FIN_WAIT2:
            return "depends on whether the server's application had closed its socket"
        return "depends on whether the TIME-WAIT of the previous connection had expired"

    def _branches(self, socket: Socket | None, now: int) -> list[Socket | None]:
        if socket is None or socket.is_gone(now):
            return [None]
        if socket.may_be_gone(now):
            half = socket.armed + (socket.life_lo + socket.life_hi) // 2
            if socket.phase is Phase.FIN_WAIT2:
                full = copy(socket)
                full.open_fd = True
                return [socket, full, None] if now < half else [None, full]
            return [socket, None] if now < half else [None, socket]
        if socket.midstream:
            return [socket, None]
        if socket.phase is Phase.SYN_RECV and now - socket.born > REQUEST_LIFE:
            return [None]
        if not socket.sure:
            return [socket, *self._branches(socket.before, now)]
        if socket.phase is Phase.SYN_RECV and now - socket.born > SILENCE:
            return [socket, None]  # the client did not go on: it may never have been answered
        return [socket]

    def _branch(self, ev: Ev, socket: Socket | None, memory: PeerMemory | None) -> Ruling:
        if socket is None:
            return self._listener(ev, memory)
        if socket.phase is Phase.TIME_WAIT:
            return self._time_wait(ev, socket)
        if socket.phase is Phase.SYN_RECV:
            return self._syn_recv(ev, socket)
        if socket.phase is Phase.FIN_WAIT2 and not socket.open_fd:
            return self._half_closed(ev, socket)
        return self._live(ev, socket)

    def _half_closed(self, ev: Ev, socket: Socket) -> Ruling:
        """FIN_WAIT2: a small bucket if the application closed, a full socket if it only shut down."""
        last = socket.last_ack
        bucket = self._fin_wait2(ev, socket)
        answered, socket.last_ack = socket.last_ack, last
        full = self._live(ev, socket)
        socket.last_ack = answered
        if full.verdict != bucket.verdict:
            bucket.certain, bucket.reason = False, self._doubt(socket)
        socket.asked = ev.time
        return bucket

    def _tsval(self, ev: Ev) -> int | None:
        """The SYN's TSval as the server sees it."""
        return ev.tsval if ev.opts & OPT_TS and self.settings.timestamps != 0 else None

    def _bucket(self, socket: Socket) -> Bucket:
        has_ts = socket.has_ts and socket.ts_recent_time != NO_TIME
        second = self.vantage.seconds(socket.ts_recent_time)[0] if has_ts else 0
        return Bucket(
            rcv_nxt=socket.rcv_nxt,
            rcv_wnd=socket.rcv_wnd,
            snd_nxt=socket.fin_end,
            ts_recent=socket.ts_recent,
            ts_recent_s=second,
            has_ts=has_ts,
        )

    def _time_wait(self, ev: Ev, socket: Socket) -> Ruling:
        now = self.vantage.seconds(ev.time)[0]
        outcome = rules.time_wait(self.profile, self._bucket(socket), ev.seq, self._tsval(ev), now)
        ruling = Ruling(outcome.verdict, True, outcome.rule, compared_bucket=socket, rearm=outcome.rearm)
        if outcome.verdict == "accept":
            ruling.destroys = True
            if self.queues is not None:
                self._accept_queue(ev, ruling)
            return ruling
        return self._limited(ev, socket, ruling, f"{outcome.rule}_rate_limited")

    def _fin_wait2(self, ev: Ev, socket: Socket) -> Ruling:
        now = self.vantage.seconds(ev.time)[0]
        outcome = rules.fin_wait2(self.profile, self._bucket(socket), ev.seq, self._tsval(ev), now)
        ruling = Ruling(outcome.verdict, True, outcome.rule, compared_bucket=socket, destroys=outcome.destroys)
        if outcome.verdict == "rst":
            return ruling
        return self._limited(ev, socket, ruling, "fin_wait2_rate_limited")

    def _syn_recv(self, ev: Ev, socket: Socket) -> Ruling:
        now = self.vantage.seconds(ev.time)[0]
        outcome = rules.syn_recv(self.profile, self._bucket(socket), ev.seq, self._tsval(ev), now)
        ruling = Ruling(outcome.verdict, True, outcome.rule, destroys=outcome.destroys)
        ruling.repeats = outcome.verdict == "accept"
        limited = self.profile.ack_ratelimit
        return self._limited(ev, socket, ruling, "syn_recv_rate_limited") if limited else ruling

    def _live(self, ev: Ev, socket: Socket) -> Ruling:
        edge = add32(socket.rcv_nxt, max(socket.rcv_wnd, 1))
        in_window = d32(ev.seq, socket.rcv_nxt) >= 0 and d32(ev.seq, edge) < 0
        tsval = self._tsval(ev)
        paws = tsval is not None and socket.has_ts and d32(socket.ts_recent, tsval) > 1
        outcome: Outcome = rules.live(self.profile, in_window, paws)
        ruling = Ruling(outcome.verdict, True, outcome.rule, compared_bucket=socket, destroys=outcome.destroys)
        return self._limited(ev, socket, ruling, "live_rate_limited")

    def _limited(self, ev: Ev, socket: Socket, ruling: Ruling, rule: str) -> Ruling:
        """Apply the limit of one out-of-window answer per tcp_invalid_ratelimit."""
        if ruling.verdict not in ("ack", "accept") or not self.profile.ack_ratelimit:
            return ruling
        last = None if socket.last_ack == NO_TIME else socket.last_ack
        if not rules.ack_suppressed(self.profile, self.settings, last, ev.time):
            socket.last_ack = ev.time
            return ruling
        edge = (self.settings.invalid_ratelimit_ms or 500) * MS
        ruling.verdict, ruling.rule, ruling.repeats = "drop", rule, False
        if last is not None and abs(ev.time - last - edge) <= self.vantage.slack:
            ruling.certain, ruling.reason = False, "depends on the exact tick of the ACK rate limit"
        return ruling

    def _listener(self, ev: Ev, memory: PeerMemory | None) -> Ruling:
        """Steps L5-L12."""
        ruling = Ruling("accept", True, "listener", by_listener=True)
        if self.queues is not None and self._queues(ev, ruling):
            return ruling
        if memory is not None:
            tsval = self._tsval(ev)
            check = memory.check(tsval, self.vantage.seconds(ev.time))
            ruling.stamp = check.stamp
            if check.rejects:
                ruling.verdict = "drop"
                ruling.rule = "peer_timestamp" if tsval is not None else "peer_timestamp_missing"
                cookie = self.queues is not None and self.queues.of(ev.chain).cookies_likely()
                ruling.certain = check.certain and not cookie
            elif not check.certain:
                ruling.certain = False
            if not check.certain and not check.rejects and not check.missing_lead_in:
                ruling.alternative = "peer_timestamp"
            if not check.certain:
                ruling.reason = self._memory_doubt(ev, check.missing_lead_in)
        if ruling.certain and ruling.verdict == "accept" and self.reached and not self.reached(ev.chain, ev.time):
            ruling.certain, ruling.reason = False, UNREACHED
        return ruling

    def _memory_doubt(self, ev: Ev, missing: bool) -> str:
        if not missing:
            return "depends on which close the server had remembered for this peer"
        seconds = -(-(self.hypothesis.start + 60 * NS - ev.time) // NS)
        return f"assumes nothing remembered from before the capture; {max(seconds, 1)} s of lead-in missing"

    def _queues(self, ev: Ev, ruling: Ruling) -> bool:
        """Steps L5-L6 and L9; True if the SYN ends here."""
        assert self.queues is not None
        doubt = self.queues.of(ev.chain).judge_syn(ev.chain, ev.time, ruling, self._tsval(ev) is not None)
        if ruling.verdict != "accept":
            return True
        if doubt:
            ruling.certain, ruling.reason = False, doubt
        return False

    def _accept_queue(self, ev: Ev, ruling: Ruling) -> None:
        assert self.queues is not None
        doubt = self.queues.of(ev.chain).judge_accept_queue(ruling)
        if doubt:
            ruling.certain, ruling.reason = False, doubt

    def reset_kills(self, socket: Socket, ev: Ev) -> bool:
        """Whether the originator's RST ends what stands on the four-tuple (RFC 5961 section 3.2, RFC 1337)."""
        ahead = d32(ev.seq, socket.rcv_nxt)
        in_window = ahead == 0 or 0 < ahead < max(socket.rcv_wnd, 1)
        if socket.phase is Phase.TIME_WAIT:
            return in_window and not self.settings.rfc1337
        if socket.phase in LIVE or socket.phase is Phase.FIN_WAIT2:
            return ahead == 0 or (in_window and not socket.rcv_wnd)
        return in_window

    def answers_challenge(self, socket: Socket | None, ev: Ev) -> bool:
        """Whether an ACK on a new attempt is no third ACK: it speaks in the older connection's numbers."""
        return socket is not None and socket.rcv_nxt != 0 and ev.seq == socket.rcv_nxt
