"""Measurements beside predictions: what is compared, why they differ, and how it is drawn and said."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

import partialsum as ps
from partialsum.measurement.moments import Estimate
from partialsum.measurement.targets import parse_target
from partialsum.report.comparison import compare, format_number, summarise, worst_first
from partialsum.report.expected import Cause, causes, expected_snr, formula_widths, reference_accumulator
from partialsum.report.measured import draw, render_measurements
from partialsum.report.measured_text import print_measurements


@pytest.fixture(scope="module")
def found() -> ps.Measurements:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(96, 40), nn.ReLU(), nn.Linear(40, 10))
    data = [(torch.randn(24, 96), torch.arange(24) % 10) for _ in range(3)]
    return ps.measure(model, data, loss="cross_entropy", accumulators=ps.Sweep(man_bits=(4, 6, 8), chunks=(0,)))


def test_widths_and_snr_are_those_of_the_theory(found: ps.Measurements) -> None:
    rows = list(found.rows)
    for row, width in zip(rows, formula_widths(found), strict=True):
        assert width == ps.min_man_bits(row.k, 5, density=row.density)
    for row, snr in zip(rows, expected_snr(rows, reference_accumulator(6)), strict=True):
        length = max(1, round(row.k * row.density))
        assert snr == pytest.approx(ps.predict(length, "e8m6", "e5m2").snr_db, abs=0.05)
    long = [row for row in rows if row.k >= 40]
    chunked, plain = (expected_snr(long, ps.parse_accumulator(name)) for name in ("e8m6,chunk=8", "e8m6"))
    assert len(long) == 2
    assert all(a > b for a, b in zip(chunked, plain, strict=True))


def test_wide_operands_have_no_formula(found: ps.Measurements) -> None:
    wide = replace(found, rows=tuple(replace(row, operand_man_bits=(23, 23)) for row in found.rows))
    assert set(formula_widths(wide)) == {None}


def test_causes_are_the_two_measured_parts(found: ps.Measurements) -> None:
    row = found.rows[0]
    expected = expected_snr([row], reference_accumulator(found.accumulators[row.reference].man_bits))[0]
    shuffled = row.shuffled._replace(snr_db=Estimate(expected - 5, 0.1))
    quality = row.qualities[row.reference]._replace(snr_db=Estimate(expected - 12, 0.1))
    qualities = tuple(quality if index == row.reference else old for index, old in enumerate(row.qualities))
    outliers = replace(row.a, kurtosis=99.4)
    worse = replace(row, shuffled=shuffled, qualities=qualities, a=outliers)
    assert causes(replace(found, rows=(worse,))) == [
        (Cause("pairing and order", pytest.approx(-7)), Cause("operands alone (kurtosis 99)", pytest.approx(-5)))
    ]
    near = replace(worse, shuffled=shuffled._replace(snr_db=Estimate(expected - 11.5, 0.1)))
    assert [len(why) for why in causes(replace(found, rows=(near,)))] == [1]  # the pairing's half dB is not told


def test_the_comparison_names_the_worst_first(found: ps.Measurements) -> None:
    comparison = compare(found, parse_target("snr=20"))
    assert comparison.man_bits == 8
    worst = worst_first(comparison)
    finite = [line.snr_db for line in worst if math.isfinite(line.snr_db)]
    assert finite == sorted(finite)
    assert worst[0].row.name in summarise(comparison, parse_target("snr=20"))
    text = summarise(compare(found, parse_target("snr=90")), parse_target("snr=90"))
    assert "do not reach snr=90 with any width tried" in text


def test_a_page_needs_nothing_and_trusts_no_name(found: ps.Measurements) -> None:
    evil = "<script>alert(1)</script>"
    rows = (replace(found.rows[0], layer=evil), *found.rows[1:])
    page = render_measurements(replace(found, rows=rows), target=parse_target("snr=20"), command="x <y>")
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "x &lt;y&gt;" in page
    assert "http://" not in page.replace("http://www.w3.org/", "")
    assert "<image" not in page
    assert page.count("<svg") == 3


def test_figures_have_every_layer(found: ps.Measurements) -> None:
    figures = draw(found, parse_target("snr=20"))
    assert list(figures) == ["scatter", "heat-nearest_even-0", "heat-toward_zero-0"]
    heat = figures["heat-nearest_even-0"]
    names = [label.get_text() for label in heat.axes[0].get_yticklabels()]
    assert names == ["0", "2"]
    assert [panel.get_title(loc="left") for panel in heat.axes[:3]] == ["forward", "grad_input", "grad_weight"]


def measured(accumulators: list[str] | ps.Sweep) -> ps.Measurements:
    torch.manual_seed(0)
    return ps.measure(nn.Linear(96, 40), [torch.randn(24, 96)], accumulators=accumulators)


def test_other_ways_of_adding_are_compared_where_plain_sums_were_not_tried(
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = measured(ps.Sweep(man_bits=(6, 8), chunks=(16,), roundings="toward_zero"))
    comparison = compare(found, parse_target("snr=20"))
    assert comparison.how == "8 mantissa bits, sums in chunks of 16 toward zero"
    want = ps.predict(96, "e8m8,toward_zero,chunk=16", "e5m2").snr_db
    assert comparison.lines[0].expected_db == pytest.approx(want, abs=0.05)
    assert comparison.lines[0].formula == ps.min_man_bits(96, 5, 16, density=found.rows[0].density)
    assert list(draw(found, parse_target("snr=20"))) == ["scatter", "heat-toward_zero-16"]
    print_measurements(found, parse_target("snr=20"))
    assert "sums in chunks of 16 toward zero" in capsys.readouterr().out


def test_matrix_units_are_shown_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    found = measured(["h100-fp8", "v100-fp16"])
    figures = draw(found, parse_target("snr=20"))
    assert list(figures) == ["heat-units"]
    assert [text.get_text() for text in figures["heat-units"].axes[0].get_xticklabels()] == [
        "h100-fp8",
        "v100-fp16",
    ]
    page = render_measurements(found, target=parse_target("snr=20"))
    assert "Predicted against measured" not in page
    assert page.count("<svg") == 1
    print_measurements(found, parse_target("snr=20"))
    printed = capsys.readouterr().out
    assert "h100-fp8" in printed
    assert "bits bring every GEMM" not in printed


@pytest.mark.parametrize(
    ("value", "text"),
    [(1.25, "1.2"), (-3.0, "\N{MINUS SIGN}3.0"), (math.nan, "–"), (None, "–"), (math.inf, "exact")],
)
def test_numbers_in_tables(value: float | None, text: str) -> None:
    assert format_number(value) == text
