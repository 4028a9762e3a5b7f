"""What a person sees of a run: a bar with loss, accuracy, images per second and the time left; lines off a terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

_LINE_EVERY_S = 30.0


class Progress(Protocol):
    """Told about every step and every evaluation."""

    def step(self, done: int, loss: float, rate: float) -> None:
        """``done`` steps are made, the mean loss is ``loss``, ``rate`` samples are trained on per second."""
        ...

    def evaluated(self, done: int, accuracy: float, loss: float) -> None:
        """The test split was looked at."""
        ...


class Silent:
    """Shows nothing."""

    def step(self, done: int, loss: float, rate: float) -> None:
        """Do nothing."""

    def evaluated(self, done: int, accuracy: float, loss: float) -> None:
        """Do nothing."""


class Lines:
    """A line on stderr now and then, for log files."""

    def __init__(self, name: str, steps: int) -> None:
        self._name, self._steps, self._last, self._begun = name, steps, time.monotonic(), time.monotonic()
        self._first: int | None = None

    def step(self, done: int, loss: float, rate: float) -> None:
        """Print a line where the last is some time ago."""
        now = time.monotonic()
        self._first = done - 1 if self._first is None else self._first
        if now - self._last >= _LINE_EVERY_S:
            self._last = now
            left = (now - self._begun) / (done - self._first) * (self._steps - done)
            text = f"loss {loss:.4f}, {rate:,.0f} samples/s, {left:.0f} s left"
            print(f"{self._name}: step {done} of {self._steps}, {text}", file=sys.stderr, flush=True)

    def evaluated(self, done: int, accuracy: float, loss: float) -> None:
        """Print a line."""
        text = f"test accuracy {100 * accuracy:.2f} %, test loss {loss:.4f}"
        print(f"{self._name}: step {done} of {self._steps}, {text}", file=sys.stderr, flush=True)


class Bar:
    """A bar on a terminal."""

    def __init__(self, bar: Any, task: Any) -> None:
        self._bar, self._task = bar, task

    def step(self, done: int, loss: float, rate: float) -> None:
        """Move the bar."""
        self._bar.update(self._task, completed=done, loss=f"{loss:.4f}", rate=f"{rate:,.0f}/s")

    def evaluated(self, done: int, accuracy: float, loss: float) -> None:
        """Show the accuracy."""
        self._bar.update(self._task, completed=done, accuracy=f"{100 * accuracy:.2f} %")


@contextmanager
def show_progress(name: str, steps: int) -> Iterator[Progress]:
    """Show a run's progress on stderr: a bar on a terminal, lines elsewhere."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress as RichProgress,
        TextColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    if not console.is_terminal:
        yield Lines(name, steps)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]}"),
        TextColumn("accuracy {task.fields[accuracy]}"),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with RichProgress(*columns, console=console) as bar:
        yield Bar(bar, bar.add_task(name, total=steps, loss="–", accuracy="–", rate="–"))
