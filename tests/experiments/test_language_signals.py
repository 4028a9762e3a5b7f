"""The script that measures what units leave of a language model's weight gradients."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import partialsum as ps
from partialsum.experiments.data import load_dataset
from partialsum.experiments.sweep import load_sweep
from tools import load_script

SCRIPT = load_script("experiments/language_signals.py")
ROOT = Path(__file__).parents[2]


def test_the_units_are_those_of_the_sweep() -> None:
    assert SCRIPT.unit(13, None) == ps.parse_accumulator("h100-fp8")
    trained = {
        str(ps.parse_accumulator(member.config.policy["grad_weight"]))
        for member in load_sweep(ROOT / "experiments" / "language.toml").members
        if member.config.policy is not None and "grad_weight" in member.config.policy
    }
    ours = {str(SCRIPT.unit(bits, every)) for bits in SCRIPT.FRACTION_BITS for every in SCRIPT.PROMOTIONS}
    assert trained
    assert trained < ours


def test_promotion_mends_what_few_bits_lose(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SCRIPT, "FRACTION_BITS", (13, 4))
    (tmp_path / "text").write_bytes(b"to be or not to be, that is the question: " * 400)
    config = load_sweep(
        {
            "model": {"name": "gpt", "width": 32, "depth": 1},
            "data": {"name": "text"},
            "optimizer": {"name": "adamw", "lr": 0.003},
            "training": {"steps": 4, "batch": 16},
        }
    )
    data = load_dataset("text", tmp_path / "text", context=32)
    wide, wide_promoted, narrow, promoted = SCRIPT.measured(*SCRIPT.halfway(config.members[0].config, data))
    assert wide["k"] == 16 * 32
    assert set(narrow["snr_db"]) == {"blocks.0.qkv", "blocks.0.out", "blocks.0.up", "blocks.0.down", "readout"}
    for layer, snr in narrow["snr_db"].items():
        assert snr < promoted["snr_db"][layer] < wide["snr_db"][layer] < wide_promoted["snr_db"][layer]
        assert narrow["gain"][layer] < promoted["gain"][layer] < 1
    lines = SCRIPT.table([wide, promoted]).splitlines()
    assert lines[2].startswith("| 13 | never | ")
    assert lines[3].startswith("| 4 | 128 | ")


def test_the_manual_has_the_committed_numbers() -> None:
    rows = json.loads((ROOT / "experiments" / "language_signals.json").read_text(encoding="utf-8"))["rows"]
    page = (ROOT / "docs" / "experiments.md").read_text(encoding="utf-8")
    assert SCRIPT.fill(page, rows) == page
    empty = "before\n<!-- language signals -->\n<!-- end -->\nafter\n<!-- end -->\n"
    assert SCRIPT.fill(empty, rows) == empty.replace("signals -->\n", f"signals -->\n{SCRIPT.table(rows)}\n")
