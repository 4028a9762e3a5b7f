"""``gemm``: matrix products with any accumulator, as fast as the processor allows, bit for bit as the reference."""

from __future__ import annotations

import sys
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from partialsum.accumulators import (
    Accumulator,
    AlignedAccumulator,
    AnyAccumulator,
    DotAccumulator,
    IntegerAccumulator,
    Rounding,
    parse_accumulator,
)
from partialsum.arithmetic import native, units
from partialsum.arithmetic.dots import gemm_dots
from partialsum.arithmetic.floors import NO_FLOORS, Floors, have_floors, operand_floors
from partialsum.arithmetic.quantize import quantize
from partialsum.arithmetic.reference import gemm_reference
from partialsum.arithmetic.scaled import gemm_scaled
from partialsum.choices import Choice, parse_choice
from partialsum.errors import InputError
from partialsum.formats import BlockFormat, FloatFormat, Format, parse_format

Array = TypeVar("Array")
Floats = NDArray[np.float32]
Inputs = str | Format | tuple[str | Format | None, str | Format | None] | None

Formats = tuple[Format | None, Format | None]

_SLICE = 1 << 22
"""Elements of a weight that are quantised at a time."""

DEFAULT_ACCUMULATOR = Accumulator(FloatFormat(6, 9), chunk=64)


class Backend(Choice):
    """What computes."""

    CPU = "cpu"
    CUDA = "cuda"
    REFERENCE = "reference"


def gemm(
    a: Array,
    b: Array,
    accumulator: str | AnyAccumulator = DEFAULT_ACCUMULATOR,
    inputs: Inputs = None,
    c: Array | None = None,
    backend: str | None = None,
) -> Array:
    """Return ``d[..., m, n] = c + a[..., m, k] @ b[..., k, n]``, every addition done as ``accumulator`` does it.

    ``a`` and ``b`` are float32 numpy arrays or torch tensors; leading dimensions broadcast, as does ``c``, the
    start value of the sums. They are taken as they are, or first quantised to ``inputs`` (a format, or one for each
    operand). The result has the bits of :func:`~partialsum.arithmetic.reference.gemm_reference` whatever the number
    of threads and the processor; ``backend="reference"`` runs that instead. CUDA tensors are computed where they are,
    on torch's current stream, without waiting for it (an ``IntegerAccumulator`` looks at its operands first). On
    tensors the operation is differentiable: gradients are GEMMs with the same accumulator, and quantising the inputs
    passes them straight through.

    Raises :class:`InputError` for shapes that do not fit and for types other than float32.
    """
    record = parse_accumulator(accumulator)
    chosen = choose_backend(backend, a)
    for name, x in (("a", a), ("b", b), ("c", c)):
        if x is not None:
            check_operand(x, name)
            check_same_kind(a, x, name)
    torch: Any = sys.modules.get("torch")
    if torch is not None and isinstance(a, torch.Tensor):
        from partialsum.arithmetic.torch_ops import gemm_tensors

        return cast(Array, gemm_tensors(a, cast(Any, b), record, inputs, cast(Any, c), chosen))
    x, y, start = cast(Any, a), cast(Any, b), cast(Any, c)
    return cast(Array, gemm_arrays(x, y, record, inputs, start, chosen))


def choose_backend(backend: str | None, x: Any) -> Backend:
    """Return what computes with operands like ``x``; :class:`InputError` for one that cannot reach them."""
    on_gpu = bool(getattr(x, "is_cuda", False))
    if backend is None:
        return Backend.CUDA if on_gpu else Backend.CPU
    chosen = parse_choice(Backend, backend, "backend")
    if on_gpu != (chosen is Backend.CUDA):
        place, fitting = (x.device, "'cuda'") if on_gpu else ("the CPU", "'cpu' or 'reference'")
        raise InputError(
            f"backend must be {fitting} for operands on {place} (move them first), got {str(chosen)!r}"
        )
    return chosen


def check_operand(x: Any, name: str) -> None:
    """Raise :class:`InputError` unless ``x`` is a float32 numpy array or torch tensor."""
    torch: Any = sys.modules.get("torch")
    tensor = torch is not None and isinstance(x, torch.Tensor)
    if not tensor and not isinstance(x, np.ndarray):
        raise InputError(f"{name} must be a numpy array or a torch tensor, got {type(x).__name__}")
    if str(x.dtype).removeprefix("torch.") != "float32":
        raise InputError(f"{name} must have dtype float32 (convert it first), got {x.dtype}")


def check_same_kind(first: Any, x: Any, name: str) -> None:
    """Raise :class:`InputError` where one operand is a numpy array and the other a torch tensor."""
    if isinstance(first, np.ndarray) != isinstance(x, np.ndarray):
        raise InputError(f"{name} must be a {_kind(first)} like the first operand, got a {_kind(x)}")


def _kind(x: Any) -> str:
    return "numpy array" if isinstance(x, np.ndarray) else "torch tensor"


