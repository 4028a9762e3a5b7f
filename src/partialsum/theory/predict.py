"""What a length-k sum keeps in a given accumulator: the rounding-aware prediction (``ps.predict``)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from partialsum.accumulators import AnyAccumulator, parse_accumulator
from partialsum.errors import InputError
from partialsum.formats import Format
from partialsum.theory.evolution import Moments
from partialsum.theory.piecewise import PiecewiseLaw
from partialsum.theory.products import Operand, ProductLaw, parse_product, product_law
from partialsum.theory.sums import sum_moments

Product = str | Format | ProductLaw | tuple[Operand, Operand]
MAX_LENGTH = 10**15


@dataclass(frozen=True)
class Prediction:
    """What is left of sums of ``k`` products; scalars for a scalar ``k``, else arrays of its shape.

    ``vrr``: variance of the computed sum over that of the exact one. ``gain``: the share of the true signal in it,
    Cov(computed, exact) / Var(exact). ``snr_db``: 10·log10 of Var(exact) over the mean squared error, bias included.
    ``bias``: mean error in standard deviations of the exact sum. ``overflow_probability`` counts sums that left the
    range; all else is about those that did not. Integer registers show their wrong sums like any others: there these
    count, and the probability is that of a wrong sum. ``mean`` and ``std`` are those of the exact sum, in the
    products' units.
    """

    k: int | NDArray[np.int64]
    accumulator: AnyAccumulator
    product: str
    vrr: float | NDArray[np.float64]
    snr_db: float | NDArray[np.float64]
    gain: float | NDArray[np.float64]
    bias: float | NDArray[np.float64]
    overflow_probability: float | NDArray[np.float64]
    mean: float | NDArray[np.float64]
    std: float | NDArray[np.float64]
    kappa: float = 1.0
    method: str = "evolution"


def predict(
    k: ArrayLike,
    accumulator: str | AnyAccumulator,
    product: Product | PiecewiseLaw = "e5m2",
    *,
    density: float = 1.0,
    mean: float = 0.0,
    kappa: float = 1.0,
) -> Prediction:
    """Predict what sums of ``k`` products keep in ``accumulator``, whatever it rounds like.

    Args:
        k: accumulation length, 1 to 10^15; an array gives arrays. One evolution serves all lengths.
        accumulator: a record or a name such as ``"e6m9,toward_zero,chunk=64"`` or ``"h100-fp8"``.
        product: what is summed. A format means the product of two independent standard normals quantised to it,
            ``"relu:e4m3fn*e5m2"`` and the like name others (:func:`partialsum.theory.products.parse_product`), or a
            :class:`~partialsum.theory.products.ProductLaw`, for example a measured histogram; all of these mean
            independent products. A :class:`~partialsum.theory.piecewise.PiecewiseLaw` knows how products change along
            real sums: the prediction (a :class:`~partialsum.theory.montecarlo.Simulation`) is then of its sums' first
            ``k`` products, and ``density``, ``mean`` and ``kappa`` are its own.
        density: share of products that are not zero.
        mean: mean of a (non-zero) product in its standard deviations, made by shifting both normal operands.
        kappa: how much less than independent products the exact sums vary, Var(exact) / (k·Var(product)). The noise
            is that of independent products.

    Raises:
        InputError: where an argument is impossible, in one sentence.
    """
    acc, lengths = parse_accumulator(accumulator), check_lengths(k)
    if not (math.isfinite(kappa) and kappa > 0):
        raise InputError(f"kappa must be positive, got {kappa}")
    if isinstance(product, PiecewiseLaw):
        if (density, mean, kappa) != (1.0, 0.0, 1.0):
            raise InputError("density, mean and kappa are a piecewise law's own and cannot be given beside it")
        from partialsum.theory.drawing import drawn_predictions

        return drawn_predictions(lengths, [acc], product)[0]
    law = resolve_product(product, density, mean)
    moments = sum_moments(acc, law, lengths.astype(np.float64).ravel())
    return _prediction(lengths, acc, law, moments, kappa)


def check_lengths(k: ArrayLike) -> NDArray[np.int64]:
    """Return accumulation lengths as an array of integers; raises :class:`InputError` for anything else."""
    lengths = np.asarray(k)
    if lengths.dtype.kind not in "iu" or lengths.size == 0 or lengths.min() < 1 or lengths.max() > MAX_LENGTH:
        raise InputError(f"k must be whole numbers from 1 to 10**15, got {lengths.tolist()!r}")
    return lengths


def resolve_product(product: Product, density: float = 1.0, mean: float = 0.0) -> ProductLaw:
    """Return the law of products that a caller's argument means."""
    if isinstance(product, PiecewiseLaw):
        raise InputError(
            "product must be one law for all products here; a piecewise law is for predict, its .law for this"
        )
    if isinstance(product, ProductLaw):
        if mean:
            raise InputError("mean can only be given for a product named by its formats, not for a law")
        return product.with_density(density)
    if isinstance(product, str):
        return parse_product(product, mean).with_density(density)
    if isinstance(product, tuple):
        if len(product) != 2 or not all(isinstance(operand, Operand) for operand in product):
            raise InputError(f"product must be a name, a format, a law or a pair of operands, got {product!r}")
        return product_law(*product).with_density(density)
    return parse_product(str(product), mean).with_density(density)


def _prediction(
    lengths: NDArray[np.int64], acc: AnyAccumulator, law: ProductLaw, moments: Moments, kappa: float
) -> Prediction:
    n = moments.n
    signal = n * law.exact_variance
    with np.errstate(divide="ignore"):
        snr = 10 * np.log10(kappa * signal / moments.noise)
    columns = {
        "vrr": moments.variance / signal,
        "snr_db": snr,
        "gain": (moments.variance - moments.covariance) / signal,
        "bias": moments.bias / np.sqrt(signal),
        "overflow_probability": np.clip(moments.lost, 0.0, 1.0),
        "mean": n * law.exact_mean,
        "std": np.sqrt(kappa * signal),
    }
    shaped = {name: value.reshape(lengths.shape) for name, value in columns.items()}
    if lengths.ndim == 0:
        return Prediction(int(lengths), acc, law.name, kappa=kappa, **{n: float(v) for n, v in shaped.items()})  # type: ignore[arg-type]
    return Prediction(lengths, acc, law.name, kappa=kappa, **shaped)  # type: ignore[arg-type]
