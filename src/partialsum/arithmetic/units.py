"""Matrix units and integer registers as the native kernels need them."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from partialsum.accumulators import (
    Accumulator,
    AlignedAccumulator,
    AnyAccumulator,
    DotAccumulator,
    IntegerAccumulator,
    IntegerOverflow,
    Rounding,
)
from partialsum.arithmetic import native
from partialsum.errors import InputError
from partialsum.formats import BlockFormat, FloatFormat, Format

_LARGEST_INTEGER = 2.0**30
"""Below it products, and sums of two of them, stay far inside the 64 bits that the kernel computes in."""
_WIDEST_SATURATING = 62
_PART = 1 << 16

Register = dict[str, Any]
"""Keyword arguments of the native ``gemm`` that say which accumulator sums."""


def register(acc: AnyAccumulator, formats: tuple[Format | None, Format | None]) -> Register:
    """Return the native records of ``acc`` for operands in ``formats`` (None: any float32)."""
    if isinstance(acc, Accumulator):
        return {"rule": native.rule(acc)}
    if isinstance(acc, IntegerAccumulator):
        return {"rule": no_rule(), "integer": _integer_rule(acc)}
    if isinstance(acc, DotAccumulator):
        raise InputError(f"accumulator {acc} has no kernel for these operands; move CUDA tensors to the CPU")
    return {"rule": no_rule(), "unit": unit_rule(acc, min_exponent(formats[0]), min_exponent(formats[1]))}


def min_exponent(fmt: Format | None) -> int:
    """Return the smallest exponent of an operand's format, which a matrix unit aligns subnormals by."""
    return fmt.min_exponent if isinstance(fmt, FloatFormat) else -126


def element_of(fmt: Format | None) -> Format | None:
    """Return the format of the elements that share a power-of-two scale, or the format itself."""
    return fmt.element if isinstance(fmt, BlockFormat) and isinstance(fmt.scale, str) else fmt


@functools.lru_cache(maxsize=1)
def no_rule() -> Any:
    """Return the native record that stands where no floating-point accumulator sums."""
    return native.rule(Accumulator(FloatFormat(8, 23)))


@functools.lru_cache(maxsize=256)
def _integer_rule(acc: IntegerAccumulator) -> Any:
    return native.load().IntegerRule(bits=acc.bits, saturates=acc.overflow is IntegerOverflow.SATURATE)


@functools.lru_cache(maxsize=256)
def unit_rule(acc: AlignedAccumulator, a_min_exponent: int, b_min_exponent: int) -> Any:
    """Return the native record of a unit, for operands of formats with these smallest exponents."""
    return native.load().UnitRule(
        fraction_bits=acc.fraction_bits,
        group=acc.group,
        cuts_down=acc.alignment is Rounding.DOWN,
        min_exponent=acc.min_exponent,
        join_bits=acc.join_bits,
        interleave=acc.interleave,
        promote_every=acc.promote_every or 0,
        result_man_bits=acc.result.man_bits,
        result_min_exponent=acc.result.min_exponent,
        result_largest=acc.result.max,
        result_nearest=acc.result_rounding is Rounding.NEAREST_EVEN,
        a_min_exponent=a_min_exponent,
        b_min_exponent=b_min_exponent,
        product_limit=math.inf if acc.join_bits is None else 2.0**128,
    )


def check_integers(x: NDArray[np.float32], argument: str) -> None:
    """Raise :class:`InputError` unless every element is an integer."""
    for part in _parts(x):
        # A NaN differs from itself; only an infinity passes that and spoils the difference of the ends.
        if not (part == np.trunc(part)).all() or not math.isfinite(float(part.max()) - float(part.min())):
            odd = ~np.isfinite(part) | (part != np.trunc(part))
            raise InputError(f"{argument} must hold integers for an IntegerAccumulator, got {part[odd][0]}")


def integers_fit(acc: IntegerAccumulator, *operands: NDArray[np.float32] | None) -> bool:
    """Return whether 64-bit arithmetic is exact for these operands and this register."""
    parts = (part for x in operands if x is not None for part in _parts(x))
    largest = max((max(float(part.max()), -float(part.min())) for part in parts), default=0.0)
    narrow = acc.overflow is IntegerOverflow.WRAP or acc.bits <= _WIDEST_SATURATING
    return largest < _LARGEST_INTEGER and narrow


def _parts(x: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
    """Yield views that cover ``x``, each small enough to be copied."""
    if x.size <= _PART:
        if x.size:
            yield x
    elif len(x) == 1:
        yield from _parts(x[0])
    else:
        half = len(x) // 2
        yield from _parts(x[:half])
        yield from _parts(x[half:])
