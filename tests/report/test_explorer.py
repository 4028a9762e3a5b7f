"""The explorer: its tables are the theory's, what the page's script reads out is in them, and nothing is fetched."""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import math
import re
import subprocess
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from html import unescape
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import partialsum as ps
from commands import Run
from networks import HOSTILE, hostile, small
from partialsum.report.explorer import tables as tables_module
from partialsum.report.explorer.costs import PARTS, unit_costs
from partialsum.report.explorer.formula import BEYOND, WIDTHS, tabulate_formula
from partialsum.report.explorer.grid import Curve, Grid, knots
from partialsum.report.explorer.page import Explorer, explore
from partialsum.report.explorer.tables import STEPS, Codes, agree, compute, tabulate, write_tables
from tools import require_tool

GRID = Grid(
    inputs=("e5m2",),
    man_bits=(5, 9),
    roundings=(ps.Rounding.NEAREST_EVEN, ps.Rounding.TOWARD_ZERO),
    chunks=(None, 64),
    densities=(1.0, 0.5),
    units=("h100-fp8", "lba12-2024"),
    intervals=(128,),
)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PARTIALSUM_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="module")
def explorer(cache: Path) -> Explorer:
    return explore([small()], grid=GRID)


@pytest.fixture(scope="module")
def page(explorer: Explorer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "explorer.html"
    path.write_text(explorer.to_html(command="partialsum explorer small"), encoding="utf-8")
    return path


def read(codes: Codes, k: float) -> tuple[float, float, float]:
    """What the page reads at length k: linear in log k between the knots."""
    values = [np.interp(math.log2(k), np.log2(knots()), row * step) for row, step in zip(codes, STEPS, strict=True)]
    return float(values[0]), float(values[1]), float(values[2])


CURVES = st.sampled_from([curve for group in GRID.groups() for curve in group])


@pytest.mark.filterwarnings("ignore:Generating overly large repr")  # of the tables, which a fixture holds
@settings(max_examples=25, deadline=None)
@given(curve=CURVES, x=st.floats(6, 24))
def test_between_the_knots_tables_are_within_the_error_that_the_page_states(
    explorer: Explorer, curve: Curve, x: float
) -> None:
    k = round(2**x)
    expected = ps.predict(k, curve.accumulator, curve.product)
    snr, gain, vrr = read(explorer.tables[curve.name], k)
    if expected.snr_db <= 100:
        assert snr == pytest.approx(expected.snr_db, abs=0.2)
    assert (gain, vrr) == pytest.approx((expected.gain, expected.vrr), abs=0.01)


@settings(max_examples=8, deadline=None)
@given(
    bits=st.sampled_from(GRID.man_bits),
    rounding=st.sampled_from(GRID.roundings),
    chunk=st.sampled_from(GRID.chunks),
    x=st.floats(7, 24),
)
def test_sparse_sums_are_read_where_the_page_says(
    explorer: Explorer, bits: int, rounding: ps.Rounding, chunk: int | None, x: float
) -> None:
    k = round(2**x)
    expected = ps.predict(k, GRID.register(bits, rounding, chunk), "e5m2", density=0.5)
    shorter = GRID.register(bits, rounding, None if chunk is None else chunk // 2)
    snr, gain, _ = read(explorer.tables[Curve(shorter, "e5m2").name], 0.5 * k)
    assert snr == pytest.approx(expected.snr_db, abs=1.0)
    assert gain == pytest.approx(expected.gain, abs=0.03)


@settings(max_examples=60, deadline=None)
@given(k=st.integers(4, 2**24), chunk=st.sampled_from((None, 64)), density=st.sampled_from((1.0, 0.5)))
def test_the_formulas_widths_are_exact(k: int, chunk: int | None, density: float) -> None:
    longest = formula_table().longest[GRID.densities.index(density), GRID.chunks.index(chunk)]
    needed = next((width for width, most in zip(WIDTHS, longest, strict=True) if k <= most), None)
    assert needed == ps.min_man_bits(k, 5, chunk, density)


@functools.cache
def formula_table() -> tables_module.Any:
    return tabulate_formula(GRID, 5)


def test_the_formulas_longest_sums_are_those_of_the_theory() -> None:
    plain = dict(zip(WIDTHS, formula_table().longest[0, 0].tolist(), strict=True))
    assert plain[4] == 0, "narrower than a product"
    assert {width: plain[width] for width in (5, 9, 12)} == {w: ps.longest_length(w, 5) for w in (5, 9, 12)}
    assert plain[23] == BEYOND > knots()[-1]
    place = (GRID.table_chunks.index(64), GRID.man_bits.index(5), 30)
    assert formula_table().vrr[place] * STEPS[2] == pytest.approx(ps.vrr(int(knots()[30]), 5, 5, 64), abs=1e-4)


def test_costs_are_the_models(explorer: Explorer) -> None:
    data = explorer.page_data()
    found = data["inputs"][0]["costs"][1][1][0]  # toward zero, chunk 64, 5 bits
    cost = ps.mac_cost("e5m2", "e8m5,toward_zero,chunk=64")
    assert sum(found[: len(PARTS)]) == pytest.approx(cost.area_ge, abs=0.5)
    assert sorted(found[len(PARTS) :]) == pytest.approx([cost.energy_pj_low, cost.energy_pj_high], rel=1e-3)
    hopper, _ = data["units"]
    unit = hopper["costs"]["e4m3fn"]["128"]
    expected = ps.mac_cost("e4m3fn", "h100-fp8,promote_every=128")
    assert sum(unit[: len(PARTS)]) == pytest.approx(expected.area_ge_per_mac, abs=0.5)
    (cdna,) = Grid(units=("mi300-fp16",)).unit_axes()
    unknown = unit_costs(GRID, cdna)
    assert unknown["costs"] == {"fp16": {}}
    assert "CDNA3" in unknown["no_cost"]


def test_networks_are_those_of_the_analysis(explorer: Explorer) -> None:
    (network,) = explorer.page_data()["networks"]
    rows = ps.analyze(small()).rows
    assert {gemm["k"] for gemm in network["gemms"]} == {row.k for row in rows}
    assert sum(gemm["gemms"] for gemm in network["gemms"]) == sum(row.count for row in rows)
    assert sum(gemm["share"] for gemm in network["gemms"]) == pytest.approx(1, abs=2e-3)


def test_the_page_fetches_nothing_and_runs_the_packaged_script_only(page: Path, cache: Path) -> None:
    attacked = explore([hostile()], grid=GRID).to_html(command=HOSTILE)
    for text in (page.read_text(encoding="utf-8"), attacked):
        (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'" in text
        assert not re.findall(
            r"<(?:img|link|iframe|object|embed|base)\b|\b(?:src|on\w+)=", text.split("<script")[0]
        )
        assert text.count("<script") == 2
        data = json.loads(re.findall(r'id="data">(.*?)</script>', text, re.DOTALL)[0])
        assert data["knots"] == knots().tolist()
    assert HOSTILE in unescape(attacked)
    assert HOSTILE not in attacked


def browse(page: Path, address: str) -> str:
    """The page's document as a browser leaves it, at an address behind its #."""
    require_tool("chromium")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=2000", "--dump-dom"]
    command = ["chromium", *options, f"{page.as_uri()}#{address}"]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


def value_of(document: str, name: str) -> float:
    found = re.search(rf'data-name="{name}" data-value="([^"]+)"', document)
    assert found is not None
    return float(found[1])


def test_in_a_browser_the_page_says_what_python_says(explorer: Explorer, page: Path) -> None:
    k, accumulator = 5000, "e8m9,toward_zero,chunk=64"
    document = browse(page, f"acc={accumulator}&inputs=e5m2&k={k}&target=40")
    curve = Curve(ps.parse_accumulator(accumulator), "e5m2")
    snr, gain, vrr = read(explorer.tables[curve.name], k)
    assert [value_of(document, name) for name in ("snr", "gain", "vrr")] == pytest.approx(
        [snr, gain, vrr], rel=1e-9
    )
    assert value_of(document, "snr") == pytest.approx(ps.predict(k, accumulator, "e5m2").snr_db, abs=0.2)
    assert value_of(document, "bits") == ps.min_man_bits(k, 5, 64)
    assert value_of(document, "area") == pytest.approx(ps.mac_cost("e5m2", accumulator).area_ge, abs=0.5)
    text = unescape(re.sub(r"<[^>]+>", "", document))
    assert f"Sums of 5,000 e5m2 products in {accumulator} keep {snr:.1f} dB" in text
    assert "It does not suffice." in text
    assert f"partialsum predict {k} {accumulator} --inputs e5m2" in text
    assert document.count('class="gemm ') == len(explorer.page_data()["networks"][0]["gemms"])


def test_in_a_browser_units_and_pins_are_read_from_the_address(explorer: Explorer, page: Path) -> None:
    document = browse(page, "acc=h100-fp8,promote_every=128&inputs=e4m3fn&k=1e6&pin=e8m5;e5m2;0.5&show=gain")
    unit = Curve(ps.parse_accumulator("h100-fp8,promote_every=128"), "e4m3fn")
    assert value_of(document, "snr") == pytest.approx(read(explorer.tables[unit.name], 1e6)[0], rel=1e-9)
    pinned = read(explorer.tables[Curve(GRID.register(5, ps.Rounding.NEAREST_EVEN, None), "e5m2").name], 5e5)[1]
    text = unescape(re.sub(r"<[^>]+>", "", document))
    assert f"pinned: e8m5 · e5m2, density 0.5 {pinned:.3f}" in text
    assert "It suffices." in text


def test_a_nonsense_address_gives_the_usual_view(page: Path) -> None:
    text = browse(page, "acc=e8m77,nonsense,chunk=5&inputs=fp1&k=-3&density=7&show=x&target=1e9&network=none")
    assert "Sums of 4,096 e5m2 products in e8m9 keep" in text


def test_tables_are_kept_and_a_damaged_file_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARTIALSUM_CACHE", str(tmp_path))
    grid = Grid(("e5m2",), (5,), (ps.Rounding.DOWN,), (None, 16), (1.0,), (), (None,))
    told: list[tuple[int, int]] = []
    first = tabulate(grid, told=lambda *numbers: told.append(numbers))
    assert told == [(0, 2), (2, 2)]
    (kept,) = (tmp_path / "explorer").iterdir()
    again = tabulate(grid, told=lambda *numbers: told.append(numbers))
    assert len(told) == 2, "nothing was computed"
    assert all(np.array_equal(first[name], again[name]) for name in first)
    kept.write_bytes(kept.read_bytes()[:100])
    assert tabulate(grid).keys() == first.keys()


def test_packaged_tables_of_another_theory_are_taken_only_where_they_agree(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    curve = Curve(GRID.register(5, ps.Rounding.TOWARD_ZERO, None), "e5m2")
    right = compute(curve)
    wrong = right + np.array([[20], [0], [0]], dtype=np.int16)
    assert agree(right, right)
    assert not agree(right, wrong)
    monkeypatch.setattr(tables_module, "files", lambda _: tmp_path)
    for codes, digest, taken in ((right, "old", True), (wrong, "old", False), (wrong, None, True)):
        with monkeypatch.context() as patch:
            if digest is not None:
                patch.setattr(tables_module, "theory_digest", lambda: "old")
            else:
                patch.setattr(tables_module, "theory_digest", lambda: "new")
            write_tables(tmp_path / "tables.npz", {curve.name: codes})
        monkeypatch.setattr(tables_module, "theory_digest", lambda: "new")
        assert bool(tables_module._packaged([curve])) is taken


def test_the_usual_registers_come_with_the_package() -> None:
    packaged = tables_module._read(Path(tables_module.__file__).with_name("tables.npz"))
    grid = Grid()
    assert {curve.name for product in grid.inputs for curve in grid.register_curves(product)} <= packaged.keys()
    assert all(codes.shape == (len(STEPS), len(knots())) for codes in packaged.values())


def test_the_command_writes_the_page_and_tells_what_is_in_it(
    run: Run, cache: Path, explorer: Explorer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("partialsum.report.explorer.grid.Grid", lambda **_: GRID)
    table = tmp_path / "net.csv"
    table.write_text("layer,m,n,k\nfc,8,16,4096\n", encoding="utf-8")
    path = tmp_path / "page.html"
    result = run("explorer", table, "--output", path, "--json")
    assert (result.returncode, result.stderr) == (0, f"wrote {path}\n")
    answer = json.loads(result.stdout)
    assert (answer["schema"], answer["path"], answer["bytes"]) == (
        "partialsum/explorer/1",
        str(path),
        path.stat().st_size,
    )
    assert (answer["tables"], answer["k"], answer["knots"]) == (len(explorer.tables), [4, 2**24], len(knots()))
    assert [unit["unit"] for unit in answer["units"]] == ["h100-fp8", "lba12-2024"]
    assert answer["networks"] == [{"network": "net", "gemms": 1}]
    assert f"partialsum explorer {table} --output {path} --json" in unescape(path.read_text(encoding="utf-8"))


def test_a_process_that_was_ended_is_told_in_one_sentence(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def ended(*_: object, **__: object) -> None:
        raise BrokenProcessPool

    monkeypatch.setattr("partialsum.report.explorer.page.explore", ended)
    run("explorer", "--jobs", "3").assert_refused("one of 3 processes was ended from outside")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["resnet81"], "resnet81"),
        (["--output", "nowhere/page.html"], "the folder 'nowhere' does not exist"),
        (["--output", "."], "it is a folder, a file name was expected"),
        (["--jobs", "0"], "--jobs must be at least 1, got 0"),
        (["--inputs", "e5m2x"], "unknown format 'e5m2x'"),
        (["--inputs", "relu:e5m2"], "inputs must be formats such as e5m2 or e4m3fn*e5m2, got 'relu:e5m2'"),
        (["--inputs", "e5m2", "--inputs", "e5m2"], "inputs name 'e5m2' twice"),
        (["resnet18", "resnet18"], "networks name 'resnet18' twice"),
    ],
)
def test_wrong_use_ends_in_one_sentence_before_anything_is_computed(
    run: Run, arguments: list[str], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("partialsum.report.explorer.page.tabulate", None)
    run("explorer", *arguments).assert_refused(sentence)
