"""What can go wrong, as one small tree.

An error says whose fault it is, in which file and at which byte, and what to do.  Damage
inside a readable capture is data (:class:`Problem`), not an exception.
"""

from dataclasses import dataclass


class SynquestError(Exception):
    """Base of every error that a user may see; the text is one complete line."""


class UsageError(SynquestError):
    """The question itself is wrong (unknown profile, bad setting); exit code 2."""


class InputError(SynquestError):
    """An input cannot be used at all (no readable packet, unknown format); exit code 1."""


@dataclass(frozen=True)
class Problem:
    """One flaw of an input that did not stop the analysis.

    Attributes:
        source: File name as the user gave it, or a stage's name.
        offset: Byte offset in the (decompressed) file, or None.
        text: What is wrong and what was done about it, one line without the file name.
        kind: A stable word for grouping, e.g. ``cut``, ``damaged``, ``snaplen``, ``clock``.
    """

    source: str
    offset: int | None
    text: str
    kind: str

    def __str__(self) -> str:
        where = self.source if self.offset is None else f"{self.source}: offset {self.offset}"
        return f"{where}: {self.text}"
