"""``quantize`` for CUDA tensors: copies that round on the way, launched on torch's current stream."""

from __future__ import annotations

import ctypes
import math
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from partialsum.accumulators import Rounding
from partialsum.arithmetic import cuda_device, native, quantize
from partialsum.arithmetic.cuda import load
from partialsum.arithmetic.cuda_device import pointer, record
from partialsum.arithmetic.cuda_kernels import Source, record_checks
from partialsum.arithmetic.quantize import Plan
from partialsum.errors import InputError
from partialsum.formats import BlockFormat

_THREADS, _BLOCKS_PER_UNIT = 256, 8
_WARP = 32
_EXACT_IN_FLOAT32 = (torch.int8, torch.uint8, torch.int16, torch.uint16)


def quantize_cuda(x: Tensor, plan: Plan, out: Tensor | None = None) -> Tensor:
    """Return ``quantize`` of a CUDA tensor, in ``out`` where that is given."""
    result = torch.empty(x.shape, dtype=torch.float32, device=x.device) if out is None else _checked_out(out, x)
    if x.numel() == 0:
        return result
    if isinstance(plan.format, BlockFormat):
        _in_blocks(x, plan, values=result)
        return result
    source = _source(x)
    rule = quantize.native_rule(plan.target, plan.seed)
    wide = source.dtype == torch.float64
    made = _elements(plan.target.rounding, wide, bool(rule.fits_float32))
    aligned = all(tensor.data_ptr() % 16 == 0 for tensor in (source, result))
    _launch(
        made,
        "quantize",
        x.device,
        -(-x.numel() // 4),
        record(rule.bytes()),
        pointer(source.data_ptr()),
        pointer(result.data_ptr()),
        ctypes.c_int64(x.numel()),
        ctypes.c_int32(aligned),
    )
    return result


def split_cuda(x: Tensor, plan: Plan) -> tuple[Tensor, Tensor, Tensor]:
    """Return elements, scales, and the tensor's scale as a tensor of one number, without waiting for the device."""
    elements = torch.empty(x.shape, dtype=torch.float32, device=x.device)
    scales, largest = _in_blocks(x, plan, elements=elements)
    scale = torch.empty(1, dtype=torch.float32, device=x.device)
    rule = record(quantize.native_block_rule(plan).bytes())
    made = _blocks(plan.target.rounding)
    _launch(made, "tensor_scale", x.device, 1, rule, pointer(largest.data_ptr()), pointer(scale.data_ptr()))
    return elements, scales, scale


def _checked_out(out: Tensor, x: Tensor) -> Tensor:
    fits = (
        isinstance(out, Tensor) and out.dtype == torch.float32 and out.shape == x.shape and out.device == x.device
    )
    if not fits or not out.is_contiguous():
        kind = (
            f"a {out.dtype} tensor of shape {tuple(out.shape)} on {out.device}" if isinstance(out, Tensor) else out
        )
        raise InputError(
            f"out must be a contiguous float32 tensor of shape {tuple(x.shape)} on {x.device}, got {kind}"
        )
    return out


def _source(x: Tensor) -> Tensor:
    """Return ``x`` as contiguous float32 where that is exact, else as float64."""
    if x.dtype.is_floating_point:
        kind = torch.float64 if x.dtype == torch.float64 else torch.float32
    else:
        kind = torch.float32 if x.dtype in _EXACT_IN_FLOAT32 else torch.float64
    return x.detach().to(kind).contiguous()


def _in_blocks(
    x: Tensor, plan: Plan, elements: Tensor | None = None, values: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Fill ``elements`` and ``values`` where given; return the scales and the largest magnitude's bits, if needed."""
    fmt = plan.format
    assert isinstance(fmt, BlockFormat)
    axis = quantize.checked_axis(plan.axis, tuple(x.shape))
    source = _source(x).to(torch.float32)
    outer, length, inner = math.prod(x.shape[:axis]), x.shape[axis], math.prod(x.shape[axis + 1 :])
    blocks = -(-length // fmt.block)
    scales = torch.empty((*x.shape[:axis], blocks, *x.shape[axis + 1 :]), dtype=torch.float32, device=x.device)
    largest = torch.zeros(1, dtype=torch.int32, device=x.device)
    if x.numel() == 0:
        return scales, largest
    made = _blocks(plan.target.rounding)
    arrays = [0 if y is None else y.data_ptr() for y in (source, elements, values)]
    if fmt.tensor_scale:
        count = ctypes.c_int64(x.numel())
        _launch(made, "largest", x.device, x.numel(), pointer(arrays[0]), count, pointer(largest.data_ptr()))
    described = native.load().device_blocks(
        *arrays, scales.data_ptr(), largest.data_ptr(), outer=outer, length=length, inner=inner, blocks=blocks
    )
    records = record(quantize.native_block_rule(plan).bytes()), record(described)
    if inner != 1:
        _launch(made, "across", x.device, outer * blocks * inner, *records)
        return scales, largest
    lanes = min(_WARP, 1 << (-(-fmt.block // 4) - 1).bit_length())
    four = length % 4 == 0 and fmt.block % 4 == 0 and all(address % 16 == 0 for address in arrays)
    name = "along_four" if four else "along"
    _launch(made, name, x.device, outer * blocks * lanes, *records, ctypes.c_int32(lanes))
    return scales, largest


def _launch(source: Source, name: str, device: torch.device, threads: int, *arguments: Any) -> None:
    """Launch a kernel that serves any number of elements with as many threads as are of use."""
    function = load((source,), device)[name]
    units = cuda_device.properties(device).units
    blocks = max(1, min(units * _BLOCKS_PER_UNIT, -(-threads // _THREADS)))
    with cuda_device.active(device):
        cuda_device.launch(function, (blocks, 1, 1), _THREADS, cuda_device.stream(device), *arguments)


@lru_cache(maxsize=64)
def _elements(rounding: Rounding, wide: bool, in_float32: bool) -> Source:
    kind = "double" if wide else "float"
    narrow = "true" if in_float32 and not wide else "false"
    return Source(
        ("quantize",),
        f"""#include "quantize.cuh"

using namespace partialsum;
{record_checks("QuantizeRule")}\
extern "C" __global__ void __launch_bounds__({_THREADS})
quantize(const __grid_constant__ QuantizeRule rule, const {kind}* input, float* output, int64_t count, int32_t aligned) {{
    quantize_elements<Rounding::{rounding.value}, {narrow}, {kind}>(rule, input, output, count, aligned != 0);
}}
""",
    )


@lru_cache(maxsize=64)
def _blocks(rounding: Rounding) -> Source:
    records = "const __grid_constant__ BlockRule rule, const __grid_constant__ DeviceBlocks blocks"
    return Source(
        ("largest", "tensor_scale", "along", "along_four", "across"),
        f"""#include "quantize_blocks.cuh"

using namespace partialsum;
{record_checks("BlockRule", "DeviceBlocks")}\
extern "C" __global__ void __launch_bounds__({_THREADS}) largest(const float* input, int64_t count, uint32_t* most) {{
    find_largest(input, count, most);
}}
extern "C" __global__ void tensor_scale(const __grid_constant__ BlockRule rule, const uint32_t* largest, float* scale) {{
    if (blockIdx.x == 0 && threadIdx.x == 0) *scale = scale_of_tensor(rule, same_bits<float>(*largest));
}}
extern "C" __global__ void __launch_bounds__({_THREADS}, 3) along({records}, int32_t lanes) {{
    quantize_along<Rounding::{rounding.value}, 1>(rule, blocks, lanes);
}}
extern "C" __global__ void __launch_bounds__({_THREADS}, 3) along_four({records}, int32_t lanes) {{
    quantize_along<Rounding::{rounding.value}, 4>(rule, blocks, lanes);
}}
extern "C" __global__ void __launch_bounds__({_THREADS}) across({records}) {{
    quantize_across<Rounding::{rounding.value}>(rule, blocks);
}}
""",
    )
