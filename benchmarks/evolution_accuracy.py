"""Prediction against bit-exact Monte Carlo over a grid: the table behind docs/evolution.md.

    python benchmarks/evolution_accuracy.py simulate [--minutes 5]   # resumable; writes docs/data/evolution_accuracy.csv
    python benchmarks/evolution_accuracy.py refine [--minutes 5]     # more sums where the error is large; resumable
    python benchmarks/evolution_accuracy.py predict                  # fills in the predictions anew
    python benchmarks/evolution_accuracy.py report                   # prints how far the two are apart

The grid: stored mantissa bits 4 … 12, three roundings, chunks none/32/64/128, densities 0.25/0.5/1, product means
0/0.25/0.5 σ, lengths 16 … 2^20, products of normal e5m2 operands. Every (bits, rounding, chunk) occurs once, with the
nine pairs of density and mean dealt out evenly among them. All accumulators of a pair add the same operands. Sums are
many where they are short (``STAGES``).
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import math
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import partialsum as ps
from partialsum.files import write_atomically
from partialsum.theory import montecarlo
from partialsum.theory.predict import resolve_product
from partialsum.theory.products import ProductLaw
from partialsum.theory.sampling import sample_operands

TABLE = Path(__file__).parents[1] / "docs" / "data" / "evolution_accuracy.csv"
LENGTHS = [4**i for i in range(2, 11)]
ROUNDINGS, CHUNKS = ("nearest_even", "toward_zero", "stochastic"), (None, 32, 64, 128)
PAIRS = list(itertools.product((1.0, 0.5, 0.25), (0.0, 0.25, 0.5)))
STAGES = {  # longest length -> sums without a mean and with one, of deterministic and of stochastic accumulators
    4096: ((65_536, 65_536), (16_384, 16_384)),
    1_048_576: ((16_384, 4_096), (16_384, 4_096)),
}  # each adds the lengths beyond the next shorter stage
FINEST = {256: 2**21, 1024: 2**19, 4096: 2**18, 16384: 2**17, 65536: 2**15}
"""Longest length -> sums at most, where a standard error is above a quarter of the goal; longer sums stay as they are."""
SEGMENT = 4096
GOALS = {"vrr": 0.01, "snr_db": 0.2}
QUANTITIES = ("vrr", "snr_db", "gain", "bias")
COLUMNS = [
    *("man_bits", "rounding", "chunk", "density", "mean", "k", "sums"),
    *(f"{q}_{kind}" for q in QUANTITIES for kind in ("simulated", "low", "high", "predicted")),
]
Row = dict[str, Any]


def configurations() -> dict[tuple[float, float], list[ps.Accumulator]]:
    """Return the accumulators of each pair of density and mean."""
    dealt: dict[tuple[float, float], list[ps.Accumulator]] = {pair: [] for pair in PAIRS}
    for i, (rounding, chunk) in enumerate(itertools.product(ROUNDINGS, CHUNKS)):
        for man_bits in range(4, 13):
            pair = PAIRS[(4 * (man_bits - 4) + 2 * i + i // 4) % len(PAIRS)]
            dealt[pair].append(ps.Accumulator(ps.FloatFormat(8, man_bits), rounding=rounding, chunk=chunk))
    return dealt


def simulate(minutes: float) -> None:
    """Simulate what the table lacks, until the time is over."""
    rows, end = read(), time.monotonic() + 60 * minutes
    done = {key(row) for row in rows}
    for longest, counts in STAGES.items():
        lengths = [k for k in LENGTHS if k <= longest and k > max([0, *(s for s in STAGES if s < longest)])]
        for pair, accumulators in configurations().items():
            for stochastic in (False, True):
                sums = counts[stochastic][pair[1] > 0]
                missing = [
                    acc
                    for acc in accumulators
                    if (acc.rounding == "stochastic") == stochastic
                    and any((*name(acc), *map(str, pair), str(k)) not in done for k in lengths)
                ]
                if not missing:
                    continue
                if time.monotonic() > end:
                    print("time is over; run again to go on", file=sys.stderr)
                    return
                rows += simulated(missing, pair, lengths, sums)
                write(rows)
                print(f"{len(rows)} points: {len(missing)} accumulators to {longest}, {pair}", file=sys.stderr)
    print("complete", file=sys.stderr)


def refine(minutes: float) -> None:
    """Simulate more sums wherever the statistical error is large against the goal and sums are cheap."""
    rows, end = read(), time.monotonic() + 60 * minutes
    wanted: dict[tuple[tuple[float, float], int, int], list[ps.Accumulator]] = {}
    for pair, accumulators in configurations().items():
        named = {(*name(acc), *map(str, pair)): acc for acc in accumulators}
        for row in rows:
            acc, sums = named.get(key(row)[:5]), more_sums(row)
            if acc is not None and sums > int(row["sums"]):
                wanted.setdefault((pair, int(row["k"]), sums), []).append(acc)
    for (pair, k, sums), some in sorted(wanted.items(), key=lambda item: item[0][1] * item[0][2]):
        if time.monotonic() > end:
            print("time is over; run again to go on", file=sys.stderr)
            return
        fresh = {key(row): row for row in simulated(some, pair, [k], sums)}
        rows = [row if key(row) not in fresh else refined(row, fresh[key(row)]) for row in rows]
        write(rows)
        print(f"{len(some)} accumulators to {k}, {pair}: {sums} sums", file=sys.stderr)
    print("complete", file=sys.stderr)


def more_sums(row: Row) -> int:
    """Return the sums, a power of two, that bring a row's standard errors to a quarter of the goals, or all allowed."""
    allowed = next((sums for longest, sums in FINEST.items() if int(row["k"]) <= longest), 0)
    excess = max(1.0, *(standard_error(row, q) / (goal / 4) for q, goal in GOALS.items()))
    return min(allowed, int(row["sums"]) * 2 ** math.ceil(2 * math.log2(excess)))


