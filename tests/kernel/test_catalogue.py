from analyzer.kernel.catalogue import RULES, markdown
from analyzer.kernel.rules import RULE_NAMES
from tests.conftest import ROOT


def test_every_rule_is_described_and_no_other():
    assert set(RULES) == set(RULE_NAMES) - {""}


def test_the_page_is_up_to_date():
    """To renew it: python -c "from analyzer.kernel.catalogue import markdown; print(markdown(), end='')"."""
    assert (ROOT / "docs" / "kernel-rules.md").read_text() == markdown()
