"""The explorer's tables: what :func:`partialsum.predict` says at every knot, computed once and kept."""

from __future__ import annotations

import hashlib
import io
import os
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, as_completed
from importlib.resources import files
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from partialsum.errors import InputError
from partialsum.files import write_atomically
from partialsum.report.explorer.grid import Curve, Grid, knots
from partialsum.report.snr_rows import NO_ERROR_DB
from partialsum.theory.predict import predict

Codes = NDArray[np.int16]
"""[quantities, knots]: what the page holds of a curve, as whole numbers of :data:`STEPS`."""

QUANTITIES = ("snr_db", "gain", "vrr")
STEPS = (0.01, 1e-4, 1e-4)
"""One unit of a code, by quantity: dB, and shares."""

STATED_FROM, STATED_UP_TO_DB = 64, 100.0
"""Sums of so many products and more, of no higher SNR, are those for which the page states its error."""

CHECKED_DB, CHECKED_SHARE = 0.05, 0.005
"""How far a table made by another version of the theory may lie from what this one predicts, to be taken as it is."""

_LIMIT = np.iinfo(np.int16).max
_PROBES = 5
_KEEP_EVERY = 8
_THEORY = ("theory", "formats.py", "accumulators.py")

Told = Callable[[int, int], None]
"""Is told how many curves of how many have been computed."""


def compute(curve: Curve) -> Codes:
    """Return the codes of one curve. An SNR of 160 dB or more means that no error can be told."""
    found = predict(knots(), curve.accumulator, curve.product)
    snr = np.minimum(np.nan_to_num(np.asarray(found.snr_db), nan=NO_ERROR_DB, posinf=NO_ERROR_DB), NO_ERROR_DB)
    values = np.stack([snr, np.asarray(found.gain), np.asarray(found.vrr)])
    codes: Codes = np.clip(np.rint(values / np.array(STEPS)[:, None]), -_LIMIT, _LIMIT).astype(np.int16)
    return codes


def compute_group(curves: Sequence[Curve]) -> list[Codes]:
    """Return the codes of curves that share their way; the work of one process."""
    return [compute(curve) for curve in curves]


def tabulate(
    grid: Grid, *, executor: Executor | None = None, told: Told | None = None, keep: bool = True
) -> dict[str, Codes]:
    """Return the codes of every curve of the grid, by name.

    What is packaged or was kept by an earlier call is read; the rest is computed, in ``executor`` where one is given,
    and kept in the user's cache unless ``keep`` is False.
    """
    groups = list(grid.groups())
    found = _known(groups) if keep else {}
    to_do = [own for group in groups if (own := [curve for curve in group if curve.name not in found])]
    total, done = sum(map(len, to_do)), 0
    if told is not None and total:
        told(0, total)
    for count, (group, codes) in enumerate(_compute_all(to_do, executor), 1):
        found |= {curve.name: own for curve, own in zip(group, codes, strict=True)}
        done += len(group)
        if told is not None:
            told(done, total)
        if keep and (count % _KEEP_EVERY == 0 or done == total):
            _keep(found)
    return found


def _known(groups: Sequence[Sequence[Curve]]) -> dict[str, Codes]:
    """Return the wanted tables that were kept or packaged."""
    wanted = {curve.name: curve for group in groups for curve in group}
    found = _read(_cache_file())
    found |= _packaged([curve for name, curve in wanted.items() if name not in found])
    return {name: codes for name, codes in found.items() if name in wanted}


def _compute_all(
    groups: Sequence[Sequence[Curve]], executor: Executor | None
) -> Iterator[tuple[Sequence[Curve], list[Codes]]]:
    if executor is None:
        yield from ((group, compute_group(group)) for group in groups)
        return
    running = {executor.submit(compute_group, group): group for group in groups}
    for future in as_completed(running):
        yield running[future], future.result()


def write_tables(path: str | os.PathLike[str], tables: dict[str, Codes]) -> None:
    """Write tables as one file, the same for the same tables."""
    names = sorted(tables)
    buffer = io.BytesIO()
    codes = np.stack([tables[name] for name in names])
    np.savez_compressed(
        buffer,
        digest=np.array(theory_digest()),
        knots=knots(),
        names=np.array(names),
        # neighbours differ by little, and little numbers pack well
        codes=np.diff(codes, axis=-1, prepend=np.int16(0)),
    )
    write_atomically(path, buffer.getvalue())


def _read(path: Path) -> dict[str, Codes]:
    """Return the tables of a file; none where it is missing, damaged, or has other knots."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as data:
            if not np.array_equal(data["knots"], knots()):
                return {}
            codes = np.cumsum(data["codes"], axis=-1, dtype=np.int16)
            return dict(zip(data["names"].tolist(), codes, strict=True))
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        return {}


def _packaged(wanted: Iterable[Curve]) -> dict[str, Codes]:
    """Return the tables that came with the package, if they are what the theory says today."""
    resource = files("partialsum.report.explorer") / "tables.npz"
    if not isinstance(resource, Path) or not resource.exists():
        return {}
    tables = _read(resource)
    with resource.open("rb") as file, np.load(file, allow_pickle=False) as data:
        current = str(data["digest"]) == theory_digest()
    known = [curve for curve in wanted if curve.name in tables]
    if not known:
        return {}
    probes = known[:: max(1, len(known) // _PROBES)]
    return tables if current or all(agree(compute(curve), tables[curve.name]) for curve in probes) else {}


def agree(codes: Codes, others: Codes) -> bool:
    """Return whether two versions of a curve tell a reader the same, where the page says how exact it is."""
    difference = np.abs(codes.astype(np.float64) - others) * np.array(STEPS)[:, None]
    told = (knots() >= STATED_FROM) & (codes[0] * STEPS[0] <= STATED_UP_TO_DB)
    return bool((difference[:, told] <= np.array([CHECKED_DB, CHECKED_SHARE, CHECKED_SHARE])[:, None]).all())


def _keep(tables: dict[str, Codes]) -> None:
    """Add tables to the user's cache; without it the next page only takes longer."""
    path = _cache_file()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_tables(path, _read(path) | tables)
    except (OSError, InputError):
        return


def _cache_file() -> Path:
    """Return where computed tables are kept: in ``$PARTIALSUM_CACHE``, or ``partialsum`` in the user's cache folder."""
    chosen = os.environ.get("PARTIALSUM_CACHE")
    base = (
        Path(chosen) if chosen else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "partialsum"
    )
    return base / "explorer" / f"{theory_digest()[:16]}.npz"


def theory_digest() -> str:
    """Return a digest of the source that predictions come from: kept tables are for this theory only."""
    root = files("partialsum")
    digest = hashlib.sha256()
    for name in _THEORY:
        place = root / name
        parts = sorted(place.iterdir(), key=lambda part: part.name) if place.is_dir() else [place]
        for part in parts:
            if part.name.endswith(".py"):
                digest.update(part.name.encode() + b"\0" + part.read_bytes())
    return digest.hexdigest()
