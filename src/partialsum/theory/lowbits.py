"""How often the low bits of a partial sum are zero, so that the next binade has nothing to cut off.

A sum of products with few significant bits keeps them: after few additions, or soon after it came down from a binade
with coarser numbers, it is more often a multiple of 2^j quanta than one time in 2^j. What a carry into a higher binade
rounds away depends on it. docs/evolution.md §5 derives the estimate used here: the remainder of the sum modulo 2^j
quanta walks on a cycle, so it is back at zero with probability 2^-j Σ_k E[φ_k^T], where φ_k = E[cos(2πkp/2^j)] of a
product p in quanta and T is the number of additions since the sum last was a multiple for certain: at the start, or
beyond the binade's end, which a Brownian path of the products' variance left T additions ago.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import erfc

from partialsum.theory.grids import Rounder, quantum_of
from partialsum.theory.nodes import Nodes
from partialsum.theory.products import ProductLaw

Array = NDArray[np.float64]

LEVELS = 6
"""Remainders are followed modulo 2, 4, 8, … 2^LEVELS quanta."""


STEEP = 8.0
"""Products' root mean squares below which a sum may climb by two binades or more at once."""


class LowBits:
    """The probabilities, node by node, that a sum is an odd multiple of 1, 2, 4, … quanta or a multiple of 2^LEVELS.

    Farther out than :data:`STEEP` only odd and even are told apart (levels 0 and 1).
    """

    def __init__(self, nodes: Nodes, rounder: Rounder, law: ProductLaw, even: dict[int, float]) -> None:
        magnitude = np.abs(nodes.x)
        magnitude = np.where(magnitude == 0, np.minimum(*nodes.gaps) / 4, magnitude)
        self.steep = magnitude < STEEP * np.sqrt(law.power)
        exponent = np.frexp(magnitude)[1] - 1
        binades, place = np.unique(exponent, return_inverse=True)
        quanta = quantum_of(rounder.format, np.ldexp(1.0, binades))
        self._even = np.array([even.get(int(k), 0.5) for k in binades])[place]
        deviation = np.sqrt(law.variance)
        extra = law.power / (2 * float(law.weights @ np.abs(law.values)))
        rates = np.array([_decay(law, q) for q in quanta])[place]
        self._levels = []
        for j in range(1, LEVELS + 1):
            mine = np.ones_like(self.steep) if j == 1 else self.steep
            away = (np.ldexp(1.0, exponent + j) - magnitude + extra) / deviation
            rate = rates[mine, 2 ** (LEVELS - j) - 1 :: 2 ** (LEVELS - j)]
            self._levels.append((away[mine, None], magnitude[mine, None] / deviation, rate))

    def weights(self, n: float) -> Array:
        """Return [LEVELS + 1, nodes]: P(odd multiple of 2^level quanta), P(multiple of 2^LEVELS), after ``n`` additions."""
        clean = np.zeros((LEVELS + 2, self._even.size))
        clean[0] = 1.0
        for j, (away, place, rate) in enumerate(self._levels, 1):
            mine = slice(None) if j == 1 else self.steep
            kept = _kept(rate, away, place, max(n, 1e-9)) @ _conjugates(rate.shape[1])
            fresh = self._even[mine] * 2.0 ** (1 - j)
            clean[j, mine] = fresh + (1 - fresh) * kept
        weights = np.maximum(clean[:-1] - clean[1:], 0.0)
        return np.asarray(weights / weights.sum(0))

    def levels(self, n: float) -> Array:
        """Return :meth:`weights` with all levels told apart everywhere: farther out, even numbers are of any kind."""
        weights = self.weights(n)
        even = weights[1].copy()
        for level in range(1, LEVELS + 1):
            share = 0.5 ** min(level, LEVELS - 1)
            weights[level] = np.where(self.steep, weights[level], share * even)
        return weights


def _decay(law: ProductLaw, quantum: float) -> Array:
    """Return −log |φ_k| for k = 1 … 2^(LEVELS − 1) of the products rounded to whole quanta; the others mirror these."""
    quanta = np.rint(law.values / quantum) % 2**LEVELS
    mass = np.bincount(quanta.astype(np.int64), law.weights, 2**LEVELS)
    return np.asarray(-np.log(np.clip(np.abs(np.fft.rfft(mass))[1:], 1e-6, 1.0)))


def _conjugates(count: int) -> Array:
    """Return weights that average over k = 1 … 2^j − 1 from the first ``count`` = 2^(j−1) of them."""
    weights = np.full(count, 2.0)
    weights[-1] = 1.0
    return np.asarray(weights / weights.sum())


def _kept(rate: Array, distance: Array, place: Array, n: float) -> Array:
    """Return E[exp(−rate·min(T, n))], T ago being when a Brownian path was last ``distance`` farther out than ``place``.

    The path came from zero in ``n`` steps, whatever its drift: a bridge, which crosses with probability
    exp(−2·distance·(place + distance)/n). When it did is taken from the free path's first passage, in closed form.
    """
    root = np.sqrt(2 * n)
    speed = np.sqrt(2 * rate)
    near = np.exp(-distance * speed) * erfc((distance - speed * n) / root)
    passed = (near + np.exp(np.minimum(distance * speed, 700.0)) * erfc((distance + speed * n) / root)) / 2
    crossed = np.exp(-2 * distance * (place + distance) / n)
    free = np.maximum(erfc(distance / root), 1e-300)
    return np.asarray(passed / free * crossed + np.exp(-rate * n) * (1 - crossed))
