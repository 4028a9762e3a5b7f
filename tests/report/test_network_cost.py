"""A network's cost: sums that add up, widths that are the analysis's own, and what is left out said aloud."""

from __future__ import annotations

import json

import pytest

import partialsum as ps
from networks import HOSTILE, hostile, linear, small
from partialsum.errors import InputError
from partialsum.hardware.designs import ChunkAdder
from partialsum.report.cost_figures import draw_cost_sheet, pareto_front
from partialsum.report.cost_text import band, digits, energy_scale, print_network_cost
from partialsum.report.network_cost import Energy, NetworkCost, network_cost
from partialsum.report.style import figure_bytes
from partialsum.workloads.gemm import Pass, Workload

MJ = 1e-9
"""Millijoules of a picojoule."""


@pytest.fixture(scope="module")
def cost() -> NetworkCost:
    return network_cost(ps.analyze(small(), density=0.5))


def close(energy: Energy, low: float, high: float) -> bool:
    return energy.low == pytest.approx(low) and energy.high == pytest.approx(high)


def test_options_hold_the_analysis_own_widths(cost: NetworkCost) -> None:
    shared = cost.report.headline.shared
    forward = cost.report.headline.of(Pass.FORWARD)
    assert forward is not None
    assert [o.man_bits for o in cost.options[:4]] == [
        23,
        shared.man_bits,
        shared.man_bits_chunked,
        shared.man_bits_chunked,
    ]
    assert [o.man_bits for o in cost.inference[:3]] == [23, forward.man_bits, forward.man_bits_chunked]
    assert [o.name for o in cost.options[:4]] == [
        "fp32",
        "plain",
        "chunk 64, private adder",
        "chunk 64, shared adder",
    ]
    plain = ps.mac_cost("e5m2", f"e6m{shared.man_bits}")
    assert cost.options[1].cost.area_ge == plain.area_ge
    chunked = ps.mac_cost("e5m2", f"e6m{shared.man_bits_chunked},chunk=64", chunk_adder="shared")
    assert cost.options[3].cost.area_ge == chunked.area_ge


def test_energies_are_macs_times_the_energy_of_one(cost: NetworkCost) -> None:
    macs = cost.report.total_macs
    for option in cost.options:
        unit = option.cost
        assert close(option.training, macs * unit.energy_pj_low * MJ, macs * unit.energy_pj_high * MJ)
        assert close(sum(option.by_pass.values(), Energy(0, 0)), option.training.low, option.training.high)
        lines = [line.training[option.name] for line in cost.layers]
        assert close(sum(lines, Energy(0, 0)), option.training.low, option.training.high)
    forward = sum(row.macs for row in cost.report.rows if row.pass_ is Pass.FORWARD)
    for option in cost.inference:
        assert set(option.by_pass) == {Pass.FORWARD}
        assert close(
            option.training, forward * option.cost.energy_pj_low * MJ, forward * option.cost.energy_pj_high * MJ
        )
        lines = [line.inference[option.name] for line in cost.layers if line.inference]
        assert close(sum(lines, Energy(0, 0)), option.training.low, option.training.high)


def test_narrower_accumulators_save(cost: NetworkCost) -> None:
    data = cost.to_dict()
    fp32, plain, *_ = data["units"]
    assert fp32["area_saving"] == fp32["energy_saving_low"] == 1
    assert plain["area_saving"] == pytest.approx(fp32["area_ge"] / plain["area_ge"], rel=1e-3)
    assert plain["area_saving"] > 1.2
    assert plain["energy_saving_low"] > 1.1
    assert plain["training_step_mj_low"] < fp32["training_step_mj_low"]


def test_the_last_option_is_the_smallest_chunked_unit(cost: NetworkCost) -> None:
    areas = [p.cost(adder).area_ge for p in cost.chunks[1:] for adder in ChunkAdder]
    assert min(o.cost.area_ge for o in cost.options[2:]) == pytest.approx(min(areas))


def test_break_even_is_more_than_the_models_error(cost: NetworkCost) -> None:
    plain = cost.chunks[0].private
    for name, adder in (("area, private adder", ChunkAdder.PRIVATE), ("area, shared adder", ChunkAdder.SHARED)):
        paying = [
            p.chunk for p in cost.chunks[1:] if p.cost(adder).area_ge < plain.area_ge * (1 - plain.area_error)
        ]
        assert list(cost.break_even[name]) == paying
    assert cost.break_even["energy"]
    assert cost.to_dict()["break_even_chunk"]["energy"] == cost.break_even["energy"][0]


def test_short_sums_never_pay_for_chunks() -> None:
    gemms = linear("one", 64, 64, 64)
    cost = network_cost(ps.analyze(Workload("short", tuple(gemms))))
    assert cost.break_even == {"area, private adder": (), "area, shared adder": (), "energy": ()}
    assert set(cost.to_dict()["break_even_chunk"].values()) == {None}


def test_mixed_formats_are_served_by_one_that_holds_both() -> None:
    cost = network_cost(ps.analyze(small(), inputs="e4m3fn", grad_inputs="e5m2"))
    assert [str(fmt) for fmt in cost.operands] == ["e5m3", "e5m3"]
    assert "The unit multiplies numbers of e5m3, which holds both e4m3fn and e5m2." in cost.notes
    assert cost.options[1].cost.area_ge > network_cost(ps.analyze(small())).options[1].cost.area_ge * 0.9


