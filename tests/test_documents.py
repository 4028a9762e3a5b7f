"""Numbers in the manual are those that its commands give."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def promotion() -> ModuleType:
    """The script benchmarks/hopper_promotion.py."""
    spec = importlib.util.spec_from_file_location("hopper_promotion", ROOT / "benchmarks" / "hopper_promotion.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_promotion_table_is_what_the_script_prints(promotion: ModuleType) -> None:
    page = (ROOT / "docs" / "predict.md").read_text(encoding="utf-8").splitlines()
    for distribution in ("normal", "absolute normal"):
        for unit in ("h100-fp8", "h100-fp8,promote_every=128"):
            assert promotion.line(unit, distribution) in page


def test_promotion_mends_what_truncation_takes(promotion: ModuleType) -> None:
    for distribution in promotion.DISTRIBUTIONS:
        plain, promoted, wide = (
            promotion.measure(unit, distribution, side=32)["max abs(e) / max abs(d)"] for unit in promotion.UNITS
        )
        assert plain > 10 * promoted > 100 * wide
