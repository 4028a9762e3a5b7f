"""The GPU's kernels give the reference's bits: run on the host, compiled for GPUs, and run on one where there is one."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

import partialsum as ps
import tools
from arithmetic.device_host import HostDevice, described
from partialsum.arithmetic import native
from partialsum.arithmetic.convolution import conv_forward, conv_grad_input, conv_grad_weight
from partialsum.arithmetic.cuda_kernels import program

ACCUMULATORS = [
    "e6m9",
    "e6m9,chunk=5",
    "e5m2,toward_zero",
    "e4m3fn,stochastic,chunk=3",
    "e5m10,nearest_away,subnormals=false",
    "e8m23,up",
    "lba12-2024",
]


def bits(x: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(x).view(np.uint32)


def assert_same_bits(actual: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_array_equal(bits(actual), bits(expected))


def operands(
    rng: np.random.Generator, m: int, k: int, n: int, fmt: str | None = "e5m2"
) -> tuple[np.ndarray, np.ndarray]:
    a, b = rng.standard_normal((m, k), np.float32), rng.standard_normal((k, n), np.float32)
    return (a, b) if fmt is None else (ps.quantize(a, fmt), ps.quantize(b, fmt))


@pytest.fixture(params=ACCUMULATORS)
def device(request: pytest.FixtureRequest) -> HostDevice:
    return HostDevice(ps.parse_accumulator(request.param))


def test_every_kernel_of_a_program_gives_the_reference_bits(device: HostDevice) -> None:
    rng = np.random.default_rng(1)
    a, b = operands(rng, 5, 40, 37)
    expected = ps.gemm(a, b, device.acc, backend="reference")
    ran = set()
    for forbidden in (2**i - 1 for i in range(len(device.program.kernels))):
        assert_same_bits(device.gemm(a, b, forbidden=forbidden), expected)
        ran.add(device.chosen)
    assert device.program.kernels[-1].name in ran


@pytest.mark.parametrize("scale", [1e-12, 1e-3, 1.0, 1e6, 1e18])
def test_the_device_chooses_an_exact_kernel_for_any_scale(device: HostDevice, scale: float) -> None:
    rng = np.random.default_rng(2)
    a, b = (np.float32(scale) * x for x in operands(rng, 3, 50, 18, None))
    c = ps.quantize(np.float32(scale) * rng.standard_normal((3, 18), np.float32), "e5m10")
    assert_same_bits(device.gemm(a, b), ps.gemm(a, b, device.acc))
    assert_same_bits(device.gemm(a, b, c), ps.gemm(a, b, device.acc, c=c))


def test_specials_zeros_and_start_values(device: HostDevice) -> None:
    rng = np.random.default_rng(3)
    a, b = operands(rng, 4, 21, 17)
    a[0, 3], b[5, 2], a[1, :], b[:, 4] = np.inf, np.nan, -0.0, 0.0
    c = rng.choice(np.array([-0.0, 0.0, np.inf, 1.5, 1e-30, 3.4e38], np.float32), (4, 17))
    assert_same_bits(device.gemm(a, b, c), ps.gemm(a, b, device.acc, c=c))


def test_batches_strides_and_tile_edges() -> None:
    device = HostDevice(ps.parse_accumulator("e6m9"))
    rng = np.random.default_rng(4)
    a = ps.quantize(rng.standard_normal((2, 1, 35, 33), np.float32), "e5m2")
    b = ps.quantize(rng.standard_normal((3, 70, 33), np.float32), "e5m2").swapaxes(-1, -2)
    assert_same_bits(device.gemm(a, b), ps.gemm(a, b, device.acc))
    assert_same_bits(
        device.gemm(a[..., ::2, :1], b[:, :1, 3::7]), ps.gemm(a[..., ::2, :1], b[:, :1, 3::7], device.acc)
    )
    assert_same_bits(device.gemm(a[..., :0], b[:, :0]), ps.gemm(a[..., :0], b[:, :0], device.acc))


def test_convolution_and_its_gradients() -> None:
    device = HostDevice(ps.parse_accumulator("e6m7,toward_zero"))
    rng = np.random.default_rng(5)
    x, w = (ps.quantize(rng.standard_normal(s, np.float32), "e4m3fn") for s in ((2, 4, 9, 8), (6, 2, 3, 2)))
    window = {"stride": (2, 1), "padding": (1, 0), "dilation": (1, 2), "groups": 2}
    y = conv_forward(x, w, device.acc, **window)
    g = ps.quantize(rng.standard_normal(y.shape, np.float32), "e4m3fn")
    assert_same_bits(convolve(device, "forward", x, w, y.shape, window), y)
    assert_same_bits(
        convolve(device, "grad_input", g, w, x.shape, window), conv_grad_input(g, w, x.shape, device.acc, **window)
    )
    assert_same_bits(
        convolve(device, "grad_weight", g, x, w.shape, window),
        conv_grad_weight(g, x, w.shape, device.acc, **window),
    )


def convolve(
    device: HostDevice, pass_: str, a: np.ndarray, b: np.ndarray, shape: tuple[int, ...], window: dict
) -> np.ndarray:
    d = np.full(shape, np.nan, np.float32)
    five = [x.reshape(*x.shape[:2], 1, *x.shape[2:]) for x in (a, b, d)]
    spatial = {name: (fill, *window[name]) for name, fill in (("stride", 1), ("padding", 0), ("dilation", 1))}
    groups = window["groups"]
    positions = int(np.prod(shape[2:]))
    rows = shape[0] // groups if pass_ == "grad_weight" else shape[0] * positions
    columns = shape[1] * positions if pass_ == "grad_weight" else shape[1] // groups
    plan = getattr(native.load(), f"device_convolution_{pass_}")
    choice = device.choose(10_000, a, b, None)
    record = plan(
        *(described(x) for x in five), **spatial, groups=groups, rule=native.rule(device.acc), choice=choice
    )
    device.run(record, rows, columns, groups)
    return d


@pytest.mark.parametrize("architecture", ["sm_80", "sm_90", "sm_100"])
def test_every_kernel_compiles_for_gpus(architecture: str) -> None:
    tools.require_tool("cuda.bindings")
    from partialsum.arithmetic.cuda_compiler import compile_fresh

    made = program(ps.parse_accumulator("e6m9,chunk=64"), small=True)
    code, log = compile_fresh(made.source, architecture, ("--ptxas-options=-v",))
    assert code.startswith(b"\x7fELF")
    spills = re.findall(r"(\d+) bytes spill stores", log)
    assert len(spills) >= len(made.kernels)
    assert set(spills) == {"0"}


def test_machine_code_is_kept_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tools.require_tool("cuda.bindings")
    from partialsum.arithmetic import cuda_compiler

    monkeypatch.setenv("PARTIALSUM_CACHE", str(tmp_path / "kernels"))
    source = 'extern "C" __global__ void nothing() {}'
    code = cuda_compiler.compile_kernels(source, "sm_90")
    monkeypatch.setattr(cuda_compiler, "compile_fresh", None)
    assert cuda_compiler.compile_kernels(source, "sm_90") == code


def test_a_mistake_in_a_kernel_is_told_in_one_sentence() -> None:
    tools.require_tool("cuda.bindings")
    from partialsum.arithmetic.cuda_compiler import compile_fresh

    with pytest.raises(ps.InputError, match=r"(?s)NVRTC could not compile for sm_90: .*nonsense"):
        compile_fresh("nonsense", "sm_90")
