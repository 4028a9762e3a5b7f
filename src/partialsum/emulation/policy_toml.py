"""Policies as TOML text, there and back without loss."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from partialsum.accumulators import (
    Accumulator,
    AlignedAccumulator,
    AnyAccumulator,
    DotAccumulator,
    IntegerAccumulator,
    parse_accumulator,
)
from partialsum.emulation.operands import Inputs, OperandFormat, Outputs, Roles, check_keys, parse_operand
from partialsum.emulation.policy import LayerRule, Policy
from partialsum.errors import InputError
from partialsum.formats import BlockFormat, Format, parse_format

_ACCUMULATOR_KINDS: dict[str, type[AnyAccumulator]] = {
    "sequential": Accumulator,
    "aligned": AlignedAccumulator,
    "dot": DotAccumulator,
    "integer": IntegerAccumulator,
}


def dump_policy(policy: Policy) -> str:
    """Return the TOML text of a policy; fields at their defaults are left out."""
    return dump_table(_record(policy))


def dump_table(table: Mapping[str, Any]) -> str:
    """Return the TOML text of a table of strings, numbers, booleans, lists of these and further tables."""
    tables: list[str] = []
    _dump_table(table, (), tables)
    return "\n\n".join(tables) + "\n"


def load_policy(source: str | Path) -> Policy:
    """Return the policy of TOML text or of a file."""
    text, where = source, "the policy"
    if isinstance(source, Path):
        where = str(source)
        try:
            text = source.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"cannot read policy file {where}: {error}") from None
    try:
        table = tomllib.loads(str(text))
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{where} is not valid TOML: {error}") from None
    return policy_from_table(table, where)


def policy_from_table(table: Mapping[str, Any], where: str = "the policy") -> Policy:
    """Return the policy of a table read from TOML; errors name the table as ``where``."""
    check_keys(table, [field.name for field in fields(Policy)], where)
    for key in ("layers", "first", "last"):
        if key in table and not isinstance(table[key], Mapping):
            raise InputError(f"{key} must be a table in {where}, got {table[key]!r}")
    settings = _read_fields(table)
    if "layers" in table:
        rules = table["layers"].items()
        settings["layers"] = {pattern: _read_rule(rule, f"layers.{pattern!r}") for pattern, rule in rules}
    for end in ("first", "last"):
        if end in table:
            settings[end] = _read_rule(table[end], end)
    return Policy(**settings)


def _read_rule(value: Any, where: str) -> Any:
    if not isinstance(value, Mapping):
        return value
    check_keys(value, [field.name for field in fields(LayerRule)], where)
    return LayerRule(**_read_fields(value))


def _read_fields(table: Mapping[str, Any]) -> dict[str, Any]:
    """Turn the tables that stand for accumulators and operands into records; strings are parsed by the records."""
    read = dict(table)
    for key in ("forward", "grad_input", "grad_weight"):
        if key in read:
            read[key] = _read_accumulator(read[key], key)
    if "inputs" in read:
        read["inputs"] = _read_inputs(read["inputs"], "inputs")
    if "outputs" in read:
        read["outputs"] = _read_outputs(read["outputs"], "outputs")
    return read


def _read_inputs(value: Any, where: str) -> Any:
    if not isinstance(value, Mapping):
        return _read_operand(value, where)
    check_keys(value, [field.name for field in fields(Inputs)], where)
    read: dict[str, Any] = {
        key: {role: _read_operand(operand, f"{where}.{key}.{role}") for role, operand in entry.items()}
        if key in ("forward", "grad_input", "grad_weight") and isinstance(entry, Mapping)
        else _read_operand(entry, f"{where}.{key}")
        for key, entry in value.items()
    }
    return read


def _read_outputs(value: Any, where: str) -> Any:
    if not isinstance(value, Mapping) or "format" in value:
        return _read_operand(value, where)
    return {pass_: _read_operand(operand, f"{where}.{pass_}") for pass_, operand in value.items()}


def _read_operand(value: Any, where: str) -> OperandFormat:
    if not isinstance(value, Mapping):
        return parse_operand(value)
    check_keys(value, [field.name for field in fields(OperandFormat)], where)
    if "format" not in value:
        raise InputError(f"{where} needs a format, got {dict(value)!r}")
    return OperandFormat(**{**value, "format": _read_format(value["format"], where)})


def _read_format(value: Any, where: str) -> Format:
    if not isinstance(value, Mapping):
        return parse_format(value)
    check_keys(value, [field.name for field in fields(BlockFormat)], where)
    read: dict[str, Any] = {
        key: parse_format(entry) if key in ("element", "scale") and entry != "e8m0" else entry
        for key, entry in value.items()
    }
    try:
        return BlockFormat(**read)
    except TypeError:
        raise InputError(f"a block format in {where} needs element and block, got {dict(value)!r}") from None


def _read_accumulator(value: Any, where: str) -> AnyAccumulator:
    if not isinstance(value, Mapping):
        return parse_accumulator(value)
    settings = dict(value)
    kind = _ACCUMULATOR_KINDS.get(settings.pop("kind", "sequential"))
    if kind is None:
        raise InputError(f"kind of {where} must be one of {', '.join(_ACCUMULATOR_KINDS)}, got {value['kind']!r}")
    check_keys(settings, [field.name for field in fields(kind)], where)
    try:
        return kind(**settings)
    except TypeError as error:
        raise InputError(f"accumulator {where} is incomplete: {error}") from None


def _record(record: Any) -> dict[str, Any]:
    """Return the fields that differ from their defaults, each as a TOML value or a nested table."""
    table = {}
    for field in fields(record):
        value = getattr(record, field.name)
        if field.default is not MISSING and value == field.default:
            continue
        table[field.name] = _value(value)
    return table


def _value(value: Any) -> Any:
    if isinstance(value, AnyAccumulator):
        return _accumulator_value(value)
    if isinstance(value, OperandFormat):
        return str(value) if _reads_back(parse_operand, value) else _Inline(_record(value))
    if isinstance(value, BlockFormat):
        return str(value) if _reads_back(parse_format, value) else _Inline(_record(value))
    if isinstance(value, LayerRule | Inputs | Outputs | Roles):
        return _record(value)
    if isinstance(value, tuple):
        return {pattern: _record(rule) for pattern, rule in value}
    return value if isinstance(value, bool | int) else str(value)


def _accumulator_value(accumulator: AnyAccumulator) -> Any:
    if _reads_back(parse_accumulator, accumulator):
        return str(accumulator)
    kind = next(name for name, cls in _ACCUMULATOR_KINDS.items() if isinstance(accumulator, cls))
    return _Inline({"kind": kind, **_record(accumulator)})


def _reads_back(parse: Callable[[Any], Any], value: Any) -> bool:
    """Whether a record's short name means that record."""
    try:
        return bool(parse(str(value)) == value)
    except InputError:
        return False


class _Inline(dict[str, Any]):
    """A table written on one line, ``{ key = value, … }``."""


def _dump_table(table: Mapping[str, Any], path: tuple[str, ...], out: list[str]) -> None:
    nested = {
        key: value for key, value in table.items() if isinstance(value, dict) and not isinstance(value, _Inline)
    }
    lines = [f"{_key(key)} = {_scalar(value)}" for key, value in table.items() if key not in nested]
    if path and (lines or not nested):
        lines.insert(0, f"[{'.'.join(map(_key, path))}]")
    if lines:
        out.append("\n".join(lines))
    for key, value in nested.items():
        _dump_table(value, (*path, key), out)


def _key(key: str) -> str:
    bare = key.isascii() and key.replace("_", "a").replace("-", "a").isalnum()
    return key if bare else _quoted(key)


def _scalar(value: Any) -> str:
    if isinstance(value, _Inline):
        return "{ " + ", ".join(f"{_key(key)} = {_scalar(entry)}" for key, entry in value.items()) + " }"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return "[" + ", ".join(map(_scalar, value)) + "]"
    return repr(value) if isinstance(value, int | float) else _quoted(value)


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace(
        "\x7f", "\\u007f"
    )  # TOML's basic strings escape as JSON's do
