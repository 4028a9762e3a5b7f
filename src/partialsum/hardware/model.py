"""The cost model: sums of a unit's features, with coefficients fitted to our own synthesis.

``data/sweep.csv`` holds what was measured, ``data/model.toml`` what was fitted to it; ``partialsum synth --sweep`` and
``--fit`` make both again. The relative error is minimised under coefficients that are not negative.
"""

from __future__ import annotations

import functools
import math
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

from partialsum.errors import InputError
from partialsum.hardware.designs import Design
from partialsum.hardware.features import Features, adder_features, core_features, frame_features
from partialsum.hardware.points import Row
from partialsum.hardware.units import FP32, Adder, FloatUnit, GroupUnit, IntegerUnit, Unit

KINDS = ("mac", "adder", "integer", "group")
QUANTITIES = ("area_ge", "delay_fo4", "energy_functional", "energy_glitches")


_ROUNDED = 1.0001
"""The largest features are kept in five digits."""


@dataclass(frozen=True, slots=True)
class Fit:
    """Coefficients of one quantity of one kind of unit, and the relative errors of the fit and of held-out units.

    ``largest`` holds the largest value of each feature among the units that were synthesised.
    """

    coefficients: Features
    largest: Features
    points: int
    rms_error: float
    max_error: float
    held_out_points: int
    held_out_rms_error: float
    held_out_max_error: float

    def __call__(self, features: Features) -> float:
        """Return the quantity for a unit's features, or the share of it that some of its features make."""
        return sum(value * features.get(name, 0.0) for name, value in self.coefficients.items())

    @property
    def stated_error(self) -> float:
        """The root-mean-square error to expect: of the fit, or of the held-out units where that is larger."""
        return max(self.rms_error, 0.0 if math.isnan(self.held_out_rms_error) else self.held_out_rms_error)

    @property
    def accuracy(self) -> str:
        """The errors in words."""
        text = f"{100 * self.rms_error:.1f} % rms over {self.points} units, worst {100 * self.max_error:.0f} %"
        if not self.held_out_points:
            return text
        rms, worst = 100 * self.held_out_rms_error, 100 * self.held_out_max_error
        return f"{text}; {rms:.1f} % over {self.held_out_points} that took no part, worst {worst:.0f} %"

    def extrapolates(self, features: Features) -> bool:
        """Return whether a feature that counts is larger than in any unit that was synthesised."""
        return any(features.get(name, 0.0) > _ROUNDED * self.largest[name] for name in self.coefficients)


Model = dict[str, dict[str, Fit]]
"""kind → quantity → fit."""


def row_features(row: Row) -> Features:
    """Return the features of the unit that a row of the sweep describes."""
    unit = row.point.design.unit
    if row.kind == "adder":
        assert isinstance(unit, FloatUnit)
        return adder_features(unit.chunk_adder)
    return core_features(unit)


def unit_frame(design: Design) -> Features:
    """Return the features of what surrounds a unit's core: registers, counter, control."""
    unit, chunk = design.unit, design.chunk
    match unit:
        case FloatUnit(accumulator=acc):
            bits, adder = acc.format.bits, unit.shared_adder
            mux = adder.x_bits + adder.exponent_bits + 4 if design.shared else 0
            return frame_features(bits, bits if chunk else 0, chunk, mux)
        case GroupUnit(accumulator=group):
            return frame_features(group.result.bits, FP32.bits if chunk else 0, chunk)
        case IntegerUnit(accumulator=integer):
            return frame_features(integer.bits)


def total_adder(unit: Unit) -> Adder:
    """Return the adder of the chunks' total."""
    assert isinstance(unit, FloatUnit | GroupUnit)
    return unit.total_adder if isinstance(unit, GroupUnit) else unit.chunk_adder


def unit_kind(unit: Unit) -> str:
    """Return the kind of core that a unit has."""
    return {FloatUnit: "mac", GroupUnit: "group", IntegerUnit: "integer"}[type(unit)]


