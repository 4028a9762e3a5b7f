"""GEMMs and convolutions of CUDA tensors: the kernels of ``native/cuda``, launched on torch's current stream.

Nothing waits for the device and nothing is copied: bounds of the operands are found there, a one-thread kernel decides
which of the launched kernels is provably exact for them, and the others return at once. docs/cuda.md says what of this
has met a GPU.
"""

from __future__ import annotations

import ctypes
import math
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from partialsum.accumulators import Accumulator, AnyAccumulator
from partialsum.arithmetic import cuda_device, cuda_kernels, native
from partialsum.arithmetic.cuda_compiler import compile_kernels
from partialsum.arithmetic.cuda_kernels import Program, Source
from partialsum.errors import InputError
from partialsum.formats import Format

_BATCH_DIMENSIONS = 4
_LARGEST_SIZE = 2**31 - 1
_BOUNDS_BYTES = 16
_CENSUS_THREADS, _CENSUS_BLOCKS_PER_UNIT = 256, 8

Formats = tuple[Format | None, Format | None]


def gemm_cuda(a: Tensor, b: Tensor, acc: AnyAccumulator, formats: Formats, c: Tensor | None) -> Tensor:
    """Return ``c + a @ b`` of CUDA tensors on one device, leading dimensions broadcast, without waiting for it.

    ``formats`` are those that the operands are in already (None: any float32).
    """
    batch: tuple[int, ...] = tuple(torch.broadcast_shapes(a.shape[:-2], b.shape[:-2]))  # type: ignore[no-untyped-call]
    m, n, k = a.shape[-2], b.shape[-1], a.shape[-1]
    d = a.new_empty((*batch, m, n))
    if d.numel() == 0:
        return d
    if len(batch) > _BATCH_DIMENSIONS:
        raise InputError(f"CUDA tensors may have at most {_BATCH_DIMENSIONS} batch dimensions, got {len(batch)}")
    launch = Launch(acc, formats, d.device, (m, n, k), math.prod(batch), patches=False)
    start = None if c is None else c.expand(d.shape)
    choice = launch.choose(a, b, start)
    record = native.load().device_gemm(
        _described(a),
        _described(b),
        None if start is None else _described(start),
        _described(d),
        rule=launch.rule,
        choice=choice,
    )
    launch.run(record)
    return d


def convolve_cuda(
    pass_: str, a: Tensor, b: Tensor, shape: tuple[int, ...], acc: AnyAccumulator, formats: Formats, geometry: Any
) -> Tensor:
    """Return one pass of a convolution of CUDA tensors (see ``arithmetic/convolution.py``), of ``shape``."""
    d = a.new_empty(shape)
    if d.numel() == 0:
        return d
    missing = 5 - a.dim()
    tensors = [x.reshape(*x.shape[:2], *(1,) * missing, *x.shape[2:]) if missing else x for x in (a, b, d)]
    launch = Launch(acc, formats, d.device, _sizes(pass_, a, b, d, geometry), geometry.groups, patches=True)
    plan = getattr(native.load(), f"device_convolution_{pass_}")
    record = plan(
        *(_described(x) for x in tensors),
        stride=(1,) * missing + geometry.stride,
        padding=(0,) * missing + geometry.padding,
        dilation=(1,) * missing + geometry.dilation,
        groups=geometry.groups,
        rule=launch.rule,
        choice=launch.choose(a, b, None),
    )
    launch.run(record)
    return d


def _sizes(pass_: str, a: Tensor, b: Tensor, d: Tensor, geometry: Any) -> tuple[int, int, int]:
    """``m``, ``n`` and ``k`` of one group's GEMM."""
    groups, positions = geometry.groups, math.prod(d.shape[2:])
    if pass_ == "grad_weight":
        return d.shape[0] // groups, d.shape[1] * positions, a.shape[0] * math.prod(a.shape[2:])
    k = math.prod(b.shape[1:]) if pass_ == "forward" else b.shape[0] // groups * math.prod(b.shape[2:])
    return d.shape[0] * positions, d.shape[1] // groups, k


