"""TensorBoard's event files, where TensorBoard is installed."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class Events:
    """Numbers over steps for TensorBoard; without a writer, nothing."""

    def __init__(self, writer: Any = None) -> None:
        self._writer = writer

    def add(self, step: int, values: dict[str, Any]) -> None:
        """Add every number of ``values`` at ``step``."""
        for name, value in values.items() if self._writer is not None else ():
            if isinstance(value, int | float):
                self._writer.add_scalar(name, value, step)


@contextmanager
def open_events(folder: Path, step: int, *, wanted: bool = True) -> Iterator[Events]:
    """Write to ``folder/tensorboard`` if TensorBoard is installed; what is behind ``step`` is shown no more."""
    if not wanted or importlib.util.find_spec("tensorboard") is None:
        yield Events()
        return
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(folder / "tensorboard"), purge_step=step) as writer:
        yield Events(writer)
