"""What the units of the explorer's page cost, each by its parts, from the fitted model."""

from __future__ import annotations

from typing import Any

from partialsum.accumulators import AnyAccumulator, Rounding
from partialsum.errors import InputError
from partialsum.formats import element_format
from partialsum.hardware.cost import MacCost, mac_cost
from partialsum.report.explorer.grid import Grid, UnitAxis
from partialsum.report.predictions import Summands

PARTS = (
    "multiplication",
    "addition and rounding",
    "products, alignment and sum",
    "adder of the chunks' total",
    "registers and control",
)
_TOTALS = ("total adder", "total addition")

Line = list[float]
"""Area of each part in GE, then the energies without and with glitches in pJ, all for one multiply-accumulate."""


def line_of(cost: MacCost) -> Line:
    """Return a cost as the page holds it."""
    areas = dict.fromkeys(PARTS, 0.0)
    for part in cost.parts:
        areas[PARTS[3] if part.name in _TOTALS else part.name] += part.area_ge / cost.macs_per_step
    energies = (cost.energy_pj_functional, cost.energy_pj_glitches)
    return [*(round(area, 1) for area in areas.values()), *(float(f"{energy:.4g}") for energy in energies)]


def operands(product: str) -> tuple[str, str]:
    """Return the formats of the numbers that are multiplied; a block format's elements, as its scales come after."""
    formats = Summands(product).formats
    assert formats is not None
    first, second = (str(element_format(fmt)) for fmt in formats)
    return first, second


def baseline(grid: Grid, product: str) -> Line | None:
    """Return the cost of the same multiplication with float32 accumulation; None where none is known."""
    try:
        return line_of(mac_cost(operands(product), grid.register(23, Rounding.NEAREST_EVEN, None)))
    except InputError:
        return None


def register_costs(grid: Grid, product: str) -> dict[str, Any]:
    """Return [roundings, chunks, widths] of lines, or the reason why there are none."""
    try:
        costs = [
            [
                [line_of(mac_cost(operands(product), grid.register(m, mode, size))) for m in grid.man_bits]
                for size in grid.chunks
            ]
            for mode in grid.roundings
        ]
    except InputError as error:
        return {"costs": None, "baseline": None, "no_cost": str(error)}
    return {"costs": costs, "baseline": baseline(grid, product), "no_cost": ""}


def unit_costs(grid: Grid, unit: UnitAxis) -> dict[str, Any]:
    """Return the unit's line by product and promotion interval, and why there is none where that is so."""
    costs: dict[str, dict[str, Line]] = {product: {} for product in unit.inputs}
    reason = ""
    for product in unit.inputs:
        for interval in unit.intervals:
            try:
                costs[product][str(interval).replace("None", "null")] = _unit_line(product, unit.at(interval))
            except InputError as error:
                reason = reason or str(error)
    return {
        "costs": costs,
        "baselines": {product: baseline(grid, product) for product in unit.inputs},
        "no_cost": reason,
    }


def _unit_line(product: str, accumulator: AnyAccumulator) -> Line:
    return line_of(mac_cost(operands(product), accumulator))


def cost_note(grid: Grid) -> str:
    """Return what the figures are and how far they can be trusted."""
    cost = mac_cost("e5m2", grid.register(9, Rounding.NEAREST_EVEN, 64))
    return (
        f"Gate equivalents (GE, the area of a two-input NAND) and picojoules per multiply-accumulate in "
        f"{cost.technology.name}, from the model fitted to this project's own synthesis: to expect are errors of "
        f"{cost.area_error:.1%} in area and {cost.energy_error:.1%} in switching, wires and clock tree left out. The "
        f"band of energy reaches from functional toggles to toggles with glitches. Registers have {8} exponent bits; "
        f"6, as in the papers, make them smaller still. Totals of chunks have an adder of their own."
    )
