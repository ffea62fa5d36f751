"""A method per figure, for notebooks."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from analyzer.diagnosis.model import Analysis as Parts


class Pictures:
    """The report's figures; each method returns a matplotlib figure, or None where the data allow none.

    Attributes:
        parts: The analysis that they are drawn from.
    """

    parts: Parts

    def figure(self, name: str) -> Figure | None:
        """A figure by its name in the report folder.

        Raises:
            KeyError: No such figure; the message lists those there are.
        """
        from analyzer.report.figures import draw_one

        _show_as_png()
        return draw_one(self.parts, name)

    def tsval_time(self) -> Figure | None:
        """TSval of each SYN against time per peer: host clocks, the remembered value, what it rejected."""
        return self.figure("tsval-time")

    def age_delta(self) -> Figure | None:
        """Age of the compared value against the TSval difference, with the rule's reject region."""
        return self.figure("age-delta")

    def ladder(self) -> Figure | None:
        """The worked example between client, load balancer and server."""
        return self.figure("ladder")

    def outcomes(self) -> Figure | None:
        """SYNs per interval by cause."""
        return self.figure("outcomes")

    def who_is_hit(self) -> Figure | None:
        """Clients against source addresses: share of SYNs that failed."""
        return self.figure("who-is-hit")

    def port_reuse(self) -> Figure | None:
        """How soon the same four numbers come again, against the 60 s hold."""
        return self.figure("reuse")

    def closing(self) -> Figure | None:
        """From the server's FIN over its ACK to the reuse of the four numbers."""
        return self.figure("closing")

    def retries(self) -> Figure | None:
        """Delays of repeated SYNs."""
        return self.figure("retries")

    def clock_offset(self) -> Figure | None:
        """Bounds of the offset between two captures' clocks, from packets both ways."""
        return self.figure("clock-offset")

    def counters(self) -> Figure | None:
        """Counters of the host: seen against predicted."""
        return self.figure("counters")


def _show_as_png() -> None:
    """Let a notebook show figures that were made without pyplot."""
    import sys

    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if shell is None:
        return
    from IPython.core.pylabtools import print_figure
    from matplotlib.figure import Figure

    shell.display_formatter.formatters["image/png"].for_type(Figure, print_figure)
