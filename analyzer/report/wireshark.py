"""Files that Wireshark imports beside ``evidence.pcapng``: colouring rules and one display filter per finding.

Formats: Wireshark User's Guide, ``colorfilters`` (``@name@filter@[background][text]``, 16-bit colours)
and ``dfilters`` (``"name" filter``).
"""

from pathlib import Path

from analyzer.diagnosis.model import Analysis
from analyzer.report.words import CAUSE_TITLES
from analyzer.schema import CAUSES

Colour = tuple[int, int, int]
BLACK, WHITE = (0, 0, 0), (65535, 65535, 65535)

_BACKGROUNDS: dict[str, tuple[Colour, Colour]] = {
    "peer_timestamp": ((47802, 7967, 13878), WHITE),
    "time_wait_paws": ((62708, 46774, 21588), BLACK),
    "time_wait_sequence": ((62708, 46774, 21588), BLACK),
    "established_collision": ((61166, 56026, 33667), BLACK),
    "accept_queue_full": ((12593, 25443, 44461), WHITE),
    "syn_queue_full": ((12593, 25443, 44461), WHITE),
    "answered": ((57311, 61937, 55769), BLACK),
}
_OTHER_LOSS: tuple[Colour, Colour] = ((27242, 23387, 36237), WHITE)
_STAMP: tuple[Colour, Colour] = ((37779, 53199, 62451), BLACK)


def cause_filter(cause: str) -> str:
    """Display filter for the SYNs of one cause in the evidence."""
    return f'frame.comment contains "cause={cause} "'


def colour_filters() -> str:
    """Colouring rules, the first that fits wins."""
    lines = [
        "# Colouring rules for evidence.pcapng; View > Coloring Rules > Import in Wireshark",
        _rule("synquest remembered TSval", 'frame.comment contains "synquest: wrote TSval"', _STAMP),
    ]
    for cause in (*CAUSES[1:], CAUSES[0]):
        lines.append(_rule(f"synquest {cause}", cause_filter(cause), _BACKGROUNDS.get(cause, _OTHER_LOSS)))
    return "\n".join(lines) + "\n"


def _rule(name: str, rule: str, colours: tuple[Colour, Colour]) -> str:
    back, text = ("[" + ",".join(map(str, colour)) + "]" for colour in colours)
    return f"@{name}@{rule}@{back}{text}"


def display_filters(analysis: Analysis) -> str:
    """Saved display filters: one for each finding, then one for each thing to look at."""
    lines = [f'"{f.cause}: {CAUSE_TITLES[f.cause]}" {cause_filter(f.cause)}' for f in analysis.diagnosis.findings]
    lines += [
        '"all that synquest judged" frame.comment contains "synquest:"',
        '"packets whose TSval was remembered" frame.comment contains "synquest: wrote TSval"',
        '"packets seen at several points" frame.packet_id',
    ]
    return "\n".join(lines) + "\n"


def write_filters(analysis: Analysis, folder: Path) -> None:
    """Write ``wireshark-colorfilters`` and ``wireshark-dfilters``."""
    (folder / "wireshark-colorfilters").write_text(colour_filters(), encoding="utf-8")
    (folder / "wireshark-dfilters").write_text(display_filters(analysis), encoding="utf-8")
