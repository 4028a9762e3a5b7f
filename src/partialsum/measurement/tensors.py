"""Streaming statistics of operands and of products: density, moments, and the exponents they span."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[np.float64]

_SAMPLE = 1 << 13
_LOWEST, _HIGHEST = -160, 140
"""Exponents that float32 numbers, and products of two of a narrow format, can have."""


@dataclass(frozen=True, slots=True)
class TensorStats:
    """What a tensor's numbers are like. Moments are over all of them, zeros included; kurtosis 3 is a normal's.

    ``density``: share that is not zero. ``exponents``: of the smallest and the largest magnitude that is not zero,
    None where all were zero. ``exp_bits``: exponent bits of a format that holds them all as normal numbers, with the
    best bias.
    """

    density: float
    mean: float
    std: float
    kurtosis: float
    exponents: tuple[int, int] | None

    @property
    def exp_bits(self) -> int:
        """Exponent bits that the exponents need, two codes being taken by zero and infinity."""
        if self.exponents is None:
            return 1
        low, high = self.exponents
        return max(1, (high - low + 2).bit_length())

    def to_dict(self) -> dict[str, Any]:
        """Return the statistics under the names of the JSON document."""
        return {
            "density": self.density,
            "mean": self.mean,
            "std": self.std,
            "kurtosis": self.kurtosis,
            "exponents": None if self.exponents is None else list(self.exponents),
            "exp_bits": self.exp_bits,
        }


class NumberSums:
    """Power sums and exponents of numbers, of any number of tensors one after the other."""

    def __init__(self) -> None:
        self.powers = np.zeros(6)
        self.exponents = [_HIGHEST, _LOWEST]

    def add(self, x: Array) -> None:
        """Add numbers."""
        square = x * x
        nonzero = np.count_nonzero(x)
        self.powers += [x.size, nonzero, x.sum(), square.sum(), square @ x, square @ square]
        if nonzero:
            magnitude = np.abs(x if nonzero == x.size else x[x != 0])
            self.see(float(magnitude.min()), float(magnitude.max()))

    def add_powers(self, powers: Array) -> None:
        """Add sums of count, non-zero count, and first to fourth powers."""
        self.powers += powers

    def see(self, smallest: float, largest: float) -> None:
        """Learn of magnitudes that are not zero."""
        low, high = (int(np.frexp(x)[1]) - 1 for x in (smallest, largest))
        self.exponents = [min(self.exponents[0], low), max(self.exponents[1], high)]

    @property
    def mean(self) -> float:
        """Mean of all numbers."""
        return float(self.powers[2] / max(1.0, self.powers[0]))

    @property
    def variance(self) -> float:
        """Variance of all numbers."""
        return max(0.0, float(self.powers[3] / max(1.0, self.powers[0])) - self.mean**2)

    def stats(self) -> TensorStats:
        """Return what was learnt."""
        count = max(1.0, self.powers[0])
        one, two, three, four = (float(power / count) for power in self.powers[2:])
        variance = self.variance
        central = four - 4 * one * three + 6 * one * one * two - 3 * one**4
        kurtosis = central / variance**2 if variance > 0 else float("nan")
        low, high = self.exponents
        return TensorStats(
            float(self.powers[1] / count), one, variance**0.5, kurtosis, (low, high) if low <= high else None
        )

    def state(self) -> Any:
        """Return everything, as lists."""
        return [self.powers.tolist(), self.exponents]

    def load(self, state: Any) -> None:
        """Continue from :meth:`state`."""
        self.powers, self.exponents = np.asarray(state[0], dtype=np.float64), [int(x) for x in state[1]]


class Magnitudes:
    """Largest finite magnitudes of tensors: those of ``lasting`` ones (parameters) and of the last few are remembered.

    A layer's weight, and the gradient of its output, are operands of two passes each.
    """

    def __init__(self, lasting: Iterable[Tensor] = ()) -> None:
        self._lasting = {x.untyped_storage().data_ptr(): x for x in lasting}
        self._known: dict[Any, float] = {}
        self._recent: deque[tuple[Any, Tensor, float]] = deque(maxlen=2)

    def of(self, x: Tensor) -> float:
        """Return the largest finite magnitude in a tensor, 0 for an empty one."""
        if x.is_inference():
            return _largest(x)
        storage = x.untyped_storage().data_ptr()
        key = (storage, x.storage_offset(), x._version, *sorted(zip(x.shape, x.stride(), strict=True)))
        if storage in self._lasting:
            if key not in self._known:
                self._known[key] = _largest(x)
            return self._known[key]
        for seen, _, largest in self._recent:  # kept alive, so that nothing else lies at its address
            if seen == key:
                return largest
        self._recent.append((key, x, _largest(x)))
        return self._recent[-1][2]

    def forget(self) -> None:
        """Let go of the tensors seen last."""
        self._recent.clear()


def _largest(x: Tensor) -> float:
    if not x.numel():
        return 0.0
    low, high = (float(end) for end in torch.aminmax(x))
    largest = max(abs(low), abs(high))
    return largest if np.isfinite(largest) else 0.0


def sample_numbers(x: Tensor, rng: np.random.Generator) -> Array:
    """Return some numbers of a tensor as float64: all of a small one, else evenly spaced ones from a random start."""
    order = sorted(range(x.dim()), key=x.stride, reverse=True)
    narrow = x if x.dtype is torch.float32 else x.float()  # numpy knows no bfloat16
    flat = narrow.detach().numpy().transpose(order).reshape(-1)
    step = -(-flat.size // _SAMPLE)
    if step > 1:
        step |= 1  # an odd step visits every column of a matrix whose rows are a power of two long
        flat = flat[int(rng.integers(step)) :: step]
    return flat.astype(np.float64)


def mantissa_bits(x: NDArray[Any]) -> int:
    """Return how many mantissa bits the float32 numbers of an array use, at most: 2 for (1,5,2)."""
    codes = np.ascontiguousarray(x, dtype=np.float32).view(np.uint32) & np.uint32(0x7FFFFF)
    used = int(np.bitwise_or.reduce(codes, axis=None)) if codes.size else 0
    return 23 - ((used & -used).bit_length() - 1) if used else 0
