"""What a server may remember of a peer's timestamps: a set of feasible states, never a guess.

Kernels up to 4.11 keep one ``(T, S)`` per peer: a TSval and the whole second it was received in
(``tcp_remember_stamp``, ``tcp_tw_remember_stamp`` in net/ipv4/tcp_metrics.c).  A capture shows most
writes, some only perhaps (a close that may have been a shutdown, a packet within a timer tick of a
second's edge), and none from before its first packet.  A :class:`PeerMemory` holds every state that
the packets allow, the likeliest first, plus at the start of a capture the hidden states of before.
"""

from typing import NamedTuple

from analyzer.kernel.profiles import Profile
from analyzer.kernel.rules import peer_rejects, peer_write_replaces
from analyzer.seqnum import d32
from analyzer.units import MS, NS

FRESH_SECONDS = 60
"""Age in whole seconds at which a stamp stops rejecting (TCP_PAWS_MSL)."""

MAX_STATES = 12
MOST_BOUNDS = 24
NEARBY = 1 << 20
"""Ticks within which two TSvals are taken for the same client's clock."""

SILENCE = 200 * MS
"""A SYN whose handshake is not completed within this time was hardly taken (the kernels' own shortest RTO)."""


class Stamp(NamedTuple):
    """One feasible content of a peer's record; ``second`` 0 means empty."""

    tsval: int
    second: int
    written: int = 0
    frame: int = 0
    file: int = 0


EMPTY = Stamp(0, 0)


class Check(NamedTuple):
    """Outcome of the per-peer test over all feasible states.

    Attributes:
        rejects: What the likeliest state says.
        certain: Whether every feasible state says the same.
        stamp: The state behind ``rejects``, or None when no visible write stands behind it.
        missing_lead_in: Whether only the time before the capture could make it different.
    """

    rejects: bool
    certain: bool
    stamp: Stamp | None
    missing_lead_in: bool


NOTHING = Check(False, True, None, False)


