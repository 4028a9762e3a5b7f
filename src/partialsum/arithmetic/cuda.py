"""GEMMs and convolutions of CUDA tensors: the kernels of ``native/cuda``, launched on torch's current stream.

Nothing waits for the device and nothing is copied: bounds of the operands are found there, a one-thread kernel decides
which of the launched kernels is provably exact for them, and the others return at once.

Not reachable from ``gemm`` yet: the kernels were compiled for GPUs and compared with the reference thread by thread on
a CPU (tests/arithmetic/test_cuda.py), but this file has met no GPU so far.
"""

from __future__ import annotations

import ctypes
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from partialsum.accumulators import Accumulator, AnyAccumulator
from partialsum.arithmetic import cuda_kernels, native
from partialsum.arithmetic.cuda_compiler import compile_kernels
from partialsum.arithmetic.cuda_kernels import THREADS, Program
from partialsum.errors import InputError

_BATCH_DIMENSIONS = 4
_VIEW_DIMENSIONS = 6
_LARGEST_SIZE = 2**31 - 1
_BOUNDS_BYTES = 16
_CENSUS_BLOCKS = 1024


def gemm_cuda(a: Tensor, b: Tensor, acc: AnyAccumulator, c: Tensor | None) -> Tensor:
    """Return ``c + a @ b`` of CUDA tensors on one device, leading dimensions broadcast, without waiting for it."""
    record = _floating(acc)
    shape = (*torch.broadcast_shapes(a.shape[:-2], b.shape[:-2]), a.shape[-2], b.shape[-1])  # type: ignore[no-untyped-call]
    d = a.new_empty(shape)
    if d.numel() == 0:
        return d
    _check_sizes(shape, len(shape) - 2)
    launch = Launch(record, d, a.shape[-1])
    choice = launch.choose(a, b, c)
    problem = native.load().device_gemm(
        _described(a),
        _described(b),
        None if c is None else _described(c),
        _described(d),
        rule=native.rule(record),
        choice=choice,
    )
    launch.run(problem, shape[-2], shape[-1], d.numel() // (shape[-2] * shape[-1]))
    return d


def convolve_cuda(
    pass_: str, a: Tensor, b: Tensor, shape: tuple[int, ...], acc: AnyAccumulator, geometry: Any
) -> Tensor:
    """Return one pass of a convolution of CUDA tensors (see ``arithmetic/convolution.py``), of ``shape``."""
    record = _floating(acc)
    d = a.new_empty(shape)
    if d.numel() == 0:
        return d
    missing = 5 - a.dim()
    tensors = [x.reshape(*x.shape[:2], *(1,) * missing, *x.shape[2:]) if missing else x for x in (a, b, d)]
    plan = getattr(native.load(), f"device_convolution_{pass_}")
    positions = d.numel() // (d.shape[0] * d.shape[1])
    groups = geometry.groups
    m, n = {
        "forward": (d.shape[0] * positions, d.shape[1] // groups),
        "grad_input": (d.shape[0] * positions, d.shape[1] // groups),
        "grad_weight": (d.shape[0] // groups, d.shape[1] * positions),
    }[pass_]
    k = {
        "forward": b[0].numel(),
        "grad_input": b.shape[0] // groups * b[0, 0].numel(),
        "grad_weight": a.shape[0] * a[0, 0].numel(),
    }[pass_]
    _check_sizes((m, n, k), 0)
    launch = Launch(record, d, k)
    choice = launch.choose(a, b, None)
    problem = plan(
        *(_described(x) for x in tensors),
        stride=(1,) * missing + geometry.stride,
        padding=(0,) * missing + geometry.padding,
        dilation=(1,) * missing + geometry.dilation,
        groups=groups,
        rule=native.rule(record),
        choice=choice,
    )
    launch.run(problem, m, n, groups)
    return d


class Launch:
    """The kernels of one call on one device's current stream."""

    def __init__(self, acc: Accumulator, d: Tensor, k: int) -> None:
        self.acc, self.device, self.k = acc, d.device, k
        units = torch.cuda.get_device_properties(d.device).multi_processor_count
        self.program = cuda_kernels.program(acc, small=d.numel() < units * THREADS * 32)
        self.functions = _functions(self.program, d.device.index or 0)
        self.stream = torch.cuda.current_stream(d.device).cuda_stream
        self.scratch: list[Tensor] = []

    def choose(self, a: Tensor, b: Tensor, c: Tensor | None) -> int:
        """Launch the census of the operands and the decision; returns where on the device the answer will be."""
        lib = native.load()
        bounds = torch.empty(4 * _BOUNDS_BYTES, dtype=torch.uint8, device=self.device)
        self.scratch.append(bounds)  # alive until the launches that use it are in the stream
        self._launch("clear", (1, 1, 1), _pointer(bounds.data_ptr()), ctypes.c_int(3))
        for i, x in enumerate((a, b, c)):
            if x is None or x.numel() == 0:
                continue
            blocks = min(_CENSUS_BLOCKS, -(-x.numel() // THREADS))
            view = _record(lib.device_view(_described(_fewer_dimensions(x))))
            self._launch("census", (blocks, 1, 1), view, _pointer(bounds.data_ptr() + i * _BOUNDS_BYTES))
        choice = bounds.data_ptr() + 3 * _BOUNDS_BYTES
        facts = lib.device_facts(bounds.data_ptr(), self.k, c is not None, 0)
        rule = _record(lib.device_rule(native.rule(self.acc)))
        self._launch("choose", (1, 1, 1), _record(facts), rule, _pointer(choice), threads=1)
        return choice

    def run(self, problem: bytes, m: int, n: int, batch: int) -> None:
        """Launch every kernel of the program; the one that was chosen works."""
        for i, kernel in enumerate(self.program.kernels):
            self._launch(f"gemm_{i}", kernel.grid(m, n, batch), _record(problem))

    def _launch(self, name: str, grid: tuple[int, int, int], *arguments: Any, threads: int = THREADS) -> None:
        driver = _driver()
        addresses = (ctypes.c_void_p * len(arguments))(*(ctypes.addressof(x) for x in arguments))
        with torch.cuda.device(self.device):
            status = driver.cuLaunchKernel(
                self.functions[name], *grid, threads, 1, 1, 0, self.stream, ctypes.addressof(addresses), 0
            )[0]
        _check(status, f"launching {name}")


@lru_cache(maxsize=512)
def _functions(program: Program, device: int) -> dict[str, Any]:
    """Return the loaded functions of a program on a device, by name."""
    driver = _driver()
    major, minor = torch.cuda.get_device_capability(device)
    code = compile_kernels(program.source, f"sm_{major}{minor}")
    with torch.cuda.device(device):
        torch.cuda.current_stream(device).query()  # makes the device's context current
        status, module = driver.cuModuleLoadData(code)
        _check(status, "loading kernels")
        functions = {}
        for name in ("clear", "census", "choose", *(f"gemm_{i}" for i in range(len(program.kernels)))):
            status, functions[name] = driver.cuModuleGetFunction(module, name.encode())
            _check(status, f"finding {name}")
    return functions


def _driver() -> Any:
    try:
        from cuda.bindings import driver
    except ImportError as error:
        raise InputError(f"CUDA tensors need the 'cuda' extra (pip install 'partialsum[cuda]'): {error}") from None
    return driver


def _check(status: Any, doing: str) -> None:
    if int(status) != 0:
        raise RuntimeError(f"CUDA failed while {doing}: {status}")


def _floating(acc: AnyAccumulator) -> Accumulator:
    if not isinstance(acc, Accumulator):
        raise InputError(f"accumulator must be a floating-point Accumulator for CUDA tensors so far, got {acc}")
    return acc


def _check_sizes(sizes: tuple[int, ...], batch: int) -> None:
    if batch > _BATCH_DIMENSIONS:
        raise InputError(f"CUDA tensors may have at most {_BATCH_DIMENSIONS} batch dimensions, got {batch}")
    if max(sizes) > _LARGEST_SIZE:
        raise InputError(f"sizes of CUDA tensors must lie below 2**31, got {max(sizes)}")


def _described(x: Tensor) -> tuple[int, list[int], list[int]]:
    return x.data_ptr(), list(x.shape), list(x.stride())


def _fewer_dimensions(x: Tensor) -> Tensor:
    """Return ``x`` as a view that says the same in few enough dimensions; broadcast ones are seen once."""
    seen = x[tuple(slice(0, 1) if stride == 0 else slice(None) for stride in x.stride())]
    return seen if seen.dim() <= _VIEW_DIMENSIONS else seen.flatten(0, seen.dim() - _VIEW_DIMENSIONS)


def _record(data: bytes) -> Any:
    return ctypes.create_string_buffer(data, len(data))


def _pointer(address: int) -> Any:
    return ctypes.c_uint64(address)
