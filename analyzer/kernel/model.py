"""A live server: events in, decisions out.

:class:`Server` holds the state that a kernel holds (listeners, half-open requests, sockets, TIME-WAIT
buckets, remembered peers, counters) and decides by the functions of ``rules``, under one profile and one
set of settings.  It has no clock and does no I/O: every event carries its time, and :meth:`Server.next_timer`
says when something is due.  The simulator drives it; captures of real kernels judge it.
"""

import heapq
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2s

from analyzer.kernel import connecting, listening, rules, stream, waiting
from analyzer.kernel.events import (
    ACK,
    FIN,
    RST,
    SYN,
    Accept,
    Close,
    Connect,
    Decision,
    Event,
    Key,
    Reply,
    Segment,
    Send,
    Shutdown,
    Write,
)
from analyzer.kernel.profiles import Profile
from analyzer.kernel.settings import Settings
from analyzer.kernel.sockets import RECEIVE_WINDOW, Connection, Listener, Opening, Request, State, TimeWait
from analyzer.kernel.timers import BucketClock
from analyzer.seqnum import add32

NS = 1_000_000_000
SHORT_LIFE_NS = 4 * NS
"""Buckets armed for no longer count as TWKilled, the others as TW."""
COUNTED_AT_ARMING = (5, 18)
"""From here on they count when the timer is set, before when it fires."""


@dataclass(frozen=True)
class Machine:
    """The hardware and boot of one server.

    Attributes:
        hz: Timer ticks per second.
        stamp: TSval that the server sends at a time to a four-tuple.
        secret: Boot secret; initial sequence numbers and cookies hang on it.
        second_lag: How far the kernel's whole seconds lag behind its clock, ns (up to one tick).
        wscale: Window scale that the server offers.
        syn_window: Window in the SYNs that it sends.
        syn_timeouts: Waits after each SYN that it sends, ns; connect() fails after the last.
        quick_retry: Whether a SYN goes again at once after the first unusable ACK (5.10 and later).
        isn: Initial sequence number for a four-tuple at a time; None: a hash with a clock (RFC 6528).
    """

    hz: int = 1000
    stamp: Callable[[int, Key], int] = lambda time, _: time // 1_000_000 & 0xFFFFFFFF
    secret: bytes = b"boot"
    second_lag: int = 0
    wscale: int = 7
    syn_window: int = 29_200
    syn_timeouts: tuple[int, ...] = tuple(NS << i for i in range(7))
    quick_retry: bool = False
    isn: Callable[[Key, int], int] | None = None


