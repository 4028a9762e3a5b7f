"""The table of a GPU: GEMMs beside its own multiply-add rate and torch.mm, quantising beside a copy, a training step.

Called by ``throughput.py --device cuda``; by itself, with the name of a case, it runs that one for a profiler. Every figure
is the median of event timings on the stream; contenders take turns within a round. Operands are several times the size
of the cache in the large shapes, and copies always. The multiply-add rate is measured in the same run, with a kernel that
does nothing else; TF32 stays off in torch.mm.

A row's *bound* is what its kernel could reach if it did nothing but its own operations, ``operations`` for each
product, at the measured rate; an operation on integers counts twice, as its unit is half as wide (the counts are those of
``cuda_machine_code.py``). Where outputs are few, every sum's chain of dependent operations is the bound instead: no
order-keeping kernel adds a product before the last sum is there; chunks are summed side by side and joined in order.
"""

from __future__ import annotations

import ctypes
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import partialsum as ps
from partialsum.arithmetic import cuda, cuda_device, cuda_kernels
from partialsum.arithmetic.cuda_kernels import Source
from partialsum.workloads.zoo import network

Shape = tuple[int, int, int]
SQUARE: Shape = (4096, 4096, 4096)
FEW_OUTPUTS: tuple[Shape, ...] = ((32, 288, 1 << 20), (16, 144, 1 << 20), (64, 576, 1 << 20), (256, 256, 1 << 18))
COPY_ELEMENTS = 1 << 28
LATENCY = 4  # cycles until a dependent float32 operation may start, on sm_80 to sm_100
_HEAD_START = 2_000_000  # cycles, about a millisecond: longer than the host takes for one call
LANES = 128  # float32 multiply-adds of a multiprocessor per cycle


@dataclass(frozen=True)
class Variant:
    """A way of adding: operations per product, and how many of them depend on one another."""

    name: str
    accumulator: str
    operations: float
    chain: int
    goal: float | None = None
    """Share of the rate that ``goal_operations`` per product would allow."""
    goal_operations: int = 4
    inputs: str = "e5m2"


VARIANTS = (
    Variant("nearest even", "e6m9", 3, 3, 0.60),
    Variant("toward zero", "e6m9,toward_zero", 2, 2, 0.60, 2),
    Variant("stochastic", "e6m9,stochastic", 4, 4, 0.50),
    Variant("chunk 64", "e6m9,chunk=64", 3, 3),
    Variant("any operands", "e8m10", 16, 9, inputs="fp32"),
    Variant("guarded", "e4m9", 12, 8),
    Variant("float64 lanes", "e8m22", 56, 20, inputs="fp32"),
    Variant("product rounded", "bf16,product=bf16", 6, 3, inputs="bf16"),
    Variant("lba12-2024", "lba12-2024", 28, 16),
    Variant("fp32", "fp32", 1, 1, inputs="fp32"),
    Variant("int32", "int32", 4, 1, inputs="int8"),
    Variant("h100-fp16", "h100-fp16", 11, 1, inputs="fp16"),
    Variant("h100-fp8", "h100-fp8", 11, 1, inputs="e4m3fn"),
    Variant("mi300-fp16", "mi300-fp16", 20, 1, inputs="fp16"),
)
FORMATS = ("e5m2", "e4m3fn", "bf16", "e6m9", "int8", "q8.8", "mxfp8_e4m3", "mxfp4", "nvfp4")
QUANTISE_GOAL, STEP_GOAL, TORCH_GOAL, FIRST_GOAL, LATER_GOAL = 0.70, 8.0, 0.15, 2.0, 0.05


@dataclass(frozen=True)
class Row:
    """One line: a figure, what it is compared with, the ratio, the most that could be, the goal."""

    what: str
    case: str
    figure: str
    against: str
    ratio: float
    bound: float | None = None
    goal: float | None = None
    smaller_is_better: bool = False

    @property
    def verdict(self) -> str:
        if self.goal is None:
            return ""
        return (
            "met" if (self.ratio <= self.goal if self.smaller_is_better else self.ratio >= self.goal) else "missed"
        )

    def cells(self) -> tuple[str, ...]:
        known = [f"{x:.2f}" if x is not None else "–" for x in (self.bound, self.goal)]
        return (self.what, self.case, self.figure, f"{self.ratio:.2f}", self.against, *known, self.verdict)


COLUMNS = ("what", "case", "figure", "ratio", "to", "bound", "goal", "")


