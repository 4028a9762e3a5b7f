"""The cost model: fitted to the committed sweep, monotone, near what others measured, and honest about its error."""

from __future__ import annotations

import math
from itertools import product
from pathlib import Path

import pytest
from scipy.stats import f

import partialsum as ps
from partialsum.accumulators import Accumulator, AlignedAccumulator, IntegerAccumulator
from partialsum.errors import InputError
from partialsum.formats import FloatFormat, IntFormat
from partialsum.hardware.calibration import committed_operations, energy_scales
from partialsum.hardware.cost import mac_cost, width_sweep
from partialsum.hardware.features import Features, core_features
from partialsum.hardware.model import QUANTITIES, Model, committed_model, fit_model, row_features
from partialsum.hardware.points import Row, committed_rows, points
from partialsum.hardware.technology import Technology, parse_technology, technology_names
from partialsum.hardware.units import FloatUnit, GroupUnit, IntegerUnit, Unit, parse_unit

ROWS = committed_rows()
MEASURED = {(row.kind, row.inputs, row.accumulator, row.chunk_adder): row for row in ROWS}
KINDS = ("mac", "adder", "integer", "group")
FITS = [(kind, quantity) for kind in KINDS for quantity in QUANTITIES] + [("frame", "area_ge")]


def core_area(inputs: str, accumulator: str) -> float:
    return sum(part.area_ge for part in mac_cost(inputs, accumulator).parts if part.core)


def measured(inputs: str, accumulator: str, kind: str = "mac") -> Row:
    return MEASURED[kind, inputs, accumulator, ""]


def test_the_committed_sweep_is_complete() -> None:
    assert [row.point for row in ROWS] == points()
    assert len(ROWS) >= 590
    assert {kind: sum(row.held_out for row in ROWS if row.kind == kind) for kind in (*KINDS, "unit")} == {
        "mac": 26,
        "adder": 5,
        "integer": 6,
        "group": 4,
        "unit": 10,
    }


@pytest.fixture(scope="module")
def refitted() -> Model:
    return fit_model(ROWS)


@pytest.mark.parametrize(("kind", "quantity"), FITS)
def test_the_committed_coefficients_are_those_of_the_sweep(refitted: Model, kind: str, quantity: str) -> None:
    fresh, committed = refitted[kind][quantity], committed_model()[kind][quantity]
    assert fresh.coefficients == pytest.approx(committed.coefficients, rel=1e-3)
    for name in ("points", "held_out_points"):
        assert getattr(fresh, name) == getattr(committed, name)
    for name in ("rms_error", "max_error", "held_out_rms_error", "held_out_max_error"):
        assert getattr(fresh, name) == pytest.approx(getattr(committed, name), abs=2e-4)


def relative_errors(kind: str, quantity: str, *, held_out: bool) -> list[float]:
    """Model over measurement, less one, for rows of the committed sweep; nothing of the fit is used but its sum."""
    coefficients = committed_model()[kind][quantity].coefficients
    errors = []
    for row in ROWS:
        if row.kind == kind and row.held_out is held_out:
            features = row_features(row)
            errors.append(sum(c * features[name] for name, c in coefficients.items()) / getattr(row, quantity) - 1)
    return errors


def root_mean_square(errors: list[float]) -> float:
    return math.sqrt(sum(e * e for e in errors) / len(errors))


@pytest.mark.parametrize(("kind", "quantity"), FITS[:-1])
def test_units_that_took_no_part_lie_within_the_stated_error(kind: str, quantity: str) -> None:
    """What is stated is true, and chance at one in a hundred explains how much further off held-out units are."""
    fit = committed_model()[kind][quantity]
    fitted, others = (relative_errors(kind, quantity, held_out=h) for h in (False, True))
    assert root_mean_square(fitted) == pytest.approx(fit.rms_error, abs=1e-4)
    assert root_mean_square(others) == pytest.approx(fit.held_out_rms_error, abs=1e-4)
    assert max(map(abs, others)) == pytest.approx(fit.held_out_max_error, abs=1e-4)
    assert fit.stated_error == max(fit.rms_error, fit.held_out_rms_error)
    chance = math.sqrt(float(f.ppf(0.99, len(others), len(fitted))))
    assert root_mean_square(others) <= chance * root_mean_square(fitted)


