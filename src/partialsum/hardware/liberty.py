"""Reading a Liberty file: areas, pin capacitances, functions, and delays made linear in the load.

Only what synthesis here needs is read. Delay tables are evaluated at the middle input slew, rise and fall averaged,
and a straight line is fitted over the loads.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from partialsum.errors import InputError
from partialsum.hardware.library import Cell, Library, Register, truth_table

OSU180 = Path("/usr/share/qflow/tech/osu018/osu018_stdcells.lib")
"""The Liberty file of Debian's package ``qflow-tech-osu018`` (GPL; found where installed, never bundled)."""

_NAND2_TABLE = 0b0111


@dataclass(slots=True)
class _Group:
    kind: str
    name: str
    values: dict[str, str] = field(default_factory=dict)
    tables: dict[str, list[float]] = field(default_factory=dict)
    groups: list[_Group] = field(default_factory=list)

    def all(self, kind: str) -> Iterator[_Group]:
        return (group for group in self.groups if group.kind == kind)


def read_liberty(path: str | os.PathLike[str]) -> Library:
    """Return the library in a Liberty file; raises :class:`InputError` where it has no NAND2, inverter or flip-flop."""
    try:
        text = Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise InputError(f"cannot read the Liberty file {str(path)!r}: {error.strerror or error}") from None
    root = _parse(text, str(path))
    scale = _Scale.of(root, str(path))
    cells = {cell.name: cell for group in root.all("cell") if (cell := _cell(group, scale)) is not None}
    nands = [c for c in cells.values() if len(c.inputs) == 2 and c.table == _NAND2_TABLE]
    inverters = [c for c in cells.values() if len(c.inputs) == 1 and c.table == 0b01]
    if not nands:
        raise InputError(f"the Liberty file {str(path)!r} has no two-input NAND, by which areas are counted")
    if not inverters:
        raise InputError(f"the Liberty file {str(path)!r} has no inverter")
    register = _register(root, scale)
    if register is None:
        raise InputError(f"the Liberty file {str(path)!r} has no plain D flip-flop")
    inverter = min(inverters, key=lambda c: c.area)
    fo4 = inverter.intrinsic + inverter.slope * 4 * inverter.capacitance[0]
    if not fo4 > 0:
        raise InputError(f"the Liberty file {str(path)!r} has no delays for its inverter {inverter.name}")
    volt = float(root.values.get("nom_voltage", "1.0"))
    return Library(root.name, cells, register, min(c.area for c in nands), fo4, volt, str(path))


