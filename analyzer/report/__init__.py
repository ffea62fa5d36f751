"""Analysis → terminal, tables, JSON, Markdown, figures and one HTML page."""

from pathlib import Path
from typing import TYPE_CHECKING

from analyzer.errors import InputError

if TYPE_CHECKING:
    from analyzer.diagnosis.model import Analysis


def prepare_folder(folder: str) -> Path:
    """Create the report folder, or say in one line why that cannot be.

    Raises:
        InputError: It is a file, or cannot be created or written to.
    """
    path = Path(folder)
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / ".synquest-write-test"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise InputError(
            f"{folder}: cannot write the report there: {error.strerror}; choose another folder with -o"
        ) from None
    return path


def write_report(analysis: "Analysis", folder: str, figures: bool = True, tables: str = "parquet") -> Path:
    """Write the report folder.

    Args:
        analysis: What to tell.
        folder: Made if missing; files of an earlier report in it are replaced.
        figures: Whether to draw figures and the HTML page with them, and to write the evidence for Wireshark.
        tables: ``parquet``, ``csv`` or ``jsonl``.

    Returns:
        The folder.

    Raises:
        InputError: The folder cannot be written.
    """
    from analyzer.report.findings import as_dict, as_text
    from analyzer.report.markdown import render as as_markdown
    from analyzer.report.tables import write_tables

    path = prepare_folder(folder)
    write_tables(analysis, path, tables)
    (path / "findings.json").write_text(as_text(as_dict(analysis)) + "\n", encoding="utf-8")
    (path / "report.md").write_text(as_markdown(analysis), encoding="utf-8")
    if figures:
        _draw(analysis, path)
        _evidence(analysis, path)
    return path


def _evidence(analysis: "Analysis", path: Path) -> None:
    """The packets behind the verdicts, where the captures can be read a second time."""
    from analyzer.report.evidence import readable_again, write_evidence
    from analyzer.report.wireshark import write_filters

    (path / "evidence.pcapng").unlink(missing_ok=True)  # never that of an earlier report
    if readable_again(analysis):
        write_evidence(analysis, path / "evidence.pcapng")
        write_filters(analysis, path)


def _draw(analysis: "Analysis", path: Path) -> None:
    """Figures as PNG and SVG, those of an earlier report taken away, and the page that holds the SVGs."""
    from analyzer.report.evidence import readable_again
    from analyzer.report.figures import draw_all, modules
    from analyzer.report.figures.style import save
    from analyzer.report.page import render

    folder = path / "figures"
    folder.mkdir(exist_ok=True)
    for module in modules():
        for ending in ("png", "svg"):
            (folder / f"{module.NAME}.{ending}").unlink(missing_ok=True)
    drawn = list(draw_all(analysis)) if analysis.diagnosis.summary.syns else []
    svgs = {one.name: save(one, folder) for one in drawn}
    page = render(analysis, drawn, svgs, evidence=readable_again(analysis))
    (path / "report.html").write_text(page, encoding="utf-8")
