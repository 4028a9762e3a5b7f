"""What each process does in the tests of DistributedDataParallel; spawned processes import it by name."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import partialsum as ps

POLICY = ps.Policy("e6m9,chunk=8", "e6m9,chunk=8", "e6m12", "e5m2")


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 6 * 6, 5))


def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(8, 1, 8, 8, generator=generator), torch.arange(8) % 5


def gradients(model: nn.Module, images: Tensor, labels: Tensor) -> list[Tensor]:
    model.zero_grad()
    nn.functional.cross_entropy(model(images), labels).backward()
    return [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]


def worker(rank: int, folder: str, wrap_first: bool) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    try:
        model = network()
        if wrap_first:
            parallel = DistributedDataParallel(model)
            ps.emulate(parallel, POLICY)
        else:
            ps.emulate(model, POLICY)
            parallel = DistributedDataParallel(model)
        images, labels = (part.chunk(2)[rank] for part in batch())
        torch.save(gradients(parallel, images, labels), Path(folder) / f"{rank}.pt")
    finally:
        dist.destroy_process_group()


def nccl_worker(rank: int, folder: str, world: int) -> None:
    """One process for each GPU."""
    device = torch.device("cuda", rank)
    torch.cuda.set_device(device)
    dist.init_process_group("nccl", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=world)
    try:
        model = network().to(device)
        ps.emulate(model, POLICY)
        parallel = DistributedDataParallel(model, device_ids=[rank])
        images, labels = (part.chunk(world)[rank].to(device) for part in batch())
        found = [gradient.cpu() for gradient in gradients(parallel, images, labels)]
        torch.save(found, Path(folder) / f"{rank}.pt")
    finally:
        dist.destroy_process_group()
