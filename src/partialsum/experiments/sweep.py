"""Sweeps: one TOML file whose lists become runs, executed by any ``concurrent.futures`` executor."""

from __future__ import annotations

import copy
import itertools
import re
import time
from collections.abc import Callable, Mapping
from concurrent.futures import BrokenExecutor, Executor, Future, wait
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from partialsum.emulation.operands import check_keys
from partialsum.errors import InputError
from partialsum.experiments.config import RunConfig, load_config, read_toml

_ARITHMETIC = ("recipe", "policy", "accumulator")
_OWN_KEYS = ("title", "baseline", "sweep", "member", "figure")
_POLL_S = 2.0
_RESTARTS = 5
"""How often a broken pool is set up again while it brings no run to its end."""

MakeExecutor = Callable[[], AbstractContextManager[Executor]]
Notify = Callable[["Status"], None]


@dataclass(frozen=True, slots=True)
class Member:
    """One run of a sweep: which member and which of the swept ``settings`` it is."""

    member: str
    settings: Mapping[str, Any]
    config: RunConfig

    @property
    def name(self) -> str:
        """The run's name: member and settings."""
        words = [f"{key.rpartition('.')[2]}={_short(value)}" for key, value in self.settings.items()]
        return " ".join([self.member, *words]) if self.member else " ".join(words)

    @property
    def folder(self) -> str:
        """The name of the run's folder."""
        return f"{re.sub(r'[^A-Za-z0-9.=-]+', '_', self.name)[:80]}-{self.config.digest()}"


