"""``partialsum verify`` and ``partialsum bench``."""

from __future__ import annotations

import json

import numpy as np
import pytest

from partialsum.arithmetic import throughput, verify
from partialsum.cli import main


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr("sys.argv", ["partialsum", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def test_verify_passes_here(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, "verify") == 0
    assert "every bit as the reference" in capsys.readouterr().out


def test_verify_finds_one_wrong_bit(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    right = verify.gemm_arrays

    def wrong(*arguments: object) -> np.ndarray:
        result = right(*arguments)
        result.view(np.uint32)[...] ^= 1
        return result

    monkeypatch.setattr(verify, "gemm_arrays", wrong)
    monkeypatch.setattr(verify, "cases", lambda: [verify.Case("e6m9")])
    assert run(monkeypatch, "verify") == 1
    captured = capsys.readouterr()
    assert "1 of 1 cases differ" in captured.out
    assert "portable: output (" in captured.err
    assert "the reference says 0x" in captured.err


def test_bench_prints_one_line_for_each_variant(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "bench", "--size", "48", "--threads", "1", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert [row["variant"] for row in document["rows"]] == [v.name for v in throughput.variants_here()]
    assert all(row["rate"] > 0 and row["torch_rate"] > 0 for row in document["rows"])
    assert "1 threads" in document["machine"]


def test_ratios_bounds_and_verdicts(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    rates = {"torch.mm": 50.0, "numpy": 40.0, "nearest even": 20.0, "chunk 64": 19.5, "slow": 10.0}
    limits = {throughput.native.current_simd_level(): 75.0}

    def row(variant: throughput.Variant) -> throughput.Measurement:
        return throughput._measurement((8, 8, 8), 1, variant, rates, limits)

    beyond = row(throughput.Variant("nearest even", "e6m9", 3, 1.0))
    assert (beyond.ratio, beyond.bound, beyond.verdict) == (0.4, 0.5, "beyond the bound")
    chunk = row(throughput.Variant("chunk 64", "e6m9,chunk=64", 3, 0.95, "nearest even"))
    assert (chunk.ratio, chunk.bound, chunk.verdict) == (0.975, 1.25, "met")
    assert row(throughput.Variant("slow", "e6m9", 3, 0.4)).verdict == "missed"
    assert row(throughput.Variant("slow", "e6m9")).verdict == ""
    with pytest.raises(KeyError):
        row(throughput.Variant("slow", "e6m9", 3, 0.4, "nobody"))


def test_bench_prints_a_table_and_refuses_nonsense(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    few = throughput.VARIANTS[:2]
    monkeypatch.setattr(throughput, "variants_here", lambda: few)
    monkeypatch.setattr(throughput, "SHAPES", ((8, 9, 10), (3, 2, 1)))
    assert run(monkeypatch, "bench", "--all") == 0
    captured = capsys.readouterr()
    assert captured.out.count("toward zero") == 4
    assert "8 × 9 × 10, 2 threads, torch.mm" in captured.out
    assert "1/2 threads" in captured.err
    assert run(monkeypatch, "bench", "--threads", "0") == 2
    assert "--threads must be at least 1, got 0" in capsys.readouterr().err


def test_every_kernel_of_this_processor_has_a_rate_within_the_cache() -> None:
    limit = throughput.tile_rate(throughput.native.current_simd_level())
    assert limit > 0
    assert throughput.tile_rate("portable") == 0  # the compiler's code has no float32 lanes
    assert throughput.tile_rate("portable", "e6m9", "general") > 0
