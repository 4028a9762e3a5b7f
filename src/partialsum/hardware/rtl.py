"""Readable Verilog for the units: rendered from templates, one source file per unit."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

from partialsum.accumulators import Rounding
from partialsum.formats import FloatFormat
from partialsum.hardware.designs import Design, RandomSource
from partialsum.hardware.units import FP32, Adder, FloatUnit, GroupUnit, IntegerUnit


@dataclass(frozen=True, slots=True)
class Ports:
    """What the accumulating unit's template needs to know of the core inside."""

    a_bits: int
    b_bits: int
    product_bits: int
    sum_bits: int
    total_bits: int
    sum_name: str
    total_name: str
    multiplier: str
    product_port: str
    adder: str
    adder_port: str
    addend_port: str
    result_port: str
    clocked: bool
    chunk: int | None = None
    shared: bool = False
    group: int | None = None
    random: int = 0
    random_product: int = 0
    lfsr: bool = False
    sum_fmt: FloatFormat | None = None
    total_adder: Adder | None = None
    total_role: str = "main"
    normalises_partial: bool = False
    product_significand: int = 0


def verilog(design: Design) -> str:
    """Return the source of the core and of the accumulating unit around it."""
    unit = design.unit
    parts = {FloatUnit: _float_parts, GroupUnit: _group_parts, IntegerUnit: _integer_parts}[type(unit)](design)
    if design.accumulates:
        parts.append(render("accumulate.v.j2", design, p=ports(design)))
        if design.random is RandomSource.LFSR and design.stochastic:
            parts.append(render("lfsr.v.j2", design))
    head = render("head.v.j2", design)
    return "\n".join([head, *parts, "`default_nettype wire\n"])


def adder_source(design: Design) -> str:
    """Return the source of the adder of chunk totals alone, module ``<name>_adder``."""
    assert isinstance(design.unit, FloatUnit)
    fmt = design.unit.accumulator.format
    title = "sum = round(x + y): one addition, rounded once."
    adder = _rounder(design, design.unit.chunk_adder, "main", title)
    return "\n".join([*_helpers(design, fmt), adder, render("adder.v.j2", design)])


def bench_core(design: Design, table: Any, file: str) -> str:
    """Return the bench that drives the core with the vectors in ``file``."""
    fields = list(zip(table.names, table.widths, strict=True))
    return render("bench_core.v.j2", design, core=design.core, table=table, fields=fields, file=file)


def bench_sums(design: Design, tables: Any, files: dict[str, str]) -> str:
    """Return the bench that drives the accumulating unit with whole sums; ``files`` names its memories."""
    fields = list(zip(tables.stream.names, tables.stream.widths, strict=True))
    return render("bench_sums.v.j2", design, top=design.name, tables=tables, fields=fields, files=files)


def ports(design: Design) -> Ports:
    """Return the ports of the accumulating unit's core."""
    match design.unit:
        case FloatUnit() as unit:
            return _float_ports(design, unit)
        case GroupUnit() as unit:
            return _group_ports(design, unit)
        case IntegerUnit() as unit:
            return _integer_ports(unit)


def _float_ports(design: Design, unit: FloatUnit) -> Ports:
    acc = unit.accumulator
    adder = design.main_adder
    significand = acc.product.precision if acc.product else unit.product_bits
    rounder = unit.product_rounder
    return Ports(
        a_bits=unit.a.bits,
        b_bits=unit.b.bits,
        product_bits=4 + adder.exponent_bits + significand,
        sum_bits=acc.format.bits,
        total_bits=acc.format.bits,
        sum_name=str(acc.format),
        total_name=str(acc.format),
        multiplier="product" if acc.product else "multiply",
        product_port="x" if acc.product else "product",
        adder="sum_main",
        adder_port="x",
        addend_port="y",
        result_port="sum",
        clocked=True,
        chunk=acc.chunk,
        shared=design.shared,
        random=adder.fraction_bits if design.stochastic else 0,
        random_product=rounder.fraction_bits if rounder and design.stochastic else 0,
        lfsr=design.random is RandomSource.LFSR,
        sum_fmt=acc.format,
        total_adder=adder if design.shared else unit.chunk_adder,
        product_significand=significand,
    )