def refined(old: Row, new: Row) -> Row:
    """Return the new row with the old one's predictions."""
    return new | {column: old[column] for column in COLUMNS if column.endswith("_predicted")}


def standard_error(row: Row, quantity: str) -> float:
    """Return the standard error of what was simulated."""
    return (float(row[f"{quantity}_high"]) - float(row[f"{quantity}_low"])) / 2 / 1.96


def simulated(accs: list[ps.Accumulator], pair: tuple[float, float], lengths: list[int], sums: int) -> list[Row]:
    """Add the same random operands in every accumulator; returns a row for each of them and length."""
    density, mean = pair
    law = resolve_product("e5m2", density, mean)
    together = 64 if sums <= 4096 else 256  # sums of a tile; the intervals need many tiles
    side = 4 if mean or sums <= 4096 else 16
    tiles, matrices = sums // together, together // side**2
    totals = np.zeros((len(accs), len(lengths), tiles, len(montecarlo._COLUMNS)))
    together = max(1, min(tiles, 2**23 // (2 * SEGMENT * matrices * side)))
    for first in range(0, tiles, together):
        last = min(first + together, tiles)
        for acc, at, columns in batch(accs, law, lengths, (first, last), (matrices, side)):
            totals[acc, at, first:last] = columns
        print(f"  {last}/{tiles}", end="\r", file=sys.stderr)
    rows = []
    for (i, acc), (j, k) in itertools.product(enumerate(accs), enumerate(lengths)):
        found = montecarlo._estimate(totals[i, j], k, law, acc)
        row: Row = dict.fromkeys(COLUMNS, "")
        row |= dict(zip(COLUMNS, (*name(acc), *map(str, pair), str(k), str(sums)), strict=False))
        for q in QUANTITIES:
            low, high = found.interval[q]
            row |= {f"{q}_simulated": digits(found.value[q]), f"{q}_low": digits(low), f"{q}_high": digits(high)}
        rows.append(row)
    return rows


def batch(
    accs: list[ps.Accumulator],
    law: ProductLaw,
    lengths: list[int],
    tiles: tuple[int, int],
    shape: tuple[int, int],
) -> Iterator[tuple[int, int, NDArray[np.float64]]]:
    """Yield accumulator, length and the tiles' moments of one batch of operands, continued segment by segment."""
    (first, last), (matrices, side) = tiles, shape
    starts = [0 if end <= 256 else begin for begin, end in zip([0, *lengths[:-1]], lengths, strict=True)]
    for at, (begin, end) in enumerate(zip(starts, lengths, strict=True)):
        if begin == 0:
            exact = np.zeros(((last - first) * matrices, side, side))
            states = [np.zeros(exact.shape, np.float32) for _ in accs]
        for start in range(begin, end, SEGMENT):
            m = min(SEGMENT, end - start)
            parts = [
                sample_operands(law, np.random.default_rng([tile, start, end]), matrices, m, side)
                for tile in range(first, last)
            ]
            a, b = (np.concatenate(column) for column in zip(*parts, strict=True))
            exact += np.matmul(a.astype(np.float64), b.astype(np.float64))
            for i, acc in enumerate(accs):
                states[i] = continued(a, b, states[i], acc, start, first)
        for i, state in enumerate(states):
            h, s = state.reshape(last - first, -1).astype(np.float64), exact.reshape(last - first, -1)
            e, ones = h - s, np.ones_like(s)
            columns = (ones, 0 * ones, s, h, e, s * s, h * h, s * h, e * e)
            yield i, at, np.stack([column.sum(1) for column in columns], axis=1)


def continued(a: Any, b: Any, state: Any, acc: ps.Accumulator, start: int, tile: int) -> Any:
    """Return sums carried on from where a chunk ended."""
    if acc.rounding == "stochastic":
        acc = replace(acc, seed=int(np.random.SeedSequence([start, tile]).generate_state(1, np.uint64)[0]))
    if acc.chunk is not None and start % acc.chunk:
        raise ValueError("a chunk was cut")
    return ps.gemm(a, b, acc, c=state)


def name(acc: ps.Accumulator) -> tuple[str, str, str]:
    """Return the first three columns."""
    return str(acc.man_bits), str(acc.rounding), str(acc.chunk or "none")


def key(row: Row) -> tuple[str, ...]:
    """Return what a row is about."""
    return tuple(row[column] for column in COLUMNS[:6])


def digits(value: float) -> str:
    """Return a number with six significant digits."""
    return f"{value:.6g}"


def read() -> list[Row]:
    """Return the table's rows, none where there is no table yet."""
    return list(csv.DictReader(TABLE.open(encoding="utf-8"))) if TABLE.exists() else []


def write(rows: list[Row]) -> None:
    """Write the table."""
    order = {column: i for i, column in enumerate(COLUMNS)}
    rows = sorted(
        rows, key=lambda r: (r["rounding"], int(r["man_bits"]), r["chunk"], r["density"], r["mean"], int(r["k"]))
    )
    lines = [",".join(order), *(",".join(row[column] for column in COLUMNS) for row in rows)]
    write_atomically(TABLE, "\n".join(lines) + "\n")


def predict() -> None:
    """Fill in the predictions of all rows."""
    rows = read()
    for _, group in itertools.groupby(rows, key=lambda row: key(row)[:5]):
        some = list(group)
        chunk = None if some[0]["chunk"] == "none" else int(some[0]["chunk"])
        fmt = ps.FloatFormat(8, int(some[0]["man_bits"]))
        acc = ps.Accumulator(fmt, rounding=some[0]["rounding"], chunk=chunk)
        found = ps.predict(
            [int(row["k"]) for row in some], acc, density=float(some[0]["density"]), mean=float(some[0]["mean"])
        )
        for i, row in enumerate(some):
            row |= {f"{q}_predicted": digits(getattr(found, q)[i]) for q in QUANTITIES}
    write(rows)


def report() -> None:
    """Print, as JSON, how many points meet the goals and which miss them beyond the statistical error."""
    rows = [row for row in read() if row["vrr_predicted"]]
    summary: dict[str, Any] = {"points": len(rows)}
    for q, goal in GOALS.items():
        off = np.array([float(r[f"{q}_predicted"]) - float(r[f"{q}_simulated"]) for r in rows])
        error = np.array([standard_error(r, q) for r in rows])
        misses = np.abs(off) > goal + 2 * error
        worst = sorted(np.flatnonzero(misses), key=lambda i: -abs(off[i]))[:12]
        summary[q] = {
            "goal": goal,
            "within goal": int((np.abs(off) <= goal).sum()),
            "within goal or statistical error (2 standard errors)": int((~misses).sum()),
            "median absolute difference": round(float(np.median(np.abs(off))), 5),
            "median standard error": round(float(np.median(error)), 5),
            "misses": [[*key(rows[i]), f"off {off[i]:+.4f} ± {error[i]:.4f}"] for i in worst],
        }
    print(json.dumps(summary, indent=1))


def main() -> None:
    """Run a step."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=["simulate", "refine", "predict", "report"])
    parser.add_argument("--minutes", type=float, default=math.inf)
    arguments = parser.parse_args()
    timed = {"simulate": simulate, "refine": refine}
    if arguments.step in timed:
        timed[arguments.step](arguments.minutes)
    else:
        {"predict": predict, "report": report}[arguments.step]()


if __name__ == "__main__":
    main()
