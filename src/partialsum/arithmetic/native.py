"""The door to the native kernels: loading them, how many threads they use, which instructions, and their records."""

from __future__ import annotations

import functools
import importlib
import math
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import ModuleType
from typing import Any

from partialsum.accumulators import Accumulator, Overflow, Rounding
from partialsum.arithmetic.rounding import Target, default_random_bits
from partialsum.errors import InputError, did_you_mean
from partialsum.formats import FloatFormat, Specials

_ROUNDINGS = list(Rounding)  # the order of the native enum, which a test compares
_threads: int | None = None
_level: ContextVar[str | None] = ContextVar("simd_level", default=None)
_forbidden: ContextVar[int] = ContextVar("forbidden_kernels", default=0)


@functools.cache
def load() -> ModuleType:
    """Return the native module; ImportError with what to do where it was never built."""
    try:
        return importlib.import_module("partialsum.arithmetic._native")
    except ImportError as error:
        raise ImportError(
            "partialsum's native kernels cannot be loaded: did you forget to build them? "
            f"'pip install .' in the source tree does ({error})"
        ) from error


def simd_levels() -> tuple[str, ...]:
    """Return the instruction-set levels this processor runs, slowest first: of portable, avx2, avx512."""
    return tuple(load().levels())


def current_simd_level() -> str:
    """Return the level that kernels use here: the fastest one, or what :func:`simd_level` forces."""
    return _level.get() or simd_levels()[-1]


@contextmanager
def simd_level(name: str) -> Iterator[None]:
    """Force the instruction-set level of all kernels called inside the ``with`` block; bits never depend on it."""
    if name not in simd_levels():
        hint = did_you_mean(name, simd_levels())
        raise InputError(f"name must be a level of this processor ({', '.join(simd_levels())}), got {name!r}{hint}")
    token = _level.set(name)
    try:
        yield
    finally:
        _level.reset(token)


@contextmanager
def forbid_kernels(mask: int) -> Iterator[None]:
    """Leave out kernels, one bit each in the order of ``partialsum/facts.hpp``; tests reach the slower ones so."""
    token = _forbidden.set(mask)
    try:
        yield
    finally:
        _forbidden.reset(token)


def forbidden_kernels() -> int:
    """Return the mask that :func:`forbid_kernels` set."""
    return _forbidden.get()


def set_num_threads(n: int | None) -> None:
    """Use ``n`` threads in every kernel; None goes back to the default of :func:`num_threads`."""
    global _threads  # noqa: PLW0603  # one setting for the process, like torch.set_num_threads
    if n is not None and (not isinstance(n, int) or isinstance(n, bool) or n < 1):
        raise InputError(f"n must be a positive integer or None, got {n!r}")
    _threads = n


def num_threads() -> int:
    """Return the threads kernels use: torch's number where torch is loaded, else the processors of this process."""
    if _threads is not None:
        return _threads
    torch: Any = sys.modules.get("torch")
    if torch is not None and hasattr(torch, "get_num_threads"):
        return int(torch.get_num_threads())
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@functools.lru_cache(maxsize=256)
def rule(acc: Accumulator) -> Any:
    """Return the native record of an accumulator."""
    return load().Rule(
        rounding=_ROUNDINGS.index(acc.rounding),
        sum=_grid(acc, acc.format),
        product=None if acc.product is None else _grid(acc, acc.product),
        chunk=acc.chunk or 0,
        seed=acc.seed & 0xFFFF_FFFF_FFFF_FFFF,
    )


def _grid(acc: Accumulator, fmt: FloatFormat) -> Any:
    return load().Grid(**grid_numbers(acc, fmt))


def grid_numbers(acc: Accumulator, fmt: FloatFormat) -> dict[str, Any]:
    """Return what the kernels need to know of rounding to ``fmt`` as ``acc`` does: the fields of the native record."""
    target = Target(fmt, acc.rounding, acc.overflow, acc.subnormals, acc.random_bits)
    infinite = math.inf if fmt.has_infinity else math.nan
    clamps = target.overflow is Overflow.SATURATE
    inward = {Rounding.TOWARD_ZERO: (True, True), Rounding.DOWN: (True, False), Rounding.UP: (False, True)}
    positive, negative = inward.get(target.rounding, (False, False))
    return {
        "man_bits": fmt.man_bits,
        "min_exponent": fmt.min_exponent,
        "bias": fmt.bias,
        "largest": fmt.max,
        "flush_below": 0.0 if target.subnormals and fmt.has_subnormals else fmt.smallest_normal,
        "over_positive": fmt.max if clamps or positive else infinite,
        "over_negative": fmt.max if clamps or negative else infinite,
        "infinite": infinite,
        "random_bits": target.random_bits or default_random_bits(fmt),
        "keeps_negative_zero": fmt.specials is not Specials.FNUZ,
    }
