"""Kernels of matrix units and of integer registers for a GPU, and the records that they are given."""

from __future__ import annotations

from functools import cache, lru_cache
from typing import Any, NamedTuple

from torch import Tensor

from partialsum.accumulators import Accumulator, AlignedAccumulator, AnyAccumulator, IntegerAccumulator
from partialsum.arithmetic import cuda_kernels, native, units
from partialsum.arithmetic.cuda_kernels import Kernel, Program, Shape, Source, gemm_source, record_checks
from partialsum.errors import InputError
from partialsum.formats import BlockFormat, FloatFormat, Format

Formats = tuple[Format | None, Format | None]

LARGE = Shape(4, 4, tile_k=32, unroll=1)
MEDIUM = Shape(2, 2, tile_k=64, unroll=1)
SINGLE = Shape(1, 1, across=8, down=8, tile_k=64, unroll=4)
_LONGEST_GROUP = 64
_LARGE_FILLS, _MEDIUM_FILLS = 0.65, 0.75
_E8M0_MIN_EXPONENT = -127
_ONE_BLOCK = 2**31 - 1
"""Steps of a block that holds any line whole."""


class Summation(NamedTuple):
    """What a launch needs to know of an accumulator."""

    program: Program
    rule: Any
    """The native record of a rounding; of no meaning but for an ``Accumulator``."""
    chooser: tuple[bytes, ...]
    """Records that the choice among the kernels takes behind the facts."""
    extras: tuple[bytes, ...]
    """Records that every kernel takes behind its index."""
    slices: int = 0
    """Chunks that are summed side by side, where the program's kernels do that."""


def summation(
    acc: AnyAccumulator,
    formats: Formats,
    sizes: tuple[int, int, int],
    multiprocessors: int,
    *,
    patches: bool,
    k: int = 0,
) -> Summation:
    """Return kernels and records for ``(m, n, batch)`` outputs of ``k`` products of operands in ``formats``."""
    register = units.register(acc, formats)
    if isinstance(acc, Accumulator):
        m, n, batch = sizes
        slices = cuda_kernels.slices(acc, m, n, k, batch, multiprocessors, patches=patches)
        shape = cuda_kernels.shape_for(m, n, batch * max(slices, 1), multiprocessors, patches=patches)
        program = cuda_kernels.program(acc, shape, patches=patches, sliced=slices > 0)
        chooser = choices(program), native.load().device_rule(register["rule"])
        return Summation(program, register["rule"], chooser, (), slices)
    if isinstance(acc, IntegerAccumulator):
        integer = native.load().device_integer(register["integer"])
        program = _integer_program(shape_for(sizes, multiprocessors, group=1), patches)
        return Summation(program, register["rule"], (integer,), (integer,))
    assert isinstance(acc, AlignedAccumulator)  # units.register refuses others
    check_group(acc)
    unit = native.load().device_unit(register["unit"], dot=1)
    program = _unit_program(acc.join_bits is not None, shape_for(sizes, multiprocessors, group=acc.group), patches)
    return Summation(program, register["rule"], (unit,), (unit,))


def scaled_summation(
    acc: AlignedAccumulator,
    formats: Formats,
    scales: tuple[Tensor, ...],
    sizes: tuple[int, int, int],
    multiprocessors: int,
) -> Summation:
    """Return the kernel for block-scaled elements; ``scales`` are those of ``a``, of ``b``, and of the two tensors.

    A unit that adds ``dot`` elements exactly takes elements alone and aligns by the scales; another one takes whole
    values, whose scales only say what subnormal elements are aligned by.
    """
    check_group(acc)
    dots = acc.dot > 1
    lowest = [_scale_min_exponent(fmt) if dots else units.min_exponent(units.element_of(fmt)) for fmt in formats]
    lib = native.load()
    unit = lib.device_unit(units.unit_rule(acc, *lowest), dot=acc.dot)
    described = [(x.data_ptr(), list(x.shape), list(x.stride())) for x in scales[:2]]
    blocks = [fmt.block if isinstance(fmt, BlockFormat) else _ONE_BLOCK for fmt in formats]
    scaled = lib.device_scaled(
        *described,
        a_block=blocks[0],
        b_block=blocks[1],
        a_tensor=scales[2].data_ptr(),
        b_tensor=scales[3].data_ptr(),
        has_tensor_scales=dots and any(isinstance(fmt, BlockFormat) and fmt.tensor_scale for fmt in formats),
    )
    shape = shape_for(sizes, multiprocessors, group=_LONGEST_GROUP)
    program = _scaled_program("scaled" if dots else "floored", shape)
    return Summation(program, units.no_rule(), (), (unit, scaled))


