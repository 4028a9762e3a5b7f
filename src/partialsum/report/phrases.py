"""The same few phrases, wherever a report is read."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from partialsum.report.result import Report
from partialsum.report.rows import Need, Row, SetBy


def heading(report: Report) -> str:
    """Return the network and its batch."""
    return report.network if report.batch is None else f"{report.network}, batch {report.batch}"


def conditions(report: Report) -> str:
    """Return formats, density, chunk and cutoff in one line."""
    settings = report.settings
    formats = f"{settings.inputs} operands"
    if settings.grad_inputs != settings.inputs:
        formats = f"{settings.inputs} activations and weights, {settings.grad_inputs} gradients"
    if settings.first_layer_inputs is not None:
        formats += f", first layer {settings.first_layer_inputs}"
    if settings.last_layer_inputs is not None:
        formats += f", last layer {settings.last_layer_inputs}"
    return f"{formats}; {settings.density}; chunk {settings.chunk}; v < {settings.cutoff:g}"


def set_by(cause: SetBy, *, name_pass: bool = False) -> str:
    """Return which GEMM decides a width."""
    text = f"{cause.layer}{f' {cause.pass_}' if name_pass else ''}, k = {cause.k:,}"
    if cause.others:
        text += f", and {cause.others:,} {'other' if cause.others == 1 else 'others'}"
    return text


def chunk_range(chunks: Sequence[int]) -> str:
    """Return chunk sizes (powers of two) as ``64`` or ``64–512``, gaps spelled out; ``plain`` where 1 will do."""
    if chunks[0] == 1:
        return "plain"
    runs: list[list[int]] = []
    for chunk in chunks:
        if runs and chunk == 2 * runs[-1][-1]:
            runs[-1].append(chunk)
        else:
            runs.append([chunk])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}–{run[-1]}" for run in runs)


def best_width(need: Need) -> str:
    """Return the fewest bits and the chunk sizes that reach them."""
    chunks = chunk_range(need.best_chunks)
    return f"{need.best_man_bits} bits {chunks if chunks == 'plain' else f'with chunk {chunks}'}"


def short_count(number: float) -> str:
    """Return a large count with three digits and its SI letter: ``3.21M``."""
    for letter, size in (("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.3g}{letter}"
    return f"{number:.3g}"


def percent(share: float) -> str:
    """Return a share as a percentage that is 0 or 100 only when it really is."""
    if share in (0.0, 1.0):
        return f"{share:.0%}"
    if share < 0.001:
        return "<0.1%"
    if share > 0.999:
        return ">99.9%"
    return f"{share:.1%}"


def macs_by_width(rows: Iterable[Row]) -> tuple[dict[int, int], dict[int, int]]:
    """Return multiply-adds by the mantissa bits they need, plain and chunked."""
    plain: dict[int, int] = defaultdict(int)
    chunked: dict[int, int] = defaultdict(int)
    for row in rows:
        plain[row.man_bits] += row.macs
        chunked[row.man_bits_chunked] += row.macs
    return dict(plain), dict(chunked)


_WIDEST = 23


def kept_bits(man_bits: int | None) -> str:
    """Return a width by information kept; None is beyond the widest that is tried, float32's."""
    return f">{_WIDEST}" if man_bits is None else str(man_bits)


def decibels(snr_db: float | None, man_bits: int | None = 0) -> str:
    """Return an SNR; None is no error at all, or a dash where the width it belongs to is beyond what is tried."""
    if snr_db is not None:
        return f"{snr_db:.1f}"
    return "–" if man_bits is None or man_bits > _WIDEST else "no error"
