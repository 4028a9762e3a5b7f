"""The throughput table: every way of adding, on every shape, with 1 and 2 threads.

    python benchmarks/throughput.py [--threads 1,2] [--shapes 0,1] [--level avx2] [--json results.json] [--markdown]
    python benchmarks/throughput.py --device cuda [--rounds 7] [--json results.json] [--markdown] [--quick]

One run measures ours, torch.mm and numpy side by side; see partialsum.arithmetic.throughput for what the columns say, and
throughput_cuda.py for those of a GPU.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path

from partialsum.arithmetic import native
from partialsum.arithmetic.throughput import SHAPES, Measurement, heading, measure, variants_here
from partialsum.files import write_atomically

COLUMNS = ("shape m × n × k", "threads", "variant", "GMAC/s", "torch", "numpy", "ratio", "to", "goal", "bound", "")
WIDTHS = (20, 7, 20, 6, 6, 6, 5, 13, 5, 5, 16)


def cells(row: Measurement) -> tuple[str, ...]:
    known = [f"{x:.2f}" if x is not None else "–" for x in (row.goal, row.bound)]
    rates = [f"{x:.1f}" for x in (row.rate, row.torch_rate, row.numpy_rate)]
    shape = " × ".join(map(str, row.shape))
    return (shape, str(row.threads), row.variant, *rates, f"{row.ratio:.2f}", row.against, *known, row.verdict)


def line(values: tuple[str, ...], markdown: bool) -> str:
    if markdown:
        return "| " + " | ".join(values) + " |"
    left = (0, 2, 7, 10)
    padded = (v.ljust(w) if i in left else v.rjust(w) for i, (v, w) in enumerate(zip(values, WIDTHS, strict=True)))
    return " ".join(padded).rstrip()


def on_gpu(options: argparse.Namespace) -> None:
    """Print the table of a GPU line by line; leave with one sentence where there is none."""
    import throughput_cuda
    import torch

    if not torch.cuda.is_available():
        sys.exit("no CUDA device here: torch.cuda.is_available() is False")
    device = torch.device("cuda", torch.cuda.current_device())
    title, rows = throughput_cuda.heading(device), []
    widths = (13, 44, 12, 7, 12, 6, 6, 7)
    print(title, gpu_line(throughput_cuda.COLUMNS, widths, options.markdown), sep="\n", flush=True)
    if options.markdown:
        print("|---" * len(widths) + "|")
    for row in throughput_cuda.table(device, options.rounds, options.quick):
        rows.append(dataclasses.asdict(row) | {"verdict": row.verdict})
        print(gpu_line(row.cells(), widths, options.markdown), flush=True)
        save(options.json, title, rows)  # each time: who runs out of time keeps what there is


def gpu_line(values: tuple[str, ...], widths: tuple[int, ...], markdown: bool) -> str:
    if markdown:
        return "| " + " | ".join(values) + " |"
    return " ".join(v.ljust(w) for v, w in zip(values, widths, strict=True)).rstrip()


def save(path: Path | None, title: str, rows: list[dict[str, object]]) -> None:
    if path is not None:
        write_atomically(path, json.dumps({"machine": title, "rows": rows}, indent=2, ensure_ascii=False) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that --device cuda works at all")
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--shapes", default=",".join(map(str, range(len(SHAPES)))), help="indices into SHAPES")
    parser.add_argument("--level", default=native.current_simd_level())
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", action="store_true", help="print a table for the documentation")
    options = parser.parse_args()
    if options.device == "cuda":
        on_gpu(options)
        return
    threads = [int(n) for n in options.threads.split(",")]
    rows: list[Measurement] = []
    with native.simd_level(options.level):
        title = heading(threads)
        print(title, line(COLUMNS, options.markdown), sep="\n\n" if options.markdown else "\n", flush=True)
        if options.markdown:
            print("|---" * len(COLUMNS) + "|")
        for count in threads:
            for index in options.shapes.split(","):
                for row in measure(SHAPES[int(index)], variants_here(), count, options.rounds):
                    rows.append(row)
                    print(line(cells(row), options.markdown), flush=True)
    save(options.json, title, [dataclasses.asdict(row) for row in rows])


if __name__ == "__main__":
    main()
