"""Integer registers: every path enumerated for small ones, bit-exact sums for int16."""

from __future__ import annotations

import numpy as np
import pytest

import partialsum as ps
from partialsum.theory.products import histogram
from partialsum.theory.tails import SumLaw

VALUES, WEIGHTS = np.arange(-3, 5), np.array([1.0, 3, 5, 9, 6, 4, 2, 1]) / 31
LAW = histogram(VALUES, WEIGHTS)


def enumerated(bits: int, k: int, *, saturate: bool) -> dict[str, float]:
    """Follow the joint law of register and exact sum, and whether a wall was met, addition by addition."""
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    offset, size = -int(VALUES[0]) * k, int(VALUES[-1] - VALUES[0]) * k + 1
    held = np.arange(low, high + 1)
    joint = np.zeros((2, held.size, size))  # [met, register, exact sum]
    joint[0, -low, offset] = 1.0
    for _ in range(k):
        following = np.zeros_like(joint)
        for value, weight in zip(VALUES.tolist(), WEIGHTS.tolist(), strict=True):
            out = (held + value < low) | (held + value > high)
            end = np.clip(held + value, low, high) if saturate else (held + value - low) % 2**bits + low
            moved = weight * np.roll(joint, value, axis=2)  # never round the end: the axis has room for k additions
            for start, stop in enumerate(end - low):
                following[int(out[start]), stop] += moved[0, start]
                following[1, stop] += moved[1, start]
        joint = following
    met, h, s = np.nonzero(joint)
    p = joint[met, h, s]
    h, s = h + low, s - offset
    met = met if saturate else h != s
    mean, variance = p @ s, p @ s**2 - (p @ s) ** 2
    return {
        "vrr": (p @ h**2 - (p @ h) ** 2) / variance,
        "gain": (p @ (h * s) - (p @ h) * mean) / variance,
        "bias": p @ (h - s) / np.sqrt(variance),
        "snr_db": 10 * np.log10(variance / (p @ (h - s) ** 2)),
        "overflow_probability": p @ met,
    }


@pytest.mark.parametrize("saturate", [False, True])
@pytest.mark.parametrize(("bits", "k"), [(5, 12), (6, 40), (7, 60)])
def test_every_path(bits: int, k: int, *, saturate: bool) -> None:
    predicted = ps.predict(k, ps.IntegerAccumulator(bits, "saturate" if saturate else "wrap"), LAW)
    tolerance = {"vrr": 0.01, "gain": 0.01, "bias": 0.01, "snr_db": 0.2, "overflow_probability": 0.01}
    for name, value in enumerated(bits, k, saturate=saturate).items():
        assert getattr(predicted, name) == pytest.approx(value, abs=tolerance[name]), name


def test_far_tails_are_right_in_relation() -> None:
    sums = np.zeros(1)
    sums[0] = 1.0
    law = WEIGHTS
    for _ in range(40):
        sums = np.convolve(sums, law)
    values = np.arange(sums.size) + 40 * VALUES[0]
    model = SumLaw(LAW, 40)
    for x in (25, 60, 90, 120):
        assert model.above(np.array([x + 0.5]))[0] == pytest.approx(sums[values > x].sum(), rel=0.02)
    for x in (-5, -40, -70):
        assert model.below(np.array([x - 0.5]))[0] == pytest.approx(sums[values < x].sum(), rel=0.02)
    mean = sums @ values
    for x in (-20, 10, 50):
        expected = (sums * (values - mean))[values > x].sum()
        assert model.excess(np.array([x + 0.5]))[0] == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("accumulator", ["int16", "int16,saturate"])
def test_bit_exact_sums_agree(accumulator: str) -> None:
    k = [100, 300, 1000]
    predicted, simulated = ps.predict(k, accumulator, "int8"), ps.simulate(k, accumulator, "int8", sums=16_384)
    for name, tolerance in (("vrr", 0.015), ("gain", 0.015), ("overflow_probability", 0.012)):
        assert getattr(predicted, name) == pytest.approx(getattr(simulated, name), abs=tolerance)
    assert predicted.snr_db[1:] == pytest.approx(simulated.snr_db[1:], abs=0.4)


def test_a_wide_register_is_never_left() -> None:
    for accumulator in ("int32", "int32,saturate"):
        prediction = ps.predict(4096, accumulator, "int8")
        assert prediction.overflow_probability < 1e-12
        assert prediction.snr_db > 150
        assert prediction.vrr == pytest.approx(1.0)


def test_long_wrapped_sums_hold_nothing_of_the_exact_ones() -> None:
    prediction = ps.predict([10**6, 10**9], "int16", "int8")
    assert prediction.gain == pytest.approx(0.0, abs=1e-3)
    assert prediction.snr_db == pytest.approx(0.0, abs=0.01)


def test_products_must_be_integers() -> None:
    with pytest.raises(ps.InputError, match="product must be integers for the register int16, got e5m2"):
        ps.predict(64, "int16", "e5m2")
