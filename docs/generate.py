"""Writes the reference pages that come from the code: commands, tables, kernel rules.

Run it with ``make docs``; the tests compare its output with the files.
"""

import sys
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parent


def commands() -> str:
    """``docs/commands.md`` from the command line's own declarations."""
    import typer.main

    from analyzer.cli.app import app

    root: Any = typer.main.get_command(app)
    context = root.make_context("synquest", [], resilient_parsing=True)
    lines = [
        "# Commands",
        "",
        "Generated from the command line itself; a test keeps it up to date. `synquest COMMAND --help` says the same.",
        "",
        "Exit codes: 0 the analysis ran, whatever it found; 1 it could not (nothing readable); 2 wrong usage; 3 with "
        "`--fail-on`, when it found that. An error is one line on standard error.",
    ]
    for name in root.list_commands(context):
        lines += _command(name, root.get_command(context, name))
    return "\n".join(lines) + "\n"


def _command(name: str, command: Any) -> list[str]:
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    options = [p for p in command.params if p.param_type_name == "option" and not getattr(p, "hidden", False)]
    usage = " ".join(["synquest", name, "[OPTIONS]", *(p.metavar or p.name.upper() for p in arguments)])
    lines = ["", f"## synquest {name}", "", f"`{usage}`", "", _text(command.help)]
    if arguments or options:
        lines += ["", "| argument or option | meaning |", "| --- | --- |"]
        lines += [f"| `{p.metavar or p.name.upper()}` | {_text(getattr(p, 'help', ''))} |" for p in arguments]
        lines += [f"| {_spelling(p)} | {_text(p.help)}{_default(p)} |" for p in options]
    if command.epilog:
        examples = [line.strip() for line in command.epilog.splitlines() if line.strip() and "Example" not in line]
        lines += ["", "```", *examples, "```"]
    return lines


def _text(text: str | None) -> str:
    return " ".join((text or "").replace("|", "\\|").split())


def _spelling(option: Any) -> str:
    names = ", ".join(f"`{name}`" for name in option.opts)
    value = "" if option.is_flag else f" `{option.metavar or option.type.name.upper()}`"
    return names + value.replace("|", "\\|")


def _default(option: Any) -> str:
    plain = isinstance(option.default, str | int) and not isinstance(option.default, bool)
    return f" Default: `{option.default}`." if plain else ""


def pages() -> dict[str, str]:
    """Every generated page by file name."""
    from analyzer.kernel.catalogue import markdown as kernel_rules
    from analyzer.report.columns import markdown as tables

    return {"commands.md": commands(), "tables.md": tables(), "kernel-rules.md": kernel_rules()}


def main() -> int:
    """Write the pages; returns how many changed."""
    changed = 0
    for name, text in pages().items():
        path = DOCS / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            changed += 1
    return changed


if __name__ == "__main__":
    sys.stdout.write(f"{main()} pages changed\n")
