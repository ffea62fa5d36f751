"""findings.json is what its schema says."""

import json

import jsonschema
import pytest

from analyzer.report.findings import as_dict
from tests.conftest import ROOT

SCHEMA = json.loads((ROOT / "docs" / "findings.schema.json").read_text())


@pytest.mark.parametrize("case", ["recycled", "behind_lb", "everything", "healthy", "two_syns"])
def test_it_follows_the_schema(case, request):
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    found = json.loads(json.dumps(as_dict(request.getfixturevalue(case)), allow_nan=False))
    jsonschema.validate(found, SCHEMA)


def test_every_top_level_field_is_described(everything):
    assert set(as_dict(everything)) == set(SCHEMA["properties"])


def test_the_schema_refuses_a_wrong_cause(recycled):
    found = as_dict(recycled)
    found["findings"][0]["cause"] = "gremlins"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(found, SCHEMA)


def test_what_others_found_is_in_it(everything):
    found = as_dict(everything)
    assert found["clock_offset"]["seconds"] == -0.25
    assert found["clock_offset"]["half_width"] == 35e-6
    assert [row["residual"] for row in found["counters"]] == [0, 44, 0]
    assert found["blast"]["clients_seen"] == 400
    assert found["whatif"][0]["lost_after"] == 3
