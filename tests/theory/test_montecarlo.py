"""Monte Carlo: reproducible, bit-exact however the sums are cut into segments, with honest intervals."""

from __future__ import annotations

import numpy as np
import pytest

import partialsum as ps
from partialsum.theory import montecarlo
from partialsum.theory.products import histogram


def test_the_seed_fixes_everything() -> None:
    first, again, other = (ps.simulate(300, "e6m5,stochastic", sums=2048, seed=s) for s in (1, 1, 2))
    assert first.snr_db == again.snr_db
    assert first.intervals == again.intervals
    assert first.snr_db != other.snr_db


@pytest.mark.parametrize(
    "accumulator", ["e8m6", "e8m6,toward_zero,chunk=48", "ada-fp8", "h100-fp8,promote_every=64"]
)
def test_segments_change_no_bit(accumulator: str, monkeypatch: pytest.MonkeyPatch) -> None:
    acc = ps.parse_accumulator(accumulator)
    drawn: list[tuple[np.ndarray, np.ndarray]] = []
    sample = montecarlo.sample_operands

    def recorded(*arguments: object) -> tuple[np.ndarray, np.ndarray]:
        drawn.append(sample(*arguments))  # type: ignore[arg-type]
        return drawn[-1]

    monkeypatch.setattr(montecarlo, "_SEGMENT", 200)
    monkeypatch.setattr(montecarlo, "sample_operands", recorded)
    simulation = ps.simulate(1000, acc, sums=64, product="e4m3fn")
    tiles = simulation.sums // 64
    segments = len(drawn) // tiles
    a = np.concatenate(
        [np.concatenate([drawn[j * tiles + i][0] for i in range(tiles)]) for j in range(segments)], 2
    )
    b = np.concatenate(
        [np.concatenate([drawn[j * tiles + i][1] for i in range(tiles)]) for j in range(segments)], 1
    )
    a, b = a[..., :1000], b[:, :1000]
    whole = ps.gemm(np.ascontiguousarray(a), np.ascontiguousarray(b), acc, inputs="e4m3fn").astype(np.float64)
    exact = np.matmul(a.astype(np.float64), b.astype(np.float64))
    run = montecarlo._Run(acc, montecarlo.resolve_product("e4m3fn"), [1000], 0)
    columns = np.concatenate(
        [
            c
            for start in range(0, tiles, run.together)
            for _, c in run.batch(start, min(start + run.together, tiles))
        ]
    )
    assert segments > 1
    assert columns[:, 3].sum() == pytest.approx(whole.sum(), rel=1e-12)
    assert columns[:, 8].sum() == pytest.approx(((whole - exact) ** 2).sum(), rel=1e-9)


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    truth = ps.simulate(64, "e6m4", sums=200_000, seed=99)
    inside = 0
    for seed in range(40):
        low, high = ps.simulate(64, "e6m4", sums=1024, seed=seed).intervals["snr_db"]
        inside += low <= truth.snr_db <= high
    assert 33 <= inside <= 40  # 38 expected


def test_several_lengths_are_passed_in_one_run() -> None:
    seen: list[float] = []
    k = np.array([[100, 900], [17, 100]])
    simulation = ps.simulate(k, "e6m5,chunk=16", sums=1024, progress=seen.append)
    assert simulation.vrr.shape == (2, 2)
    assert simulation.snr_db[0, 0] == simulation.snr_db[1, 1] > simulation.snr_db[0, 1]
    assert seen == sorted(seen)
    assert seen[-1] == 1.0


def test_overflows_are_counted_and_left_out() -> None:
    simulation = ps.simulate(256, "e3m4", sums=4096)
    low, high = simulation.intervals["overflow_probability"]
    assert 0 < low < simulation.overflow_probability < high < 1
    assert simulation.vrr < 1


def test_histograms_are_drawn_as_they_are() -> None:
    law = histogram([-1.0, 0.5, 3.0], [0.2, 0.5, 0.3])
    simulation = ps.simulate(16, "e8m23", law, sums=4096)
    assert simulation.bias == 0
    assert simulation.vrr == pytest.approx(1.0, abs=1e-12)


def test_density_is_the_share_of_products_left() -> None:
    thin = ps.simulate(512, "e8m5", density=0.25, sums=16_384)
    assert thin.std == pytest.approx(ps.simulate(128, "e8m5", sums=64).std)
    assert thin.snr_db == pytest.approx(ps.predict(512, "e8m5", density=0.25).snr_db, abs=0.3)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"sums": 0}, "sums must be a positive integer, got 0"),
        ({"seed": -1}, "seed must be an integer from 0"),
        ({"density": 0.0}, "density must be above 0"),
    ],
)
def test_wrong_arguments_are_refused_plainly(arguments: dict[str, float], sentence: str) -> None:
    with pytest.raises(ps.InputError, match=sentence):
        ps.simulate(64, "e6m5", **arguments)
    with pytest.raises(ps.InputError, match="b200-fp4 adds blocks of elements, which simulate does not draw"):
        ps.simulate(64, "b200-fp4", "mxfp4")
    with pytest.raises(ps.InputError, match="k must be whole numbers"):
        ps.simulate(0, "e6m5")
