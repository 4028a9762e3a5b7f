"""Sums that are described piece by piece: bit-exact sums of other walks of the same kind are the judge."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import partialsum as ps
from partialsum.theory.drawing import drawn_codes

Floats = NDArray[np.float32]


def normals(sums: int, k: int, seed: int = 0) -> Floats:
    rng = np.random.default_rng(seed)
    a, b = (ps.quantize(rng.standard_normal((sums, k)).astype(np.float32), "e5m2") for _ in range(2))
    return np.asarray(a * b)


def modulated(sums: int, seed: int, images: int = 32, positions: int = 48) -> Floats:
    """Like a weight's gradient behind a normalisation: products [sums, images · positions] of few significant bits.

    Images have unlike scales, products of an image share a sign more often than not, half of them are zero, and a small
    offset of each sum's own takes back half of what they gave.
    """
    rng = np.random.default_rng(seed)
    scale = np.exp(0.8 * rng.standard_normal((sums, images, 1)))
    p = scale * (rng.standard_normal((sums, images, 1)) + rng.standard_normal((sums, images, positions)))
    p *= rng.random(p.shape) < 0.5
    p -= p.mean((1, 2), keepdims=True) / 2
    return np.asarray(ps.quantize(p.reshape(sums, -1).astype(np.float32), "e8m5"))


def snr_db(p: Floats, accumulator: str) -> float:
    """Bit-exact sums, each of its own products."""
    exact = p.astype(np.float64).sum(1)
    error = ps.gemm(p, np.ones((p.shape[1], 1), np.float32), accumulator)[:, 0] - exact
    return float(10 * np.log10(exact.var() / np.mean(error**2)))


@pytest.mark.parametrize(
    "accumulator", ["e8m5", "e8m6,toward_zero", "e8m6,stochastic", "e8m5,chunk=32", "h100-fp8"]
)
def test_without_any_structure_it_is_the_plain_prediction(accumulator: str) -> None:
    law = ps.PiecewiseLaw.from_products(normals(1024, 768))
    found = ps.predict(768, accumulator, law)
    wanted = ps.predict(768, accumulator, "e5m2")
    low, high = found.intervals["snr_db"]
    assert 0.1 < (high - low) / 2 < 0.8
    assert low - 0.2 < wanted.snr_db < high + 0.2
    assert found.gain == pytest.approx(wanted.gain, abs=0.02)


@pytest.mark.parametrize(
    "accumulator", ["e8m6", "e8m8", "e8m8,toward_zero", "e8m10,toward_zero", "e8m8,stochastic", "e8m6,chunk=64"]
)
def test_other_walks_of_the_same_kind_agree(accumulator: str) -> None:
    """Described sums and judged ones share nothing but their making; pooled products are far off."""
    described, judged = modulated(512, 1), modulated(4096, 2)
    law = ps.PiecewiseLaw.from_products(described, piece=48)
    found = ps.predict(law.k, accumulator, law)
    assert isinstance(found, ps.Simulation)
    half = (found.intervals["snr_db"][1] - found.intervals["snr_db"][0]) / 2
    real = snr_db(judged, accumulator)
    assert half < 2.5
    assert found.snr_db == pytest.approx(real, abs=1 + half)


def test_order_among_pieces_is_what_tells() -> None:
    """The same sums with less known of them: their own laws in any order, and all products in one law."""
    p = modulated(512, 3)
    law = ps.PiecewiseLaw.from_products(p, piece=48)
    real = snr_db(p, "e8m8")
    mixed = ps.predict(law.k, "e8m8", law.merged(1)).snr_db
    kappa = float(p.astype(np.float64).sum(1).var() / (law.k * law.law.exact_variance))
    pooled = ps.predict(law.k, "e8m8", law.law, kappa=kappa).snr_db
    assert abs(ps.predict(law.k, "e8m8", law).snr_db - real) < 1
    assert mixed > real + 2
    assert pooled > real + 3


def test_every_draw_holds_exactly_the_products_that_were_counted() -> None:
    p = modulated(6, 4)[:, :1000]
    law = ps.PiecewiseLaw.from_products(p, piece=300)
    assert law.counts.shape[:2] == (6, 4)
    assert law.lengths.tolist() == [300, 300, 300, 100]
    codes = drawn_codes(law, slice(1, 6), np.random.default_rng(0))
    other = drawn_codes(law, slice(1, 6), np.random.default_rng(1))
    assert (codes != other).mean() > 0.3
    flat = law.counts.reshape(6, 4, -1)
    for row, sums in enumerate(codes, 1):
        for piece in range(4):
            found = np.bincount(sums[300 * piece : 300 * (piece + 1)], minlength=flat.shape[2] + 1)
            assert (found[:-1] == flat[row, piece]).all()
            assert found[-1] == law.lengths[piece] - flat[row, piece].sum()


def test_what_is_known_of_products() -> None:
    p = modulated(64, 5)
    law = ps.PiecewiseLaw.from_products(p)
    assert (law.sums, law.k, law.piece) == (64, 1536, 64)
    assert law.density == np.count_nonzero(p) / p.size
    assert law.law.density == pytest.approx(law.density)
    assert law.law.power == pytest.approx(np.mean(p.astype(np.float64) ** 2), rel=0.25)  # binades, not values
    parts = law.significands.prod(1)
    assert (parts * 32 == np.rint(parts * 32)).all(), "five mantissa bits"


def test_prefixes_are_the_sums_first_products() -> None:
    """Half of a walk that comes back is far away, and its products are those of the first half."""
    first = np.abs(normals(200, 256, 6))
    law = ps.PiecewiseLaw.from_products(np.concatenate([first, -first], axis=1), piece=64)
    there, back = (np.asarray(x) for x in (ps.predict([256, 512], "e8m7", law).mean, first.sum(1).mean()))
    assert there[0] == pytest.approx(back, rel=0.06)  # significands do not know their binade
    assert abs(there[1]) < 0.02 * back


def test_sums_that_come_back_do_so_in_every_draw() -> None:
    """Significands are drawn anew, which leaves a twenty-fifth of independent products' variance."""
    there = normals(256, 256, 8)
    p = np.concatenate([there, -there], axis=1)
    found = ps.predict(512, "e8m8", ps.PiecewiseLaw.from_products(p))
    assert float(found.std) ** 2 / (512 * np.mean(p.astype(np.float64) ** 2)) == pytest.approx(0.042, abs=0.01)


