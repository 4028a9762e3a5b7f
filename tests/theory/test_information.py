"""Widths by information kept: against a scan of all widths, monotone, and refusals in one sentence."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

import partialsum as ps
from partialsum.theory.information import WIDEST, narrowest, usual_product
from partialsum.theory.products import parse_product


def scanned(k: int, accumulator: str, product: str, target: float) -> int:
    """The first width, from zero up, that keeps the target."""
    return next(m for m in range(WIDEST + 1) if ps.predict(k, accumulator.format(m=m), product).snr_db >= target)


@pytest.mark.parametrize(
    ("accumulator", "options", "product", "target"),
    [
        ("e8m{m},toward_zero", {"rounding": "toward_zero"}, "e5m2", 25.0),
        ("e8m{m}", {}, "e2m1fn", 40.0),
        ("e8m{m},stochastic,chunk=16", {"rounding": "stochastic", "chunk": 16}, "e4m3fn*e5m2", 12.0),
    ],
)
def test_the_width_is_the_one_a_scan_finds(
    accumulator: str, options: dict[str, Any], product: str, target: float
) -> None:
    lengths = [1, 2, 17, 40, 300]
    widths = ps.min_man_bits(lengths, method="evolution", target_snr_db=target, product=product, **options)
    assert widths.tolist() == [scanned(k, accumulator, product, target) for k in lengths]


def test_truncation_needs_more_than_nearest_and_chunks_less() -> None:
    plain, truncated = (
        ps.min_man_bits(576, method="evolution", rounding=mode) for mode in ("nearest_even", "toward_zero")
    )
    chunked = ps.min_man_bits(576, chunk=24, method="evolution", rounding="toward_zero")
    assert (plain, truncated, chunked) == (7, 11, 8)
    assert ps.min_man_bits(576) == 7, "what the 2019 criterion says whatever the rounding"


def test_arrays_broadcast_and_equal_scalars() -> None:
    k, density = np.array([[64], [1000]]), np.array([0.25, 1.0])
    table = ps.min_man_bits(k, density=density, method="evolution", target_snr_db=20)
    assert table.shape == (2, 2)
    for (row, column), width in np.ndenumerate(table):
        alone = ps.min_man_bits(
            int(k[row, 0]), density=float(density[column]), method="evolution", target_snr_db=20
        )
        assert width == alone
    assert type(ps.min_man_bits(64, method="evolution", target_snr_db=20)) is int


def test_longer_sums_and_higher_targets_never_need_fewer_bits() -> None:
    law = parse_product("e4m3fn")
    rows = [
        list(narrowest([8, 100, 1000], law, target, ps.Rounding.NEAREST_EVEN).values())
        for target in (10.0, 20.0, 40.0)
    ]
    assert all(None not in row for row in rows)
    for row in rows:
        assert all(a <= b for a, b in pairwise(row))  # type: ignore[operator]
    for low, high in pairwise(rows):
        assert all(a <= b for a, b in zip(low, high, strict=True))  # type: ignore[operator]


@pytest.mark.parametrize(("bits", "formats"), [(0, "e8m0*e8m0"), (5, "e8m2*e8m2"), (8, "e8m3*e8m4")])
def test_the_usual_product_has_the_bits_it_is_named_by(bits: int, formats: str) -> None:
    assert usual_product(bits).key == parse_product(formats).key
    assert ps.product_man_bits(*formats.split("*")) == max(bits, 1)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"method": "evolve"}, "method must be one of formula, evolution, got 'evolve'"),
        (
            {"target_snr_db": 30},
            "target_snr_db only means something with method='evolution', got 30 with 'formula'",
        ),
        ({"rounding": "up"}, "rounding only means something with method='evolution'"),
        ({"method": "evolution", "rounding": "zero"}, "rounding must be one of nearest_even"),
        (
            {"method": "evolution", "target_snr_db": 0},
            "target_snr_db must be a number of dB above 0 and at most 140, got 0",
        ),
        ({"method": "evolution", "target_snr_db": float("nan")}, "target_snr_db must be a number of dB"),
        (
            {"method": "evolution", "target_snr_db": 130, "rounding": "toward_zero"},
            "no register of up to 23 mantissa bits keeps 130 dB over 1000000 products with toward_zero rounding",
        ),
        ({"method": "evolution", "product": "e5m2*"}, "product"),
    ],
)
def test_impossible_requests(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ps.InputError, match=re.escape(sentence)):
        ps.min_man_bits(10**6, **options)