def check_group(acc: AlignedAccumulator) -> None:
    """Raise :class:`InputError` for a unit whose groups do not fit a tile."""
    if acc.group > _LONGEST_GROUP:
        raise InputError(f"accumulator must have a group of at most {_LONGEST_GROUP} for CUDA tensors, got {acc}")


@lru_cache(maxsize=256)
def choices(program: Program) -> bytes:
    """Return the record of the kernels that a choice is among."""
    known = native.load().kernels()
    made: bytes = native.load().device_choices([known.index(kernel.name) for kernel in program.kernels])
    return made


def shape_for(sizes: tuple[int, int, int], multiprocessors: int, *, group: int) -> Shape:
    """Return the shape for ``(m, n, batch)`` outputs whose products come in groups."""
    if group <= LARGE.tile_k and LARGE.blocks(*sizes) >= _LARGE_FILLS * multiprocessors:
        return LARGE
    return MEDIUM if MEDIUM.blocks(*sizes) >= _MEDIUM_FILLS * multiprocessors else SINGLE


def _scale_min_exponent(fmt: Format | None) -> int:
    assert isinstance(fmt, BlockFormat)
    return fmt.scale.min_exponent if isinstance(fmt.scale, FloatFormat) else _E8M0_MIN_EXPONENT


@lru_cache(maxsize=64)
def _unit_program(joins: bool, shape: Shape, patches: bool) -> Program:
    header = '#include "unit.cuh"\n\nusing namespace partialsum;\n'
    fast = f"UnitSums<FastUnitStep<{'true' if joins else 'false'}>, {shape}>"
    small = shape if shape.rows < LARGE.rows else MEDIUM
    kinds = (("fast", fast, shape), ("any", f"UnitSums<AnyUnitStep, {small}>", small))
    kernels = tuple(
        Kernel(
            name, own, gemm_source(f"unit_{name}", sums, own, patches=patches, header=header, extra=("DeviceUnit",))
        )
        for name, sums, own in kinds
    )
    return Program(kernels, _choose("unit", "DeviceUnit", "unit.cuh"))


@lru_cache(maxsize=64)
def _integer_program(shape: Shape, patches: bool) -> Program:
    header = '#include "integer.cuh"\n\nusing namespace partialsum;\n'
    kernels = tuple(
        Kernel(
            name,
            own,
            gemm_source(
                f"integer_{name}",
                f"IntegerSums<{kind}, {own}>",
                own,
                patches=patches,
                header=header,
                extra=("DeviceInteger",),
            ),
        )
        for name, kind, own in (
            ("narrow", "NarrowInteger", shape),
            ("wide", "WideInteger", shape if shape.rows < LARGE.rows else MEDIUM),
        )
    )
    return Program(kernels, _choose("integer", "DeviceInteger", "integer.cuh"))


@lru_cache(maxsize=8)
def _scaled_program(kind: str, shape: Shape) -> Program:
    shape = shape if shape.rows < LARGE.rows else MEDIUM
    header = f'#include "{kind}.cuh"\n\nusing namespace partialsum;\n'
    extra = ("DeviceUnit", "DeviceScaled")
    sums = f"{kind.capitalize()}Sums<{shape}>"
    source = gemm_source(kind, sums, shape, patches=False, header=header, extra=extra)
    return Program((Kernel(kind, shape, source),), None)


@cache
def _choose(kind: str, record: str, header: str) -> Source:
    return Source(
        (f"choose_{kind}_kernel",),
        f"""#include "{header}"

using namespace partialsum;
{record_checks("DeviceFacts", record)}\
extern "C" __global__ void choose_{kind}_kernel(const __grid_constant__ DeviceFacts facts,
                                            const __grid_constant__ {record} rule, int32_t* choice) {{
    *choice = choose_{kind}(facts, rule);
}}
""",
    )