def test_areas_are_known_to_a_few_percent() -> None:
    """3.7 % rms is what the analytic form of the design notes reached over 286 float units."""
    model = committed_model()
    assert model["mac"]["area_ge"].rms_error < 0.025
    assert model["mac"]["area_ge"].held_out_rms_error < 0.037
    assert model["adder"]["area_ge"].held_out_rms_error < 0.025
    assert model["frame"]["area_ge"].held_out_rms_error < 0.037


@pytest.mark.parametrize(
    "row", [row for row in ROWS if row.kind == "unit"], ids=lambda r: f"{r.inputs}-{r.accumulator}"
)
def test_whole_units_cost_what_synthesis_says(row: Row) -> None:
    cost = mac_cost(row.inputs.replace("*", ","), row.accumulator, chunk_adder=row.chunk_adder or "private")
    assert cost.area_ge == pytest.approx(row.area_ge, rel=0.06)


class Grid:
    """The modelled quantities over a grid of widths, and the pairs of neighbours in which one width grows."""

    def __init__(self) -> None:
        self.costs: dict[tuple[int, ...], list[float]] = {}

    def add(self, key: tuple[int, ...], kind: str, unit: Unit, *, shared: bool = False) -> None:
        features = core_features(unit, shared=shared)
        self.costs[key] = [fit(features) for fit in committed_model()[kind].values()]

    def shrinking(self) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
        found = []
        for key, costs in self.costs.items():
            for i in range(len(key)):
                wider = (*key[:i], key[i] + 1, *key[i + 1 :])
                if wider in self.costs and any(
                    more < less - 1e-9 for less, more in zip(costs, self.costs[wider], strict=True)
                ):
                    found.append((key, wider))
        return found


@pytest.mark.parametrize("options", [{}, {"rounding": "stochastic"}, {"product": "own"}])
def test_no_wider_float_unit_costs_less(options: dict[str, str]) -> None:
    """Every operand format up to e8m10 into every accumulator up to e8m23, one more bit of any of the four widths."""
    grid = Grid()
    step = 3 if options else 1
    for a_exp, a_man, exp, man in product(range(2, 9, step), range(11), range(2, 9, step), range(1, 24)):
        fmt, target = FloatFormat(a_exp, a_man), FloatFormat(exp, man)
        extra = {**options, **({"product": target} if "product" in options else {})}
        grid.add((a_exp, a_man, exp, man), "mac", FloatUnit(fmt, fmt, Accumulator(target, **extra)))
    assert len(grid.costs) >= 11 * 23 * 9
    assert grid.shrinking() == []


def test_a_wider_second_operand_never_costs_less() -> None:
    grid = Grid()
    for b_exp, b_man, man in product(range(2, 9), range(11), range(1, 24)):
        unit = FloatUnit(FloatFormat(4, 3), FloatFormat(b_exp, b_man), Accumulator(FloatFormat(6, man)))
        grid.add((b_exp, b_man, man), "mac", unit)
    assert grid.shrinking() == []


def test_no_wider_whole_unit_with_chunks_takes_less_area() -> None:
    for adder, exp in product(("private", "shared"), range(3, 9)):
        accumulator = f"e{exp}m9,chunk=64"
        areas = [cost.area_ge for cost in width_sweep("e5m2", accumulator, range(1, 24), chunk_adder=adder)]
        assert areas == sorted(areas)
    grid = Grid()
    for a_man, exp, man in product(range(11), range(2, 9), range(1, 24)):
        fmt, target = FloatFormat(5, a_man), FloatFormat(exp, man)
        grid.add((a_man, exp, man), "mac", FloatUnit(fmt, fmt, Accumulator(target, chunk=64)), shared=True)
    assert grid.shrinking() == []


