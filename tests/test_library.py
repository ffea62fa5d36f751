"""The library as a notebook uses it."""

import pandas as pd
import pytest

from analyzer import InputError, UsageError, analyze, read_capture
from analyzer.pictures import Pictures
from analyzer.report.figures import modules
from analyzer.report.tables import TABLES
from tests.conftest import FIXTURES

TWO = FIXTURES / "v6.18-lb-drops-ack"


@pytest.fixture(scope="module")
def analysis():
    return analyze(
        lb=[str(TWO / f"lb_{side}.pcap.zst") for side in ("client", "server")],
        server=[str(TWO / f"{name}.pcap.zst") for name in ("s1", "s2")],
        kernel="6.18",
        sysctl_file=str(TWO / "sysctl.txt"),
    )


def test_every_table_is_a_frame_with_nullable_integers(analysis):
    for name in TABLES:
        frame = analysis.table(name)
        assert isinstance(frame, pd.DataFrame)
        for column in frame.select_dtypes("number"):
            assert frame[column].dtype.kind == "f" or isinstance(frame[column].dtype, pd.api.extensions.ExtensionDtype)
    assert str(analysis.syns["time"].dtype) == "datetime64[ns, UTC]"
    assert analysis.syns["tsval"].isna().any()
    with pytest.raises(KeyError, match="tables are syns"):
        analysis.table("packets")


def test_every_figure_has_a_method(analysis):
    names = {module.NAME for module in modules()}
    methods = [m for m in vars(Pictures) if not m.startswith("_") and m != "figure"]
    asked = []
    analysis.figure, kept = asked.append, analysis.figure
    try:
        for method in methods:
            getattr(analysis, method)()
    finally:
        analysis.figure = kept
    assert set(asked) == names
    assert analysis.ladder().axes
    with pytest.raises(KeyError, match="figures are"):
        analysis.figure("pie")


def test_explain_shows_the_chain(analysis):
    syns = analysis.syns
    row = syns[(syns["capture"] == "server1") & (syns["rule"] == "time_wait_paws")].iloc[0]
    chain = analysis.explain(int(row["frame"]), "server1")
    page = chain._repr_html_()
    assert "time_wait_paws" in page
    assert str(row["peer_tsval"]) in page.replace(",", "")
    with pytest.raises(UsageError):
        analysis.explain(10**6, "server1")


def test_summary_and_findings_agree(analysis):
    assert analysis.summary["by_cause"][analysis.findings[0].cause] == analysis.findings[0].syns
    assert "time_wait_paws" in repr(analysis)


def test_a_missing_file_is_one_clear_line():
    with pytest.raises(InputError, match=r"nowhere\.pcap: no such file"):
        read_capture("nowhere.pcap")
