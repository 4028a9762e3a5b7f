"""Which accumulators are tried on every sampled sum, and trying them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
from numpy.typing import NDArray

from partialsum.accumulators import Accumulator, AnyAccumulator, IntegerAccumulator, Rounding, parse_accumulator
from partialsum.arithmetic import native
from partialsum.arithmetic.many import gemm_many
from partialsum.choices import parse_choice
from partialsum.emulation.session import derive_seed
from partialsum.errors import InputError
from partialsum.formats import FloatFormat

Floats = NDArray[np.float32]
Array = NDArray[np.float64]
_ONE_GROUP = 2
_MOST = 512


@dataclass(frozen=True, slots=True)
class Sweep:
    """Accumulators (1, exp_bits, m) for every width m, rounding and chunk length; chunk 0 adds plainly.

    Eight exponent bits keep the range out of it: what the range needs is measured by itself.

    Raises:
        InputError: For widths, chunks or roundings that no accumulator can have, or none at all.
    """

    man_bits: tuple[int, ...] = tuple(range(4, 15))
    chunks: tuple[int, ...] = (0, 64)
    roundings: tuple[Rounding, ...] = (Rounding.NEAREST_EVEN, Rounding.TOWARD_ZERO)
    exp_bits: int = 8

    def __post_init__(self) -> None:
        for name in ("man_bits", "chunks", "roundings"):
            values = getattr(self, name)
            single = isinstance(values, int | str)
            object.__setattr__(self, name, tuple(dict.fromkeys((values,) if single else values)))
            if not getattr(self, name):
                raise InputError(f"{name} of a sweep must name at least one, got none")
        object.__setattr__(self, "roundings", tuple(parse_choice(Rounding, r, "roundings") for r in self.roundings))
        for name, least in (("man_bits", 1), ("chunks", 0)):
            for value in getattr(self, name):
                if type(value) is not int or value < least:
                    raise InputError(f"{name} of a sweep must be integers of at least {least}, got {value!r}")
        object.__setattr__(self, "man_bits", tuple(sorted(self.man_bits)))

    def accumulators(self) -> tuple[Accumulator, ...]:
        """Return them all: by rounding, then chunk, then width."""
        return tuple(
            Accumulator(FloatFormat(self.exp_bits, bits), rounding, chunk=chunk or None)
            for rounding, chunk, bits in product(self.roundings, self.chunks, self.man_bits)
        )


def parse_accumulators(value: Sweep | Iterable[str | AnyAccumulator] | None) -> tuple[AnyAccumulator, ...]:
    """Return the accumulators to try: the default sweep, a sweep's, or the ones named.

    Raises :class:`InputError` for none, for too many, for one named twice, and for integer registers, which cannot
    hold products of scaled operands.
    """
    if value is None or isinstance(value, Sweep):
        return (value or Sweep()).accumulators()
    names = [value] if isinstance(value, str) else list(value)
    records = [parse_accumulator(name) for name in names]
    if not 1 <= len(records) <= _MOST:
        raise InputError(f"accumulators must name 1 to {_MOST} accumulators, got {len(records)}")
    for record in records:
        if isinstance(record, IntegerAccumulator):
            raise InputError(f"accumulators must be floating-point, got {record}")
        if records.count(record) > 1:
            raise InputError(f"accumulators must name each accumulator once, got {record} twice")
    return tuple(records)


class Runner:
    """Sums tiles under many accumulators, where they are large in several threads."""

    def __init__(self, accumulators: Sequence[AnyAccumulator]) -> None:
        self.accumulators = tuple(accumulators)
        self._pool: ThreadPoolExecutor | None = None

    @contextmanager
    def running(self) -> Iterator[None]:
        """Hold the threads while inside."""
        with ThreadPoolExecutor(native.num_threads()) as pool:
            self._pool = pool
            try:
                yield
            finally:
                self._pool = None

    def sums(self, a: Floats, b: Floats, seed: int, only: Sequence[int] | None = None) -> tuple[Floats, Array]:
        """Return ``a[t, r, k] @ b[t, k, c]`` under each accumulator (or ``only`` some), and exactly.

        The first is [accumulators, t, r, c], the second, in float64, [t, r, c].
        """
        chosen = range(len(self.accumulators)) if only is None else only
        tried = [_seeded(self.accumulators[index], seed, index) for index in chosen]
        return gemm_many(a, b, tried, self._pool)


def _seeded(accumulator: AnyAccumulator, seed: int, index: int) -> AnyAccumulator:
    if isinstance(accumulator, Accumulator) and accumulator.rounding is Rounding.STOCHASTIC:
        return replace(accumulator, seed=derive_seed(seed, index))
    return accumulator