def test_no_wider_group_or_integer_unit_costs_less() -> None:
    grid = Grid()
    for man, group, fraction in product(range(8), range(2, 33), range(6, 33, 1)):
        fmt = FloatFormat(5, man)
        grid.add((man, group, fraction), "group", GroupUnit(fmt, fmt, AlignedAccumulator(fraction, group)))
    assert grid.shrinking() == []
    integers = Grid()
    for a, b, bits in product(range(2, 17), range(2, 17), range(6, 49)):
        unit = IntegerUnit(IntFormat(a), IntFormat(b), IntegerAccumulator(bits))
        integers.add((a, b, bits), "integer", unit)
    assert integers.shrinking() == []


def test_a_longer_chunk_takes_more_area_and_less_energy() -> None:
    costs = [mac_cost("e5m2", f"e6m9,chunk={chunk}") for chunk in (2, 4, 8, 64, 1024)]
    assert [c.area_ge for c in costs] == sorted(c.area_ge for c in costs)
    for end in ("energy_pj_low", "energy_pj_high"):
        energies = [getattr(c, end) for c in costs]
        assert energies == sorted(energies, reverse=True)
        assert energies[-1] == pytest.approx(getattr(mac_cost("e5m2", "e6m9"), end), rel=2e-3)


PUBLISHED_FP8_OVER_INT8 = {"fp16": 1.53, "fp32": 2.83}
"""FP8-E4 over INT8 (into 32 bits), gates of a MAC: arXiv 2303.17951."""
FLOW_SPREAD = 0.07
"""How far another flow may be from ours: the same five units mapped to the OSU 180 nm library instead of our own change
these ratios by 4 to 5 %, and each of a ratio's two areas has the model's error of 3 to 4 %."""


@pytest.mark.parametrize("accumulator", PUBLISHED_FP8_OVER_INT8)
def test_fp8_against_int8_is_near_what_others_published(accumulator: str) -> None:
    """Gates of the arithmetic, as published; with registers, which both units have, the ratios are 1.20 and 2.13."""
    published = PUBLISHED_FP8_OVER_INT8[accumulator]
    model = core_area("e4m3", accumulator) / core_area("int8", "int32")
    assert model == pytest.approx(published, rel=FLOW_SPREAD)
    name = {"fp16": "e5m10", "fp32": "e8m23"}[accumulator]
    synthesised = measured("e4m3", name).area_ge / measured("int8", "int32", "integer").area_ge
    assert synthesised == pytest.approx(published, rel=FLOW_SPREAD)
    assert model == pytest.approx(synthesised, rel=0.04)


def test_what_a_float32_accumulator_costs_an_fp8_unit() -> None:
    """The design notes' measurement over five cell libraries: 1.9 times the area, 1.5 times the delay."""
    wide, narrow = mac_cost("e5m2", "e8m23"), mac_cost("e5m2", "e6m9")
    assert wide.area_ge / narrow.area_ge == pytest.approx(1.9, abs=0.1)
    assert measured("e5m2", "e8m23").area_ge / measured("e5m2", "e6m9").area_ge == pytest.approx(1.9, abs=0.1)
    assert wide.delay_fo4 / narrow.delay_fo4 == pytest.approx(1.5, abs=0.1)
    low, high = sorted(
        getattr(wide, end) / getattr(narrow, end) for end in ("energy_pj_functional", "energy_pj_glitches")
    )
    assert 1.4 < low < high < 2.0


def test_the_gain_shrinks_with_wider_operands() -> None:
    gains = [mac_cost(i, "e8m23").area_ge / mac_cost(i, "e6m9").area_ge for i in ("e5m2", "bf16", "fp16", "fp32")]
    assert gains == sorted(gains, reverse=True)
    assert gains[1] == pytest.approx(1.35, abs=0.1)
    assert gains[2] == pytest.approx(1.2, abs=0.1)


