"""The throughput table: every way of adding, on every shape, with 1 and 2 threads.

    python benchmarks/throughput.py [--threads 1,2] [--shapes 0,1] [--level avx2] [--json results.json] [--markdown]

One run measures ours, torch.mm and numpy side by side; see partialsum.arithmetic.throughput for what the columns say.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--shapes", default=",".join(map(str, range(len(SHAPES)))), help="indices into SHAPES")
    parser.add_argument("--level", default=native.current_simd_level())
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", action="store_true", help="print a table for the documentation")
    options = parser.parse_args()
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
    if options.json is not None:
        document = {"machine": title, "rows": [dataclasses.asdict(row) for row in rows]}
        write_atomically(options.json, json.dumps(document, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
