"""Predictions as rows: what sums keep in an accumulator, beside what the closed formula says of its width."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from partialsum.accumulators import Accumulator, AlignedAccumulator, AnyAccumulator, Rounding
from partialsum.formats import Format, parse_format, product_man_bits
from partialsum.report.snr_rows import told_db
from partialsum.theory.arguments import MAX_LENGTH
from partialsum.theory.predict import Prediction, predict
from partialsum.theory.variance import vrr

COLUMNS = ("vrr", "snr_db", "gain", "bias", "overflow_probability")
"""What a prediction says of each length."""

_PROMOTIONS = (128, 512, 2048)


@dataclass(frozen=True, slots=True)
class Summands:
    """What is summed: products as :func:`partialsum.theory.products.parse_product` reads them, and their statistics.

    ``density`` is the share that is not zero, ``mean`` the mean of the others in their standard deviations, ``kappa``
    Var(exact sum) over that of independent products.
    """

    product: str = "e5m2"
    density: float = 1.0
    mean: float = 0.0
    kappa: float = 1.0

    @property
    def formats(self) -> tuple[Format, Format] | None:
        """The formats of both operands, None where one is not quantised."""
        names = [factor.rpartition(":")[2].strip() for factor in self.product.lower().split("*")]
        if "exact" in names:
            return None
        return parse_format(names[0]), parse_format(names[-1])

    def predict(self, k: Sequence[int] | npt.NDArray[np.int64], accumulator: AnyAccumulator) -> Prediction:
        """Return the prediction for sums of ``k`` of these products."""
        options = {"density": self.density, "mean": self.mean, "kappa": self.kappa}
        return predict(np.asarray(k), accumulator, self.product, **options)

    def __str__(self) -> str:
        parts = [f"{self.product} products"]
        parts += [
            f"{name} {value:g}{unit}"
            for name, value, usual, unit in (
                ("density", self.density, 1.0, ""),
                ("mean", self.mean, 0.0, "σ"),
                ("κ", self.kappa, 1.0, ""),
            )
            if value != usual
        ]
        return ", ".join(parts)


def prediction_rows(k: Sequence[int], accumulator: AnyAccumulator, summands: Summands) -> list[dict[str, Any]]:
    """Return a row per length; ``snr_db`` is None where no error can be told, ``formula_vrr`` where none applies."""
    prediction = summands.predict(k, accumulator)
    formula = formula_vrr(k, accumulator, summands)
    rows = []
    for position, length in enumerate(k):
        row: dict[str, Any] = {"k": length}
        for name in COLUMNS:
            value = float(np.asarray(getattr(prediction, name))[position])
            row[name] = told_db(value) if name == "snr_db" else value
        rows.append(row | {"formula_vrr": formula[position]})
    return rows


def formula_vrr(k: Sequence[int], accumulator: AnyAccumulator, summands: Summands) -> list[float | None]:
    """Return the VRR of arXiv 1901.06588 at each length, which knows neither rounding modes nor matrix units."""
    formats = summands.formats
    if not isinstance(accumulator, Accumulator) or formats is None:
        return [None] * len(k)
    bits = product_man_bits(*formats)
    if accumulator.product is not None:
        bits = min(bits, accumulator.product.man_bits)
    settings = (accumulator.man_bits, bits, accumulator.chunk, summands.density)
    return [vrr(length, *settings) if length <= MAX_LENGTH else None for length in k]


def relatives(accumulator: AnyAccumulator) -> list[tuple[str, AnyAccumulator]]:
    """Return the accumulator and others to see beside it, by name: its roundings, or its promotion intervals."""
    if isinstance(accumulator, Accumulator):
        own = accumulator.rounding
        modes = dict.fromkeys([own, Rounding.NEAREST_EVEN, Rounding.STOCHASTIC, Rounding.TOWARD_ZERO])
        return [(str(mode), accumulator if mode is own else _rounded(accumulator, mode)) for mode in modes]
    if isinstance(accumulator, AlignedAccumulator):
        steps = dict.fromkeys([accumulator.promote_every, None, *_PROMOTIONS])
        return [
            ("no promotion" if step is None else f"promoted every {step}", replace(accumulator, promote_every=step))
            for step in steps
            if step is None or step % accumulator.group == 0
        ]
    return [(str(accumulator), accumulator)]


def _rounded(accumulator: Accumulator, mode: Rounding) -> Accumulator:
    return replace(accumulator, rounding=mode, random_bits=None)
