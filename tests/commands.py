"""How a command of the command line ended, for tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple


class Ran(NamedTuple):
    """How a command ended."""

    returncode: int
    stdout: str
    stderr: str

    def assert_refused(self, sentence: str) -> None:
        """One sentence on stderr, nothing on stdout, exit status 2."""
        assert self.returncode == 2
        assert self.stdout == ""
        assert self.stderr.startswith("partialsum: ")
        assert sentence in self.stderr
        assert self.stderr.count("\n") == 1


Run = Callable[..., Ran]
