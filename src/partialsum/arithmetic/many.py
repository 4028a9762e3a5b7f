"""The same products under many accumulators: operands are packed, and looked at, once for all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from partialsum.accumulators import Accumulator, AnyAccumulator, Rounding
from partialsum.arithmetic import native
from partialsum.arithmetic.gemm import gemm
from partialsum.formats import FloatFormat

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]

_WORTH_A_THREAD = 1 << 25
"""Additions; below, handing work to another thread costs more."""


def gemm_many(
    a: Floats, b: Floats, accumulators: Sequence[AnyAccumulator], pool: Executor | None = None
) -> tuple[Floats, Doubles]:
    """Return ``a[t, m, k] @ b[t, k, n]`` under each accumulator as [accumulators, t, m, n], and in float64 as [t, m, n].

    Bits are those of ``gemm``. ``pool`` runs some accumulators beside others, in as many threads as kernels use.
    """
    shape = (*a.shape[:2], b.shape[2])
    result, exact = np.empty((len(accumulators), *shape), dtype=np.float32), np.empty(shape)
    together = [index for index, accumulator in enumerate(accumulators) if _packs_alike(accumulator)]
    alone = [index for index in range(len(accumulators)) if index not in set(together)]
    work = result.size * a.shape[2]
    threads = 1 if pool is None else max(1, min(native.num_threads(), work // _WORTH_A_THREAD))

    def run_together(first: int) -> None:
        indices = together[first::threads]
        if indices or first == 0:
            _run(a, b, [accumulators[index] for index in indices], indices, result, None if first else exact)

    def run_alone(index: int) -> None:
        result[index] = gemm(a, b, accumulators[index])

    tasks = [partial(run_together, first) for first in range(threads)] + [partial(run_alone, i) for i in alone]
    apply: Callable[..., Iterable[Any]] = map if pool is None or threads < 2 else pool.map
    for _ in apply(lambda task: task(), tasks):
        pass
    return result, exact


def _packs_alike(accumulator: AnyAccumulator) -> bool:
    """Whether kernels read the same packed operands for it as for others: random words are packed beside them."""
    return isinstance(accumulator, Accumulator) and accumulator.rounding is not Rounding.STOCHASTIC


def _run(
    a: Floats,
    b: Floats,
    accumulators: Sequence[Any],
    indices: Sequence[int],
    result: Floats,
    exact: Doubles | None,
) -> None:
    # The float64 sums need the operands packed, for one accumulator at least.
    rules = [native.rule(accumulator) for accumulator in accumulators or [Accumulator(FloatFormat(8, 23))]]
    own = np.empty((len(rules), *result.shape[1:]), dtype=np.float32)
    native.load().gemm_many(
        rules=rules,
        a=a,
        b=b,
        d=own,
        doubles=exact,
        level=native.current_simd_level(),
        forbidden=native.forbidden_kernels(),
    )
    result[list(indices)] = own[: len(indices)]
