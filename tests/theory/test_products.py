"""Product laws: enumerated formats, shapes, blocks and histograms, against sampled operands."""

from __future__ import annotations

import numpy as np
import pytest

import partialsum as ps
from partialsum.theory.products import Operand, operand_law, parse_product, product_law
from partialsum.theory.sampling import sample_operand
from partialsum.theory.shapes import Shape

FORMATS = ["e5m2", "e4m3fn", "bf16", "int8", "q4.4", "mxfp8_e4m3", "mxfp4", "nvfp4", "mxint8"]


@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize("shape", list(Shape))
def test_operands_have_the_moments_of_their_samples(fmt: str, shape: Shape) -> None:
    operand = Operand(ps.parse_format(fmt), shape)
    values, weights = operand_law(operand)
    x = sample_operand(operand, np.random.default_rng(3), (2000, 128)).astype(np.float64)
    slack = 5e-3 if fmt == "nvfp4" else 1e-3  # its tensor's scale depends on the whole tensor
    for sampled, law in ((x, values), (np.abs(x), np.abs(values)), (x**2, values**2)):
        error = 5 * sampled.std() / np.sqrt(sampled.size / 4)  # blocks share scales: fewer independent ones
        assert weights @ law == pytest.approx(sampled.mean(), abs=error + slack * np.abs(sampled).mean())


def test_products_of_narrow_formats_are_all_products() -> None:
    law = parse_product("e4m3fn*e5m2")
    first, second = (operand_law(Operand(ps.parse_format(f)))[0] for f in ("e4m3fn", "e5m2"))
    products = np.unique(np.multiply.outer(first, second))
    assert set(law.values) <= set(products)
    assert law.weights.sum() == pytest.approx(1)
    assert law.mean == pytest.approx(0, abs=1e-12)
    assert law.symmetric


def test_small_blocks_are_enumerated() -> None:
    fmt = ps.parse_format("block2(e2m1fn,e8m0)")
    values, weights = operand_law(Operand(fmt, Shape.UNIFORM))
    fine = (np.arange(2048) + 0.5) / 2048 * np.sqrt(12) - np.sqrt(3)
    pairs = np.stack(np.meshgrid(fine, fine), -1).reshape(-1, 2).astype(np.float32)
    found, counts = np.unique(ps.quantize(pairs, fmt)[:, 0], return_counts=True)
    assert set(found) <= set(values.astype(np.float32))
    masses = dict(zip(values.tolist(), weights.tolist(), strict=True))
    for value, count in zip(found.tolist(), counts.tolist(), strict=True):
        assert masses[value] == pytest.approx(count / len(pairs), abs=2e-3)


@pytest.mark.parametrize("product", ["mxfp8_e5m2", "nvfp4", "student3:e5m2", "laplace:e5m2"])
def test_sums_of_unusual_products_agree(product: str) -> None:
    for accumulator in ("e8m6", "e8m6,toward_zero"):
        simulated = ps.simulate(512, accumulator, product, sums=4096, seed=2)
        predicted = ps.predict(512, accumulator, product)
        low, high = simulated.intervals["snr_db"]
        assert low - 0.3 < predicted.snr_db < high + 0.3
        assert predicted.gain == pytest.approx(simulated.gain, abs=0.02)


def test_gated_products_drift() -> None:
    relu = parse_product("relu:e5m2")
    both = product_law(Operand(ps.parse_format("e5m2"), Shape.RELU))
    assert relu.density == pytest.approx(0.5, abs=0.01)
    assert relu.mean == pytest.approx(0, abs=1e-9)
    assert both.mean == pytest.approx(1 / (2 * np.pi), rel=0.02)
    simulated = ps.simulate(512, "e8m7", both, sums=8192)
    predicted = ps.predict(512, "e8m7", both)
    assert predicted.snr_db == pytest.approx(simulated.snr_db, abs=0.4)
    assert predicted.bias == pytest.approx(simulated.bias, abs=0.03)


def test_histograms_and_samples_are_laws() -> None:
    rng = np.random.default_rng(0)
    samples = rng.laplace(size=200_000) + 0.1
    law = ps.ProductLaw.from_samples(samples)
    assert law.values.size < 2000
    assert law.mean == pytest.approx(samples.mean(), rel=1e-4)
    assert law.variance == pytest.approx(samples.var(), rel=2e-3)
    simulated = ps.simulate(256, "e8m6", law, sums=8192)
    assert ps.predict(256, "e8m6", law).snr_db == pytest.approx(simulated.snr_db, abs=0.4)
    counted = ps.ProductLaw.from_histogram([1.0, -2.0, 1.0], [1, 2, 3])
    assert dict(zip(counted.values, counted.weights, strict=True)) == pytest.approx({-2.0: 1 / 3, 1.0: 2 / 3})


def test_kappa_scales_the_signal_alone() -> None:
    plain, cancelled = ps.predict(512, "e8m7"), ps.predict(512, "e8m7", kappa=0.01)
    assert cancelled.snr_db == pytest.approx(plain.snr_db - 20)
    assert cancelled.std == pytest.approx(plain.std / 10)


@pytest.mark.parametrize(
    ("product", "sentence"),
    [
        ("cauchy:e5m2", "unknown shape 'cauchy' in product 'cauchy:e5m2'"),
        ("e5m2*e5m2*e5m2", "product must be one format or two joined by"),
        (("e5m2", "e5m2"), "product must be a name, a format, a law or a pair of operands"),
    ],
)
def test_products_that_mean_nothing_are_refused(product: object, sentence: str) -> None:
    with pytest.raises(ps.InputError, match=sentence):
        ps.predict(64, "e6m5", product)  # type: ignore[arg-type]


def test_mean_belongs_to_named_products() -> None:
    with pytest.raises(ps.InputError, match="mean can only be given for a product named by its formats"):
        ps.predict(64, "e6m5", ps.ProductLaw.from_samples([1.0, -1.0]), mean=0.5)
    with pytest.raises(ps.InputError, match="mean can only be given for normal operands"):
        ps.predict(64, "e6m5", "laplace:e5m2", mean=0.5)
