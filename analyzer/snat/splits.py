"""Sent and received packets of one capture on clocks apart.

Some capture hosts stamp what they send with one clock and what they receive with another: hardware stamps
count TAI and software stamps UTC, 37 s apart.  A handshake betrays it: the SYN, the SYN-ACK and the third ACK
alternate in direction, so one of the two gaps between them turns negative, which no host can bring about.
"""

from dataclasses import dataclass

import numpy as np

from analyzer.schema import SEEN_ESTABLISHED, SEEN_SYN, SEEN_SYN_ACK
from analyzer.snat.sightings import Book, Ints, resolution
from analyzer.units import MS, NS

IMPOSSIBLE = -MS
"""A gap this far below zero is no matter of stamps taken in a hurry."""
SAME_SPLIT = NS
"""Gaps that tell of one split lie this close together."""
FEWEST = 3


@dataclass(frozen=True)
class Split:
    """Clock of responder → originator packets minus that of the others, between two bounds, ns."""

    low: int = 0
    high: int = 0

    @property
    def found(self) -> bool:
        """Whether the clocks are apart at all."""
        return self.low != 0 or self.high != 0

    @property
    def middle(self) -> int:
        """Middle of the bounds, ns."""
        return (self.low + self.high) // 2

    @property
    def half_width(self) -> int:
        """Distance from the middle to either bound, ns, rounded up."""
        return (self.high - self.low + 1) // 2

    @property
    def contradictory(self) -> bool:
        """Whether no constant distance fits all handshakes."""
        return self.low > self.high


def split_of(book: Book, conns: Ints) -> Split:
    """The split that the handshakes of *conns* show; none where they leave room for one clock.

    With D the split, SYN → SYN-ACK shows D plus what the responder took, and SYN-ACK → ACK shows what the
    originator took minus D; neither host answers before it is asked.
    """
    told = book.conns[np.unique(conns)]
    whole = SEEN_SYN | SEEN_SYN_ACK | SEEN_ESTABLISHED
    told = told[((told["seen"] & whole) == whole) & (told["syn_count"] == 1) & (told["syn_ack_count"] == 1)]
    if len(told) < FEWEST:
        return Split()
    answered = told["syn_ack_time"] - told["syn_time"]
    confirmed = told["established_time"] - told["syn_ack_time"]
    usual, back = np.median(answered), np.median(confirmed)
    if min(usual, back) > IMPOSSIBLE:
        return Split()
    answered = answered[np.abs(answered - usual) < SAME_SPLIT]
    confirmed = confirmed[np.abs(confirmed - back) < SAME_SPLIT]
    step = resolution(told["syn_time"])
    return Split(-int(confirmed.min()) - step, int(answered.min()) + step)
