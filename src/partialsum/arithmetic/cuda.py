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

from partialsum.accumulators import AlignedAccumulator, AnyAccumulator
from partialsum.arithmetic import cuda_device, native
from partialsum.arithmetic.cuda_compiler import compile_kernels
from partialsum.arithmetic.cuda_device import pointer, record
from partialsum.arithmetic.cuda_kernels import JOIN_THREADS, Source
from partialsum.arithmetic.cuda_units import Formats, Summation, scaled_summation, summation
from partialsum.errors import InputError

_BATCH_DIMENSIONS = 4
_LARGEST_SIZE = 2**31 - 1
_BOUNDS_BYTES = 16
_CENSUS_THREADS, _CENSUS_BLOCKS_PER_UNIT = 256, 8


def gemm_cuda(
    a: Tensor,
    b: Tensor,
    acc: AnyAccumulator,
    formats: Formats,
    c: Tensor | None,
    scales: tuple[Tensor, ...] | None = None,
) -> Tensor:
    """Return ``c + a @ b`` of CUDA tensors on one device, leading dimensions broadcast, without waiting for it.

    ``formats`` are those that the operands are in already (None: any float32); of block-scaled operands, which are
    elements alone, ``scales`` holds the blocks' scales of either and those of the two tensors.
    """
    batch: tuple[int, ...] = tuple(torch.broadcast_shapes(a.shape[:-2], b.shape[:-2]))  # type: ignore[no-untyped-call]
    m, n, k = a.shape[-2], b.shape[-1], a.shape[-1]
    d = a.new_empty((*batch, m, n))
    if d.numel() == 0:
        return d
    if len(batch) > _BATCH_DIMENSIONS:
        raise InputError(f"CUDA tensors may have at most {_BATCH_DIMENSIONS} batch dimensions, got {len(batch)}")
    sizes, multiprocessors = (m, n, math.prod(batch)), cuda_device.properties(d.device).units
    if scales is None:
        what = summation(acc, formats, sizes, multiprocessors, patches=False, k=k)
    else:
        assert isinstance(acc, AlignedAccumulator)
        what = scaled_summation(acc, formats, scales, sizes, multiprocessors)
    launch = Launch(what, d.device, (m, n, k), sizes[2])
    start = None if c is None else c.expand(d.shape)
    described = [None if x is None else _described(x) for x in (a, b, start, d)]
    with cuda_device.active(d.device):
        choice = launch.choose(a, b, start)
        launch.run(native.load().device_gemm(*described, rule=what.rule, choice=choice, sums=launch.sums()))
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
    m, n, k = _sizes(pass_, a, b, d, geometry)
    multiprocessors = cuda_device.properties(d.device).units
    what = summation(acc, formats, (m, n, geometry.groups), multiprocessors, patches=True, k=k)
    launch = Launch(what, d.device, (m, n, k), geometry.groups)
    plan = getattr(native.load(), f"device_convolution_{pass_}")
    with cuda_device.active(d.device):
        choice = launch.choose(a, b, None)
        problem = plan(
            *(_described(x) for x in tensors),
            stride=(1,) * missing + geometry.stride,
            padding=(0,) * missing + geometry.padding,
            dilation=(1,) * missing + geometry.dilation,
            groups=geometry.groups,
            rule=what.rule,
            choice=choice,
            sums=launch.sums(),
        )
        launch.run(problem)
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

    def __init__(self, what: Summation, device: torch.device, sizes: tuple[int, int, int], batch: int) -> None:
        self.what, self.program, self.device, self.batch = what, what.program, device, batch
        self.m, self.n, self.k = sizes
        self.pieces = batch * max(what.slices, 1)
        largest = max(kernel.shape.blocks(self.m, self.n, self.pieces) for kernel in self.program.kernels)
        if max(*sizes, largest) > _LARGEST_SIZE:
            raise InputError(f"sizes of CUDA tensors must lie below 2**31, got m, n, k = {sizes} times {batch}")
        self.functions = load(self.program.sources, device)
        self.stream = cuda_device.stream(device)
        self.scratch: list[Tensor] = []  # alive until the launches that use them are in the stream
        self.census_blocks = cuda_device.properties(device).units * _CENSUS_BLOCKS_PER_UNIT

    def choose(self, *operands: Tensor | None) -> int:
        """Launch the census of the operands and the decision; returns where on the device the answer will be."""
        if self.program.choose is None:
            return 0
        lib, count = native.load(), len(operands)
        self.scratch.append(torch.empty((count + 1) * _BOUNDS_BYTES, dtype=torch.uint8, device=self.device))
        bounds = self.scratch[-1].data_ptr()
        choice = bounds + count * _BOUNDS_BYTES
        self._launch("clear", (1, 1, 1), _CENSUS_THREADS, pointer(bounds), ctypes.c_int32(count))
        largest = max(x.numel() for x in operands if x is not None)
        blocks = max(1, min(self.census_blocks, -(-largest // _CENSUS_THREADS)))
        census = record(lib.device_census([None if x is None else _described(x) for x in operands]))
        self._launch("census", (blocks, count, 1), _CENSUS_THREADS, census, pointer(bounds))
        facts = record(lib.device_facts(bounds, self.k, operands[-1] is not None, native.forbidden_kernels()))
        known = (record(data) for data in self.what.chooser)
        self._launch(self.program.choose.names[0], (1, 1, 1), 1, facts, *known, pointer(choice))
        return choice

    def sums(self) -> int:
        """Return where the sums of chunks go that are summed side by side, or 0."""
        if self.what.slices == 0:
            return 0
        self.scratch.append(torch.empty(self.pieces * self.m * self.n, dtype=torch.float32, device=self.device))
        return self.scratch[-1].data_ptr()

    def run(self, problem: bytes) -> None:
        """Launch every kernel of the program; the one that was chosen works."""
        arguments = record(problem), *(record(data) for data in self.what.extras)
        for i, kernel in enumerate(self.program.kernels):
            grid = (kernel.shape.blocks(self.m, self.n, self.pieces), 1, 1)
            self._launch(kernel.entry, grid, kernel.shape.threads, arguments[0], ctypes.c_int32(i), *arguments[1:])
        if not self.program.sliced:
            return
        blocks = -(-self.batch * self.m * self.n // JOIN_THREADS)
        for i, kernel in enumerate(self.program.kernels):
            self._launch(kernel.source.names[1], (blocks, 1, 1), JOIN_THREADS, arguments[0], ctypes.c_int32(i))

    def _launch(self, name: str, grid: tuple[int, int, int], threads: int, *arguments: Any) -> None:
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


def _described(x: Tensor) -> tuple[int, list[int], list[int]]:
    return x.data_ptr(), list(x.shape), list(x.stride())
