"""``--netstat BEFORE AFTER``: an option of two words that may be repeated, which typer has no annotation for."""

from typing import Any

from typer.core import TyperCommand

from analyzer.errors import UsageError

PAIRED = "--netstat"


class PairCommand(TyperCommand):
    """A command that takes ``--netstat BEFORE AFTER`` as ``--netstat BEFORE --netstat AFTER``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the option's name before its second word, too."""
        return super().parse_args(ctx, doubled(args))


def doubled(args: list[str]) -> list[str]:
    """*args* with the option's name before each of its two words."""
    out: list[str] = []
    words = iter(args)
    for word in words:
        if word == "--":
            return [*out, word, *words]
        name, equals, first = word.partition("=")
        if name != PAIRED:
            out.append(word)
            continue
        before = first if equals else next(words, "")
        after = next(words, "")
        if not before or not after or after.startswith("--"):
            raise UsageError(f"{PAIRED} takes two files: {PAIRED} BEFORE AFTER")
        out += [PAIRED, before, PAIRED, after]
    return out


def pairs(words: list[str] | None) -> list[tuple[str, str]]:
    """The option's words two by two."""
    return list(zip((words or [])[::2], (words or [])[1::2], strict=True))
