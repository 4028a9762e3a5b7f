"""The page's section on silicon: what the network's accumulator costs, and what its width saves."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup

from partialsum.errors import InputError
from partialsum.report.cost_figures import draw_cost_bars, draw_cost_pareto, network_units
from partialsum.report.cost_text import accumulator_name, band, break_even_lines, digits, energy_scale, savings
from partialsum.report.network_cost import NetworkCost, UnitOption, network_cost
from partialsum.report.result import Report
from partialsum.report.style import inline_svg
from partialsum.workloads.gemm import Pass


@dataclass(frozen=True, slots=True)
class CostLine:
    """One way to build the unit, as the page's table shows it."""

    name: str
    accumulator: str
    area: str
    area_saving: str
    energy: str
    work: str
    energy_saving: str


@dataclass(frozen=True, slots=True)
class CostSection:
    """What the template shows; where the network cannot be priced, ``reason`` says why and the rest is empty."""

    reason: str = ""
    summary: str = ""
    technology: str = ""
    bars: str = ""
    pareto: str = ""
    training: tuple[CostLine, ...] = ()
    training_unit: str = ""
    ways: tuple[str, ...] = ()
    passes: tuple[tuple[str, tuple[str, ...]], ...] = ()
    inference: tuple[CostLine, ...] = ()
    inference_unit: str = ""
    break_even: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    sources: tuple[tuple[str, str], ...] = ()


def cost_section(report: Report) -> CostSection:
    """Return the section of an analysis."""
    try:
        cost = network_cost(report)
    except InputError as error:
        return CostSection(reason=str(error))
    training, training_unit = _lines(cost.options)
    inference, inference_unit = _lines(cost.inference)
    bars = draw_cost_bars(network_units(cost), cost.technology)
    label = "Area of multiply-accumulate units by the precision of multiplier and accumulator"
    pareto_label = "Needed width against area, and area against energy, for every chunk size"
    return CostSection(
        summary=_summary(cost),
        technology=f"{cost.technology.name}: {cost.technology.description}",
        bars=Markup(inline_svg(bars, prefix="bars", label=label)),
        pareto=Markup(inline_svg(draw_cost_pareto(cost), prefix="pareto", label=pareto_label)),
        training=training,
        training_unit=training_unit,
        ways=tuple(option.name for option in cost.options),
        passes=_passes(cost),
        inference=inference,
        inference_unit=inference_unit,
        break_even=tuple(break_even_lines(cost)),
        notes=cost.notes,
        sources=tuple(cost.options[1].cost.sources.items()),
    )


def _lines(options: tuple[UnitOption, ...]) -> tuple[tuple[CostLine, ...], str]:
    if not options:
        return (), ""
    scale, unit = energy_scale(max(option.training.high for option in options))
    lines = []
    for option in options:
        area_saving, energy_saving = savings(option, options[0])
        cost = option.cost
        lines.append(
            CostLine(
                option.name,
                accumulator_name(cost),
                f"{cost.area_ge:,.0f}",
                area_saving,
                band(cost.energy_pj_low, cost.energy_pj_high),
                band(option.training.low / scale, option.training.high / scale),
                energy_saving,
            )
        )
    return tuple(lines), unit


def _passes(cost: NetworkCost) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Return the energy of each pass of a training step, by way to add, in the unit of the training step."""
    scale, _ = energy_scale(max(option.training.high for option in cost.options))
    energies = {p: [option.by_pass[p] for option in cost.options] for p in Pass if p in cost.options[0].by_pass}
    return tuple(
        (str(pass_), tuple(band(energy.low / scale, energy.high / scale) for energy in row))
        for pass_, row in energies.items()
    )


def _summary(cost: NetworkCost) -> str:
    plain, best = cost.options[1], min(cost.options[1:], key=lambda option: option.cost.area_ge)
    area, energy = savings(plain, cost.baseline)
    text = (
        f"Against float32 accumulation, {plain.man_bits} mantissa bits make the unit {area} times smaller and a "
        f"multiply-accumulate {energy} times cheaper in energy."
    )
    if best is not plain:
        area, energy = savings(best, cost.baseline)
        how = best.name.replace(", ", " and a ")
        text += f" With {how}, {best.man_bits} bits make it {area} times smaller and {energy} times cheaper."
    area = digits(cost.baseline.cost.area_ge)
    return f"{text} The unit for {cost.operands[0]} operands with float32 accumulation has {area} gate equivalents (GE)."
