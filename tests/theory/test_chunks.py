"""The best chunk: found by search, seen in bit-exact sums, and beside the square-root rule."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import partialsum as ps
from partialsum.theory.chunks import nested_snr_db, rule_of_thumb
from partialsum.theory.products import parse_product


@pytest.mark.parametrize("accumulator", ["e8m5", "e8m6,toward_zero"])
def test_no_other_chunk_is_better(accumulator: str) -> None:
    acc = ps.parse_accumulator(accumulator)
    assert isinstance(acc, ps.Accumulator)
    plan = ps.optimal_chunk(256, acc)
    others = [ps.predict(256, replace(acc, chunk=2**i)).snr_db for i in range(1, 8)]
    assert plan.snr_db == pytest.approx(max(others))
    assert plan.levels == (2 ** (1 + int(np.argmax(others))),)
    assert plan.plain_snr_db == pytest.approx(ps.predict(256, acc).snr_db)
    assert plan.snr_db >= plan.rule_snr_db > plan.plain_snr_db


def test_nested_chunks_are_nested() -> None:
    acc, sums, levels = ps.parse_accumulator("e8m4"), 4096, (8, 64)
    assert isinstance(acc, ps.Accumulator)
    rng = np.random.default_rng(4)
    a = ps.quantize(rng.standard_normal((sums, 1, 512)), "e5m2")
    b = ps.quantize(rng.standard_normal((sums, 512, 1)), "e5m2")
    exact = np.einsum("sik,skj->s", a.astype(np.float64), b.astype(np.float64))
    inner = np.concatenate(
        [ps.gemm(a[..., i : i + 64], b[:, i : i + 64], replace(acc, chunk=8)) for i in range(0, 512, 64)], axis=2
    )
    computed = ps.gemm(inner, np.ones_like(inner.swapaxes(1, 2)), acc)[:, 0, 0]
    snr_db = 10 * np.log10(np.mean(exact**2) / np.mean((computed - exact) ** 2))
    assert nested_snr_db(512, acc, parse_product("e5m2"), levels) == pytest.approx(snr_db, abs=0.4)


def test_two_levels_keep_more_than_one() -> None:
    one, two = (ps.optimal_chunk(4096, "e8m5", levels=n) for n in (1, 2))
    assert two.snr_db > one.snr_db + 3
    assert two.levels[0] < one.levels[0] < two.levels[1]


def test_widths_reach_their_target() -> None:
    plan = ps.narrowest_chunked(256, 25.0)
    assert plan.chunks.snr_db >= 25.0
    assert plan.man_bits < plan.plain_man_bits
    assert ps.optimal_chunk(256, f"e8m{plan.man_bits - 1}").snr_db < 25.0
    wide, narrow = (ps.predict(256, f"e8m{plan.plain_man_bits - i}").snr_db for i in (0, 1))
    assert wide >= 25.0 > narrow


def test_the_rule_of_thumb() -> None:
    assert rule_of_thumb(4096) == (64,)
    assert rule_of_thumb(4096, 2) == (16, 256)


def test_wrong_arguments_are_refused_plainly() -> None:
    with pytest.raises(
        ps.InputError, match="accumulator must be a floating-point register to be chunked, got int16"
    ):
        ps.optimal_chunk(64, "int16")  # type: ignore[arg-type]
    with pytest.raises(ps.InputError, match="levels must be 1 to 3, got 4"):
        ps.optimal_chunk(64, "e8m5", levels=4)
    with pytest.raises(ps.InputError, match="target_snr_db must be within reach of 23 mantissa bits, got 900"):
        ps.narrowest_chunked(64, 900.0)