def gemm_arrays(
    a: Floats, b: Floats, acc: AnyAccumulator, inputs: Inputs, c: Floats | None, backend: Backend
) -> Floats:
    """Return :func:`gemm` of numpy arrays."""
    shape = result_shape(a.shape, b.shape, None if c is None else c.shape)
    formats = parse_inputs(inputs)
    if isinstance(acc, AlignedAccumulator) and acc.dot > 1:
        return gemm_scaled(a, b, acc, formats, c, shape, reference=backend is Backend.REFERENCE)
    if backend is Backend.REFERENCE:
        return gemm_reference(a, b, acc, cast(Any, inputs), c)
    if _goes_in_slices(b, formats[1], acc):
        return _gemm_in_slices(a, b, acc, formats, c, shape)
    a, b = quantize_operands(a, b, inputs)
    if isinstance(acc, DotAccumulator):
        return gemm_dots(a, b, acc, (units.min_exponent(formats[0]), units.min_exponent(formats[1])), c, shape)
    if isinstance(acc, IntegerAccumulator):
        for name, x in (("a", a), ("b", b), ("c", c)):
            if x is not None:
                units.check_integers(x, name)
        if not units.integers_fit(acc, a, b, c):
            return gemm_reference(a, b, acc, None, c)
    result = np.empty(shape, dtype=np.float32)
    floors = NO_FLOORS
    if any(have_floors(acc, fmt) for fmt in formats):
        floors = operand_floors((a, b), formats, (-1, -2))
    _run(a, b, acc, formats, c, result, floors)
    return result


def _run(
    a: Floats,
    b: Floats,
    acc: AnyAccumulator,
    formats: Formats,
    c: Floats | None,
    result: Floats,
    floors: Floors = NO_FLOORS,
) -> None:
    """Write ``c + a @ b`` of operands that are in their formats already into ``result``, which may be a view."""
    batch, (m, n), k = result.shape[:-2], result.shape[-2:], a.shape[-1]
    a_shape, b_shape = (*batch, m, k), (*batch, k, n)
    native.load().gemm(
        a=np.broadcast_to(_aligned(a), a_shape),
        b=np.broadcast_to(_aligned(b), b_shape),
        c=None if c is None else np.broadcast_to(_aligned(c), result.shape),
        d=result,
        threads=native.num_threads(),
        level=native.current_simd_level(),
        forbidden=native.forbidden_kernels(),
        a_floors=None if floors[0] is None else np.broadcast_to(floors[0], a_shape),
        b_floors=None if floors[1] is None else np.broadcast_to(floors[1], b_shape),
        **units.register(acc, formats),
    )


def _goes_in_slices(b: Floats, fmt: Format | None, acc: AnyAccumulator) -> bool:
    """Whether a large ``b``, such as a vocabulary's, is quantised a few columns at a time, to spare a whole copy.

    Not where a column's bits depend on its place: random words are drawn by index, a tensor's scale from all of it.
    """
    if b.ndim != 2 or b.size < 2 * _SLICE or fmt is None or isinstance(fmt, BlockFormat):
        return False
    if isinstance(acc, Accumulator):
        return acc.rounding is not Rounding.STOCHASTIC
    return isinstance(acc, AlignedAccumulator)


def _gemm_in_slices(
    a: Floats, b: Floats, acc: AnyAccumulator, formats: Formats, c: Floats | None, shape: tuple[int, ...]
) -> Floats:
    left, _ = quantize_operands(a, b[:, :0], formats)
    start = None if c is None else np.broadcast_to(c, shape)
    result = np.empty(shape, dtype=np.float32)
    columns = max(1, _SLICE // b.shape[0])
    for first in range(0, b.shape[1], columns):
        part = np.s_[..., first : first + columns]
        _, right = quantize_operands(a[..., :0, :], b[part], formats)
        _run(left, right, acc, formats, None if start is None else start[part], result[part])
    return result


def parse_inputs(inputs: Inputs) -> Formats:
    """Return the formats of the two operands that ``inputs`` names."""
    pair = inputs if isinstance(inputs, tuple) else (inputs, inputs)
    if len(pair) != 2:
        raise InputError(f"inputs must be one format or a pair of formats, got {len(pair)} of them")
    first, second = pair
    return None if first is None else parse_format(first), None if second is None else parse_format(second)


def quantize_operands(a: Floats, b: Floats, inputs: Inputs) -> tuple[Floats, Floats]:
    """Return the operands in the formats that ``inputs`` names, with the defaults of ``quantize``."""
    first, second = parse_inputs(inputs)
    left = a if first is None else _quantize_as_it_lies(a, first, -1)
    right = b if second is None else _quantize_as_it_lies(b, second, -2)
    return left, right


def _quantize_as_it_lies(x: Floats, fmt: Format, axis: int) -> Floats:
    """Return ``x`` in a format, its blocks along ``axis``; a transposed matrix is read and written along its rows."""
    if x.flags.c_contiguous or not x.swapaxes(-1, -2).flags.c_contiguous:
        return quantize(x, fmt, axis=axis)
    return quantize(x.swapaxes(-1, -2), fmt, axis=-3 - axis).swapaxes(-1, -2)


def result_shape(a: tuple[int, ...], b: tuple[int, ...], c: tuple[int, ...] | None) -> tuple[int, ...]:
    """Return the shape of ``c + a @ b``; raises :class:`InputError` where the shapes do not fit."""
    if len(a) < 2 or len(b) < 2 or a[-1] != b[-2]:
        raise InputError(f"a and b must have shapes [..., m, k] and [..., k, n], got {tuple(a)} and {tuple(b)}")
    try:
        shape = (*np.broadcast_shapes(a[:-2], b[:-2]), a[-2], b[-1])
    except ValueError:
        raise InputError(
            f"the leading dimensions of a and b must broadcast, got {tuple(a)} and {tuple(b)}"
        ) from None
    if c is not None:
        try:
            fits = np.broadcast_shapes(c, shape) == shape
        except ValueError:
            fits = False
        if not fits:
            raise InputError(f"c must broadcast to the result's shape {shape}, got {tuple(c)}")
    return shape


def _aligned(x: Floats) -> Floats:
    return x if x.flags.aligned and x.dtype.isnative else np.require(x, dtype=np.float32, requirements="A")