def _group_ports(design: Design, unit: GroupUnit) -> Ports:
    group = unit.accumulator
    result = group.result
    return Ports(
        a_bits=group.group * unit.a.bits,
        b_bits=group.group * unit.b.bits,
        product_bits=group.group * (3 + unit.exponent_bits + unit.product_bits),
        sum_bits=result.bits,
        total_bits=FP32.bits if group.promote_every else result.bits,
        sum_name=str(result),
        total_name="fp32" if group.promote_every else str(result),
        multiplier="products",
        product_port="products",
        adder="together",
        adder_port="products",
        addend_port="c",
        result_port="d",
        clocked=True,
        chunk=design.chunk,
        group=group.group,
        sum_fmt=result,
        total_adder=unit.total_adder,
        total_role="total",
        normalises_partial=unit.normalises_sum,
    )


def _integer_ports(unit: IntegerUnit) -> Ports:
    integer = unit.accumulator
    name = f"{integer.bits} bits"
    return Ports(
        a_bits=unit.a.bits,
        b_bits=unit.b.bits,
        product_bits=unit.product_bits,
        sum_bits=integer.bits,
        total_bits=integer.bits,
        sum_name=name,
        total_name=name,
        multiplier="multiply",
        product_port="product",
        adder="sum_main",
        adder_port="x",
        addend_port="y",
        result_port="sum",
        clocked=False,
    )


def _float_parts(design: Design) -> list[str]:
    unit = design.unit
    assert isinstance(unit, FloatUnit)
    acc = unit.accumulator
    rounder, adder = unit.product_rounder, design.main_adder
    target = acc.product or acc.format
    parts = _helpers(design, unit.a, unit.b, acc.format, *([acc.product] if acc.product else []))
    exponent_bits = rounder.exponent_bits if rounder else adder.exponent_bits
    parts.append(render("multiply.v.j2", design, target=target, exponent_bits=exponent_bits))
    if rounder:
        title = f"Rounds a product to {acc.product}: sum = round(x + y), with a zero for y."
        parts.append(_rounder(design, rounder, "product", title))
        parts.append(render("product.v.j2", design, main=adder))
    parts.append(_rounder(design, unit.adder, "main", "sum = round(x + y): one addition, rounded once."))
    parts.append(render("mac.v.j2", design, main=adder))
    return parts


def _group_parts(design: Design) -> list[str]:
    unit = design.unit
    assert isinstance(unit, GroupUnit)
    acc = unit.accumulator
    totals = [FP32] if acc.promote_every else []
    parts = _helpers(design, unit.a, unit.b, acc.result, *totals)
    title = "sum = round(x + y): used with a zero for y, to round the exact sum once."
    escapes = acc.result_rounding is Rounding.TOWARD_ZERO
    parts.append(_rounder(design, unit.rounder, "main", title, truncation_overflows=escapes))
    if totals:
        title = "sum = round(x + y): adds a partial sum to the float32 total."
        parts.append(_rounder(design, unit.total_adder, "total", title))
    parts.append(render("group.v.j2", design))
    return parts


def _integer_parts(design: Design) -> list[str]:
    return [render("stage.v.j2", design), render("integer.v.j2", design)]


def _helpers(design: Design, *formats: FloatFormat) -> list[str]:
    unpackers = [render("unpack.v.j2", design, fmt=fmt) for fmt in dict.fromkeys(formats)]
    return [
        render("stage.v.j2", design),
        render("shift.v.j2", design),
        *unpackers,
        render("align.v.j2", design),
    ]


def _rounder(design: Design, adder: Adder, role: str, title: str, *, truncation_overflows: bool = False) -> str:
    return render(
        "round.v.j2", design, adder=adder, role=role, title=title, truncation_overflows=truncation_overflows
    )


def render(template: str, design: Design, **context: Any) -> str:
    """Return a template filled in for a design."""
    page = _environment().get_template(template)
    return str(page.render(n=design.name, unit=design.unit, design=design, **context))


@functools.cache
def _environment() -> Any:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("partialsum.hardware", "templates"),
        variable_start_string="[[",
        variable_end_string="]]",
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
        autoescape=False,
    )
    environment.globals.update(ident=identifier, bits=_bits, extend=_extend, shifted_by=_shifted_by)
    return environment


def identifier(fmt: FloatFormat) -> str:
    """Return a format's name as a Verilog identifier."""
    return str(fmt).replace("-", "m")


def _bits(width: int) -> str:
    return f"[{width - 1}:0]"


def _extend(signal: str, width: int, target: int) -> str:
    """Return ``signal`` with zeros in front, ``target`` bits wide."""
    return signal if width == target else f"{{{target - width}'d0, {signal}}}"


def _shifted_by(offset: int, width: int) -> str:
    """Return `` + offset`` or `` - offset`` as a constant of ``width`` bits."""
    return f"{'+' if offset >= 0 else '-'} {width}'d{abs(offset)}"
