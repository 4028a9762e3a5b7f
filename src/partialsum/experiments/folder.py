"""A run's folder: configuration, metrics, checkpoints, result. Read as data only; nothing in it is ever executed."""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import re
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from partialsum.errors import InputError
from partialsum.experiments.config import RunConfig, load_config
from partialsum.files import write_atomically

_KEPT = 2
"""Checkpoints: the newest, and one to fall back to."""

_PATIENCE_S = 20.0
"""How long to wait for another process to let go of a folder; a killed one lets go at once."""

_CHECKPOINT = re.compile(r"step-(\d+)-([0-9a-f]{16})\.pt")


class RunFolder:
    """The files of one run. A checkpoint's name carries its content's hash, so damage is noticed before loading."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.metrics_path = path / "metrics.jsonl"

    def open(self, config: RunConfig) -> None:
        """Make the folder, or check that it is the same run's; raises :class:`InputError` where it is not."""
        self.path.mkdir(parents=True, exist_ok=True)
        place = self.path / "config.toml"
        if place.exists():
            if load_config(place).digest() != config.digest():
                raise InputError(
                    f"run folder {str(self.path)!r} holds a run with another configuration; name another folder, or "
                    "remove it"
                )
        else:
            write_atomically(place, config.to_toml())

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other processes out; a lock dies with its process, however that ends."""
        with (self.path / ".lock").open("w") as file:
            waited_until = time.monotonic() + _PATIENCE_S
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > waited_until:
                        raise InputError(f"run folder {str(self.path)!r} is in use by another process") from None
                    time.sleep(0.2)
            yield

    def result(self) -> dict[str, Any] | None:
        """Return the result of a finished run, None for one that is not."""
        try:
            found: dict[str, Any] = json.loads((self.path / "result.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise InputError(
                f"cannot read {str(self.path / 'result.json')!r}: {error}; remove it to go on"
            ) from None
        return found

    def write(self, name: str, content: dict[str, Any]) -> None:
        """Write a JSON file."""
        write_atomically(self.path / name, json.dumps(content, indent=2) + "\n")

    def save(self, step: int, state: dict[str, Any], name: str | None = None) -> None:
        """Write a checkpoint (or, with a ``name``, weights to keep), and remove all but the newest two."""
        buffer = io.BytesIO()
        torch.save(state, buffer)
        raw = buffer.getvalue()
        if name is not None:
            write_atomically(self.path / name, raw)
            return
        write_atomically(self.path / f"step-{step:08d}-{_hash(raw)}.pt", raw)
        for path in self._checkpoints()[_KEPT:]:
            path.unlink(missing_ok=True)

    def load(self) -> dict[str, Any] | None:
        """Return the newest checkpoint that is whole; a damaged one is passed over with a warning."""
        for path in self._checkpoints():
            match = _CHECKPOINT.fullmatch(path.name)
            try:
                raw = path.read_bytes()
                if match is None or _hash(raw) != match[2]:
                    raise ValueError("its content does not have the hash that its name gives")
                state: dict[str, Any] = torch.load(io.BytesIO(raw), weights_only=True)
            except Exception as error:  # damaged files fail in any way
                warnings.warn(
                    f"checkpoint {path.name} is damaged ({error}); going back to the one before", stacklevel=2
                )
                continue
            return state
        return None

    def drop_checkpoints(self) -> None:
        """Remove all checkpoints, once the run is finished."""
        for path in self._checkpoints():
            path.unlink(missing_ok=True)

    def _checkpoints(self) -> list[Path]:
        found = (path for path in self.path.glob("step-*.pt") if _CHECKPOINT.fullmatch(path.name))
        return sorted(found, key=lambda path: (path.name.split("-")[1], path.stat().st_mtime_ns), reverse=True)

    def log(self, entry: dict[str, Any]) -> None:
        """Append a line to the metrics."""
        with self.metrics_path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")

    def metrics(self) -> list[dict[str, Any]]:
        """Return the metrics; a last line that a killed run left half-written is left out."""
        if not self.metrics_path.exists():
            return []
        entries = []
        for line in self.metrics_path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                entries.append(json.loads(line))
            except ValueError:
                break
        return entries

    def rewind(self, step: int) -> None:
        """Forget metrics behind ``step``: the run goes on from there and writes them again."""
        kept = [json.dumps(entry) + "\n" for entry in self.metrics() if entry["step"] <= step]
        write_atomically(self.metrics_path, "".join(kept))


def _hash(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()[:16]
