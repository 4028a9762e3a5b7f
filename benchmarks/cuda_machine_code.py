"""What the inner loops of the kernels for a GPU are made of, counted in their machine code; no GPU is needed.

    pip install nvidia-cuda-nvdisasm
    python benchmarks/cuda_machine_code.py [--architecture sm_90] [--markdown]

A line for each kernel: instructions for each product in the innermost loop, and what that allows at most; then how many
elements a thread moves for a tile, its registers, and how many blocks fit on a multiprocessor. The counts are the
compiler's. The most that could be reached follows from them and from two facts of sm_90: a quarter of a multiprocessor
starts one instruction of a warp in each cycle, and instructions on integers, comparisons and selections keep their unit
busy for two. It counts no waiting at all: it is a bound, not a forecast.

Branches that only rare data take (infinities, overflow) are counted as not taken.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import partialsum as ps
from partialsum.arithmetic import cuda_quantize, cuda_units
from partialsum.arithmetic.cuda_compiler import compile_fresh
from partialsum.arithmetic.cuda_kernels import Kernel, Source

UNITS = 132  # multiprocessors of an H100 or H200: what the choice of a shape asks for
LARGE, FEW = (4096, 4096, 1), (32, 288, 1)
CASES = (
    ("nearest even", "e6m9", LARGE, "plain"),
    ("toward zero", "e6m9,toward_zero", LARGE, "plain"),
    ("stochastic", "e6m9,stochastic", LARGE, "plain"),
    ("chunk 64", "e6m9,chunk=64", LARGE, "plain"),
    ("nearest even, guarded", "e6m9", LARGE, "guarded"),
    ("nearest even, any operands", "e6m9", LARGE, "odd_guarded"),
    ("product rounded", "lba12-2024", LARGE, "product"),
    ("float32", "fp32", LARGE, "native"),
    ("h100-fp8", "h100-fp8", LARGE, "fast"),
    ("nearest even, few outputs", "e6m9", FEW, "plain"),
    ("toward zero, few outputs", "e6m9,toward_zero", FEW, "plain"),
    ("stochastic, few outputs", "e6m9,stochastic", FEW, "plain"),
)
SIMPLE = ("FFMA", "FMUL", "FADD", "IMAD", "LDS", "LDG", "STS", "STG", "BRA", "BSSY", "BSYNC", "BAR", "LDC", "HFMA2")
GROUP_UNROLL = 4  # steps written out in the loops of a unit, native/cuda/unit.cuh
RARE = 12  # instructions that a forward branch within a loop may skip and still be care for rare data


@dataclass(frozen=True)
class Loop:
    """Instructions of a loop, by name, those behind rarely taken branches left out."""

    names: Counter[str]

    @classmethod
    def of(cls, code: Sequence[str], places: dict[str, int], first: int, last: int, rare: int) -> Loop:
        names: Counter[str] = Counter()
        at = first
        while at <= last:
            names[name(code[at])] += 1
            target = places.get(branch(code[at]), -1)
            at = target if at < target <= min(last, at + rare) else at + 1
        return cls(names)

    def of_kind(self, *kinds: str) -> int:
        return sum(count for x, count in self.names.items() if x.split(".")[0] in kinds)

    @property
    def slots(self) -> int:
        """Cycles until all have been started."""
        return sum(count for x, count in self.names.items() if not x.startswith("U"))

    @property
    def twice(self) -> int:
        """Instructions of which one keeps its unit busy for two cycles."""
        return self.slots - self.of_kind(*SIMPLE)

    @property
    def cycles(self) -> int:
        return max(self.slots, 2 * self.twice)


def name(line: str) -> str:
    return re.sub(r"^@!?U?P\w+ ", "", line).split()[0]


def branch(line: str) -> str:
    found = re.search(r"BRA.*(\.L_x_\d+)", line)
    return found[1] if found and line.startswith("@") else ""


def disassemble(source: Source, architecture: str) -> tuple[str, str]:
    tool = shutil.which("nvdisasm") or next(
        (str(path) for folder in sys.path for path in Path(folder, "nvidia").glob("*/bin/nvdisasm")), None
    )
    if tool is None:
        sys.exit("nvdisasm is missing: pip install nvidia-cuda-nvdisasm")
    code, log = compile_fresh(source.text, architecture, ("--ptxas-options=-v",))
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(code)
        file.flush()
        text = subprocess.run([tool, "-c", file.name], capture_output=True, text=True, check=True).stdout
    return text, log


def loops(text: str, rare: int = RARE) -> list[tuple[int, int, Loop]]:
    """Return the loops of a kernel by their first and last instruction."""
    code, places, backward = [], {}, []
    for line in text.splitlines():
        if found := re.match(r"(\.L_x_\d+):", line):
            places[found[1]] = len(code)
        elif found := re.match(r"\s*/\*[0-9a-f]+\*/\s+(.*?) ?;", line):
            code.append(found[1].strip())
    for i, line in enumerate(code):
        found = re.search(r"BRA.*(\.L_x_\d+)", line)
        if found and places[found[1]] < i:
            backward.append((places[found[1]], i))
    return [(first, last, Loop.of(code, places, first, last, rare)) for first, last in backward]


def innermost(found: list[tuple[int, int, Loop]], sums: int, *, by_groups: bool) -> Loop:
    """Return the loop over steps; a unit has two, one of which looks for the largest exponent, counted as one."""
    loads = [loop for loop in found if loop[2].of_kind("LDS") and not loop[2].of_kind("LDG", "BAR")]
    inner = [x for x in loads if not any(x[0] <= y[0] and y[1] <= x[1] and x != y for y in loads)]
    if not by_groups:
        return max(inner, key=lambda loop: loop[2].of_kind("FFMA", "FMUL"))[2]
    wide = [loop[2].names for loop in inner if loop[2].names["LDS.128"] >= sums // 2]
    return Loop(wide[0] + wide[1])


def resident(kernel: Kernel, registers: int, shared: int) -> int:
    """Blocks of a kernel that fit on a multiprocessor of sm_90 at once."""
    warps = kernel.shape.threads // 32
    by_registers = 65536 // (-(-registers // 8) * 8 * 32 * warps)
    return min(by_registers, 227 * 1024 // (shared + 1024), 2048 // kernel.shape.threads, 32)


def row(
    case: str, accumulator: str, sizes: tuple[int, int, int], wanted: str, architecture: str
) -> tuple[str, ...]:
    program = cuda_units.summation(
        ps.parse_accumulator(accumulator), (None, None), sizes, UNITS, patches=False
    ).program
    kernel = next(x for x in program.kernels if x.name == wanted)
    text, log = disassemble(kernel.source, architecture)
    registers, shared = (int(re.findall(pattern, log)[0]) for pattern in (r"Used (\d+) reg", r"(\d+) bytes smem"))
    sums = kernel.shape.rows * kernel.shape.columns
    counted = innermost(loops(text), sums, by_groups=wanted == "fast")
    count = sums * (GROUP_UNROLL if wanted == "fast" else kernel.shape.unroll)
    elements = (
        kernel.shape.down * kernel.shape.rows + kernel.shape.across * kernel.shape.columns
    ) * kernel.shape.tile_k
    return (
        case,
        str(kernel.shape).removeprefix("Shape"),
        *(
            f"{x / count:.2f}"
            for x in (counted.of_kind("FFMA", "FMUL", "FADD"), counted.twice, counted.of_kind("LDS"))
        ),
        f"{counted.slots / count:.2f}",
        f"{count / counted.cycles:.2f}",
        str(elements // kernel.shape.threads),
        str(registers),
        str(resident(kernel, registers, shared)),
    )


COLUMNS = (
    *("kernel", "shape", "float32", "two cycles", "LDS", "all", "products per cycle"),
    *("elements fetched", "registers", "blocks"),
)


def quantising(architecture: str) -> str:
    """Return what rounding to a plain format takes where four neighbours are finite, which skips most of the loop."""
    source = cuda_quantize._elements(ps.Rounding.NEAREST_EVEN, wide=False, in_float32=True)
    _, _, loop = loops(disassemble(source, architecture)[0], rare=1000)[0]
    elements = 4 * loop.of_kind("LDG")
    return f"{loop.slots / elements:.1f} instructions for each element, {loop.twice / elements:.1f} of two cycles"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--architecture", default="sm_90")
    parser.add_argument("--markdown", action="store_true", help="print a table for the documentation")
    options = parser.parse_args()
    rows = [COLUMNS]
    if options.markdown:
        rows.append(("---",) * len(COLUMNS))
    rows += [row(*case, options.architecture) for case in CASES]
    widths = [max(len(cells[i]) for cells in rows) for i in range(len(COLUMNS))]
    for cells in rows:
        if options.markdown:
            print("| " + " | ".join(cells) + " |")
        else:
            print("  ".join(x.ljust(width) for x, width in zip(cells, widths, strict=True)).rstrip())
    print(f"\nquantising, nearest even: {quantising(options.architecture)}")


if __name__ == "__main__":
    main()
