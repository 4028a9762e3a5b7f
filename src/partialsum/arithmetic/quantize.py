"""``quantize``: numbers brought into a format, element by element or in blocks, at the speed of memory.

The native loops give the bits of :func:`~partialsum.arithmetic.reference.quantize_reference` for every format,
rounding and policy, whatever the number of threads and the processor.
"""

from __future__ import annotations

import functools
import math
import sys
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from partialsum.accumulators import Accumulator, Overflow, Rounding, check_seed
from partialsum.arithmetic import native
from partialsum.arithmetic.rounding import Target, default_random_bits, exponent_of
from partialsum.choices import parse_choice
from partialsum.errors import InputError
from partialsum.formats import (
    BlockFormat,
    FloatFormat,
    Format,
    element_format,
    parse_format,
)

Array = TypeVar("Array")
Floats = NDArray[np.float32]


class Blocks(NamedTuple):
    """A tensor in a block format: ``value = element * scale * tensor_scale``, as float32 arrays.

    ``scales`` has the shape of ``elements`` with one entry per block along the axis of the blocks.
    """

    elements: Any
    scales: Any
    tensor_scale: float


class Plan(NamedTuple):
    """What quantize was asked for, parsed and checked."""

    format: Format
    target: Target
    seed: int
    axis: int


def quantize(
    x: Array,
    fmt: str | Format,
    rounding: str | Rounding = Rounding.NEAREST_EVEN,
    overflow: str | Overflow = Overflow.SATURATE,
    *,
    subnormals: bool = True,
    random_bits: int | None = None,
    seed: int = 0,
    axis: int = -1,
    out: Array | None = None,
) -> Array:
    """Return ``x`` with every element rounded to ``fmt``, as float32 values of the same shape and kind of array.

    ``x`` is a numpy array or a torch tensor, on a CPU or a CUDA device. float64 and integers are rounded once,
    straight to ``fmt`` (to float32 first for a block format); float16 and bfloat16 are exact in float32. On tensors
    the gradient passes straight through. Formats are floats of every family, fixed point, integers, and block
    formats, whose blocks run along ``axis`` (the last one may be short). Beyond the largest number ``overflow``
    decides: ``saturate``, or ``infinity`` as IEEE 754 says. NaN stays NaN; infinity stays infinity, or becomes NaN
    where ``fmt`` has none. Stochastic rounding depends on ``seed`` (64 bits) and on each element's position alone.
    ``out``, a contiguous float32 array of the same shape and kind, maybe ``x`` itself, receives the result and is
    returned.

    Raises :class:`InputError` for what is no array of real numbers and for options that ``fmt`` does not know.
    """
    plan = make_plan(fmt, rounding, overflow, subnormals=subnormals, random_bits=random_bits, seed=seed, axis=axis)
    torch: Any = sys.modules.get("torch")
    if torch is not None and isinstance(x, torch.Tensor):
        from partialsum.arithmetic.quantize_torch import quantize_tensor

        return cast(Array, quantize_tensor(x, plan, cast(Any, out)))
    values = quantize_array(np.asarray(x), plan, cast(Any, out))
    return cast(Array, values if isinstance(x, np.ndarray) else values[()])


def quantize_blocks(
    x: Any,
    fmt: str | Format,
    rounding: str | Rounding = Rounding.NEAREST_EVEN,
    *,
    subnormals: bool = True,
    random_bits: int | None = None,
    seed: int = 0,
    axis: int = -1,
) -> Blocks:
    """Return the elements and the scales that :func:`quantize` multiplies for a block format.

    ``x`` is a numpy array or a torch tensor; so are the parts of the result, in float32. Raises
    :class:`InputError` where ``fmt`` is not a block format.
    """
    options = {"subnormals": subnormals, "random_bits": random_bits, "seed": seed, "axis": axis}
    plan = make_plan(fmt, rounding, Overflow.SATURATE, **options)
    if not isinstance(plan.format, BlockFormat):
        raise InputError(f"fmt must be a block format such as 'mxfp4' or 'nvfp4', got {plan.format}")
    torch: Any = sys.modules.get("torch")
    if torch is not None and isinstance(x, torch.Tensor):
        from partialsum.arithmetic.quantize_torch import split_tensor

        return split_tensor(x, plan)
    return Blocks(*split_array(np.asarray(x), plan))


@functools.lru_cache(maxsize=256)
def make_plan(fmt: str | Format, rounding: str | Rounding, overflow: str | Overflow, **options: Any) -> Plan:
    """Return the checked plan of a call of :func:`quantize`; raises :class:`InputError` naming the argument."""
    record = parse_format(fmt)
    mode, policy = parse_choice(Rounding, rounding, "rounding"), parse_choice(Overflow, overflow, "overflow")
    if isinstance(record, BlockFormat) and policy is not Overflow.SATURATE:
        raise InputError(f"overflow must be 'saturate' for the block format {record}, got '{policy}'")
    if options["random_bits"] is not None and mode is not Rounding.STOCHASTIC:
        raise InputError(f"random_bits only means something with stochastic rounding, not {mode}")
    check_seed(options["seed"])
    target = Target(element_format(record), mode, policy, bool(options["subnormals"]), options["random_bits"])
    return Plan(record, target, options["seed"], options["axis"])


