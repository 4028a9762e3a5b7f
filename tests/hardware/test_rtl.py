"""The generated units in a real simulator: bit-exact against the reference, and benches that catch broken units."""

from __future__ import annotations

from pathlib import Path

import pytest

from partialsum.accumulators import parse_accumulator
from partialsum.errors import InputError
from partialsum.hardware.designs import ChunkAdder, Design, RandomSource
from partialsum.hardware.rtl import verilog
from partialsum.hardware.simulation import files_of, lint, run_benches, verify, write_unit
from partialsum.hardware.units import parse_unit
from tools import require_tool


def design(
    inputs: str, accumulator: str, pipeline: int = 0, adder: str = "private", random: str = "external"
) -> Design:
    return Design(parse_unit(inputs, accumulator), pipeline, ChunkAdder(adder), RandomSource(random))


CONFIGURATIONS = [
    design("e5m2", "e6m9"),
    design("e5m2", "e6m9,chunk=64", 1),
    design("e5m2", "e6m9,chunk=7", 1, "shared"),
    design("e5m2", "e8m23", 2),
    design("e5m2", "e5m10,toward_zero,chunk=16", 3),
    design("e4m3", "fp16"),
    design("e4m3fn", "fp32,chunk=128", adder="shared"),
    design("e4m3fn,e5m2", "e6m7,subnormals=no"),
    design("e4m3fn,e5m2", "e4m3,saturate"),
    design("e4m3fn", "e6m5,stochastic,random_bits=9,subnormals=no"),
    design("e5m2", "e6m5,stochastic,chunk=5", 1, random="lfsr"),
    design("e5m2", "e6m5,stochastic,chunk=5", 1, "shared"),
    design("e4m3", "e6m7,stochastic,product=e5m3", random="lfsr"),
    design("e4m3", "lba12-2024"),
    design("e5m2", "e6m9,down"),
    design("e5m2", "e6m9,up,saturate,chunk=3"),
    design("dlfloat16", "dlfloat16,nearest_away,chunk=64"),
    design("e4m3fnuz", "e5m6fnuz,saturate"),
    design("e2m1fn", "e3m2fn,saturate"),
    design("bf16", "bf16,toward_zero"),
    design("fp16", "fp16"),
    design("int8", "int32", 1),
    design("uint8,int4", "int14,saturate"),
    design("e4m3", "aligned,fraction_bits=10,group=3,result=e8m13,promote_every=9"),
    design("fp16", "v100-fp16", 1),
]
SLOW = [
    design("bf16", "fp32"),
    design("fp32", "fp32"),
    design("e5m2", "e2m20"),
    design("e5m0", "e6m4,product=e4m3"),
    design("bf16", "a100-bf16"),
    design("e4m3fn", "ada-fp8", 2),
    design("fp16", "aligned,fraction_bits=11,group=4,alignment=down,result=fp16,result_rounding=nearest_even"),
]
"""Wide units and large groups: fewer vectors, since a simulator takes milliseconds for each."""


def label(configuration: Design) -> str:
    unit = configuration.unit
    choices = f"{configuration.pipeline}-{configuration.chunk_adder}-{configuration.random}"
    return f"{unit.a}*{unit.b}-{unit.accumulator}-{choices}"


@pytest.mark.parametrize("configuration", CONFIGURATIONS, ids=label)
def test_units_match_the_reference_bit_for_bit(configuration: Design) -> None:
    require_tool("iverilog")
    verdicts = verify(configuration, 20_000, steps=2_000)
    assert [v.message for v in verdicts if not v.passed] == []
    assert verdicts[0].message == "PASS core: 20000 vectors"
    assert len(verdicts) == 1 + configuration.accumulates


@pytest.mark.parametrize("configuration", SLOW, ids=label)
def test_wide_units_match_the_reference(configuration: Design) -> None:
    require_tool("iverilog")
    verdicts = verify(configuration, 1_000, steps=300)
    assert [v.message for v in verdicts if not v.passed] == []


