"""The points that carry the law of a sum: laws are interpolated among them, so neighbouring gaps must be alike."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, strategies as st

import partialsum as ps
from partialsum.theory.nodes import make_nodes


@given(
    man_bits=st.sampled_from([2, 4, 6, 8, 10, 12, 14, 16, 20, 23]), octave=st.floats(0, 16), mirrored=st.booleans()
)
def test_gaps_grow_gradually_wherever_the_law_may_be(man_bits: int, octave: float, mirrored: bool) -> None:
    spread = 2.0**octave
    nodes = make_nodes(ps.FloatFormat(8, man_bits), -27 * spread, 27 * spread, spread, unit=1.0, mirrored=mirrored)
    gap = np.diff(nodes.x[np.abs(nodes.x) <= 12 * spread])
    assert gap.min() > 0
    assert max((gap[1:] / gap[:-1]).max(), (gap[:-1] / gap[1:]).max()) <= 4


@pytest.mark.parametrize("accumulator", ["e8m12", "e8m14", "e8m12,toward_zero"])
@pytest.mark.parametrize("octave", [18, 20, 22, 24])
def test_sparse_sums_keep_what_as_many_products_without_zeros_keep(accumulator: str, octave: int) -> None:
    dense, sparse = ps.predict(2**octave, accumulator), ps.predict(2 ** (octave + 3), accumulator, density=1 / 8)
    assert sparse.snr_db == pytest.approx(dense.snr_db, abs=0.25)
