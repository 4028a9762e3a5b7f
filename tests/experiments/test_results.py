"""Tables and figures from results, and the commands around them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import partialsum as ps
from partialsum.cli import app
from partialsum.experiments.figures import draw
from partialsum.experiments.results import read_results, write_results
from partialsum.experiments.tables import fill_tables, markdown_table
from partialsum.report.style import figure_bytes

COMMITTED = Path(__file__).parents[2] / "experiments" / "results"
RUNNER = CliRunner()


def run(member: str, seed: int, accuracy: float, loss: float | None, **settings: Any) -> dict[str, Any]:
    curve = {"train_step": [1, 2], "train_loss": [2.0, loss], "test_step": [2], "test_accuracy": [accuracy]}
    status = "diverged" if loss is None else "finished"
    outcome = {"status": status, "steps": 2, "test_accuracy": accuracy, "test_loss": loss, "seconds": 1.0}
    return {
        "member": member,
        "settings": settings,
        "seed": seed,
        **outcome,
        "curve": {**curve, "test_loss": [loss]},
    }


RESULTS: dict[str, Any] = {
    "schema": "partialsum/experiment/1",
    "name": "made",
    "title": "Made up",
    "baseline": "wide",
    "planned": 8,
    "environment": {},
    "figure": {"kind": "gap", "x": "accumulator.man_bits"},
    "runs": [
        run("wide", 0, 0.8, 0.5),
        run("wide", 1, 0.7, 0.7),
        run("narrow", 0, 0.6, 0.9, **{"accumulator.man_bits": 4}),
        run("narrow", 1, 0.6, 0.9, **{"accumulator.man_bits": 4}),
        run("narrow", 0, 0.1, None, **{"accumulator.man_bits": 2}),
    ],
    "config": "",
}


def test_markdown() -> None:
    lines = markdown_table(RESULTS).splitlines()
    assert lines[0].startswith("| member | man_bits | seeds | diverged | test accuracy (%) |")
    assert lines[3] == "| narrow | 4 | 2 | 0 | 60.00 ± 0.00 | 0.900 | 15.00 ± 5.00 | 0.300 ± 0.100 |"
    assert lines[4] == "| narrow | 2 | 1 | 1 | 10.00 | – | 70.00 | – |"


@pytest.mark.parametrize("kind", ["curves", "gap", "bars"])
def test_figures_show_the_numbers(kind: str) -> None:
    wish = {**RESULTS, "figure": {**RESULTS["figure"], "kind": kind}}
    figure = draw(wish)
    left, right = figure.axes
    if kind == "gap":
        drawn = left.lines[0].get_xydata().tolist()
        assert drawn == [[2, 70], [4, pytest.approx(15)]]
        assert right.lines[0].get_xydata().tolist() == [[4, pytest.approx(0.3)]]
    elif kind == "bars":
        assert [bar.get_width() for bar in left.patches] == pytest.approx([15, 70])
    else:
        assert [line.get_ydata()[0] for line in left.lines] == pytest.approx([80, 70, 60, 60, 10])
    assert figure_bytes(draw(wish), "svg") == figure_bytes(draw(wish), "svg")


def test_impossible_figures() -> None:
    with pytest.raises(
        ps.InputError, match="kind must be one of curves, gap, bars, got 'curve'; did you mean 'curves'"
    ):
        draw({**RESULTS, "figure": {"kind": "curve"}})
    with pytest.raises(ps.InputError, match="hold no runs to draw"):
        draw({**RESULTS, "runs": []})
    with pytest.raises(ps.InputError, match="must be a setting that the runs of a baseline differ in, got 'x'"):
        draw({**RESULTS, "figure": {"kind": "gap", "x": "x"}})


def test_the_command(tmp_path: Path) -> None:
    write_results(RESULTS, tmp_path / "made.json")
    assert read_results(tmp_path / "made.json") == RESULTS
    done = RUNNER.invoke(app, ["results", str(tmp_path), "--figures", str(tmp_path), "--json"])
    assert done.exit_code == 0
    assert json.loads(done.stdout)["made"][1]["gap"] == pytest.approx(15)
    assert (tmp_path / "made.svg").read_text().startswith("<?xml")
    table = RUNNER.invoke(app, ["results", str(tmp_path / "made.json")])
    assert re.search(r"narrow +│ 4 +│ 2 ", table.stdout)
    nothing = tmp_path / "nothing"
    nothing.mkdir()
    failed = RUNNER.invoke(app, ["results", str(nothing)])
    assert isinstance(failed.exception, ps.InputError)
    assert "there are no result files in" in str(failed.exception)


def test_a_page_gets_its_tables(tmp_path: Path) -> None:
    write_results(RESULTS, tmp_path / "made.json")
    page = tmp_path / "page.md"
    page.write_text(
        "before\n<!-- table other -->\nkept\n<!-- end -->\n<!-- table made -->\nold\n<!-- end -->\nafter\n"
    )
    for _ in range(2):
        done = RUNNER.invoke(app, ["results", str(tmp_path / "made.json"), "--fill", str(page), "--json"])
        assert done.exit_code == 0
        before, table = page.read_text().split("<!-- table made -->\n")
        assert before == "before\n<!-- table other -->\nkept\n<!-- end -->\n"
        assert table == f"{markdown_table(RESULTS)}\n\n(5 of 8 planned runs were made.)\n<!-- end -->\nafter\n"
    failed = RUNNER.invoke(app, ["results", str(tmp_path / "made.json"), "--fill", str(tmp_path / "none.md")])
    assert "cannot read page" in str(failed.exception)


def test_the_manual_has_the_committed_numbers() -> None:
    page = (COMMITTED.parents[1] / "docs" / "experiments.md").read_text(encoding="utf-8")
    found = {path.stem: read_results(path) for path in COMMITTED.glob("*.json")}
    assert fill_tables(page, found) == page
    assert all(f"<!-- table {name} -->" in page for name in found)


def test_train_and_sweep_commands(tmp_path: Path) -> None:
    config = tmp_path / "c.toml"
    config.write_text(
        "name = 'c'\nmodel = { name = 'mlp', width = 4 }\ndata = { name = 'digits', train = 64, test = 20 }\n"
        "training = { steps = 3, batch = 8, threads = 1 }\n"
    )
    done = RUNNER.invoke(app, ["train", str(config), "--out", str(tmp_path / "run")])
    assert done.exit_code == 0
    assert re.fullmatch(r"c: finished after 3 steps, test accuracy [\d.]+ %, test loss [\d.]+\n", done.stdout)
    assert "c: step 3 of 3, test accuracy" in done.stderr
    out = tmp_path / "sweep"
    done = RUNNER.invoke(app, ["sweep", str(config), "--out", str(out), "--collect", "--json"])
    assert json.loads(done.stdout)["runs"] == []
    missing = RUNNER.invoke(app, ["sweep", str(config), "--results", str(tmp_path / "no" / "x.json")])
    assert "the folder" in str(missing.exception)
    bad = RUNNER.invoke(app, ["train", str(tmp_path / "none.toml")])
    assert "cannot read configuration" in str(bad.exception)


@pytest.mark.parametrize("path", sorted(COMMITTED.glob("*.json")), ids=lambda path: path.stem)
def test_committed_results_are_whole(path: Path) -> None:
    """Every published result can be drawn, says how many of its runs were made, and belongs to its configuration."""
    results = read_results(path)
    draw(results)
    source = path.parents[1] / f"{path.stem}.toml"
    assert results["config"] == source.read_text(encoding="utf-8")
    assert 0 < len(results["runs"]) <= results["planned"]