def milliseconds(runs: dict[str, Callable[[], object]], rounds: int, *, ahead: bool = True) -> dict[str, float]:
    """Return the median time of each run on the current stream; runs take turns.

    Ahead: the device is kept waiting while the host launches, so that only the device's own time counts.
    """
    for run in runs.values():
        run()
    events: dict[str, list[tuple[Any, Any]]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            pair = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            if ahead:
                torch.cuda._sleep(_HEAD_START)
            pair[0].record()
            run()
            pair[1].record()
            events[name].append(pair)
        torch.cuda.synchronize()
    return {name: statistics.median(a.elapsed_time(b) for a, b in pairs) for name, pairs in events.items()}


_FMA = Source(
    ("multiply_add",),
    """extern "C" __global__ void __launch_bounds__(256) multiply_add(float* out, int rounds) {
    float x[16];
    #pragma unroll
    for (int i = 0; i < 16; ++i) x[i] = threadIdx.x + i;
    #pragma unroll 1
    for (int r = 0; r < rounds; ++r) {
        #pragma unroll
        for (int j = 0; j < 256; ++j) x[j % 16] = __fmaf_rn(x[j % 16], 0.999f, 0.001f);
    }
    float sum = 0;
    #pragma unroll
    for (int i = 0; i < 16; ++i) sum += x[i];
    out[blockIdx.x * blockDim.x + threadIdx.x] = sum;
}
""",
)


def multiply_adds(device: torch.device, rounds: int, loops: int = 1 << 12) -> float:
    """Return the float32 multiply-adds per second of a kernel that does nothing else."""
    blocks = 8 * cuda_device.properties(device).units
    function = cuda.load((_FMA,), device)["multiply_add"]
    out = torch.empty(blocks * 256, device=device)
    arguments = cuda_device.pointer(out.data_ptr()), ctypes.c_int32(loops)

    def run() -> None:
        with cuda_device.active(device):
            cuda_device.launch(function, (blocks, 1, 1), 256, cuda_device.stream(device), *arguments)

    return blocks * 256 * 256 * loops / (milliseconds({"run": run}, rounds)["run"] * 1e-3)


def operands(shape: Shape, variant: Variant, device: torch.device) -> tuple[Tensor, Tensor]:
    m, n, k = shape
    generator = torch.Generator(device).manual_seed(0)
    scale = 30.0 if variant.inputs.startswith("int") else 1.0
    a, b = (scale * torch.randn(size, device=device, generator=generator) for size in ((m, k), (k, n)))
    return ps.quantize(a, variant.inputs), ps.quantize(b, variant.inputs)


def in_order(shape: Shape, variant: Variant, units: int) -> int:
    """Return how many steps of a sum wait for one another: all, or those of a chunk and its joining."""
    m, n, k = shape
    acc = ps.parse_accumulator(variant.accumulator)
    if not isinstance(acc, ps.Accumulator) or acc.chunk is None:
        return k
    slices = cuda_kernels.slices(acc, m, n, k, 1, units, patches=False)
    return acc.chunk + slices if slices else k + k // acc.chunk


def products(
    shape: Shape, variants: Sequence[Variant], rate: float, device: torch.device, rounds: int
) -> Iterator[Row]:
    """Yield a row per variant and comparison on one shape."""
    m, n, k = shape
    macs, units = m * n * k, cuda_device.properties(device).units
    clock = rate / (units * LANES)
    for variant in variants:
        a, b = operands(shape, variant, device)
        timed = milliseconds(
            {"torch": lambda: torch.mm(a, b), "ours": lambda: ps.gemm(a, b, variant.accumulator)},  # noqa: B023
            rounds,
        )
        ours, theirs = (macs / (timed[name] * 1e-3) for name in ("ours", "torch"))
        chain = macs * clock / (in_order(shape, variant, units) * variant.chain * LATENCY)
        bound = min(rate / variant.operations, chain)
        case, figure = f"{variant.name}, {m} × {n} × {k}", f"{ours / 1e9:.0f} GMAC/s"
        allowed = rate / variant.goal_operations
        square = shape == SQUARE
        against = f"FMA rate / {variant.goal_operations}"
        yield Row("gemm", case, figure, against, ours / allowed, bound / allowed, variant.goal if square else None)
        goal = TORCH_GOAL if square and variant.name == "nearest even" else None
        yield Row("gemm", case, figure, "torch.mm", ours / theirs, bound / theirs, goal)


def copies(elements: int, formats: Sequence[str], device: torch.device, rounds: int) -> Iterator[Row]:
    """Yield a row per format: quantising a large tensor beside copying it."""
    x, y = torch.randn(elements, device=device), torch.empty(elements, device=device)
    for rounding in ("nearest_even", "stochastic"):
        for fmt in formats if rounding == "nearest_even" else formats[:1]:
            timed = milliseconds(
                {"copy": lambda: y.copy_(x), "ours": lambda: ps.quantize(x, fmt, rounding, out=y)},  # noqa: B023
                rounds,
            )
            figure = f"{8 * elements / timed['ours'] / 1e6:.0f} GB/s"
            goal = QUANTISE_GOAL if rounding == "nearest_even" else None
            yield Row("quantize", f"{fmt}, {rounding}", figure, "copy", timed["copy"] / timed["ours"], 1.0, goal)


def training_step(device: torch.device, rounds: int, batch: int) -> Row:
    """Return the row of a training step of ResNet-20 under accumulation-2019."""
    policy = ps.recipe("accumulation-2019", report=ps.analyze("resnet20-cifar10", batch=batch)).policy
    runs = {}
    for name in ("plain", "emulated"):
        torch.manual_seed(0)
        model = network("resnet20-cifar10").build().to(device)
        images = torch.randn(batch, 3, 32, 32, device=device)
        labels = torch.randint(0, 10, (batch,), device=device)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        if name == "emulated":
            ps.emulate(model, policy)
        runs[name] = _step(model, images, labels, optimizer)
    timed = milliseconds(runs, rounds, ahead=False)
    ratio = timed["emulated"] / timed["plain"]
    figure = f"{timed['emulated']:.1f} ms"
    case = f"ResNet-20, batch {batch}, accumulation-2019"
    return Row("training step", case, figure, "plain float32", ratio, None, STEP_GOAL, smaller_is_better=True)


def _step(model: torch.nn.Module, images: Tensor, labels: Tensor, optimizer: Any) -> Callable[[], None]:
    def run() -> None:
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()

    return run


def first_uses(device: torch.device) -> Iterator[Row]:
    """Yield how long the kernels of an accumulator take to compile, and to load later."""
    program = cuda_kernels.program(ps.parse_accumulator("e6m9,chunk=64"), cuda_kernels.LARGE, patches=False)
    before = os.environ.get("PARTIALSUM_CACHE")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["PARTIALSUM_CACHE"] = folder  # an empty one
        try:
            for case, goal in (("compile", FIRST_GOAL), ("load what is kept", LATER_GOAL)):
                cuda.load.cache_clear()
                began = time.perf_counter()
                cuda.load(program.sources, device)
                spent = time.perf_counter() - began
                yield Row(
                    "first use", case, f"{1e3 * spent:.0f} ms", "1 s", spent, None, goal, smaller_is_better=True
                )
        finally:
            os.environ.pop("PARTIALSUM_CACHE")
            if before is not None:
                os.environ["PARTIALSUM_CACHE"] = before


def table(device: torch.device, rounds: int, quick: bool) -> Iterator[Row]:
    """Yield all rows; ``quick`` takes sizes that any machine does at once, which say nothing."""
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.zeros(1, device=device)  # what torch sets up at its own first use is none of ours
    yield from first_uses(device)
    rate = multiply_adds(device, rounds, 2 if quick else 1 << 12)
    yield Row("multiply-adds", "float32", f"{rate / 1e9:.0f} GMAC/s", "itself", 1.0)
    shapes = (
        [((8, 8, 8), VARIANTS[:2])] if quick else [(SQUARE, VARIANTS), *((s, VARIANTS[:4]) for s in FEW_OUTPUTS)]
    )
    for shape, variants in shapes:
        yield from products(shape, variants, rate, device, rounds)
    yield from copies(1 << 10 if quick else COPY_ELEMENTS, FORMATS[:2] if quick else FORMATS, device, rounds)
    if not quick:
        yield training_step(device, rounds, 128)


def heading(device: torch.device) -> str:
    """Return the line that names what was measured."""
    found = torch.cuda.get_device_properties(device)
    memory = found.total_memory / 2**30
    return (
        f"{found.name}, {found.multi_processor_count} multiprocessors, {memory:.0f} GiB, torch {torch.__version__}"
    )


def profile(case: str, device: torch.device, shape: Shape = SQUARE, elements: int = COPY_ELEMENTS) -> None:
    """Run one variant, or ``quantize``, a few times: for a profiler to look at."""
    if case == "quantize":
        x = torch.randn(elements, device=device)
        for _ in range(4):
            ps.quantize(x, "e5m2", out=x)
        return
    found = [variant for variant in VARIANTS if variant.name == case]
    if not found:
        sys.exit(f"no such case: {case}; there are quantize, {', '.join(variant.name for variant in VARIANTS)}")
    a, b = operands(shape, found[0], device)
    for _ in range(4):
        ps.gemm(a, b, found[0].accumulator)


if __name__ == "__main__":
    if len(sys.argv) != 2 or not torch.cuda.is_available():
        sys.exit("usage: throughput_cuda.py CASE, with a CUDA device; throughput.py --device cuda prints the table")
    profile(sys.argv[1], torch.device("cuda", torch.cuda.current_device()))
    torch.cuda.synchronize()
