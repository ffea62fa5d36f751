"""Drives the kernel's rules over a capture's events, one four-tuple and one peer at a time.

The engine is one hypothesis: one kernel profile with one set of settings.  It reads events in order
of arrival and returns, for each SYN, what that kernel does with it and how sure that is.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import NamedTuple

from analyzer.kernel.profiles import Profile
from analyzer.kernel.rules import TIME_WAIT_NS, bucket_life_ns, fin_time_ns, rto_bounds_ns
from analyzer.kernel.settings import Settings
from analyzer.replay.judge import Judge, Ruling
from analyzer.replay.memory import PeerMemory, Stamp
from analyzer.replay.queues import Listeners
from analyzer.replay.sockets import Phase, Socket
from analyzer.replay.vantage import Vantage
from analyzer.schema import (
    ACK,
    FIN,
    KIND_ICMP,
    OPT_TS,
    RST,
    SEEN_FIN_ORIG,
    SEEN_FIN_ORIG_ACKED,
    SEEN_FIN_RESP,
    SEEN_FIN_RESP_ACKED,
    SEEN_MIDSTREAM,
    SEEN_RST_ORIG,
    SEEN_RST_RESP,
    SEEN_SYN_ACK,
    SYN,
)
from analyzer.seqnum import add32, d32
from analyzer.units import NO_TIME, US

NEVER = 2**63 - 1
CLOSED = SEEN_FIN_ORIG_ACKED | SEEN_FIN_RESP_ACKED | SEEN_RST_ORIG | SEEN_RST_RESP


class Ev(NamedTuple):
    """One kernel-visible packet; the columns of ``schema.EVENT`` in this order."""

    time: int
    ts_recent_time: int
    frame: int
    file: int
    conn: int
    chain: int
    seq: int
    ack: int
    tsval: int
    tsecr: int
    length: int
    ts_recent: int
    rcv_wup: int
    rcv_wnd: int
    rtt_min: int
    rtt_max: int
    flags: int
    opts: int
    ipid: int
    seen: int
    kind: int
    resp: int


class Write(NamedTuple):
    """One write of a peer's stamp, for the ``peer_states`` table."""

    time: int
    frame: int
    file: int
    conn: int
    chain: int
    tsval: int
    second: int
    event: str
    certain: bool
    stored: int


@dataclass(frozen=True)
class Hypothesis:
    """What is assumed about the server.

    Attributes:
        profile: The kernel's rules.
        settings: Its sysctls and the listener's backlog, all filled in.
        vantage: Where the capture was taken.
        start: Time of the capture's first packet, ns.
        known_empty: Whether it is proven that no state from before the capture exists.
        empty_from: Time from which packets have proven the same, ns.
    """

    profile: Profile
    settings: Settings
    vantage: Vantage
    start: int
    known_empty: bool = False
    empty_from: int = NEVER

    def empty_before(self, now: int) -> bool:
        """Whether it is known at *now* that nothing was left from before the capture."""
        return self.known_empty or now > self.empty_from

    @property
    def remembers(self) -> bool:
        """Whether this server keeps and checks peer timestamps."""
        return self.profile.tw_recycle and bool(self.settings.tw_recycle)