def test_published_float_energies_lie_in_the_band() -> None:
    """Calibrated on integers alone, the band holds Horowitz' four floating-point operations."""
    operations = committed_operations()
    functional, glitches = energy_scales(operations)
    tech = parse_technology("45nm")
    assert tech.energy_fj_functional == pytest.approx(functional, rel=5e-3)
    assert tech.energy_fj_glitches == pytest.approx(glitches, rel=5e-3)
    floats = [operation for operation in operations if not operation.integer]
    assert len(floats) == 4
    for operation in floats:
        low, high = tech.energy_band_pj(operation.functional, operation.with_glitches)
        assert low < operation.energy_pj < high, operation.name


def test_every_figure_names_its_source_and_its_error() -> None:
    cost = ps.mac_cost("e5m2", ps.Accumulator("e6m9", chunk=64))
    assert isinstance(cost, ps.MacCost)
    assert set(cost.sources) == {"area_ge", "area_um2", "delay_ns", "energy_pj"}
    assert "2.0 % rms over 382 units" in cost.sources["area_ge"]
    assert "over 26 that took no part" in cost.sources["area_ge"]
    assert "NanGate" in cost.sources["area_um2"]
    assert "FO4 16 ps" in cost.sources["delay_ns"]
    for word in ("functional toggles", "glitches", "normal operands", "Horowitz"):
        assert word in cost.sources["energy_pj"]
    assert "extrapolated" not in cost.sources["area_ge"]
    assert 0.01 < cost.area_error < 0.05
    assert 0.05 < cost.energy_error < 0.1
    assert cost.area_um2 == pytest.approx(0.798 * cost.area_ge)
    assert cost.delay_ns == pytest.approx(0.016 * cost.delay_fo4)
    assert cost.to_dict()["sources"] == cost.sources


def test_a_unit_beyond_the_sweep_says_so() -> None:
    assert not mac_cost("fp32", "fp32").extrapolated
    huge = mac_cost("fp32", "fp32,stochastic,random_bits=32")
    assert huge.extrapolated
    assert "extrapolated" in huge.sources["area_ge"]
    assert mac_cost("int16", "int64").extrapolated


def test_the_chunk_adder_is_paid_for_once() -> None:
    plain, private, shared = (
        mac_cost("e5m2", name, chunk_adder=adder)
        for name, adder in (("e6m9", "private"), ("e6m9,chunk=64", "private"), ("e6m9,chunk=64", "shared"))
    )
    assert plain.area_ge < shared.area_ge < private.area_ge
    assert (plain.clocks_per_step, private.clocks_per_step) == (1.0, 1.0)
    assert shared.clocks_per_step == 1 + 1 / 64
    assert [part.name for part in private.parts][2] == "total adder"
    assert [part.area_ge for part in shared.parts if part.name == "total addition"] == [0.0]
    assert plain.energy_pj_low < private.energy_pj_low < 1.05 * plain.energy_pj_low


def test_a_matrix_unit_is_priced_for_each_of_its_products() -> None:
    cost = mac_cost("e4m3fn", "h100-fp8")
    assert cost.macs_per_step == 32
    assert cost.area_ge_per_mac == pytest.approx(cost.area_ge / 32)
    assert cost.area_ge_per_mac < 0.6 * mac_cost("e4m3fn", "e8m13").area_ge
    promoted = mac_cost("e4m3fn", "h100-fp8,promote_every=128")
    assert promoted.area_ge > cost.area_ge
    assert promoted.energy_pj_high > cost.energy_pj_high


def test_a_sweep_of_widths() -> None:
    widths = (5, 9, 23)
    costs = width_sweep("e5m2", "e6m9,chunk=64", widths, chunk_adder="shared")
    expected = [mac_cost("e5m2", f"e6m{w},chunk=64", chunk_adder="shared") for w in widths]
    assert [c.area_ge for c in costs] == [c.area_ge for c in expected]
    assert width_sweep("int8", "int32", [24])[0].area_ge == mac_cost("int8", "int24").area_ge
    aligned = width_sweep("e4m3", "aligned,fraction_bits=13,group=8", [25])[0]
    assert aligned.area_ge == mac_cost("e4m3", "aligned,fraction_bits=25,group=8").area_ge