def fit_model(rows: Sequence[Row]) -> Model:
    """Return the model of a sweep; raises :class:`InputError` where a kind of unit has too few points."""
    model: Model = {}
    for kind in KINDS:
        chosen = [row for row in rows if row.kind == kind]
        samples = [(row_features(row), row.held_out) for row in chosen]
        model[kind] = {
            q: _fit(kind, [(*s, getattr(r, q), 0.0) for s, r in zip(samples, chosen, strict=True)])
            for q in QUANTITIES
        }
    frames: list[Sample] = []
    for row in (row for row in rows if row.kind == "unit"):
        design = row.point.design
        inside = model[unit_kind(design.unit)]["area_ge"](core_features(design.unit, shared=design.shared))
        if design.chunk and not design.shared:
            inside += model["adder"]["area_ge"](adder_features(total_adder(design.unit)))
        frames.append((unit_frame(design), row.held_out, row.area_ge, inside))
    model["frame"] = {"area_ge": _fit("frame", frames)}
    return model


Sample = tuple[Features, bool, float, float]
"""Features, whether held out, what was measured, and how much of that is already accounted for."""


def _fit(kind: str, samples: Sequence[Sample]) -> Fit:
    import numpy as np
    from scipy.optimize import nnls

    used = [sample for sample in samples if not sample[1]]
    held_out = [sample for sample in samples if sample[1]]
    names = list(used[0][0]) if used else []
    if len(used) < 2 * len(names) or not used:
        raise InputError(f"a fit of {kind} needs at least {2 * max(len(names), 1)} points, got {len(used)}")
    features = np.array([list(sample[0].values()) for sample in used])
    measured = np.array([sample[2] for sample in used])
    known = np.array([sample[3] for sample in used])
    solution, _ = nnls(features / measured[:, None], 1 - known / measured)
    coefficients = {name: float(f"{value:.5g}") for name, value in zip(names, solution, strict=True) if value > 0}
    largest = {name: max(sample[0][name] for sample in samples) for name in coefficients}
    errors, others = _errors(coefficients, used), _errors(coefficients, held_out)
    return Fit(coefficients, largest, len(used), *errors, len(held_out), *others)


def _errors(coefficients: Features, samples: Sequence[Sample]) -> tuple[float, float]:
    """Return the root mean square and the largest relative error; not a number where there is nothing to compare."""
    if not samples:
        return math.nan, math.nan
    errors = []
    for features, _, measured, known in samples:
        estimate = known + sum(value * features[name] for name, value in coefficients.items())
        errors.append(estimate / measured - 1)
    return math.sqrt(sum(e * e for e in errors) / len(errors)), max(abs(e) for e in errors)


def model_text(model: Model) -> str:
    """Return the model as TOML."""
    lines = ["# Fitted by 'partialsum synth --fit' to data/sweep.csv; relative errors."]
    for kind, quantities in model.items():
        for quantity, fit in quantities.items():
            lines += ["", f"[{kind}.{quantity}]", f"points = {fit.points}"]
            lines += [f"{key} = {getattr(fit, key):.4f}" for key in ("rms_error", "max_error")]
            lines += [f"held_out_points = {fit.held_out_points}"]
            lines += [f"{key} = {getattr(fit, key):.4f}" for key in ("held_out_rms_error", "held_out_max_error")]
            for key in ("coefficients", "largest"):
                body = ", ".join(f"{name} = {value:.5g}" for name, value in getattr(fit, key).items())
                lines.append(f"{key} = {{ {body} }}")
    return "\n".join(lines) + "\n"


def read_model(text: str) -> Model:
    """Return the model in a TOML text."""
    tables: dict[str, dict[str, dict[str, Any]]] = tomllib.loads(text)
    return {kind: {q: Fit(**entry) for q, entry in quantities.items()} for kind, quantities in tables.items()}


@functools.cache
def committed_model() -> Model:
    """Return the model that came with the package."""
    return read_model(
        resources.files("partialsum.hardware").joinpath("data/model.toml").read_text(encoding="utf-8")
    )