class Launch:
    """The kernels of one call on one device's current stream."""

    def __init__(
        self,
        acc: AnyAccumulator,
        formats: Formats,
        device: torch.device,
        sizes: tuple[int, int, int],
        batch: int,
        *,
        patches: bool,
    ) -> None:
        self.acc, self.device, self.batch = _floating(acc), device, batch
        self.m, self.n, self.k = sizes
        found = cuda_device.properties(device)
        shape = cuda_kernels.shape_for(self.m, self.n, batch, found.units, patches=patches)
        if max(*sizes, shape.blocks(self.m, self.n, batch)) > _LARGEST_SIZE:
            raise InputError(f"sizes of CUDA tensors must lie below 2**31, got m, n, k = {sizes} times {batch}")
        self.program = cuda_kernels.program(self.acc, shape, patches=patches)
        self.functions = load(self.program.sources, device)
        self.stream = cuda_device.stream(device)
        self.rule = native.rule(self.acc)
        self.scratch: Tensor | None = None  # alive until the launches that use it are in the stream
        self.census_blocks = found.units * _CENSUS_BLOCKS_PER_UNIT

    def choose(self, *operands: Tensor | None) -> int:
        """Launch the census of the operands and the decision; returns where on the device the answer will be."""
        if self.program.choose is None:
            return 0
        lib, count = native.load(), len(operands)
        self.scratch = torch.empty((count + 1) * _BOUNDS_BYTES, dtype=torch.uint8, device=self.device)
        bounds = self.scratch.data_ptr()
        choice = bounds + count * _BOUNDS_BYTES
        self._launch("clear", (1, 1, 1), _CENSUS_THREADS, pointer(bounds), ctypes.c_int32(count))
        largest = max(x.numel() for x in operands if x is not None)
        blocks = max(1, min(self.census_blocks, -(-largest // _CENSUS_THREADS)))
        census = record(lib.device_census([None if x is None else _described(x) for x in operands]))
        self._launch("census", (blocks, count, 1), _CENSUS_THREADS, census, pointer(bounds))
        facts = record(lib.device_facts(bounds, self.k, operands[-1] is not None, native.forbidden_kernels()))
        self._launch(
            "choose",
            (1, 1, 1),
            1,
            choices(self.program),
            facts,
            record(lib.device_rule(self.rule)),
            pointer(choice),
        )
        return choice

    def run(self, problem: bytes) -> None:
        """Launch every kernel of the program; the one that was chosen works."""
        argument = record(problem)
        for i, kernel in enumerate(self.program.kernels):
            grid = (kernel.shape.blocks(self.m, self.n, self.batch), 1, 1)
            self._launch(kernel.entry, grid, kernel.shape.threads, argument, ctypes.c_int32(i))

    def _launch(self, name: str, grid: tuple[int, int, int], threads: int, *arguments: Any) -> None:
        with cuda_device.active(self.device):
            cuda_device.launch(self.functions[name], grid, threads, self.stream, *arguments)


@lru_cache(maxsize=512)
def load(sources: tuple[Source, ...], device: torch.device) -> dict[str, Any]:
    """Return the functions of some translation units on a device, by name."""
    cuda_device.driver()
    codes = compile_kernels([source.text for source in sources], cuda_device.properties(device).architecture)
    functions = {}
    for source, code in zip(sources, codes, strict=True):
        functions.update(cuda_device.load(code, source.names, device))
    return functions


@lru_cache(maxsize=256)
def choices(program: Program) -> Any:
    """Return the record of the kernels that a choice is among."""
    known = native.load().kernels()
    return record(native.load().device_choices([known.index(kernel.name) for kernel in program.kernels]))


def _floating(acc: AnyAccumulator) -> Accumulator:
    if not isinstance(acc, Accumulator):
        raise InputError(f"accumulator must be a floating-point Accumulator for CUDA tensors so far, got {acc}")
    return acc


def _described(x: Tensor) -> tuple[int, list[int], list[int]]:
    return x.data_ptr(), list(x.shape), list(x.stride())


def record(data: bytes) -> Any:
    """Return bytes as an argument of a kernel."""
    return ctypes.create_string_buffer(data, len(data))


def pointer(address: int) -> Any:
    """Return an address on the device as an argument of a kernel."""
    return ctypes.c_uint64(address)