@dataclass(frozen=True, slots=True)
class _Scale:
    """Picofarads of the file's unit of capacitance, and its table templates by name."""

    picofarads: float
    templates: dict[str, _Group]

    @classmethod
    def of(cls, root: _Group, path: str) -> _Scale:
        text = root.values.get("capacitive_load_unit", "1,pf")
        size, _, unit = text.replace(" ", "").partition(",")
        units = {"pf": 1.0, "ff": 1e-3}
        try:
            picofarads = float(size) * units[unit.lower()]
        except (ValueError, KeyError):
            raise InputError(
                f"the Liberty file {path!r} must give its capacitive_load_unit in pf or ff, got {text!r}"
            ) from None
        return cls(picofarads, {template.name: template for template in root.all("lu_table_template")})

    def load(self, pin: _Group) -> float:
        """Return a pin's capacitance in picofarads."""
        return self.picofarads * float(pin.values.get("capacitance", "0"))

    def delays(self, table: _Group) -> tuple[list[float], NDArray[np.float64]] | None:
        """Return the loads (pF) of a table and the delays at the middle input slew; None for a table without loads."""
        template = self.templates.get(table.name)
        first = template.values.get("variable_1", "") if template else ""
        slew_first = first == "input_net_transition"
        indices = [
            table.tables.get(f"index_{axis}") or (template.tables.get(f"index_{axis}", []) if template else [])
            for axis in (1, 2)
        ]
        loads = indices[1 if slew_first else 0]
        values = table.tables.get("values", [])
        if len(loads) < 2 or not values or len(values) % len(loads):
            return None
        grid = np.array(values).reshape((-1, len(loads)) if slew_first else (len(loads), -1))
        grid = grid.T if slew_first else grid
        return [self.picofarads * load for load in loads], grid[:, grid.shape[1] // 2]


def _cell(group: _Group, scale: _Scale) -> Cell | None:
    """Return a plain gate, or None for registers, three-state cells and cells of several outputs."""
    if any(group.all("ff")) or any(group.all("latch")) or group.values.get("dont_use") == "true":
        return None
    pins = list(group.all("pin"))
    inputs = [pin for pin in pins if pin.values.get("direction") == "input"]
    outputs = [pin for pin in pins if pin.values.get("direction") == "output"]
    if len(outputs) != 1 or not inputs or len(inputs) > 6:
        return None
    function = outputs[0].values.get("function")
    if function is None or "three_state" in outputs[0].values:
        return None
    names = tuple(pin.name for pin in inputs)
    truth_table(function, names)
    intrinsic, slope = _line(outputs[0], scale)
    return Cell(
        group.name,
        names,
        outputs[0].name,
        function,
        float(group.values["area"]),
        tuple(scale.load(pin) for pin in inputs),
        intrinsic,
        slope,
        scale.load(outputs[0]),
    )


def _line(output: _Group, scale: _Scale) -> tuple[float, float]:
    """Return intrinsic delay and slope over the load, the slowest arc of the gate."""
    lines = [(0.0, 0.0)]
    for arc in output.all("timing"):
        found = [scale.delays(table) for kind in ("cell_rise", "cell_fall") for table in arc.all(kind)]
        tables = [entry for entry in found if entry is not None]
        if tables and all(loads == tables[0][0] for loads, _ in tables):
            slope, intrinsic = np.polyfit(tables[0][0], np.mean([delays for _, delays in tables], axis=0), 1)
            lines.append((float(intrinsic), float(slope)))
    return max(lines, key=lambda line: line[0] + line[1] * 0.02)


def _register(root: _Group, scale: _Scale) -> Register | None:
    """Return the smallest flip-flop with a clock and a data input only."""
    found = []
    for cell in root.all("cell"):
        if not any(cell.all("ff")):
            continue
        inputs = [pin for pin in cell.all("pin") if pin.values.get("direction") == "input"]
        clocks = [pin for pin in inputs if pin.values.get("clock") == "true"]
        if len(inputs) == 2 and len(clocks) == 1:
            data = next(pin for pin in inputs if pin is not clocks[0])
            clock_pin = scale.load(clocks[0])
            area = float(cell.values["area"])
            # The internal clock inverters are not in the file: four times the pin, as in the own library.
            found.append(Register(area, scale.load(data), 2 * 5 * clock_pin, 0.0))
    return min(found, key=lambda r: r.area, default=None)


_LEXEME = re.compile(r'/\*.*?\*/|"(?:[^"\\]|\\.)*"|[A-Za-z_0-9.\-+*\[\]!\']+|[(){}:;,]|\\\n', re.DOTALL)


def _parse(text: str, path: str) -> _Group:
    tokens = [t for t in _LEXEME.findall(text) if not t.startswith("/*") and t != "\\\n"]
    root = _Group("file", path)
    stack = [root]
    i = 0
    try:
        while i < len(tokens):
            token = tokens[i]
            if token == "}":
                stack.pop()
                i += 1
            elif token in ";,":
                i += 1
            elif tokens[i + 1] == ":":
                end = tokens.index(";", i)
                stack[-1].values[token] = " ".join(tokens[i + 2 : end]).strip('"')
                i = end + 1
            elif tokens[i + 1] == "(":
                end = tokens.index(")", i)
                arguments = [t.strip('"') for t in tokens[i + 2 : end] if t != ","]
                if end + 1 < len(tokens) and tokens[end + 1] == "{":
                    group = _Group(token, arguments[0] if arguments else "")
                    stack[-1].groups.append(group)
                    stack.append(group)
                    i = end + 2
                else:
                    numbers = re.findall(r"[-+]?\d*\.?\d+(?:[eE][-+]?\d+)?", " ".join(arguments))
                    stack[-1].tables[token] = [float(n) for n in numbers]
                    stack[-1].values[token] = ",".join(arguments)
                    i = end + 1
            else:
                raise ValueError(token)
    except (ValueError, IndexError):
        raise InputError(f"cannot read {path!r} as a Liberty file near {' '.join(tokens[i : i + 4])!r}") from None
    library = next(root.all("library"), None)
    if library is None:
        raise InputError(f"cannot read {path!r} as a Liberty file: it has no library group")
    return library
