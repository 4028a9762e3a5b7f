"""Signal-to-noise ratios in reports: widths by information, units and their promotion intervals, in every form."""

from __future__ import annotations

import csv
import io
import json
import re
import subprocess
import sys
from importlib.resources import files
from typing import Any

import jsonschema
import pytest

import partialsum as ps
from networks import HOSTILE, linear
from partialsum.report.laws import operands_snr_db
from partialsum.report.phrases import percent
from partialsum.report.result import Report
from partialsum.theory.bounds import likely_bits
from partialsum.theory.products import parse_product
from partialsum.workloads.gemm import Workload
from schemas import closed

UNITS = ("h100-fp8", "e6m6,toward_zero")
TARGET = 20.0


def network() -> Workload:
    body = [gemm for block in range(2) for gemm in linear(f"b.{block}.fc", 400, 60, 60)]
    return Workload("net", (*linear("stem", 400, 147, 60, first=True), *body))


@pytest.fixture(scope="module")
def report() -> Report:
    options: dict[str, Any] = {"method": "evolution", "rounding": "toward_zero", "target_snr_db": TARGET}
    return ps.analyze(network(), accumulator=UNITS, chunk=32, density={"grad_weight": 0.5}, **options)


def test_rows_have_the_functions_widths_and_snr(report: Report) -> None:
    for row in report.rows:
        given = {"method": "evolution", "rounding": "toward_zero", "target_snr_db": TARGET, "product": "e5m2"}
        kept = row.kept
        assert kept is not None
        assert kept.man_bits == ps.min_man_bits(row.k, density=row.density, **given)
        assert kept.man_bits_chunked == ps.min_man_bits(row.k, chunk=32, density=row.density, **given)
        told = ps.predict(row.k, f"e8m{row.man_bits},toward_zero", density=row.density).snr_db
        assert kept.formula_snr_db == pytest.approx(told)
        for name, own in zip(UNITS, row.units, strict=True):
            assert own.unit == name
            expected = ps.predict(row.k, name, density=row.density)
            assert own.snr_db == pytest.approx(expected.snr_db)
            assert own.gain == pytest.approx(expected.gain)
            assert own.meets_target == (expected.snr_db >= TARGET)


def test_the_interval_is_the_longest_that_keeps_the_target(report: Report) -> None:
    failing = [(row, row.units[1]) for row in report.rows if not row.units[1].meets_target]
    assert failing
    for row, own in failing:
        sizes = [2**power for power in range(9) if 2**power < row.k]
        kept = [
            size
            for size in sizes
            if ps.predict(row.k, f"e6m6,toward_zero,chunk={size}", density=row.density).snr_db >= TARGET
        ]
        assert own.interval == (max(kept) if kept else None)


def test_matrix_units_promote_just_often_enough() -> None:
    long = Workload("long", tuple(linear("fc", 2**11, 64, 64)))
    (row,) = (
        row
        for row in ps.analyze(long, accumulator="h100-fp8", target_snr_db=72, inputs="e4m3fn").rows
        if row.k > 64
    )
    (own,) = row.units
    assert own.interval is not None
    assert own.interval % 32 == 0
    assert not own.meets_target
    at, twice = (
        ps.predict(row.k, f"h100-fp8,promote_every={every}", "e4m3fn").snr_db
        for every in (own.interval, 2 * own.interval)
    )
    assert at >= 72 > twice
    assert own.interval_snr_db == pytest.approx(at)


def test_promotion_is_told_with_what_it_serves_and_costs() -> None:
    two = Workload("two", (*linear("short", 64, 512, 64)[:1], *linear("long", 64, 8192, 64)[:1]))
    report = ps.analyze(two, inputs="e4m3fn", accumulator="h100-fp8", mean=0.2, target_snr_db=45)
    short, long = report.rows
    assert short.units[0].meets_target
    assert not long.units[0].meets_target
    interval = long.units[0].interval
    assert f"promoting every {interval:,} products keeps it everywhere (asked by long forward, k = 8,192)" in str(
        report
    )
    assert f"and adds {100 / interval:.2g}% of float32 additions outside the unit." in str(report)
    told = {entry["interval"]: entry for entry in report.to_dict()["units"]["list"][0]["intervals"]}
    assert told[interval]["snr_db"] == pytest.approx(long.units[0].interval_snr_db)
    for size, entry in told.items():
        assert entry["macs_share"] == pytest.approx(1.0 if size <= interval else 512 / (512 + 8192))
    assert {size <= interval for size in told} == {True, False}
    line = next(line for line in str(report).splitlines() if line.startswith(f"{interval:,} "))
    assert line.split()[1:] == [f"{100 / interval:.2g}", f"{long.units[0].interval_snr_db:.1f}", "100%"]


