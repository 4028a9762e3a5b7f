"""Running the command line inside the test's process."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from commands import Ran, Run
from partialsum.cli import main


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command in this process, as the installed script would."""

    def run_here(*arguments: str | Path) -> Ran:
        monkeypatch.setattr(sys, "argv", ["partialsum", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        code = ended.value.code
        return Ran(code if isinstance(code, int) else 0, *capsys.readouterr())

    return run_here
