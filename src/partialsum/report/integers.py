"""Registers for integer operands: A2Q's bounds beside the width that hardly ever overflows, GEMM by GEMM."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from partialsum.formats import Format, IntFormat, parse_format
from partialsum.report.laws import kind_of, law_of
from partialsum.report.result import Report
from partialsum.report.rows import Row
from partialsum.report.snr_rows import IntegerBits
from partialsum.theory.bounds import datatype_bits, likely_bits, weight_bits
from partialsum.workloads.gemm import Pass


def with_integers(report: Report, model: Any) -> Report:
    """Return the report with the integer registers of GEMMs whose operands are integers; the same where none are."""
    if not any(_is_integer(row) for row in report.rows):
        return report
    norms = weight_norms(model, report.rows)
    solved: dict[tuple[Any, ...], IntegerBits] = {}
    rows = []
    for row in report.rows:
        if not _is_integer(row):
            rows.append(row)
            continue
        norm = norms.get(row.layer) if row.pass_ is Pass.FORWARD else None
        key = (row.k, *kind_of(row), norm)
        if key not in solved:
            solved[key] = _bits(row, norm)
        rows.append(replace(row, integer=solved[key]))
    return replace(report, rows=tuple(rows))


def _is_integer(row: Row) -> bool:
    return all(isinstance(parse_format(name), IntFormat) for name in (row.a_format, row.b_format))


def _bits(row: Row, norm: float | None) -> IntegerBits:
    bound = None if norm is None else int(weight_bits(norm, row.a_format))
    likely = likely_bits(row.k, law_of(kind_of(row)))
    return IntegerBits(datatype_bits(row.k, row.a_format, row.b_format), bound, likely)


def weight_norms(model: Any, rows: Sequence[Row]) -> Mapping[str, float]:
    """Return the largest ‖w‖₁ of an output channel for each linear or convolution layer of a module with weights.

    Weights are rounded to integers channel by channel, the largest magnitude at the largest code.
    """
    formats = {row.layer: parse_format(row.b_format) for row in rows if row.pass_ is Pass.FORWARD}
    if not hasattr(model, "named_modules"):
        return {}
    from torch import nn

    norms = {}
    for name, module in model.named_modules():
        if not isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d) or name not in formats:
            continue
        if module.weight.device.type != "meta":
            weight = module.weight.detach().to("cpu").double().numpy()
            norms[name] = _largest_norm(weight.reshape(weight.shape[0], -1), formats[name])
    return norms


def _largest_norm(weight: npt.NDArray[np.float64], record: Format) -> float:
    """Return the largest norm of the rows of integer weights ``[channels, k]``."""
    assert isinstance(record, IntFormat)
    largest = np.abs(weight).max(axis=1, keepdims=True)
    codes = np.rint(weight * (record.max / np.where(largest > 0, largest, 1.0)))
    return float(np.abs(codes).sum(axis=1).max())
