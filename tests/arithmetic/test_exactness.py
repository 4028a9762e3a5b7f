"""The theorems of docs/exactness.md: every case of small carriers, and counterexamples just outside each bound.

Numbers are scaled to integers, so that sums and products are exact; a carrier has ``P`` significant bits and an
unbounded exponent.
"""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
import pytest
from numpy.typing import NDArray

import partialsum as ps
from partialsum.arithmetic import native
from partialsum.arithmetic.rounding import round_to_format
from partialsum.formats import parse_float_format

Ints = NDArray[np.int64]
F32 = np.float32
AVX512 = pytest.mark.skipif(native.simd_levels()[-1] != "avx512", reason="the processor has no AVX-512")


def bit_length(x: Ints) -> Ints:
    assert np.abs(x).max(initial=0) < 2**53
    return np.frexp(np.abs(x).astype(np.float64))[1].astype(np.int64)


def split(z: Ints, drop: Ints | int) -> tuple[Ints, Ints]:
    """The magnitude without its low ``drop`` bits, and those."""
    size = np.abs(z)
    return size >> drop, size & ((np.int64(1) << drop) - 1)


def on_grid(z: Ints, drop: Ints | int) -> Ints:
    """The nearest multiple of ``2**drop``, ties to even."""
    drop = np.asarray(drop, np.int64)
    below, rest = split(z, drop)
    half = (np.int64(1) << drop) >> 1
    up = (rest > half) | ((rest == half) & (below & 1 == 1) & (drop > 0))
    return np.sign(z) * ((below + up) << drop)


def dropped(z: Ints, bits: int) -> Ints:
    return np.maximum(bit_length(z) - bits, 0)


def nearest(z: Ints, bits: int) -> Ints:
    """RN(bits, z)."""
    return on_grid(z, dropped(z, bits))


def odd(z: Ints, bits: int) -> Ints:
    """RO(bits, z)."""
    drop = dropped(z, bits)
    below, rest = split(z, drop)
    return np.sign(z) * ((below | (rest > 0)) << drop)


def all_sums(carrier: int, p: int, q: int) -> Ints:
    """Every sum of a p-bit and a q-bit number, up to scale and sign; beyond these exponents nothing new happens."""
    low = carrier + q + 2
    s = np.arange(2 ** (p - 1), 2**p)[:, None, None] << np.arange(low + carrier + p + 2)[:, None]
    x = np.arange(2 ** (q - 1), 2**q) << low
    return np.concatenate([(s + x).ravel(), (s - x).ravel()])


@pytest.mark.parametrize("carrier", range(4, 9))
def test_theorem_1b_double_rounding_is_harmless_exactly_where_stated(carrier: int) -> None:
    for p, q in itertools.product(range(2, carrier), range(1, carrier + 2)):
        z = all_sums(carrier, p, q)
        harmless = bool((nearest(nearest(z, carrier), p) == nearest(z, p)).all())
        assert harmless == (q <= p and 2 * p <= carrier and p + q <= carrier - 1), (p, q)


def test_theorem_1b_holds_in_the_subnormal_range_of_the_format() -> None:
    carrier = 8
    for p, q in [(4, 3), (3, 3), (4, 2), (2, 2)]:
        low = carrier + q + 2  # Q = 2**low; sums are kQ, products q bits at any place
        s = np.arange(-(2**p), 2**p + 1)[:, None, None] << low
        x = np.arange(2 ** (q - 1), 2**q)[:, None] << np.arange(low + p)
        z = (s + x).ravel()
        z = z[np.abs(z) < 2 ** (low + p - 1)]
        assert (on_grid(nearest(z, carrier), low) == on_grid(z, low)).all()


def rounded_twice(s: float, x: float, p: int) -> Fraction:
    """What float32 lanes make of s + x: the hardware's addition, then rounding to p bits."""
    with_carrier = F32(F32(s) + F32(x))
    return Fraction(round_to_format(Fraction(float(with_carrier)), ps.FloatFormat(8, p - 1)))


def rounded_once(s: float, x: float, p: int) -> Fraction:
    return Fraction(round_to_format(Fraction(s) + Fraction(x), ps.FloatFormat(8, p - 1)))


