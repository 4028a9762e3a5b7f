"""GEMMs and convolutions of CUDA tensors give the reference's bits: on a GPU that the host plays, and on a real one."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

import partialsum as ps
from arithmetic.host_gpu import UNITS, Gpu
from bits import assert_same_bits
from partialsum.arithmetic import cuda_kernels, native

ACCUMULATORS = [
    "e6m9",
    "e6m9,chunk=5",
    "e5m2,toward_zero",
    "e4m3fn,stochastic,chunk=3,seed=9",
    "e5m10,nearest_away,subnormals=no",
    "e8m23,up",
    "lba12-2024",
]


def operands(
    rng: np.random.Generator, m: int, k: int, n: int, fmt: str | None = "e5m2"
) -> tuple[np.ndarray, np.ndarray]:
    a, b = rng.standard_normal((m, k), np.float32), rng.standard_normal((k, n), np.float32)
    return (a, b) if fmt is None else (ps.quantize(a, fmt), ps.quantize(b, fmt))


def gemm(
    gpu: Gpu, a: np.ndarray, b: np.ndarray, acc: ps.Accumulator | str, c: np.ndarray | None = None
) -> np.ndarray:
    start = None if c is None else gpu.tensor(c)
    return ps.gemm(gpu.tensor(a), gpu.tensor(b), acc, c=start).cpu().numpy()


@pytest.fixture(params=ACCUMULATORS)
def acc(request: pytest.FixtureRequest) -> ps.Accumulator:
    return ps.parse_accumulator(request.param)


def test_every_kernel_of_a_program_gives_the_reference_bits(gpu: Gpu, acc: ps.Accumulator) -> None:
    a, b = operands(np.random.default_rng(1), 5, 40, 11)
    expected = ps.gemm(a, b, acc, backend="reference")
    names = [kernel.name for kernel in cuda_kernels.program(acc, cuda_kernels.SINGLE, patches=False).kernels]
    mask = 0
    for name in names:
        with native.forbid_kernels(mask):
            assert_same_bits(gemm(gpu, a, b, acc), expected)
        mask |= 1 << native.load().kernels().index(name)


@pytest.mark.parametrize("scale", [1e-12, 1e-3, 1.0, 1e6, 1e18])
def test_the_device_chooses_an_exact_kernel_for_any_scale(gpu: Gpu, acc: ps.Accumulator, scale: float) -> None:
    rng = np.random.default_rng(2)
    a, b = (np.float32(scale) * x for x in operands(rng, 3, 50, 9, None))
    c = ps.quantize(np.float32(scale) * rng.standard_normal((3, 9), np.float32), "e5m10")
    assert_same_bits(gemm(gpu, a, b, acc), ps.gemm(a, b, acc))
    assert_same_bits(gemm(gpu, a, b, acc, c), ps.gemm(a, b, acc, c=c))


def test_specials_zeros_and_start_values(gpu: Gpu, acc: ps.Accumulator) -> None:
    rng = np.random.default_rng(3)
    a, b = operands(rng, 4, 21, 17)
    a[0, 3], b[5, 2], a[1, :], b[:, 4] = np.inf, np.nan, -0.0, 0.0
    c = rng.choice(np.array([-0.0, 0.0, np.inf, 1.5, 1e-30, 3.4e38], np.float32), (4, 17))
    assert_same_bits(gemm(gpu, a, b, acc, c), ps.gemm(a, b, acc, c=c))


@pytest.mark.parametrize("name", ["e6m9,chunk=64", "e5m7,stochastic,seed=3"])
@pytest.mark.parametrize(
    ("m", "n", "shape"),
    [
        (7, 9, cuda_kernels.SINGLE),
        (70, 67, cuda_kernels.MEDIUM),
        (257, 130, cuda_kernels.LARGE),
        (700, 15, cuda_kernels.NARROW[0]),
        (390, 30, cuda_kernels.NARROW[1]),
        (13, 700, cuda_kernels.FLAT[0]),
        (30, 390, cuda_kernels.FLAT[1]),
    ],
)
def test_shapes_of_the_launch_change_no_bit(gpu: Gpu, name: str, m: int, n: int, shape: cuda_kernels.Shape) -> None:
    assert cuda_kernels.shape_for(m, n, 1, UNITS, patches=False) is shape
    a, b = operands(np.random.default_rng(6), m, 70, n)
    assert_same_bits(gemm(gpu, a, b, name), ps.gemm(a, b, name))


@pytest.mark.parametrize(
    "name", ["e6m9,chunk=8", "e5m7,stochastic,chunk=5,seed=3", "e8m20,chunk=4", "fp16,down,chunk=6"]
)
def test_chunks_side_by_side(gpu: Gpu, name: str) -> None:
    rng = np.random.default_rng(11)
    a, b = operands(rng, 3, 2 * 77, 9)
    a, b, c = a.reshape(2, 3, 77), b.reshape(2, 77, 9), rng.standard_normal((2, 3, 9), np.float32)
    a[0, 1, 3], b[1, 5, 2] = np.inf, np.nan
    for start in (None, c, np.full_like(c, -0.0)):
        assert_same_bits(gemm(gpu, a, b, name, start), ps.gemm(a, b, name, c=start), name)
    if gpu.device == "cpu":
        assert any(kernel.startswith("join_") for kernel in gpu.launched)
    with native.forbid_kernels((1 << len(native.load().kernels())) - 1):
        assert_same_bits(gemm(gpu, a, b, name, c), ps.gemm(a, b, name, c=c), name)


def test_where_chunks_are_summed_side_by_side() -> None:
    acc = ps.parse_accumulator("e6m9,chunk=64")
    few, units = {"batch": 1, "patches": False}, 132
    assert cuda_kernels.slices(acc, 32, 288, 2**20, units=units, **few) == 2**14
    assert cuda_kernels.slices(acc, 32, 288, 100, units=units, **few) == 0  # two chunks
    assert cuda_kernels.slices(acc, 4096, 4096, 4096, units=units, **few) == 0  # enough outputs
    assert cuda_kernels.slices(acc, 288, 288, 2**22, units=units, **few) == 0  # too much memory
    assert cuda_kernels.slices(ps.parse_accumulator("e6m9"), 32, 288, 2**20, units=units, **few) == 0


def test_batches_strides_and_tile_edges(gpu: Gpu) -> None:
    rng = np.random.default_rng(4)
    a = ps.quantize(rng.standard_normal((2, 1, 35, 33), np.float32), "e5m2")
    b = ps.quantize(rng.standard_normal((3, 17, 33), np.float32), "e5m2").swapaxes(-1, -2)
    c = ps.quantize(rng.standard_normal((3, 1, 17), np.float32), "e5m2")
    for left, right, start in (
        (a, b, None),
        (a, b, c),
        (a[..., ::2, :1], b[:, :1, 3::7], c[..., 3::7]),
        (a[..., :0], b[:, :0], c),
        (a[0, 0], b[1], c[0, 0]),
        (a[..., :0, :], b, None),
    ):
        assert_same_bits(gemm(gpu, left, right, "e6m9", start), ps.gemm(left, right, "e6m9", c=start))


def test_views_with_offsets_odd_strides_and_repeated_rows(gpu: Gpu) -> None:
    here = torch.from_numpy(ps.quantize(np.random.default_rng(10).standard_normal(4000, np.float32), "e5m2"))
    there = gpu.tensor(here.numpy())
    views = [
        lambda x: (x[1:232].view(7, 33), x[3:168].view(33, 5)),
        lambda x: (x.as_strided((7, 33), (101, 3), 5), x.as_strided((33, 5), (1, 37), 11)),
        lambda x: (x[:33].expand(7, 33), x[40:73].view(33, 1).expand(33, 5)),
        lambda x: (x.as_strided((2, 7, 33), (0, 1, 9), 7), x.as_strided((2, 33, 5), (300, 5, 1), 2)),
        lambda x: (x[2:233].view(33, 7).T, x[1:166].view(5, 33).T),
    ]
    for view in views:
        (a, b), (left, right) = view(here), view(there)
        assert left.stride() == a.stride()
        for name in ("e6m9", "h100-fp8"):
            got = ps.gemm(left, right, name, inputs="e5m2").cpu().numpy()
            assert_same_bits(got, ps.gemm(a, b, name, inputs="e5m2").numpy(), name)
    (x, w), (x_there, w_there) = ((y[3:363].view(2, 3, 12, 5), y[9:63].view(2, 3, 3, 3)) for y in (here, there))
    assert_same_bits(
        ps.conv2d(x_there[:, :, ::2], w_there.flip(0), "e6m9").cpu().numpy(),
        ps.conv2d(x[:, :, ::2], w.flip(0), "e6m9").numpy(),
    )


@pytest.mark.parametrize("name", ["e6m7,toward_zero", "e5m6,stochastic,chunk=7,seed=4"])
def test_convolutions_and_their_gradients(gpu: Gpu, name: str) -> None:
    rng = np.random.default_rng(5)
    x, w = (ps.quantize(rng.standard_normal(s, np.float32), "e4m3fn") for s in ((2, 4, 9, 8), (6, 2, 3, 2)))
    window = {"stride": (2, 1), "padding": (1, 0), "dilation": (1, 2), "groups": 2}
    results = []
    for move in (torch.from_numpy, gpu.tensor):
        here, there = (move(t).requires_grad_() for t in (x, w))
        y = ps.conv2d(here, there, name, **window)
        y.backward(ps.quantize(move(np.sin(np.arange(y.numel(), dtype=np.float32)).reshape(y.shape)), "e4m3fn"))
        results.append([t.detach().cpu().numpy() for t in (y, here.grad, there.grad)])
    for on_cpu, on_gpu in zip(*results, strict=True):
        assert_same_bits(on_gpu, on_cpu)


def test_large_and_one_dimensional_convolutions(gpu: Gpu) -> None:
    rng = np.random.default_rng(8)
    x, w = rng.standard_normal((2, 3, 300), np.float32), rng.standard_normal((70, 3, 5), np.float32)
    assert_same_bits(
        ps.conv1d(gpu.tensor(x), gpu.tensor(w), "e6m9", padding=2, inputs="e5m2").cpu().numpy(),
        ps.conv1d(x, w, "e6m9", padding=2, inputs="e5m2"),
    )


def test_gradients_are_gemms_on_the_device(gpu: Gpu) -> None:
    rng = np.random.default_rng(7)
    arrays = [rng.standard_normal(s, np.float32) for s in ((3, 5, 30), (30, 7), (5, 7))]
    results = []
    for move in (torch.from_numpy, gpu.tensor):
        a, b, c = (move(x).requires_grad_() for x in arrays)
        d = ps.gemm(a, b, "e6m9,chunk=8", inputs=("e4m3fn", "e5m2"), c=c)
        d.sin().sum().backward()
        results.append([t.detach().cpu().numpy() for t in (d, a.grad, b.grad, c.grad)])
    for on_cpu, on_gpu in zip(*results, strict=True):
        assert_same_bits(on_gpu[:1], on_cpu[:1])


def test_a_training_step_under_a_recipe(gpu: Gpu) -> None:
    rng = np.random.default_rng(9)
    images, labels = rng.standard_normal((4, 3, 8, 8), np.float32), np.array([0, 1, 2, 1])
    results = []
    for move in (torch.from_numpy, gpu.tensor):
        torch.manual_seed(0)
        model = torch.nn.Sequential(
            torch.nn.Conv2d(3, 8, 3, padding=1, stride=2),
            torch.nn.ReLU(),
            torch.nn.Flatten(),
            torch.nn.Linear(128, 3),
        ).to(move(images).device)
        with ps.emulate(model, ps.recipe("fp8-2018").policy):
            logits = model(move(images))
            logits.backward(torch.eye(3, device=logits.device)[move(labels)])
        results.append([logits.detach().cpu().numpy(), *(p.grad.cpu().numpy() for p in model.parameters())])
    for on_cpu, on_gpu in zip(*results, strict=True):
        assert_same_bits(on_gpu, on_cpu)


def test_what_is_launched(gpu: Gpu) -> None:
    if gpu.device != "cpu":
        pytest.skip("only the host's GPU keeps a list")
    a, b = operands(np.random.default_rng(1), 5, 4, 6)
    gemm(gpu, a, b, "e6m9")
    kernels = ["gemm_plain", "gemm_guarded", "gemm_odd_guarded", "gemm_wide_guarded"]
    assert gpu.launched == ["clear", "census", "choose", *kernels]
    gpu.launched.clear()
    gemm(gpu, a, b, "fp32")  # float32's own rounding: nothing to choose
    assert gpu.launched == ["gemm_native"]
    gpu.launched.clear()
    gemm(gpu, a[:0], b, "e6m9")
    assert gpu.launched == []


def test_threads_that_torch_gave_no_context(gpu: Gpu) -> None:
    a, b = operands(np.random.default_rng(1), 5, 4, 6)
    with ThreadPoolExecutor(1) as pool:
        there = pool.submit(gemm, gpu, a, b, "e6m9").result()
    assert_same_bits(there, ps.gemm(a, b, "e6m9"))


def test_a_seed_compiles_nothing_anew() -> None:
    one, other = (ps.parse_accumulator(f"e6m5,stochastic,seed={seed}") for seed in (1, 2))
    shape = cuda_kernels.SINGLE
    assert cuda_kernels.program(one, shape, patches=False) is cuda_kernels.program(other, shape, patches=False)