class Engine:
    """State of one server, driven by events; see :meth:`feed`.

    Args:
        hypothesis: Kernel, settings and vantage.
        peers: For each chain id the number of its peer record (-1: no record is kept for it).
        queues: Fill of the listeners' queues, or None where they cannot matter.
        reached: Tells of (chain, time) whether the server is known to have a way back to its originator.
    """

    def __init__(
        self,
        hypothesis: Hypothesis,
        peers: Sequence[int],
        queues: Listeners | None = None,
        reached: Callable[[int, int], bool] | None = None,
    ) -> None:
        self.hypothesis = hypothesis
        self.profile = hypothesis.profile
        self.settings = hypothesis.settings
        self.vantage = hypothesis.vantage
        self.peers = peers
        self.queues = queues
        self.sockets: dict[int, Socket] = {}
        self.memories: dict[int, PeerMemory] = {}
        self._last_syn: dict[int, tuple[int, int, int | None, bool]] = {}
        self._certain_refusals: set[int] = set()
        self._older: set[int] = set()
        self.writes: list[Write] = []
        self.contradictions: list[tuple[int, str]] = []
        self.turned_round: dict[int, int] = {}
        self.overflows: Callable[[int], bool] | None = None
        self.judge = Judge(hypothesis, queues, reached)
        self._now = NO_TIME
        self._set_back = set(hypothesis.vantage.steps.starts)
        self._due: list[tuple[int, int, Ev]] = []
        self._remembers = hypothesis.remembers
        self._start_second = hypothesis.vantage.seconds(hypothesis.start)[0]

    def memory(self, chain: int) -> PeerMemory | None:
        """The peer record that a SYN on *chain* is checked against, if this kernel keeps any."""
        return self._memory_of(self.peers[chain]) if self._remembers else None

    def _memory_of(self, key: int) -> PeerMemory | None:
        if key < 0:
            return None
        memory = self.memories.get(key)
        if memory is None:
            memory = PeerMemory(self.profile, self._start_second, self.hypothesis.known_empty)
            self.memories[key] = memory
        if memory.hidden and self._now > self.hypothesis.empty_from:
            memory.hidden = False
        return memory

    def feed(self, ev: Ev) -> Ruling | None:
        """Take one event in order of arrival; returns the ruling if it is a SYN."""
        if ev.kind == KIND_ICMP:
            return None
        if ev.time in self._set_back:
            self._step_back(ev.time)
        self._now = ev.time
        if self._due and self._due[0][0] <= ev.time:
            self._orphans_time_out(ev.time)
        if self.turned_round and ev.conn in self.turned_round:
            self._from_before_reversed(ev)
            return None
        if ev.resp:
            if not ev.flags & SYN:
                self._from_responder(ev)
            return None
        if ev.flags & RST:
            self._reset(ev)
            return None
        if ev.flags & SYN and not ev.flags & ACK:
            return self._syn(ev)
        if ev.flags & ACK:
            self._from_originator(ev)
        return None

    def _step_back(self, now: int) -> None:
        """The clock was set back: what had grown stale may be fresh again, also what was never seen."""
        self._set_back.discard(now)
        if not self.hypothesis.empty_before(now):
            for memory in self.memories.values():
                memory.hidden = True

    # ---- SYN ------------------------------------------------------------------------------

    def _syn(self, ev: Ev) -> Ruling:
        socket = self.sockets.get(ev.chain)
        memory = self.memory(ev.chain)
        repeat = self._is_repeat(ev)
        if memory is not None:
            memory.learn_pending(ev.time)
        if repeat and socket is not None:
            self._doubt_unanswered(socket, ev)
        ruling = self.judge.syn(ev, socket, memory)
        tsval = ev.tsval if ev.opts & OPT_TS and self.settings.timestamps else None
        cookie = self.queues is not None and self.queues.of(ev.chain).cookies_likely()
        self._last_syn[ev.chain] = (ev.conn, ev.time, tsval, ruling.by_listener and not cookie)
        if memory is not None and ruling.by_listener:
            memory.pending.append((ev.time, ev.conn, tsval))
        if socket is not None and ruling.rearm and socket.phase is Phase.TIME_WAIT:
            self._rearm(socket, ev.time)
        if ruling.destroys and ruling.certain:
            self.sockets.pop(ev.chain, None)
            socket = None
        if ruling.certain and ruling.verdict in ("drop", "rst"):
            self._certain_refusals.add(ev.chain)
        else:
            self._certain_refusals.discard(ev.chain)
        if ruling.verdict == "accept" and not ruling.repeats:
            request = Socket(Phase.SYN_RECV, ev.conn, ev.time)
            request.isn = ev.seq
            request.has_ts = bool(ev.opts & OPT_TS) and self.settings.timestamps != 0
            request.ts_recent, request.ts_recent_time = ev.tsval, ev.time
            request.rcv_nxt = add32(ev.seq, 1)
            request.sure = ruling.certain
            request.before = socket if not ruling.certain else None
            request.by_listener = ruling.by_listener
            self.sockets[ev.chain] = request
        if self.queues is not None:
            self.queues.of(ev.chain).syn(ev.chain, ev.time, ruling)
        return ruling

    def answered(self, chain: int, born: int) -> None:
        """The SYN-ACK to the SYN that came on *chain* at *born* has been seen; later SYNs may lean on it."""
        if self.queues is not None:
            self.queues.of(chain).answered(chain, born)

    def _is_repeat(self, ev: Ev) -> bool:
        """Whether this client sends its SYN again: it had no answer that it could use."""
        last = self._last_syn.get(ev.chain)
        return last is not None and last[0] == ev.conn

    def _doubt_unanswered(self, socket: Socket, ev: Ev) -> None:
        """A bucket would have answered the SYN before: silence means that the socket is still a full one."""
        if socket.phase is Phase.FIN_WAIT2 and socket.asked != NO_TIME and self.profile.live_syn == "silent":
            socket.open_fd = True
            self._revoke(socket, ev)

    def _revoke(self, socket: Socket, ev: Ev) -> None:
        """The descriptor proved open: the write at the ACK of the FIN did not happen."""
        memory = self.memory(ev.chain)
        if memory is not None:
            memory.revoke(socket.armed)

    # ---- the originator's other packets ------------------------------------------------------

    def _from_originator(self, ev: Ev) -> None:
        socket = self._current(ev)
        if socket is None:
            return
        phase = socket.phase
        if phase is Phase.SYN_RECV:
            self._third_ack(socket, ev)
            phase = socket.phase
        if phase is Phase.OPEN:
            self._follow(socket, ev)
            if socket.midstream and ev.flags & FIN:
                self._remember(socket, ev, "E5", certain=False)
        elif phase is Phase.FIN_WAIT1:
            self._in_fin_wait1(socket, ev)
        elif phase is Phase.FIN_WAIT2:
            self._in_fin_wait2(socket, ev)
        elif phase is Phase.CLOSING and self._acks_fin(socket, ev):
            self._follow(socket, ev)
            self._time_wait(socket, ev, "E2")
        elif phase is Phase.LAST_ACK and self._acks_fin(socket, ev):
            self.sockets.pop(ev.chain, None)
        elif phase is Phase.TIME_WAIT:
            self._in_time_wait(socket, ev)

    def _current(self, ev: Ev) -> Socket | None:
        """The socket that *ev* speaks to; one that the packets prove is made if it was not predicted."""
        socket = self.sockets.get(ev.chain)
        if socket is not None and socket.is_gone(ev.time):
            self.sockets.pop(ev.chain, None)
            socket = None
        if socket is None and ev.seen & SEEN_MIDSTREAM and ev.conn not in self._older:
            return self._from_before(ev)
        if socket is not None and socket.conn == ev.conn:
            return socket
        if socket is not None and ev.conn < socket.conn:
            older = socket.before
            return older if older is not None and older.conn == ev.conn else None
        if ev.resp or ev.flags & ACK:
            return self._proven(socket, ev)
        return None

    def _from_before_reversed(self, ev: Ev) -> None:
        """A connection of before the capture that is recorded the wrong way round may write anything."""
        socket = self.sockets.get(ev.chain)
        if socket is None or socket.conn <= ev.conn:
            self.sockets.pop(ev.chain, None)
            self.judge.doubted[ev.chain] = ev.time
            if not ev.seen & CLOSED and not ev.flags & RST:
                socket = self.sockets[ev.chain] = Socket(Phase.OPEN, ev.conn, ev.time)
                socket.midstream = True
        if self._remembers and ev.seen & (SEEN_FIN_ORIG | SEEN_FIN_RESP):
            memory = self._memory_of(self.turned_round[ev.conn])
            if memory is not None:
                memory.blur(self.vantage.seconds(ev.time)[0])

    def _from_before(self, ev: Ev) -> Socket:
        """A connection that was open before the capture began."""
        self._older.add(ev.conn)
        socket = Socket(Phase.OPEN, ev.conn, ev.time)
        socket.midstream = True
        self._follow(socket, ev)
        self.sockets[ev.chain] = socket
        return socket

    def _proven(self, socket: Socket | None, ev: Ev) -> Socket | None:
        """A client only ACKs after its SYN was taken: the connection exists, whatever was predicted."""
        if ev.resp and not ev.flags & FIN and not ev.length:
            return None  # a bare ACK to a SYN speaks for the older connection
        if not ev.resp and self.judge.answers_challenge(socket, ev):
            return None
        if ev.chain in self._certain_refusals:
            self.contradictions.append((ev.conn, "taken"))
        self._learn_taken(ev)
        if self.queues is not None:
            self.queues.of(ev.chain).third_ack(ev.chain)
        fresh = Socket(Phase.OPEN, ev.conn, ev.time)
        self._follow(fresh, ev)
        self.sockets[ev.chain] = fresh
        return fresh

    def _third_ack(self, socket: Socket, ev: Ev) -> None:
        if d32(ev.seq, socket.rcv_nxt) < 0:
            return
        self._learn_taken(ev)
        if self.queues is not None:
            self.queues.of(ev.chain).third_ack(ev.chain)
        socket.phase = Phase.OPEN
        socket.sure = True
        socket.before = None

    def _learn_taken(self, ev: Ev) -> None:
        """The handshake is completed, so the SYN passed the per-peer test, if it came through the listener."""
        self.judge.settle(ev.chain, ev.time)
        last = self._last_syn.pop(ev.chain, None)
        memory = self.memory(ev.chain)
        if last is None or memory is None or last[0] != ev.conn:
            return
        memory.pending = [entry for entry in memory.pending if entry[1] != ev.conn]
        _, arrived, tsval, by_listener = last
        if by_listener and not memory.learn_passed(tsval, arrived, self.vantage.seconds(arrived)):
            self.contradictions.append((ev.conn, "memory"))

    def _follow(self, socket: Socket, ev: Ev) -> None:
        """Keep what the server keeps of an open connection."""
        if not ev.resp:
            socket.has_ts = bool(ev.opts & OPT_TS) if ev.opts & OPT_TS else socket.has_ts
            end = add32(ev.seq, ev.length + (1 if ev.flags & FIN else 0))
            if socket.rcv_nxt == 0 or (d32(ev.seq, socket.rcv_nxt) <= 0 < d32(end, socket.rcv_nxt)):
                socket.rcv_nxt = end
        elif ev.flags & ACK:
            socket.rcv_nxt = ev.ack if socket.rcv_nxt == 0 or d32(ev.ack, socket.rcv_nxt) > 0 else socket.rcv_nxt
        if ev.ts_recent_time != NO_TIME:
            self._stamp(socket, ev, ev.ts_recent, ev.ts_recent_time)
        socket.rcv_wnd = ev.rcv_wnd
        socket.rtt_lo, socket.rtt_hi = ev.rtt_min * US, ev.rtt_max * US

    def _stamp(self, socket: Socket, ev: Ev, tsval: int, time: int) -> None:
        """Store a TSval; the frame is known when *ev* itself brought it."""
        if time == ev.time:
            socket.ts_frame, socket.ts_file = ev.frame, ev.file
        elif time != socket.ts_recent_time:
            socket.ts_frame, socket.ts_file = 0, ev.file
        socket.ts_recent, socket.ts_recent_time = tsval, time

    def _acks_fin(self, socket: Socket, ev: Ev) -> bool:
        return d32(ev.ack, socket.fin_end) >= 0

    def _in_fin_wait1(self, socket: Socket, ev: Ev) -> None:
        next_byte = d32(ev.seq, socket.rcv_nxt) <= 0
        self._follow(socket, ev)
        acked = self._acks_fin(socket, ev)
        if ev.flags & FIN and next_byte:
            if acked:
                self._time_wait(socket, ev, "E1")
            else:
                socket.phase = Phase.CLOSING
        elif acked:
            self._fin_acked(socket, ev)

    def _fin_acked(self, socket: Socket, ev: Ev) -> None:
        """FIN_WAIT2: a bucket at once if the application has closed, unless tcp_fin_timeout exceeds its longest life.

        net/ipv4/tcp_input.c ``tcp_rcv_state_process``: beyond 60 s a full socket waits for the excess first.
        """
        socket.phase = Phase.FIN_WAIT2
        life = fin_time_ns(self.settings, rto_bounds_ns(socket.rtt_lo, socket.rtt_hi)[0])
        excess = life - TIME_WAIT_NS
        if excess > 0:
            socket.open_fd = True
            socket.arm(ev.time, (excess, excess))
            heappush(self._due, (ev.time + excess, ev.chain, ev))
            return
        socket.arm(ev.time, (life, life + self.vantage.slack))
        self._remember(socket, ev, "E3", certain=False)

    def _orphans_time_out(self, now: int) -> None:
        """Full sockets in FIN_WAIT2 for longer than a minute become buckets, if their application has closed (E3')."""
        while self._due and self._due[0][0] <= now:
            due, chain, ev = heappop(self._due)
            socket = self.sockets.get(chain)
            if socket is None or socket.conn != ev.conn or socket.phase is not Phase.FIN_WAIT2:
                continue
            socket.open_fd = False
            life = due - socket.armed
            socket.arm(due, (life, life + self.vantage.slack))
            self._remember(socket, ev._replace(time=due), "E3_timer", certain=False)

    def _in_fin_wait2(self, socket: Socket, ev: Ev) -> None:
        in_order = ev.seq == socket.rcv_nxt
        self._follow(socket, ev)
        if ev.flags & FIN and in_order:
            self._time_wait(socket, ev, "E1" if socket.open_fd else "E5")
        elif ev.length and ev.opts & OPT_TS:
            self._stamp(socket, ev, ev.ts_recent, ev.ts_recent_time)

    def _time_wait(self, socket: Socket, ev: Ev, event: str) -> None:
        socket.phase = Phase.TIME_WAIT
        socket.midstream = False
        if event == "E5" and ev.opts & OPT_TS:
            self._stamp(socket, ev, ev.tsval, ev.time)
        recycled = self._remember(socket, ev, event, certain=True)
        low, high = rto_bounds_ns(socket.rtt_lo, socket.rtt_hi)
        life_low = bucket_life_ns(self.profile, self.settings, recycled, low)[0]
        life_high = bucket_life_ns(self.profile, self.settings, recycled, high)[1]
        if self.overflows is not None and self.overflows(ev.time):
            life_low = 0  # tcp_max_tw_buckets: the stamp is written, but there may be no bucket
        socket.arm(ev.time, (life_low - self.vantage.slack, life_high + self.vantage.slack))

    def _rearm(self, socket: Socket, now: int) -> None:
        """A full minute from now; a bucket that may be gone already is not brought back for certain."""
        low, high = bucket_life_ns(self.profile, self.settings, False, 0)
        slack = self.vantage.slack
        socket.arm(now, (0 if socket.may_be_gone(now) else low - slack, high + slack))

    def _in_time_wait(self, socket: Socket, ev: Ev) -> None:
        """Any late segment re-arms the full minute; a pure ACK in order also brings its TSval."""
        self._rearm(socket, ev.time)
        older = ev.opts & OPT_TS and socket.has_ts and d32(socket.ts_recent, ev.tsval) > 0
        if not older and ev.opts & OPT_TS and not ev.length and not ev.flags & FIN and ev.seq == socket.rcv_nxt:
            self._stamp(socket, ev, ev.tsval, ev.time)

    # ---- the responder's packets -----------------------------------------------------------

    def _from_responder(self, ev: Ev) -> None:
        if ev.flags & RST:
            socket = self.sockets.get(ev.chain)
            if socket is not None and socket.conn <= ev.conn and socket.phase is not Phase.TIME_WAIT:
                self.sockets.pop(ev.chain, None)
            return
        self._full_socket_answers(ev)
        socket = self._current(ev)
        if socket is None or socket.conn != ev.conn:
            return
        if socket.phase is Phase.SYN_RECV:
            self._refused(socket, ev)
            return
        if self.queues is not None:
            self.queues.of(ev.chain).alive(ev.chain, bool(ev.length) or bool(ev.flags & FIN))
        if socket.phase is Phase.FIN_WAIT2 and d32(ev.ack, socket.rcv_nxt) > 0:
            socket.open_fd = True
        if socket.phase in (Phase.OPEN, Phase.FIN_WAIT1, Phase.FIN_WAIT2):
            self._follow(socket, ev)
        if ev.flags & FIN and socket.phase is Phase.OPEN:
            socket.fin_end = add32(ev.seq, ev.length + 1)
            socket.phase = Phase.LAST_ACK if ev.seen & SEEN_FIN_ORIG else Phase.FIN_WAIT1

    def _refused(self, socket: Socket, ev: Ev) -> None:
        """A bare ACK before any third ACK: something unseen stands on the four-tuple and speaks in its numbers."""
        if ev.ack == socket.rcv_nxt or ev.flags & FIN or ev.length:
            return
        unseen = Socket(Phase.OPEN, ev.conn, ev.time)
        unseen.midstream = True
        unseen.rcv_nxt, unseen.fin_end = ev.ack, ev.seq
        if ev.opts & OPT_TS:
            unseen.has_ts = True
            self._stamp(unseen, ev, ev.tsecr, ev.time)
        unseen.last_ack = ev.time
        self.sockets[ev.chain] = unseen

    def _full_socket_answers(self, ev: Ev) -> None:
        """An ACK to a SYN shows what sent it: a bucket's has IP id 0, a full socket counts its own up.

        net/ipv4/ip_output.c ``ip_send_unicast_reply`` against ``ip_queue_xmit`` (with DF set, up to 4.11).
        """
        socket = self.sockets.get(ev.chain)
        if socket is None or socket.conn >= ev.conn or ev.length:
            return
        if not ev.seen & SEEN_SYN_ACK and socket.phase is not Phase.SYN_RECV:
            socket.rcv_nxt = ev.ack  # its data were no events; a RST must match this number
        if socket.phase is not Phase.FIN_WAIT2:
            return
        socket.asked = NO_TIME
        if ev.ipid and self.profile.tw_recycle and not socket.open_fd:
            socket.open_fd = True
            self._revoke(socket, ev)

    # ---- resets -------------------------------------------------------------------------------

    def _reset(self, ev: Ev) -> None:
        socket = self.sockets.get(ev.chain)
        if socket is None or socket.is_gone(ev.time):
            self.sockets.pop(ev.chain, None)
            return
        if self.queues is not None and socket.phase is Phase.SYN_RECV:
            self.queues.of(ev.chain).gone(ev.chain)
        if self.judge.reset_kills(socket, ev):
            if socket.before is not None and not socket.sure:
                self.sockets[ev.chain] = socket.before
            else:
                self.sockets.pop(ev.chain, None)

    # ---- the peer's memory ----------------------------------------------------------------------

    def _remember(self, socket: Socket, ev: Ev, event: str, certain: bool) -> bool:
        """A close offers its stamp; returns whether the bucket's life is shortened for it."""
        memory = self.memory(ev.chain)
        if memory is None or not socket.has_ts or socket.ts_recent_time == NO_TIME:
            return False
        seconds = self.vantage.seconds(socket.ts_recent_time)
        stamps = tuple(Stamp(socket.ts_recent, s, ev.time, ev.frame, ev.file) for s in seconds)
        stored = memory.write(stamps, self.vantage.seconds(ev.time)[0], certain)
        self.writes.append(
            Write(ev.time, ev.frame, ev.file, ev.conn, ev.chain, socket.ts_recent, seconds[0], event, certain, stored)
        )
        return True