@pytest.mark.parametrize("p", range(2, 24))
def test_theorem_1b_counterexamples_in_float32(p: int) -> None:
    """p + q = 24; 2 p > 24; q > p: each just outside a bound, with numbers that float32 itself adds."""
    examples = [(2.0**-p + 2.0 ** (-24 if p < 23 else -25), 1.0)] if 2 * p > 24 else []
    if p < 23:
        examples.append((1 + 2.0 ** (1 - p), (2 ** (24 - p) - 1) * 2.0**-24))
    examples.append((-(2.0**-26), 1 + 2.0 ** (1 - p) + 2.0**-p))  # x has p + 1 bits
    for s, x in examples:
        assert F32(s) == s
        assert F32(x) == x
        assert round_to_format(Fraction(s), ps.FloatFormat(8, p - 1)) == s
        assert rounded_twice(s, x, p) != rounded_once(s, x, p), (s, x)


@pytest.mark.parametrize(("p", "q"), [(12, 11), (11, 11), (12, 1), (8, 8), (4, 4)])
def test_theorem_1b_holds_for_a_million_sums_at_the_size_of_float32(p: int, q: int) -> None:
    rng = np.random.default_rng(p)
    s = rng.integers(2 ** (p - 1), 2**p, 10**6) << rng.integers(0, 51 - p, 10**6)
    x = (rng.integers(2 ** (q - 1), 2**q, 10**6) << rng.integers(0, 51 - q, 10**6)) * rng.choice([-1, 1], 10**6)
    z = s + x
    # Half of them beside a midpoint of the format, where alone something could happen.
    half = len(z) // 2
    x[:half] = nearest(on_midpoint(z[:half], p) - s[:half], q)
    z = s + x
    assert (nearest(nearest(z, 24), p) == nearest(z, p)).all()


def on_midpoint(z: Ints, p: int) -> Ints:
    drop = dropped(z, p)
    below, _ = split(z, drop)
    return np.sign(z) * ((below << drop) + ((np.int64(1) << drop) >> 1))


@pytest.mark.parametrize("carrier", range(4, 10))
def test_theorem_1c_rounding_to_odd_needs_two_more_bits(carrier: int) -> None:
    z = np.arange(1, 2 ** (carrier + 4))
    for p in range(1, carrier):
        assert bool((nearest(odd(z, carrier), p) == nearest(z, p)).all()) == (p + 2 <= carrier)