def test_cancelling_sums_need_more() -> None:
    small = Workload("small", tuple(linear("fc", 64, 96, 64)[:1]))
    options: dict[str, Any] = {"method": "evolution", "accumulator": "e6m9"}
    plain, cancelling = (ps.analyze(small, kappa=kappa, **options).rows[0] for kappa in (None, 0.01))
    assert plain.units[0].snr_db - 20 == pytest.approx(cancelling.units[0].snr_db)
    assert cancelling.kept.man_bits == ps.min_man_bits(96, method="evolution", target_snr_db=50)


def test_a_mean_drifts_and_promotion_mends_it() -> None:
    small = Workload("small", tuple(linear("fc", 64, 2048, 64)[:1]))
    report = ps.analyze(small, inputs="e4m3fn", accumulator="h100-fp8", mean=0.5, target_snr_db=50)
    (own,) = report.rows[0].units
    assert own.snr_db == pytest.approx(ps.predict(2048, "h100-fp8", "e4m3fn", mean=0.5).snr_db)
    assert own.snr_db < 20
    assert own.interval_snr_db >= 50
    assert own.interval is not None
    assert "Products have a mean of 0.5 of their standard deviations" in str(report)
    assert report.to_dict()["units"]["mean"] == 0.5


def test_json_follows_its_schema(report: Report) -> None:
    schema = json.loads(files("partialsum.report").joinpath("schema.json").read_text(encoding="utf-8"))
    data = json.loads(report.to_json())
    jsonschema.validate(data, closed(schema))
    assert data["evolution"]["headline"]["shared"]["man_bits"] == max(row.kept.man_bits for row in report.rows)
    assert [unit["unit"] for unit in data["units"]["list"]] == list(UNITS)
    assert data["units"]["list"][0]["source"].startswith("arXiv")
    assert data["gemms"][0]["units"][1]["unit"] == UNITS[1]


def test_csv_has_a_column_for_everything(report: Report) -> None:
    lines = list(csv.DictReader(io.StringIO(report.to_csv())))
    for line, row in zip(lines, report.rows, strict=True):
        assert float(line["evolution_snr_db"]) == row.kept.snr_db
        assert float(line["h100-fp8 snr_db"]) == row.units[0].snr_db
        interval = line["e6m6,toward_zero interval"]
        assert interval == ("" if row.units[1].interval is None else str(row.units[1].interval))


def test_text_and_page_say_the_same(report: Report) -> None:
    text, page = str(report), report.to_html()
    for sentence in (
        "Narrowest accumulator that keeps 20 dB with toward_zero rounding",
        "h100-fp8 (H100/H200 FP8 (wgmma) tensor core, FP32 output): every GEMM keeps 20 dB as it is",
        "rounding normal operands to their formats leaves by itself: e5m2 22.5 dB",
        "Promoting (or chunking) partial sums every so often: SNR of the longest sum, k = 400",
    ):
        assert sentence in text
        assert sentence in page
    least = min(row.units[0].snr_db for row in report.rows)
    assert f"the least, {least:.1f} dB, has stem grad_weight, k = 400, " in text
    assert f"which does down to κ = {10 ** ((TARGET - least) / 10):.2g}." in text
    failing = [row for row in report.rows if not row.units[1].meets_target]
    share = sum(row.macs for row in failing) / report.total_macs
    assert (
        f"e6m6,toward_zero: {len(failing)} of 8 GEMMs ({percent(share)} of the MACs) keep less than 20 dB" in text
    )
    hopeless = [row for row in failing if row.units[1].interval is None]
    assert ("and no chunk helps" in text) == bool(hopeless)
    assert re.search(r"b\.\*\.fc +×2 +forward +60 ", text)
    assert "b.1.fc" in ps.analyze(network(), accumulator="e8m9").to_csv()
    for figure in ("Mantissa bits that keep the SNR", "SNR over the length of the sum"):
        assert f'aria-label="{figure}' in page


def test_names_of_units_and_layers_are_never_markup() -> None:
    hostile = Workload(f"net {HOSTILE}", tuple(linear(HOSTILE, 64, 128, 64)))
    page = ps.analyze(hostile, accumulator="E6M9, toward_zero").to_html()
    assert page.count("<script>") == 1
    assert "&lt;script&gt;alert(1)" in page


def test_a_plain_report_says_nothing_of_it() -> None:
    plain = ps.analyze(network())
    assert plain.kept is None
    assert not plain.units
    assert "SNR" not in str(plain)
    assert {"evolution", "units"}.isdisjoint(plain.to_dict())


