"""The checks that every function of the theory makes on its numbers, each failing with one sentence."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from partialsum.errors import InputError

Floats = npt.NDArray[np.float64]

MAX_LENGTH = 10**12
"""Longest accumulation the closed forms are computed, and tested, for."""

MAX_MAN_BITS = 64
"""Widest register or product that is considered, in stored mantissa bits."""


def whole_numbers(value: npt.ArrayLike, argument: str, low: int, high: int, unit: str = "") -> Floats:
    """Return ``value`` as float64 whole numbers; :class:`InputError` unless all lie in ``low`` to ``high``."""
    array = np.asarray(value)
    if array.dtype == object and all(type(number) is int for number in array.flat):
        # integers beyond 64 bits, which the range refuses in words
        array = array.astype(np.float64)
    expected = f"{argument} must be {'a whole number' if array.ndim == 0 else 'whole numbers'}{unit}"
    expected += f" from {low} to {_readable(high)}"
    if array.dtype.kind not in "iuf":
        raise InputError(f"{expected}, got {value!r}")
    numbers = array.astype(np.float64)
    wrong = ~((numbers >= low) & (numbers <= high) & (numbers == np.floor(numbers)))
    if wrong.any():
        raise InputError(f"{expected}, got {_shown(array[wrong].flat[0].item())}")
    return numbers


def single(numbers: Floats, argument: str) -> Floats:
    """Return ``numbers`` if it is one number; :class:`InputError` where several were given."""
    if numbers.ndim:
        raise InputError(f"{argument} must be one number, got {numbers.size} of them")
    return numbers


def lengths(k: npt.ArrayLike) -> Floats:
    """Return accumulation lengths as float64."""
    return whole_numbers(k, "k", 1, MAX_LENGTH)


def mantissa_bits(value: npt.ArrayLike, argument: str) -> Floats:
    """Return mantissa widths as float64."""
    return whole_numbers(value, argument, 0, MAX_MAN_BITS, " of stored bits")


def chunks(chunk: npt.ArrayLike | None) -> Floats:
    """Return chunk sizes as float64; None, no chunking, is one chunk that holds every length."""
    return np.asarray(np.inf) if chunk is None else whole_numbers(chunk, "chunk", 1, MAX_LENGTH)


def densities(density: npt.ArrayLike) -> Floats:
    """Return shares of non-zero products as float64."""
    array = np.asarray(density)
    numbers = array.astype(np.float64) if array.dtype.kind in "iuf" else np.full(array.shape, np.nan)
    wrong = ~((numbers > 0.0) & (numbers <= 1.0))
    if wrong.any():
        given = array[wrong].flat[0]
        raise InputError(
            f"density must be above 0 and at most 1, got {_shown(getattr(given, 'item', lambda: given)())}"
        )
    return numbers


def log_cutoff(cutoff: float) -> float:
    """Return ln of the cutoff that the normalised variance lost is compared with."""
    number = cutoff if isinstance(cutoff, int | float | np.number) and not isinstance(cutoff, bool) else math.nan
    if not 1.0 < float(number) < math.inf:
        raise InputError(f"cutoff must be a finite number above 1, got {_shown(cutoff)}")
    return math.log(float(number))


def target_snr_db(value: float) -> float:
    """Return a signal-to-noise ratio to keep, in dB: 0 to 140."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not 0.0 < float(value) <= 140.0:
        raise InputError(f"target_snr_db must be a number of dB above 0 and at most 140, got {_shown(value)}")
    return float(value)


def _readable(bound: int) -> str:
    return f"10^{round(math.log10(bound))}" if bound >= 10**6 else str(bound)


def _shown(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else repr(value)
