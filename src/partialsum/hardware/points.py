"""The sweep that the cost model is fitted to: which units it holds, and its table.

A row holds a unit's formats and what was measured of it. ``kind`` is ``mac`` (combinational core and the switching of
the sum's register), ``adder`` (of a chunk's total), ``unit`` (the whole accumulating unit with its registers: area
only), ``integer`` or ``group``. ``held_out`` rows take no part in the fit: they test it.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, fields
from importlib import resources

from partialsum.errors import InputError
from partialsum.hardware.designs import ChunkAdder, Design
from partialsum.hardware.units import parse_unit


@dataclass(frozen=True, slots=True)
class Point:
    """One unit of the sweep, named as the command line names it."""

    kind: str
    inputs: str
    accumulator: str
    chunk_adder: str = ""
    held_out: bool = False

    @property
    def design(self) -> Design:
        """The unit to build."""
        unit = parse_unit(self.inputs.replace("*", ","), self.accumulator)
        return Design(unit, chunk_adder=ChunkAdder(self.chunk_adder or "private"))


@dataclass(frozen=True, slots=True)
class Row:
    """A point and what was measured; energies are inverter-input loads switched per step, empty for ``unit``."""

    kind: str
    inputs: str
    accumulator: str
    chunk_adder: str
    held_out: bool
    area_ge: float
    gates: int
    delay_fo4: float
    energy_functional: float
    energy_glitches: float

    @property
    def point(self) -> Point:
        """What was asked for."""
        return Point(self.kind, self.inputs, self.accumulator, self.chunk_adder, self.held_out)


MEASURED_WITH = "Yosys 0.70"
"""The yosys that the committed sweep was made with; another one maps a little differently."""

INPUTS = ("e2m1", "e3m2", "e4m3", "e5m2", "e5m7", "fp16", "bf16")
EXP_BITS = (5, 6, 8)
MAN_BITS = (3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 14, 17, 20, 23)
OPTIONS = (
    "toward_zero",
    "down",
    "stochastic",
    "stochastic,random_bits=4",
    "saturate",
    "subnormals=no",
    "product=e5m2",
)


def points() -> list[Point]:
    """Return the whole sweep: fitted and held-out units."""
    return [*_mac_points(), *_adder_points(), *_unit_points(), *_integer_points(), *_group_points()]


def _mac_points() -> Iterator[Point]:
    for inputs in INPUTS:
        for exp in EXP_BITS:
            yield from (Point("mac", inputs, f"e{exp}m{man}") for man in MAN_BITS)
    for accumulator in ("e6m5", "e6m9", "e5m10", "e8m16", "e8m23"):
        for inputs in ("e4m3", "e5m2"):
            yield from (Point("mac", inputs, f"{accumulator},{option}") for option in OPTIONS)
        yield from (Point("mac", inputs, accumulator) for inputs in ("dlfloat16", "e5m2dlfloat"))
    for inputs in ("e8m15", "fp32"):
        yield from (Point("mac", inputs, accumulator) for accumulator in ("e8m7", "e8m13", "e8m18", "e8m23"))
    for inputs in ("e3m4", "tf32", "e4m3*e5m2", "e4m3fn"):
        for accumulator in ("e4m7", "e6m9", "e7m11", "e7m15", "e8m13", "e8m23"):
            yield Point("mac", inputs, accumulator, held_out=True)
    yield from (Point("mac", "e6m18", accumulator, held_out=True) for accumulator in ("e7m11", "e8m23"))


def _adder_points() -> Iterator[Point]:
    for exp in EXP_BITS:
        for man in MAN_BITS:
            yield Point("adder", "e5m2", f"e{exp}m{man}")
    for name in ("e4m7", "e7m11", "e7m15", "e8m13", "e5m19"):
        yield Point("adder", "e5m2", name, held_out=True)


def _unit_points() -> Iterator[Point]:
    for inputs in ("e4m3", "e5m2", "bf16"):
        for accumulator in ("e6m5", "e6m9", "e5m10", "e8m13", "e8m23"):
            yield Point("unit", inputs, accumulator)
            yield Point("unit", inputs, f"{accumulator},chunk=64", "private")
            yield Point("unit", inputs, f"{accumulator},chunk=64", "shared")
    for inputs, accumulator in (("e4m3*e5m2", "e7m11"), ("fp16", "e8m16")):
        yield Point("unit", inputs, accumulator, held_out=True)
        yield from (Point("unit", inputs, f"{accumulator},chunk=32", adder, held_out=True) for adder in ChunkAdder)
    for inputs, accumulator in (("int8", "int32"), ("int4", "int20"), ("fp16", "v100-fp16")):
        yield Point("unit", inputs, accumulator, held_out=True)
    yield Point("unit", "e4m3fn", "ada-fp8,promote_every=128", "private", held_out=True)
    for chunk in (4, 16, 256, 1024):
        yield Point("unit", "e5m2", f"e6m9,chunk={chunk}", "shared")


def _integer_points() -> Iterator[Point]:
    for bits in (2, 3, 4, 6, 8, 12, 16):
        for width in (12, 16, 20, 24, 32, 48):
            if width > 2 * bits:
                yield Point("integer", f"int{bits}", f"int{width}")
    for accumulator in ("int16,saturate", "int24,saturate", "int32,saturate"):
        yield Point("integer", "int8", accumulator)
    for inputs in ("uint4", "int4*int2", "uint8*int4", "int8*int2", "int12*int8", "int16*int8"):
        yield from (Point("integer", inputs, accumulator) for accumulator in ("int24", "int32"))
    for inputs, accumulator in (
        ("int5", "int18"),
        ("uint8*int8", "int28"),
        ("int8*int4", "int20"),
        ("int10", "int40"),
        ("int10*int6", "int24"),
        ("uint6", "int32"),
    ):
        yield Point("integer", inputs, accumulator, held_out=True)


def _group_points() -> Iterator[Point]:
    for fraction in (13, 25):
        for group in (4, 8, 16, 32):
            yield Point("group", "e4m3", _aligned(group, fraction))
        for group in (4, 8):
            yield from (Point("group", inputs, _aligned(group, fraction)) for inputs in ("e5m2", "fp16", "bf16"))
    for fraction in (9, 17, 21, 30):
        yield Point("group", "e4m3", _aligned(8, fraction))
    yield Point("group", "fp16", _aligned(16, 25))
    for inputs, accumulator in (
        ("fp16", "v100-fp16"),
        ("bf16", "a100-bf16"),
        ("e5m2", "ada-fp8"),
        ("e4m3fn", "ada-fp8"),
    ):
        yield Point("group", inputs, accumulator, held_out=True)


def _aligned(group: int, fraction: int) -> str:
    return f"aligned,fraction_bits={fraction},group={group}{',result=e8m13' if fraction <= 13 else ''}"


def rows_text(rows: Iterable[Row]) -> str:
    """Return rows as CSV."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [f.name for f in fields(Row)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(row) for row in rows)
    return text.getvalue()


def read_rows(text: str) -> list[Row]:
    """Return the rows of a CSV; raises :class:`InputError` where it is not one of a sweep."""
    names = [f.name for f in fields(Row)]
    reader = csv.DictReader(io.StringIO(text))
    if reader.fieldnames != names:
        raise InputError(f"a sweep's CSV must have the columns {', '.join(names)}, got {reader.fieldnames}")
    return [
        Row(
            r["kind"],
            r["inputs"],
            r["accumulator"],
            r["chunk_adder"],
            r["held_out"] == "True",
            float(r["area_ge"]),
            int(r["gates"]),
            float(r["delay_fo4"]),
            float(r["energy_functional"]),
            float(r["energy_glitches"]),
        )
        for r in reader
    ]


def committed_rows() -> list[Row]:
    """Return the sweep that came with the package."""
    return read_rows(resources.files("partialsum.hardware").joinpath("data/sweep.csv").read_text(encoding="utf-8"))