@pytest.mark.parametrize("t", range(1, 7))
def test_theorem_1d_truncated_sums_decide_every_rounding_but_nearest_even(t: int) -> None:
    below_carrier = 4  # exact sums have four bits below the carrier's last place
    z = np.arange(2 ** (t + 4 + below_carrier))
    cut, rounded_up = z >> below_carrier, -(-z >> below_carrier)
    whole, unit = t + below_carrier, 1 << t
    assert (cut >> t == z >> whole).all()
    assert ((cut + unit // 2) >> t == (z + (1 << whole - 1)) >> whole).all()
    assert ((rounded_up + unit - 1) >> t == -(-z >> whole)).all()
    for bits in range(1, t + 2):
        right = True
        for r in range(2**bits):
            asked = (z + (r << whole) // 2**bits) >> whole  # frac + r / 2**R >= 1
            given = (cut + ((r << t) >> bits)) >> t
            right &= bool((asked == given).all())
        assert right == (bits <= t)


@pytest.mark.parametrize("carrier", range(4, 13))
def test_theorem_2_forms_round_to_nearest_even_where_stated(carrier: int) -> None:
    x = np.arange(2 ** (carrier - 1), 2**carrier)
    for t in range(1, carrier):
        want = on_grid(x, t)
        two = nearest((x << t) - nearest(x * (2**t - 1), carrier), carrier)
        assert bool((two == want).all()) == (2 * t >= carrier + 1 and t >= 2), t
        g = nearest(x * (2**t + 1), carrier)
        assert (nearest(g + nearest(x - g, carrier), carrier) == want).all(), t
        tempting = nearest(g - (x << t), carrier)
        assert not (tempting == want).all(), t


def test_theorem_2_bounds_in_float32() -> None:
    """man_bits 11 is one too many for two operations: j = 2**(t-2) + 1 above a power of two."""
    for man_bits, right in ((10, True), (11, False)):
        t = 23 - man_bits
        x = F32(1 + (2 ** (t - 2) + 1) * 2.0**-23)
        g = F32(float(x) * (2**t - 1))
        s = F32(float(x) * 2**t - float(g))
        assert (s == 1) == right


@pytest.mark.parametrize("carrier", [6, 7, 8, 9])
def test_theorem_2c_gradual_underflow(carrier: int) -> None:
    emin = carrier + 4  # the format's lowest binade, in the integers' scale
    x = (np.arange(2 ** (carrier - 1), 2**carrier)[:, None] << np.arange(emin + 3)).ravel()
    x = np.concatenate([x, -x]) >> 2  # numbers down to a quarter of the carrier's unit vanish: all are below Q / 4
    x = x[nearest(x, carrier) == x]
    for t in range(1, carrier):
        man_bits = carrier - 1 - t
        drop = np.maximum(bit_length(x) - 1, emin) - man_bits
        want = on_grid(x, drop)
        exponent = np.sign(x) * (np.int64(1) << np.maximum(bit_length(x) - 1, emin))
        y = exponent << t
        assert (nearest(nearest(y + x, carrier) - y, carrier) == want).all(), t
        if 2 * t >= carrier + 1:
            y = np.sign(x) * np.maximum(np.abs(x), 3 << emin - 1) << t
            assert (nearest(y - nearest(y - x, carrier), carrier) == want).all(), t


@pytest.mark.parametrize("p", range(2, 7))
def test_theorem_3_growth_to_nearest_is_twice_the_addend_and_no_less(p: int) -> None:
    s = np.arange(2 ** (p - 1), 2**p)[:, None, None] << 8
    x = np.arange(-(2 ** (p + 9)), 2 ** (p + 9))
    s, x = (y.ravel() for y in np.broadcast_arrays(s, x))
    grown = np.abs(nearest(s + x, p)) - np.abs(s)
    assert (grown <= 2 * np.abs(x)).all()
    assert (grown == 2 * np.abs(x))[x != 0].any()


def test_theorem_5_forms_without_underflow_fail_at_half_the_quantum() -> None:
    fmt = parse_float_format("fp16")
    quantum = fmt.smallest_subnormal
    for x, kept in ((3 * quantum, True), (1.5 * quantum, False)):
        g = F32(x * (2**13 - 1))
        s = F32(x * 2**13 - float(g))
        assert s == x
        assert (round_to_format(Fraction(x), fmt) == s) == kept


def test_theorem_5_names_the_formats_that_skip_underflow() -> None:
    for name, first in (("e5m2", 2), ("e4m3fn", 0), ("e5m2fnuz", 4)):
        product = parse_float_format(name).smallest_subnormal ** 2
        skips = [m for m in range(12) if product >= ps.FloatFormat(6, m).smallest_subnormal]
        assert skips == list(range(first, 12))


def used(acc: ps.Accumulator, a: NDArray[np.float32], b: NDArray[np.float32]) -> set[str]:
    d = np.empty((a.shape[0], b.shape[1]), dtype=np.float32)
    kernels = native.load().kernels()
    mask = native.load().gemm(native.rule(acc), a, b, None, d, 1, "avx512", 0)
    return {name for i, name in enumerate(kernels) if mask >> i & 1}


@AVX512
@pytest.mark.parametrize("p", [5, 8, 11, 12, 13])
def test_kernels_that_round_twice_are_chosen_by_theorem_1b_alone(p: int) -> None:
    rng = np.random.default_rng(0)
    for q in range(3, 16):
        # Odd numbers of q - 1 bits times ones, whose one bit the census counts as well; long enough, and over enough
        # binades, that the sums do not fit float32 as they are.
        a = rng.integers(2 ** (q - 3), 2 ** (q - 2), (4, 600)) * 2 + 1
        a = (a * 2.0 ** rng.integers(-20, 0, a.shape) * rng.choice([-1, 1], a.shape)).astype(np.float32)
        kernels = used(ps.Accumulator(ps.FloatFormat(8, p - 1)), a, np.ones((600, 4), np.float32))
        harmless = q <= p <= 12 and p + q <= 23
        assert kernels == ({"plain"} if harmless else {"odd"}), (p, q, kernels)
