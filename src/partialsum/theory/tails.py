"""Tail probabilities of sums of many independent products, far out too: the saddle-point formula.

Source: R. Lugannani and S. Rice, "Saddle point approximation for the distribution of the sum of independent random
variables", Advances in Applied Probability 12 (1980), with the lattice correction of H. E. Daniels, "Tail probability
approximations", International Statistical Review 55 (1987), equation 6.5.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator
from scipy.special import log_ndtr

from partialsum.theory.products import ProductLaw

Array = NDArray[np.float64]

_POINTS = 160
_CENTRE = 0.02
"""Standard deviations about the mean in which the formula is 0/0; interpolation bridges them."""
_FARTHEST = 600.0
"""Largest t·p: exp of it is still a number."""


class UpperTail:
    """P(S ≥ x) for the sum S of ``n`` products, at points x above its mean.

    Products are multiples of ``step`` and x lies half-way between two; with ``step`` 0 they are anything.
    """

    def __init__(self, law: ProductLaw, n: float, step: float) -> None:
        self.mean, self.deviation = n * law.mean, math.sqrt(n * law.variance)
        top = float(law.values.max())
        fastest = _FARTHEST / max(top, -float(law.values.min()), 1e-300)
        t = np.concatenate([[0.0], np.geomspace(1e-3 / self.deviation, fastest, _POINTS)])
        exponent = np.outer(t, law.values)
        shift = exponent.max(1)
        weight = law.weights * np.exp(exponent - shift[:, None])
        mass = weight.sum(1)
        first = weight @ law.values / mass
        second = weight @ law.values**2 / mass - first**2
        x, k = n * first, n * (np.log(mass) + shift)
        w = np.sqrt(np.maximum(2 * (t * x - k), 0.0))
        slope = 2 / step * np.sinh(np.minimum(t * step / 2, 300.0)) if step > 0 else t
        u = slope * np.sqrt(np.maximum(n * second, 1e-300))
        skew = float(law.weights @ (law.values - law.mean) ** 3) / law.variance**1.5
        with np.errstate(divide="ignore", invalid="ignore"):
            bracket = np.where(w > _CENTRE, 1 / u - 1 / w, -skew / 6 / math.sqrt(n))
        mills = np.exp(-0.5 * w**2 - log_ndtr(-w)) / math.sqrt(2 * math.pi)  # φ(w) / P(N > w)
        z = (x - self.mean) / self.deviation
        good = np.isfinite(w) & (1 + bracket * mills > 0) & (np.diff(z, prepend=-1.0) > 1e-9)
        self._end = (top * n - self.mean) / self.deviation
        self._z = z[good]
        # w grows with z whatever the law, and so it does between the points; far out, where few products decide, z² is
        # thousands of times the exponent and would not interpolate.
        self._w = PchipInterpolator(self._z, w[good])
        self._correction = PchipInterpolator(self._z, np.log1p(bracket * mills)[good])

    def log(self, x: Array) -> Array:
        """Return the logarithm of the probability; −inf beyond the largest sum."""
        z = (np.asarray(x) - self.mean) / self.deviation
        inside = np.clip(z, 0.0, self._z[-1])
        value = log_ndtr(-self._w(inside)) + self._correction(inside)
        return np.where((z > self._z[-1]) | (z > self._end), -np.inf, value)


class SumLaw:
    """The law of the sum of ``n`` products, multiples of ``step`` or (0) anything: probabilities at half-way points."""

    def __init__(self, law: ProductLaw, n: float, step: float = 1.0) -> None:
        mirrored = ProductLaw(-law.values, law.weights)
        self.mean, self.deviation = n * law.mean, math.sqrt(n * law.variance)
        self._upper = UpperTail(law, n, step)
        self._lower = self._upper if law.symmetric else UpperTail(mirrored, n, step)

    def above(self, x: Array) -> Array:
        """Return P(S > x)."""
        x = np.asarray(x, dtype=np.float64)
        high = np.exp(self._upper.log(np.maximum(x, self.mean)))
        low = np.exp(self._lower.log(np.maximum(-x, -self.mean)))
        return np.where(x >= self.mean, high, 1 - low)

    def below(self, x: Array) -> Array:
        """Return P(S < x), right where it is small."""
        x = np.asarray(x, dtype=np.float64)
        low = np.exp(self._lower.log(np.maximum(-x, -self.mean)))
        return np.where(x < self.mean, low, 1 - self.above(np.maximum(x, self.mean)))

    def excess(self, x: Array) -> Array:
        """Return E[S − E[S]; S > x], by quadrature of the tail."""
        nodes, weights = np.polynomial.legendre.leggauss(24)
        x = np.asarray(x, dtype=np.float64)
        side = np.where(x >= self.mean, 1.0, -1.0)  # E[S − μ; S > x] = −E[S − μ; S < x]
        distance = np.abs(x - self.mean)
        length = 10.0 * self.deviation / (1 + distance / self.deviation)
        at = distance[:, None] + length[:, None] * (nodes + 1) / 2
        points = self.mean + side[:, None] * at
        tail = np.where(side[:, None] > 0, self.above(points), self.below(points))
        ends = np.where(side > 0, self.above(x), self.below(x))
        return np.asarray(distance * ends + (tail @ weights) * length / 2)
