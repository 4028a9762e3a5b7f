"""``partialsum formats``: what the tables of formats and of hardware say."""

from __future__ import annotations

import json

import pytest

import partialsum as ps
from commands import Run

FACTS = {  # K and F of fp16/bf16 and tf32, K, F and the result of fp8, and the floor (arXiv 2511.10909 and 2512.07004)
    "v100": ((4, 23), None, None, None),
    "a100": ((8, 24), (4, 24), None, -132),
    "ada": ((8, 24), (4, 24), (16, 13, "e8m13"), -132),
    "h100": ((16, 25), (8, 25), (32, 13, "e8m13"), -133),
    "b200": ((16, 25), (8, 25), (32, 25, "fp32"), -133),
}


@pytest.mark.parametrize("chip", FACTS)
def test_hardware_lists_the_published_facts(run: Run, chip: str) -> None:
    half, tf32, fp8, floor = FACTS[chip]
    rows = {row["name"]: row for row in json.loads(run("formats", "--hardware", "--json").stdout)}
    assert list(rows) == list(ps.ACCUMULATORS)
    expected = {f"{chip}-fp16": (*half, "fp32")}
    expected |= {} if tf32 is None else {f"{chip}-bf16": (*half, "fp32"), f"{chip}-tf32": (*tf32, "fp32")}
    expected |= {} if fp8 is None else {f"{chip}-fp8": fp8}
    for name, (group, fraction_bits, result) in expected.items():
        fields = rows[name]["fields"]
        assert (fields["group"], fields["fraction_bits"], fields["result"]) == (group, fraction_bits, result), name
        assert (fields["min_exponent"], fields["alignment"], fields["result_rounding"]) == (
            floor,
            "toward_zero",
            "toward_zero",
        )
        assert rows[name]["source"].startswith("arXiv 2511.10909 and 2512.07004")
    assert {name for name in rows if name.startswith(f"{chip}-")} - {"b200-fp4"} == set(expected)


def test_hardware_of_amd_blackwell_fp4_and_recipes(run: Run) -> None:
    rows = {row["name"]: row["fields"] for row in json.loads(run("formats", "--hardware", "--json").stdout)}
    for name, group, interleave in (
        ("mi300-fp16", 8, 1),
        ("mi300-bf16", 8, 1),
        ("mi300-tf32", 4, 1),
        ("mi300-fp8", 16, 2),
    ):
        fields = rows[name]
        assert (fields["fraction_bits"], fields["group"], fields["interleave"]) == (24, group, interleave)
        assert fields["result_rounding"] == "nearest_even"
    for name, group, exact in (
        ("mi100-fp16", 4, True),
        ("mi100-bf16", 2, True),
        ("mi250-fp16", 4, False),
        ("mi250-bf16", 4, False),
    ):
        assert rows[name] == {"group": group, "exact": exact, "subnormals": exact}
    fp4 = rows["b200-fp4"]
    assert (fp4["fraction_bits"], fp4["group"], fp4["dot"]) == (35, 64, 16)
    lba = rows["lba12-2024"]
    assert (lba["format"], lba["product"], lba["chunk"]) == ("e4m7b10", "e4m7b12", 16)
    assert rows["fp16-2018"]["format"] == "e6m9"


def test_hardware_table_fits_a_wide_terminal(run: Run) -> None:
    lines = run("formats", "--hardware").stdout.splitlines()
    assert max(len(line.rstrip()) for line in lines) <= 160
    assert any("h100-fp8" in line and "│ 32 │ 13 │ to zero" in line and "e8m13, to zero" in line for line in lines)
    assert any("fp16-2018" in line and "1812.08011" in line for line in lines)


def test_wrong_use_is_refused(run: Run) -> None:
    run("formats", "--hardware", "e5m2").assert_refused("--hardware lists all accumulators and takes no formats")
    run("formats", "nope").assert_refused("unknown format 'nope'")
