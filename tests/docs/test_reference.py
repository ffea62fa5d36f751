"""Pages that come from the code are up to date, and the tables are what they say."""

import importlib.util

import pyarrow as pa
import pytest

from analyzer.pipeline import AnalyzeOptions, analyze
from analyzer.report.columns import COLUMNS
from analyzer.report.tables import TABLES
from tests.conftest import FIXTURES, ROOT


def _generator():
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["commands.md", "tables.md", "kernel-rules.md"])
def test_generated_pages_are_up_to_date(name):
    assert (ROOT / "docs" / name).read_text(encoding="utf-8") == _generator().pages()[name], "run `make docs`"


@pytest.fixture(scope="module")
def analysis():
    case = FIXTURES / "el7-recycle"
    options = AnalyzeOptions(
        servers=[str(case / "server.pcap.zst")], kernel="el7.9", sysctl_file=str(case / "sysctl.txt"), backlog=128
    )
    return analyze(options)


def _word(kind):
    if pa.types.is_dictionary(kind):
        return "word"
    return "time" if pa.types.is_timestamp(kind) else str(kind).replace("element: ", "").replace("item: ", "")


def test_every_table_has_its_columns_described():
    assert set(COLUMNS) == set(TABLES)


@pytest.mark.parametrize("name", list(TABLES))
def test_columns_and_types_are_as_described(analysis, name):
    schema = next(iter(TABLES[name](analysis))).schema
    assert [(f.name, _word(f.type)) for f in schema] == [(c.name, c.type) for c in COLUMNS[name].columns]