@pytest.mark.parametrize(
    ("formats", "expected"), [(("e4m3fn", "e4m3fn"), 28.5), (("fp16", "fp16"), 70.7), (("mxfp4", "mxfp4"), None)]
)
def test_what_the_operands_themselves_keep(formats: tuple[str, str], expected: float | None) -> None:
    told = operands_snr_db(*formats)
    assert told == (None if expected is None else pytest.approx(expected, abs=0.6))


def test_a_plain_analysis_loads_no_evolution() -> None:
    code = (
        "import sys; sys.path.insert(0, 'tests'); import partialsum as ps; from networks import small;"
        "str(ps.analyze(small())); print({'scipy', 'torch', 'matplotlib', 'partialsum.theory.evolution'} & {*sys.modules})"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert result.stdout == "set()\n"


def test_integer_operands_have_their_registers() -> None:
    torch = pytest.importorskip("torch")
    model = torch.nn.Sequential(torch.nn.Linear(300, 4), torch.nn.ReLU(), torch.nn.Conv1d(1, 2, 3))
    with torch.no_grad():
        model[0].weight.fill_(0.0)[0, 0] = 0.5  # one weight in a row: ‖w‖₁ is the largest code, 127
        model[2].weight.fill_(-1.0)  # three of the largest codes
    report = ps.analyze(model, torch.zeros(8, 1, 300), inputs="int8")
    forward = {row.layer: row.integer for row in report.rows if str(row.pass_) == "forward"}
    assert [(forward[name].datatype, forward[name].weights) for name in ("0", "2")] == [(24, 15), (17, 17)]
    for row in report.rows:
        assert row.integer.likely == likely_bits(row.k, parse_product("int8*int8"))
        assert row.integer.likely <= row.integer.datatype
        assert (row.integer.weights is None) == (str(row.pass_) != "forward")
    assert "A2Q" in str(report)
    assert "Integer registers" in report.to_html()
    data = json.loads(report.to_json())
    schema = json.loads(files("partialsum.report").joinpath("schema.json").read_text(encoding="utf-8"))
    jsonschema.validate(data, closed(schema))
    assert next(csv.DictReader(io.StringIO(report.to_csv())))["integer_weights_bits"] == "15"
    assert ps.analyze(network(), inputs="e5m2").rows[0].integer is None


@pytest.mark.parametrize(
    ("inputs", "unit", "bits"),
    [("mxfp8_e4m3", "b200-fp8", 7), ("mxfp4", "e8m7", 3), ("nvfp4", "e6m9", 3), ("nvfp4", "b200-fp4", 3)],
)
def test_block_formats(inputs: str, unit: str, bits: int) -> None:
    small = Workload("small", tuple(linear("fc", 64, 4096, 64)[:1]))
    report = ps.analyze(small, inputs=inputs, accumulator=unit)
    assert report.rows[0].product_man_bits == bits
    assert report.rows[0].units[0].snr_db == pytest.approx(ps.predict(4096, unit, inputs).snr_db)
    sentence = (
        f"{inputs}: a product is (element · scale) · (element · scale), so the scales of the blocks enter before"
    )
    assert any(sentence in assumption for assumption in report.assumptions)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"accumulator": "h100-fp9"}, "unknown accumulator 'h100-fp9'; did you mean 'h100-fp8'"),
        ({"accumulator": ["e6m9", "e6m9"]}, "accumulator names 'e6m9' twice"),
        (
            {"accumulator": "h100-fp8", "inputs": "bf16"},
            "h100-fp8 multiplies FP8 numbers and cannot take bf16 operands; give inputs that fit into 5 exponent and 3",
        ),
        (
            {"accumulator": "b200-fp4", "inputs": "mxfp8_e4m3"},
            "b200-fp4 multiplies FP4 numbers and cannot take mxfp8",
        ),
        ({"accumulator": "e6m9", "rounding": "up"}, "rounding only means something with method='evolution'"),
        ({"target_snr_db": 30}, "target_snr_db only means something with method='evolution' or an accumulator"),
        ({"kappa": 0.5}, "kappa only means something with method='evolution' or an accumulator, got 0.5"),
        ({"accumulator": "e6m9", "kappa": 0.0}, "kappa must be positive, got 0.0"),
        ({"accumulator": "e6m9", "mean": float("inf")}, "mean must be finite, got inf"),
        ({"mean": 0.5}, "mean only means something with method='evolution' or an accumulator, got 0.5"),
        ({"method": "evolution", "target_snr_db": -1}, "target_snr_db must be a number of dB"),
        ({"method": "monte"}, "method must be one of formula, evolution, got 'monte'"),
    ],
)
def test_impossible_requests(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ps.InputError, match=re.escape(sentence)):
        ps.analyze(network(), **options)