@pytest.mark.parametrize("configuration", [*CONFIGURATIONS, *SLOW], ids=label)
def test_units_are_lint_clean(configuration: Design, tmp_path: Path) -> None:
    require_tool("verilator")
    source = tmp_path / "unit.v"
    source.write_text(verilog(configuration))
    tops = [configuration.core, *([configuration.name] if configuration.accumulates else [])]
    assert [complaint for top in tops for complaint in lint(source, top)] == []


FLOAT = design("e5m2", "e6m9,chunk=7")
SHARED = design("e5m2", "e6m9,chunk=7", 1, "shared")
STOCHASTIC = design("e5m2", "e6m5,stochastic,chunk=5", random="lfsr")
FLUSHING = design("e5m2", "e4m3,subnormals=no,saturate")
GROUP = design("e4m3", "aligned,fraction_bits=10,group=3,result=e8m13,promote_every=9")
INTEGER = design("int8", "int20,saturate")
MUTATIONS = [
    (FLOAT, "(significand[0] | (fraction[WIDTH-MAN-3:0]", "(1'b1 | (fraction[WIDTH-MAN-3:0]"),
    (FLOAT, "shifted[0] | lost}", "shifted[0]}"),
    (FLOAT, "localparam NEEDED = MAN + 3 + LOOSE + 1;", "localparam NEEDED = MAN + 2 + LOOSE + 1;"),
    (FLOAT, "zero_a | zero_b;", "zero_a;"),
    (FLOAT, "gap[EXPONENT-1] | x_zero", "gap[EXPONENT-1]"),
    (FLOAT, "y_leads ? {1'b0, x_field[WIDTH-1:1]} : y_field", "y_leads ? x_field : y_field"),
    (FLOAT, "cancelled ? (CANCELLED_SIGN != 0)", "cancelled ? 1'b1"),
    (FLOAT, "(infinite_a & zero_b)", "1'b0"),
    (FLOAT, "(x_infinite & y_infinite & subtract)", "1'b0"),
    (FLOAT, "limited ? limit[STEPS-1:0] : zeros", "zeros"),
    (FLOAT, "field[0] | ~hidden}", "field[0]}"),
    (FLOAT, "wire escapes = overflow;", "wire escapes = 1'b0;"),
    (FLOAT, "wire kept_sign = sign;", "wire kept_sign = sign & (finite != 0);"),
    (FLOAT, "count == CHUNK[COUNT-1:0] - ONE", "count == CHUNK[COUNT-1:0]"),
    (FLOAT, "if (load) total <= c;", "if (load) total <= 0;"),
    (FLOAT, "out_valid <= join_now & join_last & ~reset;", "out_valid <= join_now & ~reset;"),
    (SHARED, "assign in_ready = ~join_now;", "assign in_ready = 1'b1;"),
    (SHARED, "join_now ? joined_x : product_x", "join_now ? product_x : joined_x"),
    (STOCHASTIC, "32'h80200003", "32'h80200001"),
    (STOCHASTIC, "wire up = threshold[RANDOM];", "wire up = 1'b0;"),
    (FLUSHING, "tiny ? {(LIMIT+MAN){1'b0}} : rounded", "rounded"),
    (FLUSHING, "finite = overflow ? LARGEST", "finite = overflow ? LARGEST - 1"),
    (GROUP, "assign largest = left > right ? left : right;", "assign largest = left;"),
    (GROUP, "assign carry = sign;", "assign carry = 1'b0;"),
    (GROUP, "wire infinite = positive_infinity | negative_infinity;", "wire infinite = positive_infinity;"),
    (INTEGER, "{19{~exact[20]}}", "{19{exact[20]}}"),
    (INTEGER, "wire fits = (exact", "wire fits = 1'b1 | (exact"),
]


