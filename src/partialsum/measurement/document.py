"""Measurements as JSON and as a table."""

from __future__ import annotations

import csv
import io
import math
from typing import TYPE_CHECKING, Any

from partialsum.measurement.moments import Estimate, Quality

if TYPE_CHECKING:
    from partialsum.measurement.result import Measurement, Measurements

_ESTIMATES = ("vrr", "gain", "bias", "snr_db")


def document(measurements: Measurements, *, pieces: bool = False) -> dict[str, Any]:
    """Return the JSON document; numbers that are not finite are null. ``pieces``: with those of the sums."""
    from partialsum.measurement.result import SCHEMA

    return {
        "schema": SCHEMA,
        "network": measurements.network,
        "batches": measurements.batches,
        "settings": {key: _plain(value) for key, value in measurements.settings.items()},
        "accumulators": [str(accumulator) for accumulator in measurements.accumulators],
        "gemms": [_row(row) | (_pieces(row) if pieces else {}) for row in measurements.rows],
    }


def _row(row: Measurement) -> dict[str, Any]:
    return {
        "layer": row.layer,
        "pass": row.pass_.value,
        **{name: getattr(row, name) for name in ("m", "n", "k", "count", "calls", "observed", "samples")},
        "density": row.density,
        "product_man_bits": row.product_man_bits,
        **{
            name: {key: _plain(value) for key, value in getattr(row, name).to_dict().items()}
            for name in ("a", "b", "products")
        },
        **{
            name: _plain(getattr(row, name))
            for name in ("kappa", "kappa_margin", "cancellation", "path", "order", "dependence_db")
        },
        "sum_exp_bits": row.sum_exp_bits,
        "quality": [_quality(quality) for quality in row.qualities],
    }


def _pieces(row: Measurement) -> dict[str, Any]:
    return {"pieces": None if row.pieces is None else row.pieces.to_dict()}


def _quality(quality: Quality) -> dict[str, Any]:
    columns: dict[str, Any] = {}
    for name in _ESTIMATES:
        estimate: Estimate = getattr(quality, name)
        columns[name] = _plain(float(f"{estimate.value:.9g}"))
        columns[f"{name}_margin"] = _plain(float(f"{estimate.margin:.3g}"))
    return {**columns, "lost": quality.lost}


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def table(measurements: Measurements) -> str:
    """Return CSV: one line per GEMM and accumulator."""
    buffer = io.StringIO()
    names = [column for name in _ESTIMATES for column in (name, f"{name}_margin")]
    head = ["layer", "pass", "m", "n", "k", "count", "density", "kappa", "path", "accumulator", *names, "lost"]
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(head)
    for row in measurements.rows:
        lead = [row.layer, row.pass_.value, row.m, row.n, row.k, row.count, row.density, row.kappa, row.path]
        for accumulator, quality in zip(measurements.accumulators, row.qualities, strict=True):
            columns = _quality(quality)
            writer.writerow([*lead, str(accumulator), *(columns[name] for name in (*names, "lost"))])
    return buffer.getvalue()
