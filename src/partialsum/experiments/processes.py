"""One run over several processes started by ``torchrun``: who this one is, and what they tell one another."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

from partialsum.errors import InputError


@dataclass(frozen=True)
class Processes:
    """This process among ``world`` of them; a single one needs no communication."""

    rank: int = 0
    world: int = 1
    local: int = 0
    """Rank among the processes of this machine."""

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes."""
        return self.rank == 0

    def device(self, name: str) -> torch.device:
        """Return the device called ``name`` for this process; :class:`InputError` where there is none."""
        try:
            device = torch.device(name)
        except RuntimeError:
            device = torch.device("meta")
        if device.type not in ("cpu", "cuda"):
            raise InputError(f"training.device must be 'cpu' or a CUDA device such as 'cuda', got {name!r}")
        if device.type == "cpu":
            return device
        index = self.local if device.index is None else device.index
        if index >= torch.cuda.device_count():
            raise InputError(
                f"training.device must be there, got {name!r} (index {index}) with {torch.cuda.device_count()} GPUs"
            )
        return torch.device("cuda", index)

    def check_batch(self, batch: int) -> None:
        """Raise :class:`InputError` unless a batch is shared out evenly."""
        if batch % self.world:
            raise InputError(f"training.batch must be a multiple of the {self.world} processes, got {batch}")

    def share(self, samples: Tensor) -> Tensor:
        """Return this process's part of a batch's indices."""
        return samples[self.rank :: self.world]

    def wrap(self, model: nn.Module) -> nn.Module:
        """Return the model with its gradients averaged over the processes."""
        return nn.parallel.DistributedDataParallel(model) if self.world > 1 else model

    def total(self, *values: float) -> list[float]:
        """Return the sums of ``values`` over the processes, the same in each."""
        if self.world == 1:
            return list(values)
        sums = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(sums)
        return [float(value) for value in sums]

    def align_buffers(self, model: nn.Module) -> None:
        """Give every process the first one's buffers (running means of batch norms), as the next forward would."""
        if self.world > 1:
            for buffer in model.buffers():
                dist.broadcast(buffer, 0)

    def wait(self) -> None:
        """Return once every process is here."""
        self.total(0.0)


@contextmanager
def join_processes(device: str = "cpu") -> Iterator[Processes]:
    """Join the group that ``torchrun`` describes in the environment; without one, be alone."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1 or "RANK" not in os.environ:
        yield Processes()
        return
    dist.init_process_group("gloo" if device == "cpu" else "cpu:gloo,cuda:nccl")
    try:
        yield Processes(dist.get_rank(), dist.get_world_size(), int(os.environ.get("LOCAL_RANK", "0")))
    finally:
        dist.destroy_process_group()
