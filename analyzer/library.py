"""The library's face: what a notebook or a script imports from ``analyzer``.

``analyze`` runs the same pipeline as the command; its :class:`Analysis` shows every table as a pandas
DataFrame.  Times are UTC with nanoseconds, integers that may be missing are pandas' nullable ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analyzer.pictures import Pictures
from analyzer.pipeline import AnalyzeOptions
from analyzer.pipeline import analyze as run

if TYPE_CHECKING:
    import pandas as pd

    from analyzer.diagnosis.explain import Explanation
    from analyzer.diagnosis.model import Analysis as Parts
    from analyzer.diagnosis.model import Finding, WhatIf

Inputs = str | Sequence[str]


def _listed(inputs: Inputs) -> list[str]:
    return [inputs] if isinstance(inputs, str) else list(inputs)


def analyze(captures: Inputs = (), *, server: Inputs = (), lb: Inputs = (), **known: Any) -> Analysis:
    """Captures in, a verdict and a cause for every SYN out.

    Args:
        captures: Captures whose vantage is found out: files, folders, patterns.
        server: Captures taken on servers, one vantage each.
        lb: Captures taken at the load balancer; together they are one vantage.
        **known: What is known of the server and the question, as the command line's options say it:
            ``kernel`` (profile, version, ``uname -r`` output or ``auto``), ``sysctls`` (dict by kernel
            name), ``sysctl_file``, ``backlog``, ``netstat`` (pairs of files), ``probe_log``, ``port``,
            ``vip``, ``since``, ``until``; see :class:`analyzer.pipeline.AnalyzeOptions`.

    Returns:
        The analysis, with every table.

    Raises:
        InputError: Nothing readable.
        UsageError: A setting or profile that does not exist, or no input at all.

    Example:
        >>> case = "fixtures/el7-recycle"
        >>> analysis = analyze(server=f"{case}/server.pcap.zst", sysctl_file=f"{case}/sysctl.txt",
        ...                    kernel="el7.9", backlog=128)
        >>> analysis.summary["syns"], analysis.summary["by_cause"]["peer_timestamp"]
        (1265, 706)
        >>> analysis.findings[0].cause
        'peer_timestamp'
    """
    options = AnalyzeOptions(captures=_listed(captures), servers=_listed(server), lbs=_listed(lb), **known)
    return Analysis(run(options), options)


class Analysis(Pictures):
    """One analysis: tables as DataFrames, findings, pictures, and the way to the report folder.

    Attributes:
        parts: The pipeline's own result, records and spools.
        options: What was asked.
    """

    def __init__(self, parts: Parts, options: AnalyzeOptions) -> None:
        self.parts = parts
        self.options = options
        self._tables: dict[str, pd.DataFrame] = {}

    # ---- tables ---------------------------------------------------------------------------------

    def table(self, name: str) -> pd.DataFrame:
        """A table by its name in the report folder; ``docs/tables.md`` has its columns.

        Raises:
            KeyError: No such table; the message lists those there are.
        """
        from analyzer.report.tables import TABLES

        if name not in TABLES:
            raise KeyError(f"{name}: tables are {', '.join(TABLES)}")
        if name not in self._tables:
            self._tables[name] = _frame(list(TABLES[name](self.parts)))
        return self._tables[name]

    @property
    def syns(self) -> pd.DataFrame:
        """One row per SYN packet seen: verdict, state behind it, cause, path."""
        return self.table("syns")

    @property
    def connections(self) -> pd.DataFrame:
        """One row per TCP connection and capture, Zeek's names."""
        return self.table("connections")

    @property
    def snat_flows(self) -> pd.DataFrame:
        """The load balancer's connection table, rebuilt: client, VIP, SNAT address, server."""
        return self.table("snat_flows")

    @property
    def peer_states(self) -> pd.DataFrame:
        """Every write of a peer's remembered timestamp."""
        return self.table("peer_states")

    @property
    def clocks(self) -> pd.DataFrame:
        """Host clocks found behind each address."""
        return self.table("clocks")

    # ---- what follows from them -------------------------------------------------------------------

    @property
    def summary(self) -> dict[str, Any]:
        """Counts, as in ``findings.json``."""
        return dict(self.as_dict()["summary"])

    @property
    def findings(self) -> list[Finding]:
        """Causes with their evidence, strongest first."""
        return self.parts.diagnosis.findings

    def as_dict(self) -> dict[str, Any]:
        """The content of ``findings.json``."""
        from analyzer.report.findings import as_dict

        return as_dict(self.parts)

    def explain(self, frame: int, capture: str | None = None) -> Explanation:
        """The chain behind one SYN: packet, connection, pair, peer's memory, rule, verdict, cause.

        Args:
            frame: Frame number of the SYN, as Wireshark counts.
            capture: Name of the vantage where there are several; the decisive one if not given.

        Raises:
            UsageError: The frame is no SYN of that capture.
        """
        from analyzer.diagnosis.explain import explain

        return explain(self.parts, frame, capture)

    def whatif(self, **changes: Any) -> list[WhatIf]:
        """The same traffic under other settings; see :func:`whatif`."""
        return whatif(self, **changes)

    def write_report(self, folder: str | Path, *, figures: bool = True, tables: str = "parquet") -> Path:
        """Write the report folder, as ``synquest analyze -o`` does; returns it."""
        from analyzer.report import write_report

        return write_report(self.parts, str(folder), figures=figures, tables=tables)

    def __repr__(self) -> str:
        summary = self.parts.diagnosis.summary
        causes = ", ".join(f"{n:,} {cause}" for cause, n in summary.by_cause.items())
        return f"<Analysis of {summary.syns:,} SYNs: {causes}>"


