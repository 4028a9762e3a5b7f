"""What only a real GPU can show: many blocks at once, streams, captured graphs, and that nothing waits."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

import partialsum as ps
from bits import assert_same_bits

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def device() -> Iterator[torch.device]:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    yield torch.device("cuda", torch.cuda.current_device())
    torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize(
    "name",
    [
        "e6m9",
        "e6m9,chunk=64",
        "e5m7,stochastic,chunk=100",
        "e8m10",
        "e8m22",
        "lba12-2024",
        "h100-fp8",
        "mi300-fp8",
        "int32",
    ],
)
@pytest.mark.parametrize(("m", "n", "k"), [(520, 700, 300), (150, 310, 1000), (24, 40, 30000)])
def test_many_blocks_at_once(device: torch.device, name: str, m: int, n: int, k: int) -> None:
    rng = np.random.default_rng(0)
    a, b = (8 * rng.standard_normal(size, np.float32) for size in ((m, k), (k, n)))
    a, b = (ps.quantize(x, "int8" if name == "int32" else "e4m3fn") for x in (a, b))
    there = [torch.from_numpy(x).to(device) for x in (a, b)]
    expected = ps.gemm(a, b, name)
    for _ in range(3):
        assert_same_bits(ps.gemm(*there, name).cpu().numpy(), expected, name)


@pytest.mark.parametrize("rounding", list(ps.Rounding))
def test_quantising_every_pattern_of_sixteen_bits_and_more(device: torch.device, rounding: str) -> None:
    patterns = (np.arange(1 << 22, dtype=np.uint32) << np.uint32(10)).view(np.float32)
    for fmt in ("e5m2", "e4m3fn", "bf16", "q8.8", "mxfp4", "nvfp4"):
        with np.errstate(all="ignore"):
            expected = ps.quantize(patterns, fmt, rounding, seed=3)
        got = ps.quantize(torch.from_numpy(patterns).to(device), fmt, rounding, seed=3)
        assert_same_bits(got.cpu().numpy(), expected, (fmt, rounding))


def test_nothing_waits(device: torch.device) -> None:
    a, b = torch.randn(64, 300, device=device), torch.randn(300, 80, device=device)
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU()).to(device)
    images = torch.randn(2, 3, 8, 8, device=device)
    ps.gemm(a, b, "e6m9", inputs="nvfp4")
    torch.cuda.set_sync_debug_mode("error")
    ps.gemm(a, b, "e6m9", inputs="nvfp4")
    with ps.emulate(model, ps.recipe("fp8-2018").policy):
        model(images).sum().backward()


def test_other_streams(device: torch.device) -> None:
    a, b = torch.randn(64, 300, device=device), torch.randn(300, 80, device=device)
    expected = ps.gemm(a, b, "e6m9,chunk=32", inputs="e5m2").cpu()
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        got = ps.gemm(a, b, "e6m9,chunk=32", inputs="e5m2")
    stream.synchronize()
    assert torch.equal(got.cpu(), expected)


def test_a_captured_graph_gives_the_bits_of_new_data(device: torch.device) -> None:
    a, b = torch.randn(64, 300, device=device), torch.randn(300, 80, device=device)
    ps.gemm(a, b, "e6m9,chunk=32", inputs="e5m2")  # compiles
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        d = ps.gemm(a, b, "e6m9,chunk=32", inputs="e5m2")
    for seed in (1, 2):
        a.copy_(torch.randn(64, 300, generator=torch.Generator().manual_seed(seed)) * 1000**seed)
        graph.replay()
        expected = ps.gemm(a.cpu(), b.cpu(), "e6m9,chunk=32", inputs="e5m2")
        assert torch.equal(d.cpu().view(torch.int32), expected.view(torch.int32))


def test_every_device_of_the_machine() -> None:
    a, b = torch.randn(9, 30), torch.randn(30, 8)
    expected = ps.gemm(a, b, "e6m9")
    for index in range(torch.cuda.device_count()):
        there = torch.device("cuda", index)
        assert torch.equal(ps.gemm(a.to(there), b.to(there), "e6m9").cpu(), expected)


def test_no_memory_is_said_and_leaves_things_working(device: torch.device) -> None:
    column, row = torch.ones(1 << 20, 1, device=device), torch.ones(1, 1 << 20, device=device)
    with pytest.raises(torch.cuda.OutOfMemoryError, match="out of memory"):
        ps.gemm(column, row, "e6m9")  # 4 TiB
    assert ps.gemm(column[:3], row[:, :3], "e6m9").tolist() == [[1.0] * 3] * 3


def test_sizes_beyond_32_bits_are_refused(device: torch.device) -> None:
    a, b = torch.ones(1, 1, device=device).expand(2**31, 1), torch.ones(1, 1, device=device)
    if torch.cuda.mem_get_info(device)[0] < 12 * 2**30:
        pytest.skip("less than 12 GiB of memory")
    with pytest.raises(ps.InputError, match=r"sizes of CUDA tensors must lie below 2\*\*31, got m, n, k = "):
        ps.gemm(a, b, "e6m9")


LARGE = 40 * 2**30


@pytest.mark.parametrize(("m", "k", "n"), [(2**16 + 3, 2**15 + 5, 8), (2**16 + 3, 4, 2**15 + 5)])
def test_matrices_of_more_than_2_31_elements(device: torch.device, m: int, k: int, n: int) -> None:
    if torch.cuda.mem_get_info(device)[0] < LARGE:
        pytest.skip("less than 40 GiB of memory")
    a, b = torch.randn(m, k, device=device), torch.randn(k, n, device=device)
    for name in ("e6m9,chunk=64", "h100-fp8"):
        d = ps.gemm(a, b, name)
        for rows in (slice(0, 2), slice(m - 2, m)):
            assert_same_bits(d[rows].cpu().numpy(), ps.gemm(a[rows].cpu(), b.cpu(), name).numpy(), name)
        del d


@pytest.mark.parametrize("fmt", ["e5m2", "mxfp4"])
def test_quantising_more_than_2_31_elements(device: torch.device, fmt: str) -> None:
    if torch.cuda.mem_get_info(device)[0] < LARGE:
        pytest.skip("less than 40 GiB of memory")
    x = torch.randn(2**31 + 2**12, device=device)
    y = ps.quantize(x, fmt)
    for first in (0, 2**31 - 2**11, 2**31 + 2**11):
        part = slice(first, first + 2**11)
        assert_same_bits(y[part].cpu().numpy(), ps.quantize(x[part].cpu(), fmt).numpy(), fmt)


def test_devices_take_turns() -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("fewer than 2 CUDA devices")
    a, b = torch.randn(200, 300), torch.randn(300, 80)
    expected = ps.gemm(a, b, "e6m9,chunk=64", inputs="e5m2")
    places = [torch.device("cuda", index) for index in (0, 1, 0, 1)]
    results = [ps.gemm(a.to(place), b.to(place), "e6m9,chunk=64", inputs="e5m2") for place in places]
    assert [d.device for d in results] == places
    assert all(torch.equal(d.cpu(), expected) for d in results)
