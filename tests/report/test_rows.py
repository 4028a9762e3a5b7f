"""JSON that its schema describes to the last key, and CSV that reads back exactly."""

from __future__ import annotations

import csv
import io
import json
from importlib.resources import files

import jsonschema
import pytest

import partialsum as ps
from networks import hostile, linear, small
from partialsum.workloads.gemm import Workload
from schemas import closed

SCHEMA = json.loads(files("partialsum.report").joinpath("schema.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    "workload",
    [small(), hostile(), Workload("one pass", tuple(linear("a", 3, 4, 5)[:1]))],
    ids=lambda w: w.name[:8],
)
def test_json_follows_its_schema(workload: Workload) -> None:
    data = json.loads(ps.analyze(workload, density=0.5).to_json())
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.validate(data, closed(SCHEMA))
    assert data["schema"] == SCHEMA["$id"]
    assert len(data["gemms"]) == len(workload.gemms)
    assert len(data["unanalysed"]) == len(workload.unanalysed)


def test_the_schema_refuses_what_is_not_a_report() -> None:
    data = ps.analyze(small()).to_dict()
    data["gemms"][0]["man_bits"] = "15"
    with pytest.raises(jsonschema.ValidationError, match="'15' is not of type 'integer'"):
        jsonschema.validate(data, SCHEMA)


def test_csv_reads_back_exactly() -> None:
    report = ps.analyze(hostile(), density=1 / 3)
    lines = list(csv.DictReader(io.StringIO(report.to_csv())))
    assert len(lines) == len(report.rows)
    for line, row in zip(lines, report.rows, strict=True):
        assert line["layer"] == row.layer
        assert (int(line["k"]), int(line["man_bits"]), line["pass"]) == (row.k, row.man_bits, str(row.pass_))
        assert float(line["density"]) == row.density
        assert float(line["ln_v"]) == row.ln_v
    assert list(lines[0]) == list(report.to_dict()["gemms"][0])
