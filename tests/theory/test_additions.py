"""Moments of rounding errors: the native kernel against the plain arrays, and both against the definition."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from partialsum.accumulators import Accumulator, Rounding
from partialsum.arithmetic import native
from partialsum.arithmetic.error_moments import ROUNDINGS, error_moments
from partialsum.formats import FloatFormat
from partialsum.theory.additions import BinnedLaw, Errors, additions, binned, errors
from partialsum.theory.grids import Rounder, register_rounder
from partialsum.theory.predict import resolve_product
from partialsum.theory.products import ProductLaw


def natively(
    numbers: np.ndarray, held: np.ndarray, shares: np.ndarray, rounder: Rounder, bins: BinnedLaw
) -> Errors:
    moments, crossed = error_moments(
        (numbers, held, shares),
        bins.columns,
        bins.ends,
        rounder.rounding,
        rounder.format.man_bits,
        rounder.drawn_bits,
    )
    return Errors._make([*moments, crossed])


@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("level", native.simd_levels())
@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1), man_bits=st.integers(1, 23), rows=st.integers(0, 20), columns=st.integers(1, 4)
)
def test_the_kernel_sums_what_plain_arrays_sum(
    rounding: Rounding, level: str, seed: int, man_bits: int, rows: int, columns: int
) -> None:
    rng = np.random.default_rng(seed)
    law = resolve_product("e4m3fn", 0.75, 0.3)
    law = ProductLaw(law.values, law.weights, error=rng.standard_normal(law.values.size) / 64, error_power=0.01)
    bins = binned(law, float(rng.uniform(0.1, 4)))
    rounder = Rounder(FloatFormat(8, man_bits), rounding)
    numbers = np.rint(np.ldexp(rng.standard_normal((rows, columns)), 8)) / 16
    held = np.where(rng.random((rows, columns)) < 0.5, numbers, np.trunc(numbers))
    shares = rng.random((rows, columns))
    with native.simd_level(level):
        found = natively(numbers, held, shares, rounder, bins)
    kept, expected = errors(numbers, held, shares, rounder, bins)
    assert kept is None
    for name, ours, plain in zip(Errors._fields, found, expected, strict=True):
        np.testing.assert_allclose(ours, plain, rtol=1e-11, atol=1e-13, err_msg=name)


@pytest.mark.parametrize("rounding", [Rounding.NEAREST_EVEN, Rounding.TOWARD_ZERO])
def test_an_addition_errs_as_the_reference_does(rounding: Rounding) -> None:
    from partialsum.arithmetic.reference import accumulate

    law = ProductLaw(np.array([-1.375, 0.40625, 3.5]), np.array([0.25, 0.5, 0.25]))
    acc = Accumulator("e5m3", rounding=rounding)
    number = 7.5
    one = additions(np.array([[number]]), np.ones((1, 1)), register_rounder(acc), binned(law, 100.0))
    expected = [Fraction(accumulate([p], [1.0], acc, c=number)) - Fraction(number + p) for p in law.values]
    assert any(expected)
    assert one.error[0] == pytest.approx(float(sum(w * e for w, e in zip(law.weights, expected, strict=True))))
    assert one.power[0] == pytest.approx(float(sum(w * e**2 for w, e in zip(law.weights, expected, strict=True))))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"man_bits": 0}, "man_bits must be 1 to 51"),
        ({"rounding": 3}, "rounding must be"),
        ({"starts": np.array([0, 4, 2])}, "starts must ascend"),
        ({"starts": np.array([0, 2, 9])}, "starts must lie within products"),
        ({"held": np.zeros((2, 1))}, "must have one shape"),
        ({"moments": np.zeros((7, 1, 1))}, "moments must be"),
        ({"level": "abacus"}, "no such level"),
    ],
)
def test_the_kernel_refuses_what_does_not_fit(change: dict[str, object], message: str) -> None:
    one = np.zeros((1, 1))
    arguments = {
        **{"rounding": 0, "man_bits": 7, "random_bits": 0, "number": one, "held": one, "share": one},
        **{"products": np.zeros((4, 4)), "starts": np.array([0, 2, 4]), "moments": np.zeros((7, 1, 2))},
        **{"crossed": np.zeros(1), "level": "portable"},
    }
    with pytest.raises(ValueError, match=message):
        native.load().error_moments(**(arguments | change))
