"""Integer registers: A2Q's bounds against a search, published numbers, exact sums, and the likely width."""

from __future__ import annotations

import math
import re
from collections.abc import Callable

import numpy as np
import pytest

import partialsum as ps
from partialsum.theory.bounds import datatype_bits, largest_l1_norm, likely_bits, weight_bits
from partialsum.theory.products import parse_product


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("k", [1, 2, 3, 784, 4096, 10**6])
def test_the_data_type_bound_is_a2qs(k: int, signed: bool) -> None:
    for n in range(2, 9):
        for m in range(2, 9):
            alpha = math.log2(k) + n + m - 1 - signed
            expected = next(p for p in range(2, 64) if 2 ** (p - 1) - 1 >= k * 2 ** (n - signed) * 2 ** (m - 1))
            assert datatype_bits(k, f"{'' if signed else 'u'}int{n}", f"int{m}") == expected
            assert expected - 1 < alpha + math.log2(1 + 2**-alpha) + 1 + 1e-9 <= expected + 1e-6


def test_published_numbers() -> None:
    """A2Q §3.1: one-bit inputs, 784 of them, and 8-bit weights need 19 bits. arXiv 2303.17951: FP8-E4 products, 37."""
    assert datatype_bits(784, ps.IntFormat(1, signed=False), "int8") == 19
    assert datatype_bits(1, "e4m3fn") == 37
    assert datatype_bits(4096, "e4m3fn") == 37 + 12


def test_the_weight_bound_is_tight() -> None:
    rng = np.random.default_rng(0)
    weights = rng.integers(-127, 128, size=(5, 300))
    norms = np.abs(weights).sum(axis=1)
    for inputs in ("int8", "uint4"):
        low, high = ps.parse_format(inputs).min, ps.parse_format(inputs).max
        bits = weight_bits(norms, inputs)
        towards = (
            np.where(weights > 0, weights * low, weights * high)
            if low
            else np.where(weights > 0, weights * high, 0)
        )
        worst = np.abs(towards.sum(axis=1))
        assert (worst <= 2.0 ** (bits - 1) - 1).all()
        for norm, width in zip(norms, bits, strict=True):
            assert largest_l1_norm(int(width), inputs) >= norm > largest_l1_norm(int(width) - 1, inputs)
    assert (weight_bits(norms, "int8") <= datatype_bits(300, "int8")).all()


def test_the_likely_width_is_the_first_that_hardly_overflows() -> None:
    law = parse_product("int8*int8")
    for probability in (1e-3, 1e-9):
        bits = likely_bits(576, law, probability)
        assert bits is not None
        at, less = (ps.predict(576, f"int{width}", law).overflow_probability for width in (bits, bits - 1))
        assert at <= probability < less
    usual = likely_bits(576, law)
    assert usual is not None
    assert usual < datatype_bits(576, "int8")


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: datatype_bits(0, "int8"), "k must be a whole number from 1 to 10^12, got 0"),
        (lambda: datatype_bits(9, "mxfp8_e4m3"), "a block format has no largest sum of its own, got mxfp8_e4m3"),
        (lambda: weight_bits(9.0, "e5m2"), "inputs must be an integer or fixed-point format, got e5m2"),
        (lambda: weight_bits([-1.0], "int8"), "l1_norm must be non-negative numbers, got [-1.0]"),
        (lambda: largest_l1_norm(70, "int8"), "bits must be 2 to 64, got 70"),
        (lambda: likely_bits(9, parse_product("int4"), 0.0), "probability must be between 0 and 1, got 0.0"),
    ],
)
def test_impossible_arguments(call: Callable[[], object], sentence: str) -> None:
    with pytest.raises(ps.InputError, match=re.escape(sentence)):
        call()
