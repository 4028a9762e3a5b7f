"""A report with what its sums keep added to it: widths by information, and the SNR on given units."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from partialsum.report.kept import FormulaWidths, keep
from partialsum.report.laws import law_of, rows_by_kind
from partialsum.report.result import Report
from partialsum.report.rows import Row
from partialsum.report.snr_rows import Asked, Criterion, Kept, KeptNeed, KeptSummary
from partialsum.report.units import fit_unit
from partialsum.workloads.gemm import Pass


def extend(report: Report, asked: Asked) -> Report:
    """Return the report with what is asked about signal-to-noise ratios."""
    rows = list(report.rows)
    kept = None
    if asked.by_information:
        found = _kept(rows, asked.criterion)
        rows = [replace(row, kept=own) for row, own in zip(rows, found, strict=True)]
        kept = _summary(rows, asked.criterion)
    summaries = []
    for unit in asked.units:
        answers, summary = fit_unit(rows, unit, asked.criterion)
        rows = [replace(row, units=(*row.units, answer)) for row, answer in zip(rows, answers, strict=True)]
        summaries.append(summary)
    return replace(report, rows=tuple(rows), kept=kept, units=tuple(summaries), criterion=asked.criterion)


def _kept(rows: Sequence[Row], criterion: Criterion) -> list[Kept]:
    found: dict[int, Kept] = {}
    for kind, own in rows_by_kind(rows).items():
        answers = keep((_formula(row) for row in own), law_of(kind, criterion.mean), criterion)
        found |= {id(row): answers[_formula(row)] for row in own}
    return [found[id(row)] for row in rows]


def _formula(row: Row) -> FormulaWidths:
    return FormulaWidths(row.k, row.man_bits, row.man_bits_chunked)


def _summary(rows: Sequence[Row], criterion: Criterion) -> KeptSummary:
    passes = {pass_: [row.kept for row in rows if row.pass_ is pass_ and row.kept] for pass_ in Pass}
    needs = tuple((pass_, _need(own)) for pass_, own in passes.items() if own)
    return KeptSummary(criterion, needs, _need([row.kept for row in rows if row.kept]))


def _need(kept: Sequence[Kept]) -> KeptNeed:
    plain = [own.man_bits for own in kept if own.man_bits is not None]
    chunked = [own.man_bits_chunked for own in kept if own.man_bits_chunked is not None]
    return KeptNeed(
        max(plain) if len(plain) == len(kept) else None, max(chunked) if len(chunked) == len(kept) else None
    )
