"""Hypothesis strategies over bit patterns: numbers are drawn as integers, so that every corner is in reach."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import partialsum as ps

CORNERS = [
    *(0x00000000, 0x80000000, 0x00000001, 0x80000001, 0x007FFFFF, 0x807FFFFF, 0x00800000, 0x80800000),
    *(0x3F800000, 0xBF800000, 0x7F7FFFFF, 0xFF7FFFFF, 0x7F800000, 0xFF800000, 0x7FC00000, 0xFFFFFFFF, 0x7F800001),
]
"""Float32 patterns: zeros, subnormals, smallest normals, ones, largest numbers, infinities and NaNs."""


def float_of_bits(bits: int) -> float:
    """Return the float32 with the given 32-bit pattern (a NaN loses its payload)."""
    return float(np.uint32(bits).view(np.float32))


def float32_bits(*, special: bool = True) -> st.SearchStrategy[int]:
    """Any float32 pattern, the corners more often; ``special=False`` leaves NaN and infinity out."""
    patterns = st.integers(0, 2**32 - 1) | st.sampled_from(CORNERS)
    return patterns if special else patterns.filter(lambda bits: bits & 0x7F800000 != 0x7F800000)


def float32s(*, special: bool = True) -> st.SearchStrategy[float]:
    """Float32 values from arbitrary bit patterns."""
    return float32_bits(special=special).map(float_of_bits)


@st.composite
def near_ties(draw: st.DrawFn, fmt: ps.FloatFormat) -> float:
    """A float32 on, or one unit in the last place beside, a number of ``fmt`` or a midpoint of two."""
    exponent = draw(st.integers(fmt.min_exponent - 2, fmt.max_exponent + 1))
    steps = draw(st.integers(0, 2 ** (fmt.man_bits + 2)))
    quantum = math.ldexp(0.5, max(exponent, fmt.min_exponent) - fmt.man_bits)
    with np.errstate(over="ignore"):
        value = np.float32(steps * quantum)
    nudged = value.view(np.uint32).astype(np.int64) + draw(st.sampled_from([-1, 0, 0, 1]))
    pattern = int(np.clip(nudged, 0, 0x7F800000)) | draw(st.sampled_from([0, 0x80000000]))
    return float_of_bits(pattern)


@st.composite
def format_values(draw: st.DrawFn, fmt: ps.FloatFormat, *, special: bool = False) -> float:
    """A value of ``fmt``: sign, exponent and mantissa drawn as integers; with ``special`` also NaN and infinity."""
    if special and draw(st.integers(0, 15)) == 0:
        return draw(st.sampled_from([math.nan, math.inf, -math.inf] if fmt.has_infinity else [math.nan]))
    exponent = draw(st.integers(fmt.min_exponent, fmt.max_exponent))
    mantissa = draw(st.integers(0, 2**fmt.man_bits - 1))
    hidden = draw(st.sampled_from([0, 1, 1, 1])) if exponent == fmt.min_exponent else 1
    value = math.ldexp(hidden * 2**fmt.man_bits + mantissa, exponent - fmt.man_bits)
    value = 0.0 if 0 < value < fmt.smallest_subnormal else min(value, fmt.max)
    negative_zero = value == 0 and fmt.specials is ps.formats.Specials.FNUZ
    return value if negative_zero or draw(st.booleans()) else -value


def float_formats(
    *, max_man_bits: int = 23, specials: tuple[str, ...] = ("ieee", "fn", "fnuz", "dlfloat")
) -> st.SearchStrategy[ps.FloatFormat]:
    """A float format of any width and family (biases included) that the float32 carrier holds."""

    @st.composite
    def draw_format(draw: st.DrawFn) -> ps.FloatFormat:
        family = ps.formats.Specials(draw(st.sampled_from(specials)))
        exp_bits = draw(st.integers(2, 8))
        man_bits = draw(st.integers(1 if family in ("fn", "dlfloat") else 0, max_man_bits))
        try:
            return ps.FloatFormat(exp_bits, man_bits, draw(st.none() | st.integers(0, 130)), family)
        except ps.InputError:
            return ps.FloatFormat(min(exp_bits, 7), min(man_bits, 20), specials=family)

    return draw_format()


@st.composite
def accumulators(draw: st.DrawFn, formats: st.SearchStrategy[ps.FloatFormat] | None = None) -> ps.Accumulator:
    """Any floating-point accumulator: format, rounding, chunk, product rounding, policies, random bits and seed."""
    formats = float_formats() if formats is None else formats
    rounding = draw(st.sampled_from(list(ps.Rounding)))
    stochastic = rounding is ps.Rounding.STOCHASTIC
    return ps.Accumulator(
        draw(formats),
        rounding,
        chunk=draw(st.none() | st.integers(1, 9)),
        product=draw(st.none() | formats),
        overflow=draw(st.sampled_from(list(ps.Overflow))),
        subnormals=draw(st.booleans()),
        random_bits=draw(st.none() | st.integers(1, 32)) if stochastic else None,
        seed=draw(st.integers(0, 2**64 - 1)) if stochastic else 0,
    )


@st.composite
def aligned_accumulators(draw: st.DrawFn) -> ps.AlignedAccumulator:
    """Any matrix unit, the presets included."""
    units = [acc for acc in ps.ACCUMULATORS.values() if isinstance(acc, ps.AlignedAccumulator)]
    presets = [acc for acc in units if acc.dot == 1]
    if draw(st.booleans()):
        return draw(st.sampled_from(presets))
    group, promote = draw(st.integers(1, 16)), draw(st.none() | st.integers(1, 4))
    bits, join = draw(st.integers(1, 35)), draw(st.none() | st.integers(0, 5))
    return ps.AlignedAccumulator(
        bits,
        2 * group,
        draw(st.sampled_from(["toward_zero", "down"])),
        ps.FloatFormat(8, draw(st.integers(2, 23))),
        min_exponent=draw(st.none() | st.integers(-140, -120)),
        promote_every=None if promote is None else 2 * group * promote,
        result_rounding=draw(st.sampled_from(["toward_zero", "nearest_even"])),
        interleave=1 if join is None else draw(st.sampled_from([1, 2])),
        join_bits=None if join is None else bits + join,
    )


def integer_accumulators() -> st.SearchStrategy[ps.IntegerAccumulator]:
    """Any integer register."""
    return st.builds(ps.IntegerAccumulator, st.integers(2, 64), st.sampled_from(["wrap", "saturate"]))


def matrices(m: int, n: int, elements: st.SearchStrategy[Any]) -> st.SearchStrategy[np.ndarray]:
    """A float32 matrix ``[m, n]`` of drawn elements."""
    return hnp.arrays(np.float32, (m, n), elements=elements)


@st.composite
def gemm_operands(
    draw: st.DrawFn, elements: st.SearchStrategy[float], *, max_mn: int = 4, max_k: int = 24
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """``(a, b, c)`` of matching small shapes, k = 0 included; ``c`` is sometimes None."""
    m, n, k = draw(st.integers(1, max_mn)), draw(st.integers(1, max_mn)), draw(st.integers(0, max_k))
    c = draw(st.none() | matrices(m, n, elements))
    return draw(matrices(m, k, elements)), draw(matrices(k, n, elements)), c
