"""The bits and curve commands: their numbers, their tables, their pictures, and how they refuse."""

from __future__ import annotations

import csv
import io
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import partialsum as ps
from commands import Run
from partialsum.cli.numbers import parse_doublings, parse_length, parse_range


def test_bits_of_a_weight_gradient(run: Run) -> None:
    result = run("bits", "256x112x112", "--density", "0.5", "--json")
    assert (result.returncode, result.stderr) == (0, "")
    answer = json.loads(result.stdout)
    assert answer["schema"] == "partialsum/bits/1"
    assert {key: answer[key] for key in ("product_man_bits", "density", "cutoff", "chunk")} == {
        "product_man_bits": 5,
        "density": 0.5,
        "cutoff": 50.0,
        "chunk": 64,
    }
    (row,) = answer["rows"]
    assert (row["k"], row["man_bits"], row["man_bits_chunked"]) == (3_211_264, 15, 11)
    assert row["ln_v"] == pytest.approx(ps.log_variance_lost_normalised(row["k"], 15, density=0.5))
    assert row["ln_v_one_bit_less_chunked"] == pytest.approx(
        ps.log_variance_lost_normalised(row["k"], 10, chunk=64, density=0.5)
    )
    assert (row["best_chunk"], row["best_chunk_range"], row["man_bits_best_chunk"]) == (2048, [1024, 4096], 8)


def test_bits_table_names_units_and_the_floor(run: Run) -> None:
    result = run("bits", "147", "1e6", "--inputs", "e4m3", "--grad-inputs", "e5m2", "--chunk", "32")
    lines = result.stdout.splitlines()
    assert (
        lines[0].rstrip()
        == "Mantissa bits for sums of k e4m3 × e5m2 products (6 mantissa bits); enough while ln v < 3.91"
    )
    header = " ".join(lines[2:4])
    assert all(word in header for word in ("(products)", "width (bits)", "chunk 32", "best chunk"))
    short, long = ([cell.strip() for cell in line.split("│")[1:-1]] for line in lines if line.startswith("│"))
    assert short[:2] == ["147", "6"]
    assert short[2].endswith(" (–)")
    assert long[:2] == ["1000000", str(ps.min_man_bits(10**6, 6))]
    assert re.fullmatch(r"3\.71 \(15\.4\)", long[2])
    assert long[3] == str(ps.min_man_bits(10**6, 6, 32))


def test_bits_takes_a_product_width_instead_of_formats(run: Run) -> None:
    answer = json.loads(run("bits", "5000", "--product-man-bits", "13", "--json").stdout)
    assert answer["product_man_bits"] == 13
    assert answer["rows"][0]["man_bits"] == ps.min_man_bits(5000, 13)


def test_curve_rows_are_the_functions_values(run: Run) -> None:
    result = run(
        "curve", "--k", "1000,1e6", "--man-bits", "6..10..2", "--chunk", "128", "--density", "0.5", "--csv"
    )
    rows = list(csv.DictReader(io.StringIO(result.stdout)))
    assert [(row["k"], row["man_bits"], row["chunk"]) for row in rows] == [
        (k, m, "128") for k in ("1000", "1000000") for m in ("6", "8", "10")
    ]
    for row in rows:
        k, m = int(row["k"]), int(row["man_bits"])
        assert float(row["vrr"]) == pytest.approx(ps.vrr(k, m, density=0.5))
        assert float(row["variance_lost_chunked"]) == pytest.approx(ps.variance_lost(k, m, 5, 128, 0.5))
        assert float(row["ln_v_chunked"]) == pytest.approx(ps.log_variance_lost_normalised(k, m, 5, 128, 0.5))


@pytest.mark.parametrize(("against", "rows"), [("length", 25 * 6), ("width", 4 * 18), ("chunk", 6 * 21)])
def test_curve_defaults_cover_the_papers_figures(run: Run, against: str, rows: int) -> None:
    answer = json.loads(run("curve", "--against", against, "--json").stdout)
    assert (answer["schema"], answer["against"]) == ("partialsum/curve/1", against)
    assert len(answer["rows"]) == rows


