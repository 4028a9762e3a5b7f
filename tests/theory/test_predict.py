"""The rounding-aware prediction: the table of the feasibility study, invariants, and bit-exact sums as the judge."""

from __future__ import annotations

import numpy as np
import pytest

import partialsum as ps
from partialsum.theory.sums import clear_cache

# Chain and simulation (8192 sums) of the study that found the method: m_acc, rounding, n -> VRR, its tolerance.
STUDY = [
    ("e8m4", 64, 0.993),
    ("e8m4", 256, 0.977),
    ("e8m4", 1024, 0.892),
    ("e8m4", 4096, 0.680),
    ("e8m4,toward_zero", 64, 0.363),
    ("e8m4,toward_zero", 256, 0.100),
    ("e8m4,toward_zero", 1024, 0.025),
    ("e8m6", 4096, 0.977),
]


@pytest.mark.parametrize(("accumulator", "n", "vrr"), STUDY)
def test_vrr_of_the_study(accumulator: str, n: int, vrr: float) -> None:
    assert ps.predict(n, accumulator).vrr == pytest.approx(vrr, abs=0.01)


@pytest.mark.parametrize("accumulator", ["e8m5", "e8m5,toward_zero", "e8m5,stochastic", "e8m4,chunk=32"])
def test_bit_exact_sums_agree(accumulator: str) -> None:
    n, sums = 512, 6000
    rng = np.random.default_rng(1)
    acc = ps.parse_accumulator(accumulator)
    a = ps.quantize(rng.standard_normal((sums, 1, n)).astype(np.float32), "e5m2")
    b = ps.quantize(rng.standard_normal((sums, n, 1)).astype(np.float32), "e5m2")
    exact = np.einsum("sik,skj->s", a.astype(np.float64), b.astype(np.float64))
    error = ps.gemm(a, b, acc)[:, 0, 0] - exact
    snr_db = 10 * np.log10(np.mean(exact**2) / np.mean(error**2))
    predicted = ps.predict(n, acc)
    assert predicted.snr_db == pytest.approx(snr_db, abs=0.4)  # four standard errors of 6000 sums
    assert predicted.gain == pytest.approx(1 + np.mean(error * exact) / np.mean(exact**2), abs=0.03)


def test_stochastic_rounding_keeps_the_signal_and_symmetry_the_mean() -> None:
    prediction = ps.predict(1000, "e8m6,stochastic")
    assert prediction.gain == pytest.approx(1.0, abs=0.01)
    assert prediction.bias == pytest.approx(0.0, abs=1e-3)


def test_wider_registers_keep_more() -> None:
    snr = [ps.predict(4096, f"e8m{m}").snr_db for m in (4, 6, 8, 10)]
    assert snr == sorted(snr)


@pytest.mark.parametrize("accumulator", ["e8m5,chunk={}", "h100-fp8,promote_every={}"])
def test_a_chain_stops_at_a_length_it_has_passed_as_if_started_anew(accumulator: str) -> None:
    sizes, n = (64, 4096), 20_000
    fresh = []
    for size in sizes:
        clear_cache()
        fresh.append(ps.predict(n, accumulator.format(size), "e4m3fn").snr_db)
    clear_cache()
    ps.predict(n, accumulator.partition(",")[0], "e4m3fn")
    assert [ps.predict(n, accumulator.format(size), "e4m3fn").snr_db for size in sizes] == fresh
