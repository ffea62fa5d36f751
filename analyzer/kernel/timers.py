"""When a bucket's timer really fires: slots early, the timer wheel late.

``rules.bucket_life_ns`` gives the bounds; these functions give the one moment that a running kernel
comes to, for a machine whose ticks and slots are counted from its own boot.
"""

from analyzer.kernel.profiles import Profile
from analyzer.kernel.rules import NS_PER_MS

SLOW_SLOT_NS = 7_500 * NS_PER_MS
SLOTS = 32


class BucketClock:
    """Timers of one machine's buckets.

    Up to 4.0 short timers share one row of slots whose base moves only when a slot fires: on a busy
    server a bucket dies early, alone it dies late (net/ipv4/inet_timewait_sock.c ``inet_twsk_schedule``,
    ``inet_twdr_twcal_tick``; slots of 128 ms, 160 ms at HZ=100); long ones die at a beat of 7.5 s
    that starts with the first bucket.
    From 4.8 the timer wheel rounds up (kernel/time/timer.c ``calc_wheel_index``).
    """

    def __init__(self, profile: Profile, hz: int) -> None:
        self._kind = profile.tw_timer
        self._tick = 1_000 * NS_PER_MS // hz
        self._slot = 16 * self._tick if hz == 100 else 128 * NS_PER_MS
        self._base: int | None = None
        self._pending = 0
        self._beat = 0
        self._buckets = 0

    def arm(self, now: int, life: int) -> int:
        """When a bucket armed now for *life* ns dies."""
        if self._kind == "slots":
            if not self._buckets:
                self._beat = now
            self._buckets += 1
            wanted = -(-life // self._slot)
            if wanted >= SLOTS:
                return self._beat + (now + life - self._beat) // SLOW_SLOT_NS * SLOW_SLOT_NS
            self._pending += 1
            if self._base is None:
                self._base = now
            return self._base + wanted * self._slot
        return self.timer(now, life)

    def timer(self, now: int, wait: int) -> int:
        """When a plain timer set now for *wait* ns fires: at the next tick, or as late as the wheel rounds."""
        grain = self._tick * (wheel_grain(wait // self._tick) if self._kind == "wheel" else 1)
        return -(-(now + wait) // grain) * grain

    def ended(self, life: int, fired: int | None) -> None:
        """A bucket armed for *life* is gone: its timer fired at *fired*, or something else took it."""
        self._buckets -= 1
        if self._kind != "slots" or -(-life // self._slot) >= SLOTS or self._base is None:
            return
        self._pending -= 1
        if not self._pending:
            self._base = None
        elif fired is not None:
            self._base += ((fired - self._base) // self._slot + 1) * self._slot


def wheel_grain(ticks: int) -> int:
    """Ticks to which the wheel rounds a timer of so many ticks up: eight times coarser at each level."""
    level, reach = 0, 63
    while ticks >= reach and level < 8:
        level += 1
        reach = 63 << (3 * level)
    return 8**level