def test_wide_operands_are_added_as_two() -> None:
    """Products of float32 operands have more bits than float32 carries."""
    narrow = ps.PiecewiseLaw.from_products(normals(512, 128))
    pairs = 1 + np.random.default_rng(0).random((50, 2)).astype(np.float32).astype(np.float64)
    wide = replace(narrow, significands=pairs, weights=np.ones(50))
    found = ps.predict(128, "e8m14", wide)
    wanted = ps.predict(128, "e8m14", "exact")
    assert found.snr_db == pytest.approx(wanted.snr_db, abs=1)
    assert ps.predict(128, "e8m14", narrow).snr_db > wanted.snr_db + 3


def test_the_same_arguments_predict_the_same() -> None:
    law = ps.PiecewiseLaw.from_products(modulated(40, 7))
    again = ps.PiecewiseLaw.from_dict(json.loads(json.dumps(law.to_dict())))
    assert (again.counts == law.counts).all()
    for accumulator in ("e8m6", "e8m6,stochastic"):
        assert ps.predict(law.k, accumulator, again) == ps.predict(law.k, accumulator, law)


def test_sums_without_an_error_keep_everything() -> None:
    found = ps.predict(64, "e8m23", ps.PiecewiseLaw.from_products(np.outer(2.0 ** np.arange(6), np.ones(64))))
    assert (found.snr_db, found.vrr, found.bias) == (np.inf, pytest.approx(1), 0)


def test_zeros_alone_have_nothing_to_lose() -> None:
    found = ps.predict(64, "e8m4", ps.PiecewiseLaw.from_products(np.zeros((8, 64))))
    assert found.std == 0
    assert found.bias != found.bias or found.bias == 0


LAW = ps.PiecewiseLaw.from_products(np.ones((2, 100)))


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (
            lambda: ps.predict(101, "e8m4", LAW),
            "k must be at most the 100 products that the piecewise law describes",
        ),
        (lambda: ps.predict(64, "int32", LAW), "accumulator must be floating-point or a matrix unit"),
        (lambda: ps.predict(64, "e8m4", LAW, kappa=0.5), "density, mean and kappa are a piecewise law's own"),
        (lambda: ps.predict(64, "e8m4", LAW, density=0.5), "density, mean and kappa are a piecewise law's own"),
        (lambda: ps.simulate(64, "e8m4", LAW), "product must be one law for all products here"),
        (lambda: ps.optimal_chunk(64, "e8m4", LAW), "a piecewise law is for predict, its .law for this"),
        (lambda: ps.PiecewiseLaw.from_products(np.ones(3)), "products must be finite numbers"),
        (lambda: ps.PiecewiseLaw.from_products(np.full((1, 2), np.inf)), "products must be finite numbers"),
        (
            lambda: ps.PiecewiseLaw.from_products(np.ones((2, 3)), piece=4),
            "piece must be a whole number from 1 to k = 3",
        ),
        (lambda: LAW.merged(0), "pieces must be a positive whole number, got 0"),
        (lambda: ps.PiecewiseLaw.from_dict({"k": 3}), "values must be those of a piecewise law's to_dict"),
        (lambda: altered(counts=LAW.counts[:, :1]), "counts must be unsigned whole numbers"),
        (lambda: altered(counts=LAW.counts + np.uint16(1)), "counts must not exceed the products that a piece has"),
        (lambda: altered(lowest=128), "binades must lie between -126 and 127"),
        (lambda: altered(significands=np.full((1, 2), 2.0)), "significands must be pairs of numbers from 1 to 2"),
        (lambda: altered(piece=0), "piece must be a whole number from 1 to k = 100, got 0"),
    ],
)
def test_wrong_arguments_are_refused_plainly(call: Any, sentence: str) -> None:
    with pytest.raises(ps.InputError, match=sentence):
        call()


def altered(**changes: Any) -> ps.PiecewiseLaw:
    fields = ("k", "piece", "counts", "lowest", "significands", "weights")
    return ps.PiecewiseLaw(**{name: getattr(LAW, name) for name in fields} | changes)
