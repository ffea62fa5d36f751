"""When a bucket's timer really fires: slots early, the timer wheel late.

``rules.bucket_life_ns`` gives the bounds; these functions give the one moment that a running kernel
comes to, for a machine whose ticks and slots are counted from its own boot.
"""

from analyzer.kernel.profiles import Profile
from analyzer.kernel.rules import NS_PER_MS

SLOW_SLOT_NS = 7_500 * NS_PER_MS
SLOTS = 32


def bucket_due(profile: Profile, hz: int, armed: int, life: int) -> int:
    """Moment at which a bucket armed at *armed* for *life* ns dies.

    net/ipv4/inet_timewait_sock.c ``inet_twsk_schedule`` (slots of 128 ms, 160 ms at HZ=100, and of 7.5 s,
    up to 4.0), kernel/time/timer.c ``calc_wheel_index`` (from 4.8).
    """
    tick = 1_000 * NS_PER_MS // hz
    if profile.tw_timer == "slots":
        slot = 16 * tick if hz == 100 else 128 * NS_PER_MS
        wanted = -(-life // slot)
        if wanted >= SLOTS:
            return (armed + life) // SLOW_SLOT_NS * SLOW_SLOT_NS
        return (armed // slot + wanted - 1) * slot
    if profile.tw_timer == "wheel":
        grain = wheel_grain(life // tick) * tick
        return -(-(armed + life) // grain) * grain
    return -(-(armed + life) // tick) * tick


def wheel_grain(ticks: int) -> int:
    """Ticks to which the wheel rounds a timer of so many ticks up: eight times coarser at each level."""
    level, reach = 0, 63
    while ticks >= reach and level < 8:
        level += 1
        reach = 63 << (3 * level)
    return 8**level