def test_blocks_are_priced_by_their_elements() -> None:
    cost = network_cost(ps.analyze(small(), inputs="mxfp8_e4m3", grad_inputs="mxfp8_e5m2"))
    assert [str(fmt) for fmt in cost.operands] == ["e5m3", "e5m3"]
    assert "The scales of mxfp8_e4m3 and mxfp8_e5m2 are applied outside the unit, not counted." in cost.notes


def test_layers_with_formats_of_their_own_are_left_out_and_named() -> None:
    report = ps.analyze(small(), first_layer_inputs="fp16", last_layer_inputs="fp16")
    cost = network_cost(report)
    own = [row for row in report.rows if row.a_format == "fp16"]
    assert own
    assert f"{len(own)} GEMMs of layers with operand formats of their own are not in these numbers." in cost.notes
    left = {row.layer for row in report.rows} - {row.layer for row in own}
    assert {line.layer for line in cost.layers} == left


@pytest.mark.parametrize(
    ("options", "exp_bits", "message"),
    [
        ({"inputs": "int8"}, None, "inputs must be a floating-point format to be priced"),
        ({}, 4, r"exp_bits must be 5 \(as the operands have\) to 8, got 4"),
        ({}, 9, "exp_bits must be 5"),
    ],
)
def test_what_cannot_be_priced_says_so(options: dict[str, str], exp_bits: int | None, message: str) -> None:
    with pytest.raises(InputError, match=message):
        network_cost(ps.analyze(small(), **options), exp_bits=exp_bits)


def test_exponent_bits_and_technology_are_the_callers() -> None:
    report = ps.analyze(small())
    usual, wide = network_cost(report), network_cost(report, "7nm", exp_bits=8)
    assert (usual.exp_bits, wide.exp_bits) == (6, 8)
    assert wide.options[1].cost.area_ge > usual.options[1].cost.area_ge
    assert wide.options[1].training.high < usual.options[1].training.high / 5
    assert network_cost(ps.analyze(small(), inputs="bf16")).exp_bits == 8


def test_json_is_plain_data(cost: NetworkCost) -> None:
    data = json.loads(json.dumps(cost.to_dict(), allow_nan=False))
    assert data["schema"] == "partialsum/cost/1"
    assert {line["layer"] for line in data["layers"]} == {row.layer for row in cost.report.rows}
    assert set(data["sources"]) == {"area_ge", "area_um2", "delay_ns", "energy_pj"}


def test_text_names_units_savings_and_what_is_left_out(
    cost: NetworkCost, capsys: pytest.CaptureFixture[str]
) -> None:
    print_network_cost(cost)
    text = capsys.readouterr().out
    for words in (
        "small, batch 256: what its accumulator costs",
        "One unit that serves all passes, and the energy of a training step",
        "One unit for the forward pass alone, and the energy of an inference",
        "break-even at",
        "blocks.*.up",
        "×3",
        "Left out: memory, wires, the clock tree",
        "Energies are those of dense, normal operands",
        "Where the numbers come from",
    ):
        assert words in text
    assert all(line == line.rstrip() for line in text.splitlines())


def test_names_from_files_stay_text(capsys: pytest.CaptureFixture[str]) -> None:
    cost = network_cost(ps.analyze(hostile()))
    print_network_cost(cost)
    assert HOSTILE in capsys.readouterr().out
    assert figure_bytes(draw_cost_sheet(cost), "svg").startswith(b"<?xml")


def test_the_page_has_a_section_on_silicon() -> None:
    page = ps.analyze(small(), density=0.5).to_html()
    assert "What it costs in silicon" in page
    assert 'aria-label="Area of multiply-accumulate units' in page
    assert "less energy, ×" in page
    refused = ps.analyze(small(), inputs="int8").to_html()
    assert "Not priced: inputs must be a floating-point format" in refused


def test_a_figure_is_the_same_each_time(cost: NetworkCost) -> None:
    first, second = (figure_bytes(draw_cost_sheet(cost), "svg") for _ in range(2))
    assert first == second
    for word in (b"fp32 / fp32", b"Needed width against area", b"Area against energy", b"total adder"):
        assert word in first


def test_the_pareto_front() -> None:
    assert pareto_front([(1, 5), (2, 3), (3, 4), (2, 6), (4, 1)]) == [(1, 5), (2, 3), (4, 1)]
    assert pareto_front([(1, 1), (1, 1), (2, 2)]) == [(1, 1)]


@pytest.mark.parametrize(
    ("value", "text"), [(0.8, "0.800"), (12.34, "12.3"), (99.96, "100"), (575.2, "575"), (1721.4, "1,721")]
)
def test_three_digits(value: float, text: str) -> None:
    assert digits(value) == text
    assert band(value, value) == f"{digits(value)}–{digits(value)}"


def test_energy_scales() -> None:
    assert [energy_scale(mj)[1] for mj in (2e6, 3e3, 5.0, 0.5, 2e-5, 1e-12)] == ["kJ", "J", "mJ", "µJ", "nJ", "nJ"]
