"""``partialsum bench``: how fast the kernels are on this machine, beside torch.mm in float32."""

from __future__ import annotations

import dataclasses
import json
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from partialsum.arithmetic.throughput import Measurement


def bench(
    size: Annotated[int, typer.Option(help="Rows, columns and length of the square GEMM.")] = 512,
    threads: Annotated[int | None, typer.Option(help="Threads (default: as many as kernels use).")] = None,
    level: Annotated[str | None, typer.Option(help="Instruction set: portable, avx2 or avx512.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Every shape, with 1 and 2 threads (minutes).")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure every way of adding, paired with torch.mm and numpy in the same run.

    ratio: to torch.mm, or to the variant named under "to". goal: what this project wants of it. bound: the ratio if the
    processor did nothing but the variant's own vector operations, at the full rate of plain multiply-adds.
    """
    from partialsum.arithmetic import native
    from partialsum.arithmetic.throughput import SHAPES, heading, measure, variants_here
    from partialsum.errors import InputError

    if size < 1:
        raise InputError(f"--size must be at least 1, got {size}")
    if threads is not None and threads < 1:
        raise InputError(f"--threads must be at least 1, got {threads}")
    counts = (1, 2) if every else (native.num_threads() if threads is None else threads,)
    shapes = SHAPES if every else ((size, size, size),)
    tables: list[list[Measurement]] = []
    with native.simd_level(level or native.current_simd_level()):
        title = heading(counts)
        print(title, file=sys.stderr)
        for count in counts:
            for shape in shapes:
                tables.append(measure(shape, variants_here(), count))
                if not as_json:
                    _print(tables[-1])
    if as_json:
        rows = [dataclasses.asdict(row) for table in tables for row in table]
        print(json.dumps({"machine": title, "rows": rows}, indent=2))


def _print(rows: list[Measurement]) -> None:
    from partialsum.report.text import print_rows

    table: list[dict[str, Any]] = [
        {
            "variant": row.variant,
            "GMAC/s": round(row.rate, 1),
            "ratio": round(row.ratio, 2),
            "to": row.against,
            "goal": row.goal,
            "bound": None if row.bound is None else round(row.bound, 2),
            "verdict": row.verdict,
        }
        for row in rows
    ]
    first = rows[0]
    shape = " × ".join(map(str, first.shape))
    rates = f"torch.mm {first.torch_rate:.1f}, numpy {first.numpy_rate:.1f} GMAC/s"
    print_rows(table, title=f"{shape}, {first.threads} threads, {rates}")
