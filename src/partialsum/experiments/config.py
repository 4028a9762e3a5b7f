"""One TOML file says everything about a run: model, data, arithmetic, optimizer, schedule, seed."""

from __future__ import annotations

import hashlib
import json
import tomllib
import types
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from partialsum.accumulators import Rounding
from partialsum.choices import Choice, parse_choice
from partialsum.emulation.operands import check_keys
from partialsum.emulation.policy_toml import dump_table
from partialsum.errors import InputError
from partialsum.workloads.gemm import Pass


class Optimizer(Choice):
    """Which optimizer."""

    SGD = "sgd"
    ADAMW = "adamw"


class Schedule(Choice):
    """How the learning rate goes over the steps."""

    CONSTANT = "constant"
    COSINE = "cosine"
    LINEAR = "linear"


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """A network of :mod:`partialsum.experiments.models`, or ``package.module:callable`` of one's own."""

    name: str = "convnet"
    width: int = 8
    depth: int = 0
    """Layers or blocks; 0 means the network's usual depth."""
    frozen: tuple[str, ...] = ()
    """Patterns of parameters that are not trained, such as ``readout.*``."""
    readout_std: float = 0.0
    """Standard deviation of the read-out's weights at the start; 0 leaves them as torch draws them."""


@dataclass(frozen=True, slots=True)
class DataConfig:
    """What :func:`partialsum.experiments.data.load_dataset` takes; 0 samples mean all."""

    name: str = "fashion-mnist"
    path: str = ""
    train: int = 0
    test: int = 0
    image_size: int = 224
    context: int = 128


@dataclass(frozen=True, slots=True)
class RecipeConfig:
    """A recipe by name and its options; ``accumulation-2019`` gets its analysis from the runner."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AccumulatorConfig:
    """One accumulator, taken apart so that a sweep can vary its parts, in some or all of the three passes."""

    man_bits: int
    exp_bits: int = 6
    rounding: Rounding = Rounding.NEAREST_EVEN
    chunk: int = 0
    """0: no chunks."""
    passes: tuple[str, ...] = tuple(str(pass_) for pass_ in Pass)
    elsewhere: str = "e8m23"
    """The accumulator of the other passes."""
    inputs: str = "e5m2"
    last: str = ""
    """Inputs and accumulator of the last layer, such as ``e6m9``; as everywhere where empty."""
    loss_scale: float = 1000.0


@dataclass(frozen=True, slots=True)
class OptimizerConfig:
    """The optimizer; ``momentum`` is SGD's."""

    name: Optimizer = Optimizer.SGD
    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 0.0


@dataclass(frozen=True, slots=True)
class ScheduleConfig:
    """The learning rate over the steps: a linear rise over ``warmup`` steps, then ``name``."""

    name: Schedule = Schedule.COSINE
    warmup: int = 0
    final: float = 0.0
    """Share of the learning rate at the end."""


@dataclass(frozen=True, slots=True)
class TrainingConfig:
    """How long, in what batches, and how often something is looked at or saved."""

    steps: int = 300
    batch: int = 64
    seed: int = 0
    device: str = "cpu"
    """Where tensors are: ``cpu``, ``cuda``, or ``cuda:1``; under ``torchrun`` each process has a GPU of its own."""
    evaluate_every: int = 100
    log_every: int = 10
    patience: int = 20
    """So many losses in a row that are no finite number end a run as diverged."""
    threads: int = 0
    """Processor threads; 0: all there are for one run, those of ``--threads`` in a sweep."""
    checkpoint_steps: int = 0
    checkpoint_minutes: float = 2.0


@dataclass(frozen=True, slots=True)
class RunConfig:
    """A run. At most one of ``recipe``, ``policy`` and ``accumulator``; none means torch's own float32."""

    name: str = "run"
    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    recipe: RecipeConfig | None = None
    policy: Mapping[str, Any] | None = None
    accumulator: AccumulatorConfig | None = None
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    training: TrainingConfig = TrainingConfig()

    def __post_init__(self) -> None:
        given = [key for key in ("recipe", "policy", "accumulator") if getattr(self, key) is not None]
        if len(given) > 1:
            raise InputError(f"a run takes one of recipe, policy and accumulator, got {' and '.join(given)}")
        _check_numbers(self)

    def table(self) -> dict[str, Any]:
        """Return the configuration as nested dictionaries, settings that are None left out."""
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return {key: value for key, value in plain.items() if value is not None}

    def to_toml(self) -> str:
        """Return TOML text that :func:`load_config` reads back to an equal configuration."""
        return dump_table(self.table())

    def digest(self) -> str:
        """Return 16 hexadecimal digits that stand for everything that decides the result."""
        table = self.table()
        del table["name"]
        for key in ("threads", "checkpoint_steps", "checkpoint_minutes"):
            del table["training"][key]
        if table["training"]["device"] == "cpu":
            del table["training"]["device"]  # as for every run before there was a choice
        return hashlib.sha256(json.dumps(table, sort_keys=True).encode()).hexdigest()[:16]