@pytest.mark.parametrize(
    ("configuration", "right", "wrong"), MUTATIONS, ids=lambda v: v if isinstance(v, str) else ""
)
def test_a_broken_unit_fails_its_bench(configuration: Design, right: str, wrong: str, tmp_path: Path) -> None:
    require_tool("iverilog")
    files = files_of(configuration, 2_000, steps=1_000)
    source = f"{configuration.name}.v"
    assert right in files[source]
    files[source] = files[source].replace(right, wrong)
    write_unit(tmp_path / "broken", files)
    verdicts = run_benches(tmp_path / "broken", files)
    assert not all(verdict.passed for verdict in verdicts)
    assert any("MISMATCH" in v.message or "sums came" in v.message for v in verdicts if not v.passed)


def test_parameters_can_be_overridden(tmp_path: Path) -> None:
    """The source is parameterised: e5m2 into e6m9, told other widths, is the unit of e4m3 into e8m23."""
    require_tool("iverilog")
    narrow, wide = design("e5m2", "e6m9"), design("e4m3", "fp32")
    files = files_of(wide, 2_000, steps=1)
    del files["bench_sums.v"]
    del files[f"{wide.name}.v"]
    files[f"{narrow.name}.v"] = verilog(narrow)
    adder = wide.main_adder
    offset = wide.unit.accumulator.format.bias + 1 - 2 * wide.unit.a.bias
    parameters = f".EXP_A(4), .MAN_A(3), .EXP_B(4), .MAN_B(3), .EXP(8), .MAN(23), .EXPONENT({adder.exponent_bits})"
    files["bench_core.v"] = files["bench_core.v"].replace(
        f"{wide.core} #(.PIPELINE(PIPELINE))", f"{narrow.core} #({parameters}, .OFFSET({offset}))"
    )
    write_unit(tmp_path / "wide", files)
    assert [v.message for v in run_benches(tmp_path / "wide", files)] == ["PASS core: 2000 vectors"]


@pytest.mark.parametrize(
    ("inputs", "accumulator", "message"),
    [
        ("mxfp8_e4m3", "e6m9", "block format mxfp8_e4m3; .* name its elements: e4m3fn"),
        ("int8", "e6m9", "inputs must be floating-point formats for the accumulator e6m9, got int8"),
        ("e5m2", "int32", "inputs must be integer formats for the integer accumulator int32, got e5m2"),
        ("q8.8", "int32", "inputs must be integer formats"),
        ("e5m2", "e6m0", "at least 2 exponent bits and 1 mantissa bit, got e6m0"),
        ("e5m2", "e3m2fn,saturate", "e3m2fn has no code for the NaN or infinity that operands of e5m2 may hold"),
        ("e5m2,e4m3,e4m3", "e6m9", "inputs must be one format or a pair of formats, got 3"),
    ],
)
def test_units_that_cannot_be_built_say_so(inputs: str, accumulator: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_unit(inputs, accumulator)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: design("e5m2", "e6m9", 4), "pipeline must be 0 to 3 for this unit, got 4"),
        (lambda: design("int8", "int32", 2), "pipeline must be 0 to 1 for this unit, got 2"),
        (lambda: design("e5m2", "e6m9", 0, "shared"), "chunk_adder 'shared' needs an accumulator with a chunk"),
        (lambda: design("e5m2", "mi300-fp8"), "no RTL is generated for mi300-fp8"),
        (lambda: design("e5m2", "h100-fp8,promote_every=128", 0, "shared"), "must be 'private' for a group unit"),
        (lambda: design("e5m2", "aligned,fraction_bits=9,group=65"), "group must be at most 64 for RTL, got 65"),
    ],
)
def test_designs_that_cannot_be_built_say_so(make, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()


def test_pair_of_formats_as_a_tuple() -> None:
    assert parse_unit(("e4m3fn", "e5m2"), parse_accumulator("e6m9")) == parse_unit("e4m3fn,e5m2", "e6m9")
