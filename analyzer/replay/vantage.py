"""What a capture point does to times: which whole second, which order, how sure.

A server-side capture shares the kernel's clock up to one timer tick: the kernel's second lags
behind a packet's time stamp by at most one tick (measured 0.3-1.5 ms at HZ=1000; 10 ms at HZ=100).
Elsewhere the server's clock is another one, so its second may turn at any moment, and a packet
arrives later than it was seen.
"""

from dataclasses import dataclass

from analyzer.replay.clock import NO_STEPS, Steps
from analyzer.units import MS, NS

TICK = 10 * MS
"""Longest timer tick of any configuration (HZ=100)."""


@dataclass(frozen=True)
class Vantage:
    """How the capture's times relate to the server's.

    Attributes:
        at_server: True if the capture was taken on the server itself.
        slack: Bound in ns of how much later than seen a packet may act on the server.
        steps: Where the capture's clock was set back.
    """

    at_server: bool = True
    slack: int = TICK
    steps: Steps = NO_STEPS

    def seconds(self, time: int) -> tuple[int, ...]:
        """Feasible whole seconds of the server's clock at *time*, which never runs back, the likeliest first."""
        if self.steps.events and self.at_server:
            time = self.steps.wall(time)
        second, part = divmod(time, NS)
        if not self.at_server:
            return (second, second - 1)
        if part >= TICK:
            return (second,)
        return (second, second - 1)


SERVER = Vantage()
LOAD_BALANCER = Vantage(at_server=False, slack=50 * MS)