_POSITIVE = {
    "model": ("width",),
    "data": ("image_size", "context"),
    "training": ("steps", "batch", "evaluate_every", "log_every", "patience"),
}
_NOT_NEGATIVE = {
    "model": ("depth", "readout_std"),
    "data": ("train", "test"),
    "accumulator": ("chunk",),
    "optimizer": ("lr", "momentum", "weight_decay"),
    "schedule": ("warmup", "final"),
    "training": ("seed", "threads", "checkpoint_steps", "checkpoint_minutes"),
}


def _check_numbers(config: RunConfig) -> None:
    for names, lowest, what in ((_POSITIVE, 1, "positive"), (_NOT_NEGATIVE, 0, "0 or more")):
        for section, keys in names.items():
            record = getattr(config, section)
            for key in keys if record is not None else ():
                if not lowest <= getattr(record, key) < float("inf"):
                    raise InputError(f"{section}.{key} must be {what}, got {getattr(record, key)!r}")
    if config.accumulator is not None:
        for pass_ in config.accumulator.passes:
            parse_choice(Pass, pass_, "accumulator.passes")


def read_toml(path: Path) -> dict[str, Any]:
    """Return the table of a TOML file; raises :class:`InputError` where it cannot be read."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read configuration {str(path)!r}: {error.strerror or error}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{str(path)!r} is not valid TOML: {error}") from None


def load_config(source: str | Path | Mapping[str, Any]) -> RunConfig:
    """Return the configuration of a TOML file (a ``Path``), of TOML text, or of a table.

    Raises :class:`InputError` for unknown keys, with the nearest known one, and for values of the wrong type.
    """
    if isinstance(source, Path):
        return _read(RunConfig, read_toml(source), str(source))
    if isinstance(source, str):
        try:
            source = tomllib.loads(source)
        except tomllib.TOMLDecodeError as error:
            raise InputError(f"the configuration is not valid TOML: {error}") from None
    return _read(RunConfig, source, "the configuration")


def set_data_path(table: dict[str, Any], path: Path) -> None:
    """Let the data of a configuration's table be somewhere else; relative to where the command runs."""
    if not isinstance(table.setdefault("data", {}), dict):
        raise InputError(f"data must be a table, got {table['data']!r}")
    table["data"]["path"] = str(path.resolve())


R = TypeVar("R")


def _read(cls: type[R], table: Any, where: str) -> R:
    if not isinstance(table, Mapping):
        raise InputError(f"{where} must be a table, got {table!r}")
    hints = get_type_hints(cls)
    check_keys(table, list(hints), where)
    for required in fields(cls):  # type: ignore[arg-type]
        if required.name not in table and required.default is MISSING and required.default_factory is MISSING:
            raise InputError(f"{where} needs {required.name}")
    return cls(**{key: _value(hints[key], value, key) for key, value in table.items()})


def _value(kind: Any, value: Any, where: str) -> Any:
    if isinstance(kind, types.UnionType):  # every optional setting: a record or None
        kind = next(option for option in get_args(kind) if option is not type(None))
    if is_dataclass(kind):
        return _read(kind, value, where)  # type: ignore[arg-type]
    if isinstance(kind, type) and issubclass(kind, Choice):
        return parse_choice(kind, value, where)
    origin = get_origin(kind) or kind
    if origin is tuple and isinstance(value, list | tuple) and all(isinstance(entry, str) for entry in value):
        return tuple(value)
    if origin is Mapping and isinstance(value, Mapping):
        return dict(value)
    if origin is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if origin in (int, str) and type(value) is origin:
        return value
    names: dict[Any, str] = {tuple: "a list of strings", Mapping: "a table", float: "a number", int: "an integer"}
    raise InputError(f"{where} must be {names.get(origin, 'a string')}, got {value!r}")
