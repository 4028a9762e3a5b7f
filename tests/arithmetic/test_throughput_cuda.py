"""The GPU's table: it runs where the host plays a GPU, and says in one sentence where there is none."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import tools
from arithmetic.host_gpu import Gpu


@pytest.fixture(autouse=True)
def script_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")


def wall_clock(runs: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    times = {}
    for name, run in runs.items():
        began = time.perf_counter()
        for _ in range(rounds):
            run()
        times[name] = 1e3 * (time.perf_counter() - began) / rounds
    return times


def test_every_kind_of_row(gpu: Gpu, monkeypatch: pytest.MonkeyPatch) -> None:
    table = tools.load_script("benchmarks/throughput_cuda.py")
    if gpu.device == "cpu":
        monkeypatch.setattr(table, "milliseconds", wall_clock)
    rows = list(table.table(torch.device(gpu.device), 1, quick=True))
    assert [row.what for row in rows] == ["first use"] * 2 + ["multiply-adds"] + ["gemm"] * 4 + ["quantize"] * 3
    assert all(row.ratio > 0 and len(row.cells()) == len(table.COLUMNS) for row in rows)
    assert all(row.verdict in {"met", "missed", ""} for row in rows)


def test_a_case_for_a_profiler(gpu: Gpu) -> None:
    table = tools.load_script("benchmarks/throughput_cuda.py")
    for case in ("nearest even", "quantize"):
        table.profile(case, torch.device(gpu.device), (8, 8, 8), 64)
    if gpu.device == "cpu":
        assert [gpu.launched.count(name) for name in ("gemm_plain", "quantize")] == [4, 6]
    with pytest.raises(SystemExit, match="no such case: nonsense; there are quantize, nearest even, toward zero"):
        table.profile("nonsense", torch.device(gpu.device))


def test_verdicts() -> None:
    table = tools.load_script("benchmarks/throughput_cuda.py")
    assert table.Row("gemm", "", "", "", 0.61, goal=0.6).verdict == "met"
    assert table.Row("gemm", "", "", "", 0.59, goal=0.6).verdict == "missed"
    assert table.Row("training step", "", "", "", 7.0, goal=8.0, smaller_is_better=True).verdict == "met"
    assert table.Row("gemm", "", "", "", 0.59).verdict == ""


def test_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    script = tools.load_script("benchmarks/throughput.py")
    monkeypatch.setattr(sys, "argv", ["throughput.py", "--device", "cuda"])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="no CUDA device here"):
        script.main()


def test_the_table_is_printed_and_saved(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script = tools.load_script("benchmarks/throughput.py")
    table = sys.modules.get("throughput_cuda") or __import__("throughput_cuda")
    row = table.Row("gemm", "nearest even", "5 GMAC/s", "torch.mm", 0.2, 0.3, 0.15)
    monkeypatch.setattr(table, "table", lambda device, rounds, quick: iter([row]))
    monkeypatch.setattr(table, "heading", lambda device: "a GPU")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    path = tmp_path / "table.json"
    monkeypatch.setattr(sys, "argv", ["throughput.py", "--device", "cuda", "--json", str(path), "--markdown"])
    script.main()
    printed = capsys.readouterr().out
    assert "a GPU" in printed
    assert "| gemm | nearest even | 5 GMAC/s | 0.20 | torch.mm | 0.30 | 0.15 | met |" in printed
    document = json.loads(path.read_text())
    assert document["machine"] == "a GPU"
    assert document["rows"][0]["verdict"] == "met"
