"""GEMMs of matrix units that align nothing (``DotAccumulator``), in whole arrays; ``reference_dots.py`` defines them.

Float32 additions are the processor's own. An exact group is a sum of at most 17 float64 numbers, whose products are
exact there: error-free transformations bring them into a form in which the first number and the sign of the rest say
how the sum rounds.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from partialsum.accumulators import DotAccumulator

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
_SMALLEST = np.float32(2.0**-126)


def gemm_dots(
    a: Floats,
    b: Floats,
    acc: DotAccumulator,
    min_exponents: tuple[int, int],
    c: Floats | None,
    shape: tuple[int, ...],
) -> Floats:
    """Return ``c + a @ b`` of ``shape``, operands in formats of these smallest exponents already."""
    total = np.zeros(shape, np.float32) if c is None else np.array(np.broadcast_to(c, shape), np.float32)
    if not acc.subnormals:
        a, b, total = (_gone(x, low) for x, low in zip((a, b, total), (*min_exponents, -126), strict=True))
    k = a.shape[-1]
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        for first in range(0, k, acc.group):
            steps = range(first, min(first + acc.group, k))
            total = _exact_step(total, a, b, steps) if acc.exact else _paired_step(total, a, b, steps, acc)
    total[np.isnan(total)] = np.nan
    return total


def _gone(x: Floats, min_exponent: int) -> Floats:
    return np.where(np.abs(x) < np.float32(2.0**min_exponent), np.float32(0), x)


def _kept(x: Floats, acc: DotAccumulator) -> Floats:
    return x if acc.subnormals else np.where(np.abs(x) < _SMALLEST, np.copysign(np.float32(0), x), x)


def _paired_step(total: Floats, a: Floats, b: Floats, steps: range, acc: DotAccumulator) -> Floats:
    addends = [_kept(a[..., :, i, None] * b[..., None, i, :], acc) for i in steps]
    addends += [np.zeros((1, 1), np.float32)] * (acc.group - len(addends))
    while len(addends) > 1:
        addends = [_kept(x + y, acc) for x, y in zip(addends[::2], addends[1::2], strict=True)]
    return _kept(total + addends[0], acc)


def _exact_step(total: Floats, a: Floats, b: Floats, steps: range) -> Floats:
    left, right = a.astype(np.float64), b[..., steps.start : steps.stop, :].astype(np.float64)
    addends = [total.astype(np.float64)]
    addends += [left[..., :, i, None] * right[..., None, i - steps.start, :] for i in steps]
    whole = sum(addends[1:], start=addends[0])
    parts = _distilled(np.stack(np.broadcast_arrays(*addends)))
    return np.where(np.isfinite(whole), _rounded(parts), whole.astype(np.float32)).astype(np.float32)


def _distilled(parts: Doubles) -> Doubles:
    """Return numbers of the same exact sum, each less than half of the last place of the one before."""
    count = len(parts)
    for _ in range(count):
        for i in range(count - 1, 0, -1):
            high = parts[i - 1] + parts[i]
            part = high - parts[i - 1]
            low = (parts[i - 1] - (high - part)) + (parts[i] - part)
            parts[i - 1], parts[i] = high, low
    return parts


def _rounded(parts: Doubles) -> Floats:
    """Return the sum rounded once: its first part, made odd where the others are not zero, so that no tie appears."""
    high, rest = parts[0], np.zeros(parts.shape[1:])
    for part in parts[1:]:
        rest = np.where(rest == 0, part, rest)
    even = (high.view(np.int64) & 1) == 0
    odd = np.where((rest != 0) & even, np.nextafter(high, np.where(rest > 0, np.inf, -np.inf)), high)
    return np.where(high == 0, np.float32(0), odd.astype(np.float32))
