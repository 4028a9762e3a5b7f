"""Time and memory of emulated networks against plain float32 torch, paired in one run.

    python benchmarks/training.py [--case resnet20 llama135m] [--rounds 5] [--threads 2] [--profile]

``resnet20`` is a training step of ResNet-20 on CIFAR shapes, batch 128, under ``accumulation-2019`` (goal: at most 3
times plain torch, aim 2); ``llama135m`` the forward pass of a Llama-style model of 135 million parameters on 512
tokens under the policy of ``fp8-2018`` (goal: at most 3). Plain and emulated runs of a few steps alternate, and the ratio
is that of the medians. Memory is how far two steps push the process's peak over what it held before the network was
built, weights included, each kind in a process of its own (goal: at most 1.5).
"""

from __future__ import annotations

import argparse
import importlib
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

import partialsum as ps
from partialsum.workloads.zoo import network

STEPS_IN_A_RUN = 3


@dataclass(frozen=True)
class Case:
    """A network, one step of work on it, and the policy to emulate it under."""

    build: Callable[[], tuple[nn.Module, Callable[[nn.Module], None]]]
    policy: Callable[[], ps.Policy]
    needs: str = ""


def resnet20() -> tuple[nn.Module, Callable[[nn.Module], None]]:
    """Return ResNet-20 and one step of SGD with momentum on a batch of 128."""
    torch.manual_seed(0)
    model = network("resnet20-cifar10").build()
    images, labels = torch.randn(128, 3, 32, 32), torch.randint(0, 10, (128,))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

    def step(model: nn.Module) -> None:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()

    return model, step


def widths_2019() -> ps.Policy:
    """Return the policy of ``accumulation-2019`` for ResNet-20."""
    return ps.recipe("accumulation-2019", report=ps.analyze("resnet20-cifar10", batch=128)).policy


def llama135m() -> tuple[nn.Module, Callable[[nn.Module], None]]:
    """Return a Llama of SmolLM2-135M's shape and one forward pass on 512 tokens."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        vocab_size=49152,
        tie_word_embeddings=True,
    )
    tokens = torch.randint(0, 49152, (1, 512))

    def step(model: nn.Module) -> None:
        with torch.no_grad():
            model(tokens)

    return LlamaForCausalLM(config).eval(), step


CASES = {
    "resnet20": Case(resnet20, widths_2019),
    "llama135m": Case(llama135m, lambda: ps.recipe("fp8-2018").policy, "transformers.models.llama.modeling_llama"),
}


def seconds(step: Callable[[nn.Module], None], model: nn.Module) -> float:
    """Return the wall time of one step."""
    start = time.perf_counter()
    step(model)
    return time.perf_counter() - start


def times(case: Case, rounds: int) -> tuple[list[float], list[float]]:
    """Return the times of plain and emulated steps, in alternating runs of a few; the first of a run warms up."""
    model, step = case.build()
    policy = case.policy()
    plain, emulated = [], []
    for _ in range(rounds):
        plain += [seconds(step, model) for _ in range(STEPS_IN_A_RUN)][1:]
        with ps.emulate(model, policy):
            emulated += [seconds(step, model) for _ in range(STEPS_IN_A_RUN)][1:]
    return plain, emulated


def peak_mb() -> float:
    """Return the largest resident size of this process so far."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def growth_mb(name: str, kind: str) -> float:
    """Return how far building a network and two steps push the peak of a fresh process."""
    command = [
        sys.executable,
        __file__,
        "--case",
        name,
        "--measure",
        kind,
        "--threads",
        str(torch.get_num_threads()),
    ]
    done = subprocess.run(command, capture_output=True, check=True, text=True)
    grown: float = json.loads(done.stdout.splitlines()[-1])
    return grown


def measure(case: Case, kind: str) -> None:
    """Print the growth of this process over building the network and two steps, in MB."""
    policy = case.policy()
    if case.needs:
        importlib.import_module(case.needs)
    before = peak_mb()
    model, step = case.build()
    if kind == "emulated":
        ps.emulate(model, policy)
    for _ in range(2):
        step(model)
    print(peak_mb() - before)


def profile(case: Case) -> None:
    """Print where the time of an emulated step goes, Python and operators."""
    model, step = case.build()
    ps.emulate(model, case.policy())
    step(model)
    with torch.profiler.profile() as profiler:
        step(model)
    print(profiler.key_averages().table(sort_by="self_cpu_time_total", row_limit=25))


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", nargs="*", default=list(CASES), choices=list(CASES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--measure", choices=["plain", "emulated"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.measure:
        measure(CASES[arguments.case[0]], arguments.measure)
        return
    if arguments.profile:
        for name in arguments.case:
            profile(CASES[name])
        return
    print(
        f"{'case':<12} {'plain s':>9} {'emulated s':>11} {'ratio':>6} {'plain MB':>9} {'emulated MB':>12} {'ratio':>6}"
    )
    for name in arguments.case:
        plain, emulated = (statistics.median(part) for part in times(CASES[name], arguments.rounds))
        small, large = growth_mb(name, "plain"), growth_mb(name, "emulated")
        print(
            f"{name:<12} {plain:9.3f} {emulated:11.3f} {emulated / plain:6.2f} {small:9.0f} {large:12.0f} "
            f"{large / small:6.2f}"
        )


if __name__ == "__main__":
    main()
