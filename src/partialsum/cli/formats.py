"""``partialsum formats``: the number formats and the accumulators of real hardware, with their facts."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from partialsum.errors import InputError

if TYPE_CHECKING:
    from partialsum.accumulators import AlignedAccumulator, DotAccumulator


def formats(
    names: Annotated[list[str] | None, typer.Argument(help="Formats to show (default: all named ones).")] = None,
    hardware: Annotated[bool, typer.Option("--hardware", help="List accumulators of real hardware.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List number formats, or with --hardware the accumulators of real chips and their sources."""
    if hardware and names:
        raise InputError(f"--hardware lists all accumulators and takes no formats, got {names[0]!r}")
    if as_json:
        print(json.dumps(_hardware_rows() if hardware else _format_rows(names), indent=2))
        return
    from partialsum.report.text import print_rows

    if not hardware:
        print_rows(_format_rows(names), title="Number formats")
        return
    units, registers = _hardware_tables()
    print_rows(units, title=_UNITS_TITLE)
    print()
    print_rows(registers, title="Registers of published recipes")


def _format_rows(names: list[str] | None) -> list[dict[str, Any]]:
    from partialsum.formats import FORMATS, parse_format, product_man_bits

    rows = []
    for name in names or FORMATS:
        record = parse_format(name)
        row: dict[str, Any] = {"name": str(record), "bits": record.bits, "precision": record.precision}
        row |= {key: getattr(record, key, None) for key in ("exp_bits", "man_bits", "bias")}
        row |= {key: getattr(record, key, None) for key in ("max", "smallest_normal", "smallest_subnormal")}
        row["product_man_bits"] = product_man_bits(record)
        rows.append(row)
    return rows


def _hardware_rows() -> list[dict[str, Any]]:
    from dataclasses import fields

    from partialsum.accumulators import PRESETS

    return [
        {
            **{"name": name, "description": p.description, "accumulator": repr(p.accumulator), "source": p.source},
            "fields": {f.name: _plain(getattr(p.accumulator, f.name)) for f in fields(p.accumulator)},
        }
        for name, p in PRESETS.items()
    ]


def _plain(value: Any) -> Any:
    return value if value is None or isinstance(value, bool | int) else str(value)


_UNITS_TITLE = """Matrix units of real hardware
K products and the running sum are aligned to their largest exponent (at least the floor), cut to F fraction bits and
added exactly; the sum is rounded once. A product's exponent is the sum of its operands'; a subnormal operand has its
format's smallest one."""


def _hardware_tables() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    from partialsum.accumulators import PRESETS, AlignedAccumulator, DotAccumulator

    units, registers = [], []
    for name, preset in PRESETS.items():
        acc, source = preset.accumulator, preset.source.removeprefix("arXiv ").partition(" (")[0]
        described = preset.description.removesuffix(", FP32 output")
        row = {"name": name, "unit": described.removesuffix(" tensor core").removesuffix(" matrix core")}
        if isinstance(acc, DotAccumulator):
            row |= {"K": acc.group, "F": None, "cut": _added(acc), "floor": None}  # type: ignore[dict-item]
            units.append(row | {"result": "fp32, nearest even", "source (arXiv)": source})
            continue
        if not isinstance(acc, AlignedAccumulator):
            registers.append({"name": name, "register": preset.description, "source (arXiv)": source})
            continue
        result = f"{acc.result}, {_WORDS[str(acc.result_rounding)]}"
        row |= {"K": acc.group, "F": acc.fraction_bits, "cut": _cut(acc), "floor": acc.min_exponent}  # type: ignore[dict-item]
        units.append(row | {"result": result, "source (arXiv)": source})
    return units, registers


_WORDS = {"toward_zero": "to zero", "down": "down", "nearest_even": "nearest even"}


def _cut(acc: AlignedAccumulator) -> str:
    way = _WORDS[str(acc.alignment)]
    if acc.join_bits is not None:
        apart = "odd, even apart; " if acc.interleave == 2 else ""
        return f"{way}; {apart}joined down"
    return f"{way}; {acc.dot} products exact" if acc.dot > 1 else way


def _added(acc: DotAccumulator) -> str:
    if acc.exact:
        return "none: exact, one rounding"
    return "none: float32 in pairs" + ("" if acc.subnormals else "; subnormals to 0")