def _frame(batches: list[Any]) -> pd.DataFrame:
    """Arrow tables as one DataFrame: integers nullable, words as categories, times UTC."""
    import pandas as pd
    import pyarrow as pa

    kinds = {
        pa.int8(): pd.Int8Dtype(), pa.int16(): pd.Int16Dtype(), pa.int32(): pd.Int32Dtype(),
        pa.int64(): pd.Int64Dtype(), pa.uint8(): pd.UInt8Dtype(), pa.uint16(): pd.UInt16Dtype(),
        pa.uint32(): pd.UInt32Dtype(), pa.uint64(): pd.UInt64Dtype(), pa.bool_(): pd.BooleanDtype(),
        pa.string(): pd.StringDtype(),
    }  # fmt: skip
    if not batches:
        return pd.DataFrame()
    whole = pa.concat_tables(batches).unify_dictionaries()
    frame: pd.DataFrame = whole.to_pandas(types_mapper=kinds.get)
    return frame


def simulate(
    scenario: str, folder: str | Path, *, seed: int | None = None, changes: dict[str, Any] | None = None
) -> Path:
    """Write a simulated estate's captures with their ground truth.

    Args:
        scenario: Name of a shipped scenario, or a TOML file.
        folder: Where to; made if missing.
        seed: Same seed, same bytes.
        changes: Values of the scenario to override, by dotted name.

    Returns:
        The folder.

    Raises:
        UsageError: No such scenario or value.
    """
    from analyzer.simulator import simulate as write

    return write(scenario, folder, seed=seed, changes=changes)


def whatif(analysis: Analysis, **changes: Any) -> list[WhatIf]:
    """Replay the same traffic under changed settings.

    Args:
        analysis: What was seen.
        **changes: One prediction each, with ``__`` for a dot: ``tcp_tw_recycle=0``, ``kernel="6.1"``,
            ``lb__hold_down=60``; the names are those of ``synquest whatif --set``.

    Raises:
        UsageError: No such setting.
    """
    from analyzer.diagnosis.whatif import predict

    return predict(analysis.parts, {name.replace("__", "."): value for name, value in changes.items()})
