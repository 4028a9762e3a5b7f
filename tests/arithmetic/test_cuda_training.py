"""Training on a real GPU: a step captured into a graph, other streams, DistributedDataParallel with NCCL."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn

import partialsum as ps
from distributed_worker import POLICY, batch, gradients, nccl_worker, network

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def device() -> torch.device:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return torch.device("cuda", torch.cuda.current_device())


def emulated(device: torch.device) -> nn.Module:
    model = network().to(device)
    ps.emulate(model, POLICY)
    return model


def step(model: nn.Module, optimizer: torch.optim.Optimizer, images: Tensor, labels: Tensor) -> None:
    optimizer.zero_grad(set_to_none=True)
    nn.functional.cross_entropy(model(images), labels).backward()
    optimizer.step()


def test_a_training_step_captured_into_a_graph(device: torch.device) -> None:
    images, labels = (x.to(device) for x in batch())
    models = [emulated(device) for _ in range(2)]
    optimizers = [torch.optim.SGD(model.parameters(), lr=0.1) for model in models]
    eager, captured = zip(models, optimizers, strict=True)
    for _ in range(6):
        step(*eager, images, labels)

    side = torch.cuda.Stream(device)
    side.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(side):  # compiles, and lets torch's own libraries set themselves up
        for _ in range(3):
            step(*captured, images, labels)
    torch.cuda.current_stream(device).wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):  # records the work, and does none of it
        step(*captured, images, labels)
    for _ in range(3):
        graph.replay()
    torch.cuda.synchronize()
    for one, other in zip(models[0].parameters(), models[1].parameters(), strict=True):
        assert torch.equal(one, other)


def test_gradients_on_a_stream_of_their_own(device: torch.device) -> None:
    images, labels = (x.to(device) for x in batch())
    model = emulated(device)
    expected = gradients(model, images, labels)
    streams = [torch.cuda.Stream(device) for _ in range(2)]
    results = []
    for stream in streams:  # both at once
        stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(stream):
            copy = emulated(device)
            results.append(gradients(copy, images, labels))
    torch.cuda.synchronize()
    for got in results:
        assert all(map(torch.equal, got, expected))


def test_temporaries_live_as_long_as_their_stream_needs_them(device: torch.device) -> None:
    a, b = torch.randn(64, 4096, device=device), torch.randn(4096, 64, device=device)
    expected = ps.gemm(a, b, "e6m9,chunk=64", inputs="e5m2")
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        got = [ps.gemm(a, b, "e6m9,chunk=64", inputs="e5m2") for _ in range(20)]
        waste = [torch.full((1 << 20,), float("nan"), device=device) for _ in range(8)]
    torch.cuda.synchronize()
    assert len(waste) == 8
    assert all(torch.equal(d, expected) for d in got)


@pytest.mark.parametrize("count", [1, 2])
def test_processes_with_nccl_give_the_gradients_of_one(device: torch.device, tmp_path: Path, count: int) -> None:
    if torch.cuda.device_count() < count:
        pytest.skip(f"fewer than {count} CUDA devices")
    if not dist.is_nccl_available():
        pytest.skip("this torch has no NCCL")
    mp.start_processes(nccl_worker, (str(tmp_path), count), nprocs=count, start_method="spawn")
    found = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(count)]
    model = emulated(device)
    parts = zip(*(x.to(device).chunk(count) for x in batch()), strict=True)
    alone = [gradients(model, images, labels) for images, labels in parts]
    for got in found:
        for mean, *shares in zip(got, *alone, strict=True):
            assert torch.equal(mean, sum(share / count for share in shares).cpu())
