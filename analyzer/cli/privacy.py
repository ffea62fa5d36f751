"""Options that make what leaves the house fit to be shared."""

from typing import TYPE_CHECKING, Annotated

import typer

from analyzer.errors import UsageError

if TYPE_CHECKING:
    from analyzer.anonymize import Anonymizer

Anonymize = Annotated[
    bool,
    typer.Option("--anonymize", help="Map addresses (prefixes preserved) in every output; payloads never leave."),
]
AnonymizeKey = Annotated[
    str | None,
    typer.Option(
        metavar="TEXT", help="Map alike in every run with this key; a random one otherwise.", show_default=False
    ),
]


def anonymizer(wanted: bool, key: str | None) -> "Anonymizer | None":
    """The mapping that the options ask for.

    Raises:
        UsageError: A key that is empty, or without ``--anonymize``.
    """
    if key is not None and not (wanted and key):
        raise UsageError("--anonymize-key: give a text, together with --anonymize")
    if not wanted:
        return None
    from analyzer.anonymize import Anonymizer

    return Anonymizer(key)