def test_technologies_scale_the_same_counts() -> None:
    assert technology_names() == ["22nm", "45nm", "7nm", "osu180"]
    costs = [mac_cost("e5m2", "e6m9", name) for name in ("osu180", "45nm", "22nm", "7nm")]
    assert len({cost.area_ge for cost in costs}) == 1
    areas = [cost.area_um2 for cost in costs]
    assert areas == sorted(areas, reverse=True)
    assert costs[3].delay_ns is None
    assert costs[3].sources["delay_ns"] == "no gate delay is known for 7nm"


OWN = """name = "mine"
description = "a fab of my own"
ge_um2 = 2.0
ge_source = "measured"
energy_fj_functional = 1.0
energy_fj_glitches = 0.1
energy_source = "guessed"
"""


def test_a_technology_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(OWN)
    cost, usual = mac_cost("e5m2", "e6m9", path), mac_cost("e5m2", "e6m9")
    assert cost.area_um2 == pytest.approx(2 * cost.area_ge)
    assert cost.energy_pj_high == cost.energy_pj_functional > cost.energy_pj_glitches == cost.energy_pj_low
    assert cost.energy_pj_functional == pytest.approx(usual.energy_pj_functional / 0.204)
    assert "guessed" in cost.sources["energy_pj"]
    assert cost.technology == mac_cost("e5m2", "e6m9", parse_technology(path)).technology


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("ge_um2 = 2.0", "ge_um2 = 0", "technology 'mine': ge_um2 must be a positive number, got 0"),
        ("ge_um2 = 2.0", "ge_um = 2.0", "has an unknown entry 'ge_um'.*ge_um2"),
        ("ge_um2 = 2.0\n", "", "lacks ge_um2"),
        ('name = "mine"', "name = ", "cannot read the technology file"),
    ],
)
def test_a_technology_file_that_will_not_do_says_why(old: str, new: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(OWN.replace(old, new))
    with pytest.raises(InputError, match=message):
        mac_cost("e5m2", "e6m9", path)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (("e5m2", "int32"), {}, "inputs must be integer formats"),
        (("e5m2", "mi300-fp8"), {}, "no RTL is generated for mi300-fp8"),
        (("e5m2", "e6m9"), {"chunk_adder": "shared"}, "chunk_adder 'shared' needs an accumulator with a chunk"),
        (("e5m2", "e6m9"), {"chunk_adder": "half"}, "chunk_adder must be one of private, shared, got 'half'"),
        (("e5m2", "e6m9", "44nm"), {}, "technology must be one of 22nm, 45nm, 7nm, osu180 or a .toml file"),
        (("e5m2", "e6m9", "none.toml"), {}, "cannot read the technology file 'none.toml': No such file"),
    ],
)
def test_units_that_cannot_be_priced_say_so(
    arguments: tuple[str, ...], options: dict[str, str], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        mac_cost(*arguments, **options)


def test_a_technology_may_be_a_record() -> None:
    tech = Technology("x", "y", 1.0, "a", 1.0, 1.0, "b")
    cost = mac_cost("e5m2", "e6m9", tech)
    assert cost.area_um2 == cost.area_ge


def test_counts_grow_with_the_geometry_that_is_built() -> None:
    """The features are the RTL's own widths: an adder's exponent and addend as they are generated."""
    unit = parse_unit("e5m2", "e6m9")
    assert isinstance(unit, FloatUnit)
    features: Features = core_features(unit)
    assert features["width"] == unit.adder.width
    assert features["exponent_bits"] == unit.adder.exponent_bits
    assert features["result_bits"] == 16
    assert features["multiplier"] == 9
