"""Integer registers: the widths that cannot overflow, and the width that hardly ever does.

The bounds are those of A2Q (Colbert et al., ICCV 2023, arXiv 2308.13504, §3): a register of P bits, two's complement,
holds every sum whose magnitude is below 2^(P−1). With inputs of N bits and weights of M,

* data types: |sum| ≤ 2^α, α = log2 K + N + M − 1 − 1[inputs signed], so P ≥ α + φ(α) + 1;
* weights: |sum| ≤ 2^β, β = log2 ‖w‖₁ + N − 1[inputs signed] with the norm of an output channel's integer weights,
  so P ≥ β + φ(β) + 1,

φ(a) = log2(1 + 2^−a). Both are computed in whole numbers here: P − 1 is the bit length of the largest sum. For floating
point the same question is how wide a fixed-point (Kulisch) register is that holds every sum exactly.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from partialsum.accumulators import IntegerAccumulator
from partialsum.errors import InputError
from partialsum.formats import FixedFormat, FloatFormat, Format, IntFormat, parse_format
from partialsum.theory import arguments
from partialsum.theory.products import ProductLaw

USUAL_PROBABILITY = 1e-9
"""Of an overflow, where none is given: about one sum of a billion."""

_WIDEST = 64
"""Bits of the widest integer register there is."""


def datatype_bits(k: int, inputs: str | Format, weights: str | Format | None = None) -> int:
    """Return the bits of a register in which no sum of ``k`` products can overflow, whatever the values.

    Integers and fixed point: A2Q's data-type bound, ``weights`` (default: as ``inputs``) being signed. Floating point:
    the fixed-point register that holds every such sum exactly. Raises :class:`InputError` for block formats.
    """
    length = int(arguments.single(arguments.lengths(k), "k"))
    first = parse_format(inputs)
    largest = _largest(first) * _largest(first if weights is None else parse_format(weights))
    return _register_bits(length * largest)


def weight_bits(l1_norm: npt.ArrayLike, inputs: str | Format) -> npt.NDArray[np.int64]:
    """Return, for each ‖w‖₁ of an output channel's integer weights, the bits in which no input can overflow (A2Q)."""
    record = parse_format(inputs)
    if not isinstance(record, IntFormat | FixedFormat):
        raise InputError(f"inputs must be an integer or fixed-point format, got {record}")
    norms = np.asarray(l1_norm)
    if norms.dtype.kind not in "iuf" or not np.isfinite(norms).all() or (norms < 0).any():
        raise InputError(f"l1_norm must be non-negative numbers, got {l1_norm!r}")
    scale = _largest(record)
    bits = [_register_bits(int(np.ceil(norm)) * scale) for norm in norms.ravel().tolist()]
    return np.array(bits, dtype=np.int64).reshape(norms.shape)


def largest_l1_norm(bits: int, inputs: str | Format) -> float:
    """Return the largest ‖w‖₁ with which a register of ``bits`` cannot overflow: A2Q's constraint on training."""
    record = parse_format(inputs)
    if not isinstance(record, IntFormat | FixedFormat):
        raise InputError(f"inputs must be an integer or fixed-point format, got {record}")
    register = IntegerAccumulator(bits)
    return float(2 ** (register.bits - 1) - 1) / _largest(record)


def likely_bits(k: int, law: ProductLaw, probability: float = USUAL_PROBABILITY) -> int | None:
    """Return the fewest bits of which sums of ``k`` integer products overflow at most so often; None beyond 64.

    The statistical prediction for independent products that follow ``law``.
    """
    from partialsum.theory.predict import predict

    if not 0 < probability < 1:
        raise InputError(f"probability must be between 0 and 1, got {probability}")

    def enough(bits: int) -> bool:
        return float(predict(k, IntegerAccumulator(bits), law).overflow_probability) <= probability

    low, high = 1, _WIDEST  # low is too narrow
    if not enough(high):
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def _register_bits(largest: int) -> int:
    """Return P with ``largest`` ≤ 2^(P−1) − 1."""
    return max(largest.bit_length() + 1, 2)


def _largest(record: Format) -> int:
    """Return the largest magnitude in quanta, as A2Q counts it: 2^N of an unsigned integer."""
    if isinstance(record, IntFormat):
        return int(2 ** (record.bits - record.signed))
    if isinstance(record, FixedFormat):
        return int(2 ** (record.bits - 1))
    if isinstance(record, FloatFormat):
        return int(record.max / record.smallest_subnormal)
    raise InputError(f"a block format has no largest sum of its own, got {record}; ask for its elements")
