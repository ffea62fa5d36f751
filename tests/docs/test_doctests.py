"""Examples in public docstrings do what they show."""

import doctest

import pytest

from tests.conftest import ROOT

MODULES = ("analyzer.seqnum", "analyzer.capture.packets", "analyzer.library")


@pytest.mark.parametrize("name", MODULES)
def test_examples(name, monkeypatch):
    monkeypatch.chdir(ROOT)
    module = __import__(name, fromlist=["x"])
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0
