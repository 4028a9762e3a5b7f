"""Product laws that change along a sum: histograms of consecutive pieces of real sums (docs/evolution.md §11).

Real products are neither alike nor in random order: a few images carry most of a gradient, every sum has a law of its
own, and behind a normalisation its many small products take back what few large ones gave. What an accumulator does to
such sums depends on where along the sum products of which size and sign lie, roughly; not on their order nearby. So a
sum is described by the histograms of its consecutive pieces, over binades and signs.
"""

from __future__ import annotations

import base64
import binascii
import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from partialsum.errors import InputError
from partialsum.theory.products import ProductLaw, histogram

Array = NDArray[np.float64]
Counts = NDArray[np.unsignedinteger[Any]]
Floats = NDArray[np.float32]

LOWEST, HIGHEST = -126, 127
"""Binades that are told apart: those of float32's normal numbers. Smaller products count as zeros."""
PIECE = 64
"""Products in a piece, at least; nearby order matters less than this."""
MOST_PIECES = 64
"""Pieces of a sum, at most."""


def piece_length(k: int) -> int:
    """Return how many products a piece of sums of ``k`` has, unless told otherwise: 64, and more in long sums."""
    return max(1, min(k, max(PIECE, math.ceil(k / MOST_PIECES))))


@dataclass(frozen=True, eq=False)
class PiecewiseLaw:
    """What the products of some real sums are like, piece by piece; :func:`~partialsum.theory.predict.predict` takes it.

    Each of its ``sums`` sums of ``k`` products is cut into consecutive pieces of ``piece`` products (the last may be
    short). ``counts`` [sums, pieces, 2, binades] says how many of a piece's products are positive, and how many
    negative, with magnitudes in [2^e, 2^(e+1)), e being ``lowest`` and upwards; the others are zeros.
    ``significands`` [n, 2] are those of the operands of products, in [1, 2), with how often each pair was seen in
    ``weights`` [n]. Made by ``measure`` or by :meth:`from_products`.
    Raises :class:`InputError` where shapes do not fit, or pieces hold more products than they have room for.
    """

    k: int
    piece: int
    counts: Counts
    lowest: int
    significands: Array
    weights: Array
    name: str = "pieces"

    def __post_init__(self) -> None:
        counts, pairs, weights = np.asarray(self.counts), np.asarray(self.significands), np.asarray(self.weights)
        if type(self.k) is not int or type(self.piece) is not int or not 1 <= self.piece <= self.k:
            raise InputError(f"piece must be a whole number from 1 to k = {self.k}, got {self.piece!r}")
        shape = (len(counts), math.ceil(self.k / self.piece), 2)
        if counts.ndim != 4 or counts.shape[:3] != shape or not counts.size or counts.dtype.kind != "u":
            raise InputError(
                f"counts must be unsigned whole numbers [sums, {shape[1]} pieces, 2, binades] for k = {self.k} "
                f"and piece = {self.piece}, got {counts.dtype} {counts.shape}"
            )
        if self.lowest < LOWEST or self.lowest + counts.shape[3] > HIGHEST + 1:
            raise InputError(
                f"binades must lie between {LOWEST} and {HIGHEST}, got {counts.shape[3]} from {self.lowest}"
            )
        good = pairs.ndim == 2 and pairs.shape[1:] == (2,) and weights.shape == pairs.shape[:1] and len(pairs) > 0
        if not good or not ((pairs >= 1) & (pairs < 2)).all() or not (weights >= 0).all() or not weights.sum() > 0:
            raise InputError("significands must be pairs of numbers from 1 to 2, with one weight each")
        if (counts.sum((2, 3), dtype=np.int64) > self.lengths).any():
            raise InputError("counts must not exceed the products that a piece has")

    @property
    def sums(self) -> int:
        """Sums that are described."""
        return len(self.counts)

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        """Products of each piece [pieces]."""
        starts = np.arange(0, self.k, self.piece)
        return np.minimum(self.k - starts, self.piece)

    @property
    def density(self) -> float:
        """Share of products that are not zero."""
        return float(self.counts.sum(dtype=np.float64) / (self.sums * self.k))

    @property
    def law(self) -> ProductLaw:
        """All products in one law, as if they were independent."""
        seen = self.counts.sum((0, 1), dtype=np.float64)
        scale = 2.0 ** np.arange(self.lowest, self.lowest + seen.shape[1])
        parts = _normalised(self.significands.prod(1))
        magnitudes, share = np.multiply.outer(scale, parts), self.weights / self.weights.sum()
        values = np.concatenate([[0.0], magnitudes.ravel(), -magnitudes.ravel()])
        zeros = self.sums * self.k - seen.sum()
        weights = np.concatenate([[zeros], *(np.multiply.outer(side, share).ravel() for side in seen)])
        return histogram(values, weights, f"{self.name}, pooled")

    def merged(self, pieces: int = 1) -> PiecewiseLaw:
        """Return the same sums with only so many pieces, neighbours taken together: what less knowledge predicts.

        One piece keeps each sum's own law and forgets all order.
        """
        have = self.counts.shape[1]
        if type(pieces) is not int or pieces < 1:
            raise InputError(f"pieces must be a positive whole number, got {pieces!r}")
        step = math.ceil(have / min(pieces, have))
        counts = np.add.reduceat(self.counts.astype(np.uint32), np.arange(0, have, step), axis=1)
        return replace(self, counts=counts, piece=min(self.k, self.piece * step))

    @classmethod
    def from_products(cls, products: ArrayLike, piece: int | None = None, name: str = "pieces") -> PiecewiseLaw:
        """Describe sums by their ``products`` [sums, k], in the order in which they are added.

        Products are taken as float32; low bits are those of products of one operand with one.
        """
        p = np.ascontiguousarray(products, dtype=np.float32)
        if p.ndim != 2 or not p.size or not np.isfinite(p).all():
            raise InputError(f"products must be finite numbers [sums, k], got shape {p.shape}")
        length = piece_length(p.shape[1]) if piece is None else piece
        if type(length) is not int or not 1 <= length <= p.shape[1]:
            raise InputError(f"piece must be a whole number from 1 to k = {p.shape[1]}, got {piece!r}")
        counts, lowest = trimmed(*count_binades(p, length))
        seen = p[np.abs(p) >= 2.0**LOWEST]
        parts, weights = np.unique(_normalised(np.abs(seen.astype(np.float64))), return_counts=True)
        if not parts.size:
            parts, weights = np.ones(1), np.ones(1, dtype=np.int64)
        pairs = np.stack([parts, np.ones_like(parts)], axis=1)
        return cls(p.shape[1], length, counts, lowest, pairs, weights.astype(np.float64), name)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; counts are little-endian, compressed by zlib, in base64."""
        kind = "<u2" if self.counts.max() < 1 << 16 else "<u4"
        packed = zlib.compress(np.ascontiguousarray(self.counts.astype(kind)).tobytes(), 9)
        return {
            "k": self.k,
            "piece": self.piece,
            "lowest": self.lowest,
            "shape": list(self.counts.shape),
            "type": kind,
            "counts": base64.b64encode(packed).decode(),
            "significands": self.significands.tolist(),
            "weights": self.weights.tolist(),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], name: str = "pieces") -> PiecewiseLaw:
        """Return the law that :meth:`to_dict` described; raises :class:`InputError` for anything else."""
        try:
            kind = np.dtype({"<u2": "<u2", "<u4": "<u4"}[values["type"]])
            flat = np.frombuffer(zlib.decompress(base64.b64decode(values["counts"])), kind)
            counts = flat.reshape(values["shape"]).astype(kind.newbyteorder("="))
            pairs, weights = (np.array(values[key], dtype=np.float64) for key in ("significands", "weights"))
            return cls(values["k"], values["piece"], counts, values["lowest"], pairs, weights, name)
        except (KeyError, TypeError, ValueError, zlib.error, binascii.Error) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"values must be those of a piecewise law's to_dict, got others ({error})") from None


def count_binades(products: Floats, piece: int) -> tuple[NDArray[np.uint32], int]:
    """Return how many of ``products`` [sums, k] each piece has of each sign and binade, and the lowest binade.

    The first is [sums, pieces, 2, binades]; zeros, and products below ``LOWEST``, are left out.
    """
    sums, k = products.shape
    pieces = math.ceil(k / piece)
    codes = products.view(np.uint32) >> 23  # sign and biased exponent; exponent 0 holds zeros and subnormals
    magnitudes = codes & 255
    low, high = int(magnitudes.min(where=magnitudes > 0, initial=254)), int(magnitudes.max(initial=1))
    binades = max(1, high - low + 1)
    slot = np.zeros(512, np.intp)  # 0 is that of zeros
    slot[low : high + 1] = np.arange(1, binades + 1)
    slot[256 + low : 257 + high] = np.arange(binades + 1, 2 * binades + 1)
    room = 2 * binades + 1
    place = slot[codes]
    place += np.arange(k) // piece * room
    place += (np.arange(sums) * (pieces * room))[:, None]
    found = np.bincount(place.ravel(), minlength=sums * pieces * room).reshape(sums, pieces, room)[..., 1:]
    return found.reshape(sums, pieces, 2, binades).astype(np.uint32), low - 127


def trimmed(counts: Counts, lowest: int) -> tuple[Counts, int]:
    """Return counts without unused binades at either end, in the narrowest type, and their lowest binade."""
    used = np.flatnonzero(counts.any((0, 1, 2)))
    first, last = (int(used[0]), int(used[-1]) + 1) if used.size else (0, 1)
    kept = counts[..., first:last]
    return kept.astype(np.uint16 if kept.max(initial=0) < 1 << 16 else np.uint32), lowest + first


def _normalised(x: Array) -> Array:
    """Return significands in [1, 2)."""
    return np.asarray(2 * np.frexp(x)[0])