class Server:
    """One kernel with its sockets; see :meth:`feed`.

    Args:
        profile: The kernel's rules.
        settings: Its sysctls; what is not given has the kernel's default.
        machine: Clock rate, timestamps and secret of this boot.
    """

    def __init__(self, profile: Profile, settings: Settings, machine: Machine | None = None) -> None:
        self.profile = profile
        self.settings = settings.with_defaults(profile)
        self.machine = machine or Machine()
        self.listeners: dict[int, Listener] = {}
        self.table: dict[Key, Request | Connection | TimeWait | Opening] = {}
        self.peers: dict[object, tuple[int, int]] = {}
        self.measured: set[object] = set()
        self.counters: Counter[str] = Counter()
        self.buckets = 0
        self.bucket_clock = BucketClock(profile, self.machine.hz)
        self.cookies_until = 0
        self._timers: list[tuple[int, int, Key]] = []
        self._armed = 0

    def listen(self, port: int, backlog: int, dual_stack: bool = False) -> None:
        """Open a listening socket; the queue holds min(backlog, somaxconn) + 1 connections."""
        limit = self.settings.somaxconn
        self.listeners[port] = Listener(port, min(backlog, limit if limit is not None else backlog), dual_stack)

    def feed(self, event: Event) -> Decision:
        """Take one event; timers that were due before it run first and their replies lead the decision's."""
        decision = Decision()
        self._run_timers(event.time, decision)
        if isinstance(event, Segment):
            self.counters["InSegs"] += 1
            self._segment(event, decision)
        elif isinstance(event, Connect):
            connecting.connect(self, event, decision)
        elif isinstance(event, Accept):
            listening.accept(self, event, decision)
        elif isinstance(event, Send):
            stream.send(self, event, decision)
        elif isinstance(event, Close):
            stream.close(self, event, decision)
        elif isinstance(event, Shutdown):
            stream.shutdown(self, event, decision)
        self.counters.update(decision.counters)
        self.counters["OutSegs"] += len(decision.replies)
        return decision

    def next_timer(self) -> int | None:
        """When something is due, ns, or None; feed a ``Timer`` then."""
        while self._timers:
            time, _, key = self._timers[0]
            if self._due(key) == time:
                return time
            heapq.heappop(self._timers)
        return None

    # ---- segments ---------------------------------------------------------------------------------

    def _segment(self, seg: Segment, out: Decision) -> None:
        key = (seg.dst, seg.dport, seg.src, seg.sport)
        held = self.table.get(key)
        syn = seg.flags & (SYN | ACK | RST) == SYN
        if isinstance(held, TimeWait):
            waiting.syn(self, held, seg, out) if syn else waiting.segment(self, held, seg, out)
        elif isinstance(held, Request):
            listening.syn_on_request(self, held, seg, out) if syn else listening.third_ack(self, held, seg, out)
        elif isinstance(held, Opening):
            connecting.segment(self, held, seg, out)
        elif held is not None:
            stream.syn(self, held, seg, out) if syn else stream.segment(self, held, seg, out)
        elif syn and not seg.flags & FIN:
            listening.syn(self, key, seg, out)
        elif seg.flags & ACK and not seg.flags & RST:
            if not listening.cookie_ack(self, key, seg, out):
                self.refuse(key, seg, out)
        elif syn:
            out.verdict, out.rule = "drop", "no_listener"

    # ---- for the rooms that decide --------------------------------------------------------------------

    def second(self, now: int) -> int:
        """The kernel's whole second at *now*."""
        return (now - self.machine.second_lag) // NS

    def tsval_of(self, seg: Segment) -> int | None:
        """The segment's TSval as this server sees it: none when its own timestamps are off."""
        return seg.tsval if self.settings.timestamps else None

    def initial_seq(self, key: Key, now: int) -> int:
        """An initial sequence number: secret hash of the four-tuple plus a clock of 64 ns (RFC 6528)."""
        if self.machine.isn is not None:
            return self.machine.isn(key, now)
        return add32(self._hash(key, b"isn"), now >> 6)

    def cookie(self, key: Key, isn: int, minute: int) -> int:
        """The SYN cookie of one SYN; minute-wise, so that old ones fail."""
        return self._hash((*key, isn, minute), b"cookie")

    def _hash(self, what: object, use: bytes) -> int:
        return int.from_bytes(blake2s(repr(what).encode(), key=self.machine.secret, person=use).digest()[:4])

    def reply(self, key: Key, flags: int, numbers: tuple[int, int], now: int, echo: int | None) -> Reply:
        """A segment without data; *echo* None leaves the timestamps option out."""
        tsval = None if echo is None else self.machine.stamp(now, key)
        window = RECEIVE_WINDOW >> self.machine.wscale if not flags & RST else 0
        return Reply(key, flags, numbers[0], numbers[1], tsval, echo or 0, window=window)

    def refuse(self, key: Key, seg: Segment, out: Decision) -> None:
        """A RST for a segment that meets nothing; net/ipv4/tcp_ipv4.c ``tcp_v4_send_reset``."""
        if seg.flags & ACK:
            out.replies.append(Reply(key, RST, seg.ack, 0))
        else:
            end = add32(seg.seq, seg.length + bool(seg.flags & SYN) + bool(seg.flags & FIN))
            out.replies.append(Reply(key, RST | ACK, 0, end))
        out.counters.append("OutRsts")

    def suppressed(self, held: Request | Connection | TimeWait, now: int) -> bool:
        """Whether an out-of-window ACK is held back; if not, the limit starts anew."""
        if rules.ack_suppressed(self.profile, self.settings, held.last_oow, now):
            return True
        held.last_oow = now
        return False

    def drop_count(self, *names: str) -> list[str]:
        """Counters of a listener's drop: ListenDrops where this kernel counts every one."""
        return [*names, "ListenDrops"] if self.profile.drops_counted else list(names)

    def peer(self, key: Key, dual_stack: bool) -> object | None:
        """Under what the peer of *key* is remembered, None where it is not."""
        return rules.peer_key(self.profile, key[0], key[2], dual_stack=dual_stack)

    def remember(self, event: str, held: Connection | TimeWait, now: int, out: Decision) -> bool:
        """Offer a closing connection's stamp to the peer's memory; True if TIME-WAIT may be recycled early.

        net/ipv4/tcp_minisocks.c ``tcp_time_wait``, net/ipv4/tcp_metrics.c ``tcp_remember_stamp``.
        """
        if not self.profile.tw_recycle or not self.settings.tw_recycle or not held.has_ts:
            return False
        listener = self.listeners.get(held.key[1])
        peer = self.peer(held.key, listener is not None and listener.dual_stack)
        if peer is None:
            return True
        old = self.peers.get(peer, (0, 0))
        new = (held.ts_recent, held.ts_recent_s)
        stored = rules.peer_write_replaces(self.profile, *old, *new, self.second(now))
        if stored:
            self.peers[peer] = new
        out.write = Write(event, peer, *new, stored)
        return True

    def arm(self, key: Key, due: int) -> None:
        """Have :meth:`feed` look at *key* at *due*."""
        self._armed += 1
        heapq.heappush(self._timers, (due, self._armed, key))

    def forget(self, key: Key, fired: int | None = None) -> None:
        """Take away what stands on *key*; *fired*: when its timer did."""
        held = self.table.pop(key, None)
        if isinstance(held, TimeWait):
            self.buckets -= 1
            self.bucket_clock.ended(held.life, fired)
        elif isinstance(held, Request):
            listener = self.listeners[key[1]]
            listener.requests -= 1
            listener.young -= held.timeouts == 0

    def make_bucket(self, conn: Connection, waits: bool, now: int, out: Decision) -> None:
        """A full socket becomes a bucket: after a write of the peer's stamp, with the right timer.

        net/ipv4/tcp_minisocks.c ``tcp_time_wait``.
        """
        late = "E4" if conn.fin_wait2_due is None else "E3_timer"
        event = {State.FIN_WAIT1: "E3" if waits else "E1", State.CLOSING: "E2"}.get(conn.state, late if waits else "E1")
        recycled = self.remember(event, conn, now, out)
        short = conn.sender.rto * 7 // 2
        life = rules.fin_time_ns(self.settings, conn.sender.rto) if waits else rules.TIME_WAIT_NS
        self.leave(conn)
        if self.settings.max_tw_buckets is not None and self.buckets >= self.settings.max_tw_buckets:
            out.counters.append("TCPTimeWaitOverflow")
            return
        bucket = TimeWait(
            conn.key, waits, conn.rcv_nxt, conn.sender.nxt, conn.has_ts, conn.ts_recent, conn.ts_recent_s,
            short, recycled,
        )  # fmt: skip
        self.buckets += 1
        self.table[conn.key] = bucket
        life = life if waits or not recycled else short
        self.arm_bucket(bucket, now, life)
        if self.profile.last >= COUNTED_AT_ARMING:
            out.counters.append(_bucket_counter(life))

    def arm_bucket(self, bucket: TimeWait, now: int, life: int) -> None:
        """Start a bucket's timer anew."""
        if bucket.life:
            self.bucket_clock.ended(bucket.life, None)
        bucket.due = self.bucket_clock.arm(now, life)
        bucket.life = life
        self.arm(bucket.key, bucket.due)

    def leave(self, conn: Connection) -> None:
        """A full socket ends: its round trip is kept for its peer."""
        if conn.sender.srtt:
            self.measured.add((conn.key[0], conn.key[2]))
        self.table.pop(conn.key, None)

    # ---- timers -----------------------------------------------------------------------------------------

    def _due(self, key: Key) -> int | None:
        held = self.table.get(key)
        if isinstance(held, Connection):
            dues = [t for t in (held.sender.due, held.fin_wait2_due) if t is not None]
            return min(dues) if dues else None
        return held.due if held is not None else None

    def _run_timers(self, now: int, out: Decision) -> None:
        while (due := self.next_timer()) is not None and due <= now:
            key = heapq.heappop(self._timers)[2]
            held = self.table[key]
            if isinstance(held, TimeWait):
                if self.profile.last < COUNTED_AT_ARMING:
                    out.counters.append(_bucket_counter(held.life))
                self.forget(key, due)
            elif isinstance(held, Request):
                listening.request_timer(self, held, due, out)
            elif isinstance(held, Opening):
                connecting.timer(self, held, due, out)
            else:
                stream.timer(self, held, due, out)


def _bucket_counter(life: int) -> str:
    return "TWKilled" if life <= SHORT_LIFE_NS else "TW"


__all__ = ["NS", "Connection", "Machine", "Request", "Server", "State", "TimeWait"]