@dataclass(frozen=True, slots=True)
class Sweep:
    """The runs of a sweep, and how their results are to be drawn."""

    name: str
    title: str
    baseline: str
    members: tuple[Member, ...]
    figure: Mapping[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Status:
    """How far a sweep is; ``latest`` is the run that ended last, with its result.

    ``steps`` of ``all_steps`` are made, ``steps_found`` of them before this call, which has worked for ``seconds``.
    """

    total: int
    finished: int
    steps: int
    all_steps: int
    seconds: float
    latest: tuple[Member, dict[str, Any]] | None = None
    steps_found: int = 0

    @property
    def seconds_left(self) -> float | None:
        """The time left at the rate so far; None while no step is made."""
        made = self.steps - self.steps_found
        return self.seconds * (self.all_steps - self.steps) / made if made > 0 else None


def load_sweep(source: Path | Mapping[str, Any]) -> Sweep:
    """Return the sweep of a TOML file or table.

    Beside a run's keys it has ``[sweep]``, dotted names of settings with the lists they go through (``"training.seed" =
    [0, 1, 2]``), and ``[[member]]``, tables with a ``name``, settings that replace the file's, and a ``sweep`` of
    their own. Every member is combined with every choice of both. ``baseline`` names the member that the others are
    compared with; ``[figure]`` says what is drawn.

    Raises :class:`InputError` for unknown settings, empty lists, and a baseline that is no member.
    """
    table = copy.deepcopy(dict(read_toml(source) if isinstance(source, Path) else source))
    check_keys(table, [*(entry.name for entry in fields(RunConfig)), *_OWN_KEYS], "the sweep")
    own = {key: table.pop(key, None) for key in _OWN_KEYS}
    common, entries = own["sweep"] or {}, own["member"] or [{}]
    if not isinstance(entries, list) or not all(isinstance(entry, Mapping) for entry in entries):
        raise InputError("member must be an array of tables, [[member]]")
    members: list[Member] = []
    for shared in _choices(_lists(common)):  # outermost, so that the first seed of everything comes first
        for entry in entries:
            changes = dict(entry)
            name, swept = str(changes.pop("name", "")), changes.pop("sweep", {})
            choices = [{**shared, **own_choice} for own_choice in _choices(_lists(swept))]
            members += [_member(name, settings, _merge(table, changes)) for settings in choices]
    if len({member.name for member in members}) < len(members):
        raise InputError("every [[member]] needs a name of its own")
    baseline = str(own["baseline"] or "")
    if baseline and baseline not in {member.member for member in members}:
        raise InputError(f"baseline must name a member, got {baseline!r}")
    name = members[0].config.name
    return Sweep(name, str(own["title"] or name), baseline, tuple(members), own["figure"] or {})


def _lists(table: Any) -> dict[str, list[Any]]:
    if not isinstance(table, Mapping):
        raise InputError(f"sweep must be a table of lists, got {table!r}")
    for key, values in table.items():
        if not isinstance(values, list) or not values:
            raise InputError(f"sweep.{key!r} must be a list with something in it, got {values!r}")
    return dict(table)


def _choices(lists: Mapping[str, list[Any]]) -> list[dict[str, Any]]:
    return [dict(zip(lists, values, strict=True)) for values in itertools.product(*lists.values())]


def _member(name: str, settings: dict[str, Any], table: dict[str, Any]) -> Member:
    for key, value in settings.items():
        *path, last = key.split(".")
        place = table
        for part in path:
            place = place.setdefault(part, {})
            if not isinstance(place, dict):
                raise InputError(f"sweep names {key!r}, but {part!r} is no table")
        place[last] = value
    return Member(name, settings, load_config(table))


def _merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``base`` with ``changes``, tables merged; a member's own arithmetic replaces the base's."""
    merged = copy.deepcopy(dict(base))
    if any(key in changes for key in _ARITHMETIC):
        merged = {key: value for key, value in merged.items() if key not in _ARITHMETIC or key in changes}
    for key, value in changes.items():
        known = merged.get(key)
        both = isinstance(known, Mapping) and isinstance(value, Mapping)
        merged[key] = _merge(known, value) if both and known is not None else copy.deepcopy(value)
    return merged


def _short(value: Any) -> str:
    return "+".join(map(str, value)) if isinstance(value, list) else str(value)


def run_member(config: str, folder: str) -> dict[str, Any]:
    """Train one member; what an executor's worker is given."""
    from partialsum.experiments.train import train

    return train(load_config(config), folder)


def run_sweep(
    sweep: Sweep, folder: Path, executors: MakeExecutor, *, threads: int = 1, notify: Notify | None = None
) -> list[dict[str, Any]]:
    """Run all members of a sweep and return their results, in the members' order.

    Finished runs are not run again; others continue from their checkpoints. Where a worker dies and takes its pool
    with it, a new pool is made and the runs that were lost continue.

    Args:
        sweep: The sweep.
        folder: Where the runs' folders are; workers on other machines must see it under the same name.
        executors: Makes an executor, as a context manager.
        threads: Processor threads of a run that does not say itself.
        notify: Told every few seconds how far the sweep is.
    """
    folder = folder.resolve()
    results: dict[int, dict[str, Any]] = {}
    watch = _Watch(sweep, folder, notify)
    restarts = 0
    while len(results) < len(sweep.members):
        before = len(results)
        try:
            with executors() as pool:
                _collect(sweep, folder, pool, threads, results, watch)
        except BrokenExecutor as error:
            restarts = restarts + 1 if len(results) == before else 0
            if restarts > _RESTARTS:
                raise InputError(f"the sweep's workers die again and again: {error}") from error
    return [results[index] for index in range(len(sweep.members))]


def _collect(
    sweep: Sweep, folder: Path, pool: Executor, threads: int, results: dict[int, dict[str, Any]], watch: _Watch
) -> None:
    futures: dict[Future[dict[str, Any]], int] = {}
    for index, member in enumerate(sweep.members):
        if index not in results:
            config = with_threads(member.config, threads)
            futures[pool.submit(run_member, config.to_toml(), str(folder / member.folder))] = index
    pending = set(futures)
    try:
        while pending:
            done, pending = wait(pending, timeout=_POLL_S, return_when="FIRST_COMPLETED")
            for future in done:
                results[futures[future]] = future.result()
                watch.finished(sweep.members[futures[future]], results)
            watch.look(results)
    except BaseException:
        for future in pending:
            future.cancel()
        raise


def with_threads(config: RunConfig, threads: int) -> RunConfig:
    """Return the configuration with a number of threads, unless it has one."""
    if config.training.threads:
        return config
    return replace(config, training=replace(config.training, threads=threads))


class _Watch:
    """Tells how far a sweep is, reading the runs' metrics as they grow."""

    def __init__(self, sweep: Sweep, folder: Path, notify: Notify | None) -> None:
        self._sweep, self._folder, self._notify = sweep, folder, notify
        self._begun = time.monotonic()
        self._found = 0 if notify is None else self._steps({})

    def finished(self, member: Member, results: Mapping[int, dict[str, Any]]) -> None:
        if self._notify is not None:
            self._tell(results, (member, list(results.values())[-1]))

    def look(self, results: Mapping[int, dict[str, Any]]) -> None:
        if self._notify is not None:
            self._tell(results, None)

    def _tell(self, results: Mapping[int, dict[str, Any]], latest: tuple[Member, dict[str, Any]] | None) -> None:
        members = self._sweep.members
        everything = sum(member.config.training.steps for member in members)
        seconds = time.monotonic() - self._begun
        assert self._notify is not None
        self._notify(
            Status(len(members), len(results), self._steps(results), everything, seconds, latest, self._found)
        )

    def _steps(self, results: Mapping[int, dict[str, Any]]) -> int:
        steps = 0
        for index, member in enumerate(self._sweep.members):
            of_all, folder = member.config.training.steps, self._folder / member.folder
            ended = index in results or (folder / "result.json").exists()  # a diverged run ends early
            steps += of_all if ended else min(_last_step(folder), of_all)
        return steps


def _last_step(folder: Path) -> int:
    from partialsum.experiments.folder import RunFolder

    entries = RunFolder(folder).metrics()
    return int(entries[-1]["step"]) if entries else 0
