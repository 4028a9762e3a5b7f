"""No kernel races: every access to memory is looked at while the host plays a GPU (device_checks.cpp)."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest
import torch

import partialsum as ps
from arithmetic.host_gpu import Gpu, host_gpu
from bits import assert_same_bits
from partialsum.arithmetic import cuda, cuda_device, native
from partialsum.arithmetic.cuda_kernels import Source

HEADER = '#include "partialsum/platform.hpp"\n'


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gpu]:
    with host_gpu(monkeypatch, checked=True) as gpu:
        yield gpu


def run(body: str, *, threads: int = 64, blocks: int = 1) -> None:
    """Launch a kernel over an array of 256 numbers."""
    text = f'{HEADER}extern "C" __global__ void planted(float* data) {{\n{body}\n}}\n'
    device = torch.device("cpu")
    function = cuda.load((Source(("planted",), text),), device)["planted"]
    data = torch.zeros(256)
    with cuda_device.active(device):
        cuda_device.launch(
            function, (blocks, 1, 1), threads, cuda_device.stream(device), ctypes.c_uint64(data.data_ptr())
        )


SHARE = "__shared__ float s[64]; const int i = threadIdx.x;"
FOUR = "struct alignas(16) Four { float x[4]; };"


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (f"{SHARE} s[i] = i; data[i] = s[63 - i];", "race with a"),
        (f"{SHARE} s[i] = i; __syncthreads(); data[i] = s[63 - i]; s[i] = 0;", "race with a"),
        (
            f"{SHARE} if (i < 63) s[i] = i; __syncthreads(); data[i] = s[63 - i];",
            "read of what nothing wrote in shared",
        ),
        ("data[0] = threadIdx.x;", "race with a write in global"),
        (f"{FOUR} *reinterpret_cast<Four*>(data + 1) = Four{{}};", "misaligned access"),
    ],
)
def test_what_is_wrong_with_a_kernel_is_found(checked: Gpu, body: str, found: str) -> None:
    with pytest.raises(AssertionError, match=f"(?s)planted: .*{found}"):
        run(body)


def test_blocks_that_write_the_same_place(checked: Gpu) -> None:
    with pytest.raises(AssertionError, match="race with a write in global memory"):
        run("if (threadIdx.x == 0) data[0] = 1.0f;", blocks=2)


def test_a_kernel_in_order(checked: Gpu) -> None:
    run(f"{SHARE} s[i] = i; __syncthreads(); data[i] = s[63 - i]; __syncthreads(); s[i] = 0;")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("if (threadIdx.x < 32) return;\n__syncthreads();", "have ended while others wait"),
        ("if (threadIdx.x < 32) {\n__syncthreads();\n} else {\n__syncthreads();\n}", "wait at different barriers"),
    ],
)
def test_barriers_that_not_all_threads_reach(body: str, said: str) -> None:
    """They end the process: on a GPU they would hang."""
    code = (
        "import pytest, sys; sys.path.insert(0, 'tests')\n"
        "from arithmetic.host_gpu import host_gpu\n"
        "from arithmetic.test_cuda_races import run\n"
        f"with pytest.MonkeyPatch.context() as patch, host_gpu(patch): run({body!r})\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert said in done.stderr


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("e6m9", (130, 129, 33)),
        ("e5m7,stochastic,chunk=7", (33, 70, 40)),
        ("e6m9,stochastic,chunk=6", (5, 9, 70)),
        ("lba12-2024", (5, 9, 70)),
        ("h100-fp8,promote_every=64", (33, 70, 70)),
        ("mi300-fp16", (5, 9, 70)),
        ("aligned,fraction_bits=30,group=5", (5, 9, 70)),
        ("int20,saturate", (33, 70, 40)),
    ],
)
def test_gemms(checked: Gpu, name: str, sizes: tuple[int, int, int]) -> None:
    rng = np.random.default_rng(0)
    m, n, k = sizes
    a, b, c = (np.trunc(3 * rng.standard_normal(size, np.float32)) for size in ((m, k), (k, n), (m, n)))
    expected = ps.gemm(a, b, name, c=c)
    for forbidden in (0, 1, (1 << len(native.load().kernels())) - 1):
        with native.forbid_kernels(forbidden):
            here = ps.gemm(checked.tensor(a), checked.tensor(b), name, c=checked.tensor(c)).numpy()
            assert_same_bits(here, expected, (name, forbidden))


def test_convolutions(checked: Gpu) -> None:
    rng = np.random.default_rng(2)
    x, w = rng.standard_normal((1, 2, 5, 4), np.float32), rng.standard_normal((2, 1, 3, 2), np.float32)
    here, weight = (checked.tensor(t).requires_grad_() for t in (x, w))
    y = ps.conv2d(here, weight, "e6m9,chunk=20", stride=(2, 1), padding=1, groups=2, inputs="e5m2")
    y.backward(torch.ones_like(y))
    assert here.grad is not None


@pytest.mark.parametrize("fmt", ["e4m3fn", "mxfp8_e4m3", "nvfp4"])
def test_quantising(checked: Gpu, fmt: str) -> None:
    x = np.random.default_rng(3).standard_normal((6, 71), np.float32)
    for y, axis in ((x, 1), (x, 0), (x[:, :68].copy(), 1)):
        for rounding in ("nearest_even", "stochastic"):
            there = ps.quantize(checked.tensor(y), fmt, rounding, axis=axis)
            assert_same_bits(there.numpy(), ps.quantize(y, fmt, rounding, axis=axis), fmt)


def test_block_scaled_units(checked: Gpu) -> None:
    rng = np.random.default_rng(4)
    a, b = rng.standard_normal((5, 200), np.float32), rng.standard_normal((200, 7), np.float32)
    there = ps.gemm(checked.tensor(a), checked.tensor(b), "b200-fp4", inputs="nvfp4")
    assert_same_bits(there.numpy(), ps.gemm(a, b, "b200-fp4", inputs="nvfp4"))