def test_curve_prints_a_table_and_writes_a_picture(run: Run, tmp_path: Path) -> None:
    picture = tmp_path / "chunks.svg"
    result = run(
        "curve", "--against", "chunk", "--k", "4096", "--man-bits", "6", "--chunk", "1..64", "--plot", picture
    )
    assert result.returncode == 0
    assert result.stderr == f"wrote {picture}\n"
    assert "mantissa bits" in result.stdout
    assert sum(line.startswith("│") for line in result.stdout.splitlines()) == 7
    assert picture.read_text().startswith("<?xml")
    assert list(tmp_path.iterdir()) == [picture]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["bits", "1.5"], "k must be a whole number such as 4608, 1e6 or 256x56x56, got '1.5'"),
        (["bits", "0"], "k must be whole numbers from 1 to 10^12, got 0"),
        (["bits", "1e30"], "k must be whole numbers from 1 to 10^12, got 1e+30"),
        (["bits", "9", "--chunk", "0"], "chunk must be a whole number from 1 to 10^12, got 0"),
        (["bits", "9", "--density", "1.5"], "density must be above 0 and at most 1, got 1.5"),
        (["bits", "9", "--density", "nan"], "density must be above 0 and at most 1, got nan"),
        (["bits", "9", "--cutoff", "1"], "cutoff must be a finite number above 1, got 1"),
        (["bits", "9", "--inputs", "fp61"], "unknown format 'fp61'"),
        (["bits", "9", "--product-man-bits", "65"], "product_man_bits must be a whole number of stored bits"),
        (["bits", "9", "--rounding", "up"], "--rounding only means something with --method evolution, got 'up'"),
        (["bits", "9", "--method", "magic"], "method must be one of formula, evolution, got 'magic'"),
        (
            ["bits", "9", "--method", "evolution", "--target-snr", "-3"],
            "target_snr_db must be a number of dB above 0",
        ),
        (["bits", "9", "--method", "evolution", "--rounding", "off"], "rounding must be one of nearest_even,"),
        (["curve", "--against", "depth"], "against must be one of length, width, chunk, got 'depth'"),
        (["curve", "--man-bits", "9..4"], "man_bits must be numbers like 6,8,10 or a range"),
        (["curve", "--man-bits", "4..9..0"], "man_bits must be numbers like 6,8,10 or a range"),
        (["curve", "--man-bits", "70"], "man_bits must be whole numbers of stored bits from 0 to 64, got 70"),
        (["curve", "--k", "1e6..10"], "k must be numbers like 64,4608,1e6 or a range like 16..1e8, got '1e6..10'"),
        (["curve", "--chunk", "4,8"], "chunks must be one size for curves against length, got 2"),
        (["curve", "--json", "--csv"], "--json and --csv exclude each other"),
        (
            ["curve", "--k", "64", "--plot", "x.svg"],
            "curves against length need at least two values to be drawn, got 64",
        ),
        (["curve", "--plot", "x.pdf"], "the file name of a picture must end in .svg or .png, got 'x.pdf'"),
        (["curve", "--plot", "nowhere/x.png"], "cannot write 'nowhere/x.png': the folder 'nowhere' does not exist"),
    ],
)
def test_wrong_use_ends_in_one_sentence_and_status_2(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], sentence: str
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(*arguments)
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.startswith(f"partialsum: {sentence}")
    assert result.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "number"),
    [("4608", 4608), ("1e6", 10**6), ("2.50e3", 2500), ("1E+12", 10**12), ("1_000", 1000), ("256x7*7×2", 25088)],
)
def test_lengths_as_people_write_them(text: str, number: int) -> None:
    assert parse_length(text) == number


@pytest.mark.parametrize("text", ["", "x", "1.25e1", "-3", "4.0", "1e", "e5", "0x10x", "1e99", "nan", "inf", "6 6"])
def test_what_is_no_length(text: str) -> None:
    with pytest.raises(ps.InputError, match="chunk must be a whole number such as"):
        parse_length(text, "chunk")


def test_lists_and_ranges() -> None:
    assert parse_range("4,6..8,20..26..3,4", "m") == (4, 6, 7, 8, 20, 23, 26)
    assert parse_range("5..5", "m") == (5,)
    assert parse_doublings("7,16..100,64", "k") == (7, 16, 32, 64)
    for text in ("1..2..3..4", "0..1e9", "", "1,,2", "1..", "5..1"):
        with pytest.raises(ps.InputError, match="m must be"):
            parse_range(text, "m")
    for text in ("0..8", "1..2..3", "9..8", ","):
        with pytest.raises(ps.InputError, match="k must be"):
            parse_doublings(text, "k")


def test_bits_loads_neither_torch_nor_scipy_nor_matplotlib() -> None:
    code = (
        "import sys; from partialsum.cli import app; app(['bits', '4608'], standalone_mode=False);"
        "print({'torch', 'scipy', 'matplotlib', 'transformers', 'onnx'} & set(sys.modules), file=sys.stderr)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert result.stderr == "set()\n"


def test_bits_by_information_kept_beside_the_formula(run: Run) -> None:
    options = ["--method", "evolution", "--rounding", "toward_zero", "--target-snr", "20", "--inputs", "e4m3"]
    answer = json.loads(run("bits", "147", "2304", *options, "--json").stdout)
    assert (answer["method"], answer["rounding"], answer["target_snr_db"]) == ("evolution", "toward_zero", 20.0)
    short, long = answer["rows"]
    for row in (short, long):
        given = {"method": "evolution", "rounding": "toward_zero", "target_snr_db": 20, "product": "e4m3"}
        assert row["man_bits"] == ps.min_man_bits(row["k"], **given)
        assert row["man_bits_chunked"] == ps.min_man_bits(row["k"], chunk=64, **given)
        assert row["formula_man_bits"] == ps.min_man_bits(row["k"], 7)
        assert row["snr_db"] == pytest.approx(
            ps.predict(row["k"], f"e8m{row['man_bits']},toward_zero", "e4m3").snr_db
        )
        assert row["formula_snr_db_chunked"] == pytest.approx(
            ps.predict(row["k"], f"e8m{row['formula_man_bits_chunked']},toward_zero,chunk=64", "e4m3").snr_db
        )
    assert long["formula_snr_db"] < 20 <= long["snr_db"], "the formula's width does not keep it when truncating"
    table = run("bits", "147", "2304", *options).stdout
    assert "that keep 20 dB with toward_zero rounding" in table
    assert f"{long['formula_snr_db']:.1f}" in table
