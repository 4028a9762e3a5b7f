"""A measurement as one self-contained HTML page: predicted against measured, heat maps, the worst layers by name."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from partialsum.accumulators import Accumulator, Rounding
from partialsum.errors import InputError
from partialsum.report.comparison import (
    Comparison,
    compare,
    format_number,
    summarise,
    way_in_words,
    ways_of,
    worst_first,
)
from partialsum.report.expected import expected_snr, reference_accumulator
from partialsum.report.measured_figures import Heat, draw_heat, draw_scatter
from partialsum.report.style import inline_svg

if TYPE_CHECKING:
    from partialsum.measurement.result import Measurements
    from partialsum.measurement.targets import Target

_WORST = 12


def draw(measurements: Measurements, target: Target, comparison: Comparison | None = None) -> dict[str, Any]:
    """Return the figures of a measurement by name."""
    compared = comparison or compare(measurements, target)
    ways, bits, chunk = ways_of(measurements), compared.man_bits, compared.chunk
    figures = {}
    if bits is not None:
        expected: dict[Rounding, list[float]] = {
            rounding: expected_snr(list(measurements.rows), reference_accumulator(bits, rounding, chunk))
            for rounding, other in ways
            if other == chunk
            and rounding is not Rounding.STOCHASTIC
            and bits in measurements.widths(rounding, chunk)
        }
        figures["scatter"] = draw_scatter(measurements, expected, compared, target)
    plain = [way for way in ways if way[1] is None]
    for rounding, other in plain or ways:
        widths = measurements.widths(rounding, other)
        heat = Heat(f"Measured SNR, {way_in_words(rounding, other)}", "mantissa bits", widths)
        figures[f"heat-{rounding.value}-{other or 0}"] = draw_heat(measurements, heat)
    units = {
        str(accumulator): index
        for index, accumulator in enumerate(measurements.accumulators)
        if not isinstance(accumulator, Accumulator)
    }
    if units:
        figures["heat-units"] = draw_heat(measurements, Heat("Measured SNR of matrix units", "unit", units))
    return figures


def render_measurements(measurements: Measurements, *, target: Target, command: str | None = None) -> str:
    """Return the page as text; ``command`` is named in its footer."""
    from partialsum import __version__

    if not measurements.rows:
        raise InputError("measurements must hold at least one GEMM, got none")
    comparison = compare(measurements, target)
    figures = draw(measurements, target, comparison)
    environment = Environment(
        loader=PackageLoader("partialsum.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = format_number
    return environment.get_template("measured.html.j2").render(
        found=measurements,
        comparison=comparison,
        worst=worst_first(comparison)[:_WORST],
        summary=summarise(comparison, target),
        target=target,
        figures={
            name: Markup(
                inline_svg(figure, prefix=name, label=f"Measured sums: {name}")
            )  # escaped by the XML writer
            for name, figure in figures.items()
        },
        version=__version__,
        command=command,
        json_link=_data_link(measurements.to_json(None), "application/json"),
        csv_link=_data_link(measurements.to_csv(), "text/csv"),
        density_link=_data_link(measurements.density_csv(), "text/csv"),
    )


def _data_link(text: str, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(text.encode()).decode()}"
