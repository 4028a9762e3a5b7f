"""What measuring costs: ``ps.measure`` with its defaults against plain passes over the same batches, in one run.

    python benchmarks/measurement.py [--case resnet20 llama] [--batches 16] [--rounds 3] [--threads 2] [--processor]

Forward and backward, float32 torch, no update (goal: at most 3). The first batch looks at every GEMM and the later ones at
some, so the ratio falls with the number of batches; the one of a single batch is printed beside it.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

import partialsum as ps
from partialsum.workloads.zoo import network


def resnet20() -> tuple[nn.Module, Any, Callable[..., torch.Tensor] | None]:
    """Return ResNet-20 with a batch of 128 and its loss."""
    batch = (torch.randn(128, 3, 32, 32), torch.randint(0, 10, (128,)))
    return network("resnet20-cifar10").build(), batch, nn.functional.cross_entropy


def llama() -> tuple[nn.Module, Any, Callable[..., torch.Tensor] | None]:
    """Return a Llama of 10 million parameters with 512 tokens."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        hidden_size=288,
        intermediate_size=768,
        num_hidden_layers=6,
        num_attention_heads=6,
        num_key_value_heads=3,
        vocab_size=8192,
    )
    tokens = torch.randint(0, 8192, (2, 256))
    return LlamaForCausalLM(config), {"input_ids": tokens, "labels": tokens}, None


CASES = {"resnet20": resnet20, "llama": llama}


Clock = Callable[[], float]


def plain_seconds(model: nn.Module, batch: Any, loss: Any, batches: int, clock: Clock) -> float:
    """Return the time of plain forward and backward passes."""
    start = clock()
    for _ in range(batches):
        value = model(**batch).loss if loss is None else loss(model(batch[0]), batch[1])
        value.backward()
        model.zero_grad()
    return clock() - start


def measured_seconds(model: nn.Module, batch: Any, loss: Any, batches: int, clock: Clock) -> float:
    """Return the time of a measurement over as many batches."""
    start = clock()
    ps.measure(model, [batch] * batches, loss=loss)
    return clock() - start


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", nargs="*", default=list(CASES), choices=list(CASES))
    parser.add_argument("--batches", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--processor", action="store_true", help="processor time instead of wall time")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    clock = time.process_time if arguments.processor else time.perf_counter
    print(f"{'case':<10} {'batches':>8} {'plain s':>9} {'measured s':>11} {'ratio':>6}")
    for name in arguments.case:
        torch.manual_seed(0)
        model, batch, loss = CASES[name]()
        plain_seconds(model, batch, loss, 1, clock)
        for batches in (1, arguments.batches):
            pairs = [
                tuple(run(model, batch, loss, batches, clock) for run in (plain_seconds, measured_seconds))
                for _ in range(arguments.rounds)
            ]
            ratio = statistics.median(measured / plain for plain, measured in pairs)
            plain, measured = (statistics.median(part) for part in zip(*pairs, strict=True))
            print(f"{name:<10} {batches:8d} {plain:9.2f} {measured:11.2f} {ratio:6.2f}", flush=True)


if __name__ == "__main__":
    main()
