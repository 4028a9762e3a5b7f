"""Which accumulators, products and lengths the explorer's page holds: every setting that its knobs can reach."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from partialsum.accumulators import PRESETS, Accumulator, AlignedAccumulator, AnyAccumulator, Rounding
from partialsum.errors import InputError
from partialsum.formats import FloatFormat, element_format
from partialsum.report.predictions import Summands
from partialsum.report.units import takes_operands

OCTAVES = (2, 24)
"""The lengths of the tables reach from 2^2 to 2^24, with four knots to the octave."""

EXP_BITS = 8
"""Exponent bits of the page's registers: no sum of these products leaves their range."""

ROUNDINGS = (Rounding.NEAREST_EVEN, Rounding.TOWARD_ZERO, Rounding.STOCHASTIC)
USUAL_INPUTS = ("e5m2", "e4m3fn", "bf16")
_UNIT_INPUTS = {
    "fp8": ("e4m3fn", "e5m2"),
    "fp16": ("fp16",),
    "bf16": ("bf16",),
    "fp4": ("nvfp4", "mxfp4"),
    "2018": ("e5m2",),
    "2024": ("e4m3fn", "e5m2"),
}
"""What the units of chips and papers are fed with, by the end of their names."""


def knots() -> NDArray[np.int64]:
    """Return the lengths at which the tables are filled."""
    first, last = OCTAVES
    return np.unique(np.round(2.0 ** (np.arange(4 * first, 4 * last + 1) / 4)).astype(np.int64))


@dataclass(frozen=True, slots=True)
class Curve:
    """One line of the tables: what sums of products of ``product`` keep in ``accumulator``."""

    accumulator: AnyAccumulator
    product: str

    @property
    def name(self) -> str:
        """What the line is stored under."""
        return f"{self.accumulator}|{self.product}"


@dataclass(frozen=True, slots=True)
class UnitAxis:
    """A named unit of the page, the products it is offered, and the promotion intervals (None: it never promotes)."""

    name: str
    accumulator: AnyAccumulator
    description: str
    source: str
    inputs: tuple[str, ...]
    intervals: tuple[int | None, ...]

    def at(self, interval: int | None) -> AnyAccumulator:
        """Return the unit with sums promoted to float32 after every ``interval`` products."""
        if interval is None or not isinstance(self.accumulator, AlignedAccumulator):
            return self.accumulator
        return replace(self.accumulator, promote_every=interval)


@dataclass(frozen=True, slots=True)
class Grid:
    """The page's axes: registers are every combination of the first four, units come beside.

    ``chunks`` holds the sizes that can be chosen (None: no chunks). All tables are for products none of which is zero.
    Sparser sums in registers are read at length and chunk times density, so the tables also hold the smaller chunks;
    ``densities`` is not for units.
    """

    inputs: tuple[str, ...] = USUAL_INPUTS
    man_bits: tuple[int, ...] = (*range(3, 15), 23)
    roundings: tuple[Rounding, ...] = ROUNDINGS
    chunks: tuple[int | None, ...] = (None, 16, 32, 64, 128, 256, 512, 1024)
    densities: tuple[float, ...] = (1.0, 0.5, 0.25)
    units: tuple[str, ...] = tuple(name for name in PRESETS if not name.endswith("tf32"))
    intervals: tuple[int | None, ...] = (None, 128, 256, 512, 1024)

    def __post_init__(self) -> None:
        if not self.inputs:
            raise InputError("inputs must name at least one format, got none")
        for text in self.inputs:
            if Summands(text).formats is None or ":" in text:
                raise InputError(f"inputs must be formats such as e5m2 or e4m3fn*e5m2, got {text!r}")
        if len(set(self.inputs)) < len(self.inputs):
            raise InputError(f"inputs name {max(self.inputs, key=self.inputs.count)!r} twice")

    @property
    def table_chunks(self) -> tuple[int | None, ...]:
        """Chunk sizes of the register tables: those of the page, and what sparse products leave of them."""
        sizes = {size for size in self.chunks if size is not None}
        sparse = {size * density for size in sizes for density in self.densities if size * density >= 1}
        whole = sorted({int(size) for size in sparse | sizes if size == int(size)})
        return (*((None,) if None in self.chunks else ()), *whole)

    def register(self, man_bits: int, rounding: Rounding, chunk: int | None) -> Accumulator:
        """Return one of the page's registers."""
        return Accumulator(FloatFormat(EXP_BITS, man_bits), rounding=rounding, chunk=chunk)

    def register_curves(self, product: str) -> list[Curve]:
        """Return the register tables of one product, in the order of the page's data: roundings, chunks, widths."""
        return [
            Curve(self.register(bits, rounding, chunk), product)
            for rounding, chunk, bits in itertools.product(self.roundings, self.table_chunks, self.man_bits)
        ]

    def unit_axes(self) -> list[UnitAxis]:
        """Return the units that can take any product of the page, those of the same make once, under the first name."""
        found: dict[AnyAccumulator, list[str]] = {}
        for name in self.units:
            if name not in PRESETS:
                raise InputError(f"unknown unit {name!r}")
            found.setdefault(PRESETS[name].accumulator, []).append(name)
        return [axis for names in found.values() if (axis := self._unit_axis(names)).inputs]

    def _unit_axis(self, names: Sequence[str]) -> UnitAxis:
        preset = PRESETS[names[0]]
        natural = dict.fromkeys(product for name in names for product in _UNIT_INPUTS[name.rpartition("-")[2]])
        given = (product for product in self.inputs if any(_takes(name, product) for name in names))
        acc = preset.accumulator
        steps = (
            tuple(step for step in self.intervals if step is None or step % acc.group == 0)
            if isinstance(acc, AlignedAccumulator)
            else (None,)
        )
        described = " = ".join(PRESETS[name].description for name in names)
        return UnitAxis(names[0], acc, described, preset.source, tuple(natural | dict.fromkeys(given)), steps)

    def unit_curves(self, unit: UnitAxis, product: str) -> list[Curve]:
        """Return the tables of one unit and product, by interval."""
        return [Curve(unit.at(interval), product) for interval in unit.intervals]

    def groups(self) -> Iterator[list[Curve]]:
        """Yield all curves, in groups that share their way: all chunks of a register, all intervals of a unit."""
        for product in self.inputs:
            for rounding, bits in itertools.product(self.roundings, self.man_bits):
                yield [Curve(self.register(bits, rounding, chunk), product) for chunk in self.table_chunks]
        for unit in self.unit_axes():
            yield from (self.unit_curves(unit, product) for product in unit.inputs)


def _takes(unit: str, product: str) -> bool:
    """Return whether products of two such numbers are what a unit is made for: as many bits as it takes, no fewer."""
    ending = unit.rpartition("-")[2]
    formats = [element_format(fmt) for fmt in Summands(product).formats or ()]
    if ending in ("2018", "2024"):  # recipes for FP8 training
        return all(isinstance(fmt, FloatFormat) and fmt.bits == 8 for fmt in formats)
    bits = int("".join(filter(str.isdigit, ending)))
    return all(fmt.bits == bits and takes_operands(unit, str(fmt)) for fmt in formats)