def quantize_array(x: NDArray[Any], plan: Plan, out: Floats | None = None) -> Floats:
    """Return :func:`quantize` of a numpy array."""
    result = np.empty(x.shape, dtype=np.float32) if out is None else _checked_out(out, x.shape)
    if isinstance(plan.format, BlockFormat):
        _in_blocks(x, plan, values=result)
        return result
    source = _source(x)
    settings = native.num_threads(), native.current_simd_level()
    native.load().quantize(native_rule(plan.target, plan.seed), source, result, *settings)
    return result


def _checked_out(out: Any, shape: tuple[int, ...]) -> Floats:
    fits = isinstance(out, np.ndarray) and out.dtype == np.float32 and out.shape == shape
    if not (fits and out.flags.c_contiguous and out.flags.writeable and out.flags.aligned):
        raise InputError(f"out must be a writeable contiguous float32 array of shape {shape}, got {_describe(out)}")
    return cast(Floats, out)


def _describe(x: Any) -> str:
    if not isinstance(x, np.ndarray):
        return type(x).__name__
    contiguous = "" if x.flags.c_contiguous else "non-contiguous "
    return f"a {contiguous}{x.dtype} array of shape {x.shape}"


def split_array(x: NDArray[Any], plan: Plan) -> tuple[Floats, Floats, float]:
    """Return :func:`quantize_blocks` of a numpy array."""
    elements = np.empty(x.shape, dtype=np.float32)
    return elements, *_in_blocks(x, plan, elements=elements)


def _in_blocks(
    x: NDArray[Any], plan: Plan, elements: Floats | None = None, values: Floats | None = None
) -> tuple[Floats, float]:
    """Fill ``elements`` and ``values`` where given; return the scales and the tensor's scale."""
    assert isinstance(plan.format, BlockFormat)
    axis = checked_axis(plan.axis, x.shape)
    before, length, after = x.shape[:axis], x.shape[axis], x.shape[axis + 1 :]
    folded = (math.prod(before), length, math.prod(after))
    scales = np.empty((*before, -(-length // plan.format.block), *after), dtype=np.float32)
    with np.errstate(invalid="ignore", over="ignore"):
        source = _source(x).astype(np.float32, copy=False).reshape(folded)
    outputs = [None if y is None else y.reshape(folded) for y in (elements, values)]
    tensor_scale = native.load().quantize_blocks(
        native_block_rule(plan),
        source,
        *outputs,
        scales.reshape(folded[0], scales.shape[axis], folded[2]),
        native.num_threads(),
        native.current_simd_level(),
    )
    return scales, float(tensor_scale)


def checked_axis(axis: int, shape: tuple[int, ...]) -> int:
    """Return ``axis`` counted from the front; :class:`InputError` where the shape has no such axis."""
    rank = len(shape)
    if not -rank <= axis < rank:
        raise InputError(f"axis must be {-rank} to {rank - 1} for an array of shape {shape}, got {axis}")
    return axis % rank


def _source(x: NDArray[Any]) -> NDArray[Any]:
    """Return ``x`` as contiguous float32 where that is exact, else as float64."""
    if x.dtype in (np.float32, np.float64):
        wanted = x.dtype.newbyteorder("=")
    elif (
        (x.dtype.kind != "b" and np.can_cast(x.dtype, np.float32))
        or x.dtype.name == "bfloat16"
        or x.dtype.name.startswith("float8")
    ):
        wanted = np.dtype(np.float32)
    elif x.dtype.kind in "iu":
        wanted = np.dtype(np.float64)
    else:
        raise InputError(f"x must hold real numbers, got dtype {x.dtype}")
    with np.errstate(invalid="ignore"):  # signalling NaNs
        return np.require(x, dtype=wanted, requirements=["C", "A"])


@functools.lru_cache(maxsize=256)
def native_rule(target: Target, seed: int, *, symmetric: bool = False) -> Any:
    """Return the native record of a rounding; ``symmetric`` leaves the most negative fixed-point code unused."""
    fmt = target.format
    if isinstance(fmt, FloatFormat):
        return native.load().QuantizeRule(native.rule(_as_accumulator(target, seed)))
    return native.load().QuantizeRule.fixed_point(
        rounding=list(Rounding).index(target.rounding),
        quantum=fmt.quantum,
        smallest=-fmt.max if symmetric else fmt.min,
        largest=fmt.max,
        random_bits=target.random_bits or default_random_bits(fmt),
        seed=seed,
    )


def _as_accumulator(target: Target, seed: int = 0) -> Accumulator:
    assert isinstance(target.format, FloatFormat)
    return Accumulator(
        target.format,
        target.rounding,
        overflow=target.overflow,
        subnormals=target.subnormals,
        random_bits=target.random_bits,
        seed=seed,
    )


@functools.lru_cache(maxsize=256)
def native_block_rule(plan: Plan) -> Any:
    """Return the native record of a block format's rounding."""
    fmt = plan.format
    assert isinstance(fmt, BlockFormat)
    element, scale = fmt.element, fmt.scale if isinstance(fmt.scale, FloatFormat) else None
    return native.load().BlockRule(
        element=native_rule(plan.target, plan.seed, symmetric=True),
        element_largest=element.max,
        element_max_exponent=exponent_of(element.max),
        block=fmt.block,
        scale=None if scale is None else native.rule(_as_accumulator(Target(scale, overflow=Overflow.SATURATE))),
        scale_largest=1.0 if scale is None else scale.max,
        tensor_scaled=fmt.tensor_scale,
    )