class PeerMemory:
    """Feasible records of one peer key.

    Args:
        profile: Kernel profile, for the comparison rules.
        start_second: First whole second of the capture: hidden states are no younger.
        known_empty: True when something proves that nothing was remembered at the start.
    """

    __slots__ = ("bounds", "diverged", "hidden", "pending", "profile", "start_second", "states")

    def __init__(self, profile: Profile, start_second: int, known_empty: bool = False) -> None:
        self.profile = profile
        self.start_second = start_second
        self.states: list[Stamp] = [EMPTY]
        self.hidden = not known_empty
        self.bounds: list[int] = []  # TSvals of SYNs that passed
        self.diverged = False
        self.pending: list[tuple[int, int, int | None]] = []

    def _settle(self, second: int) -> None:
        """Hidden states grow stale one minute after the start; what they may have held back stays open."""
        if self.hidden and second - self.start_second > FRESH_SECONDS:
            self.hidden = False
            if self.diverged and EMPTY not in self.states:
                self.states.append(EMPTY)

    def check(self, tsval: int | None, now: tuple[int, ...]) -> Check:
        """Judge a SYN that arrives in one of the whole seconds *now*.

        Args:
            tsval: TSval as the server sees it, None without the option.
            now: Feasible whole seconds of the server's clock, the likeliest first.
        """
        self._settle(now[0])
        first = self.states[0]
        if not first.second and not self.hidden and len(self.states) == 1:
            return NOTHING
        likely = peer_rejects(self.profile, first.tsval, first.second, tsval, now[0])
        certain = (len(self.states) == 1 and len(now) == 1) or all(
            peer_rejects(self.profile, s.tsval, s.second, tsval, second) == likely
            for s in self.states
            for second in now
        )
        stamp = first if first.second else None
        hidden = self.hidden and now[-1] - self.start_second < FRESH_SECONDS and self._hidden_matters(tsval, likely)
        return Check(likely, certain and not hidden, stamp, certain and hidden)

    def _bounded(self, tsval: int, tolerance: int) -> bool:
        """Whether SYNs that passed show that no hidden TSval is ahead of *tsval* by more than *tolerance*.

        A SYN that passed with TSval y excludes the half circle [y + 2, y + 2**31 - 1].  What is asked for is the
        half circle [tsval + tolerance + 1, tsval + 2**31 - 1]: one bound at or behind *tsval* excludes its near
        part, and all of it but a sliver on the far side if it lies close behind; else another bound ahead must
        exclude the rest.
        """
        below, above = -(1 << 31), 1 << 31
        for bound in self.bounds:
            offset = d32(bound, tsval)
            if offset < tolerance:
                below = max(below, offset)
            else:
                above = min(above, offset)
        return below > -NEARBY or (below > -(1 << 31) and above - below <= (1 << 31) - 2)

    def blur(self, second: int) -> None:
        """Something that was not understood may have written in *second* at the latest."""
        self.hidden, self.start_second = True, second

    def _hidden_matters(self, tsval: int | None, likely: bool) -> bool:
        """Whether some state from before the capture would decide otherwise."""
        if likely:
            return True
        if tsval is None:
            return self.profile.drop_without_ts
        return not self._bounded(tsval, 1)

    def write(self, stamps: tuple[Stamp, ...], now: int, certain: bool) -> int:
        """A close offers a stamp; returns 1 if it certainly replaced, 0 if certainly not, 2 if unknown.

        Args:
            stamps: The stamp, in each variant that the whole-second clock allows.
            now: Whole second of the write.
            certain: False if the write may not have happened at all.
        """
        self._settle(now)
        after: list[Stamp] = []
        replaced = kept = False
        for old in self.states:
            for stamp in stamps:
                if peer_write_replaces(self.profile, old.tsval, old.second, stamp.tsval, stamp.second, now):
                    replaced, new = True, stamp
                else:
                    kept, new = True, old
                if new not in after:
                    after.append(new)
        if not certain:
            after.extend(s for s in self.states if s not in after)
            kept = True
        self.states = after[:MAX_STATES]
        if not self.hidden:
            return 2 if replaced and kept else int(replaced)
        if certain and self._bounded(stamps[0].tsval, 0):
            self.hidden = False
            return int(replaced)
        self.diverged = True
        return 2

    def learn_passed(self, tsval: int | None, arrived: int, now: tuple[int, ...]) -> bool:
        """A SYN of the past went through the listener: drop the states that would have rejected it.

        Returns:
            False if no state is left, that is, if what was certain is contradicted.
        """
        left = [s for s in self.states if s.written >= arrived or not s.second or not self._sure(s, tsval, now)]
        if tsval is not None:
            if self.hidden:
                self.bounds = [*self.bounds[-(MOST_BOUNDS - 1) :], tsval]
        elif self.profile.drop_without_ts and all(s.written < arrived for s in self.states):
            self.hidden = False  # a fresh stamp of any value would have dropped it
        self.states = left or [EMPTY, *self.states][:MAX_STATES]
        return bool(left)

    def learn_pending(self, now: int) -> None:
        """SYNs that no third ACK followed make the states that rejected them the likelier ones."""
        while self.pending and self.pending[0][0] < now - SILENCE:
            arrived, _, tsval = self.pending.pop(0)
            if len(self.states) < 2 or any(s.written >= arrived for s in self.states):
                continue
            second = arrived // NS
            self.states.sort(key=lambda s, t=tsval, n=second: not self._rejects(s, t, n))  # type: ignore[misc]

    def _sure(self, stamp: Stamp, tsval: int | None, now: tuple[int, ...]) -> bool:
        """Whether *stamp* rejects in each of the seconds."""
        if len(now) == 1:
            return peer_rejects(self.profile, stamp.tsval, stamp.second, tsval, now[0])
        return all(peer_rejects(self.profile, stamp.tsval, stamp.second, tsval, second) for second in now)

    def _rejects(self, stamp: Stamp, tsval: int | None, second: int) -> bool:
        return peer_rejects(self.profile, stamp.tsval, stamp.second, tsval, second)

    def revoke(self, written: int) -> None:
        """The possible write at time *written* did not happen then; a close() may have brought it since."""
        self.states.sort(key=lambda s: s.written == written)
