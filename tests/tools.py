"""Tools that are not Python packages: a test needs them, skips without them, and fails without them in the gate."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from pathlib import Path
from types import ModuleType

import pytest

REQUIRED = "PARTIALSUM_REQUIRE_TOOLS"
"""Environment variable under which a missing tool is a failure, so that no skip goes unseen."""


def has_tool(name: str) -> bool:
    """Return whether a program is on PATH or, for a dotted or underscored name, a Python package is installed."""
    return shutil.which(name) is not None or ("-" not in name and _is_package(name))


def _is_package(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # the parent of a dotted name is missing
        return False


def require_tool(name: str) -> None:
    """Skip the test where the tool is missing; fail it where ``PARTIALSUM_REQUIRE_TOOLS`` is set."""
    if not has_tool(name):
        _missing(name)


def require_file(path: Path) -> None:
    """Do the same for a file that a Debian package brings."""
    if not path.exists():
        _missing(str(path))


def _missing(what: str) -> None:
    if os.environ.get(REQUIRED):
        pytest.fail(f"{what} is missing, and {REQUIRED} is set", pytrace=False)
    pytest.skip(f"{what} is missing")


def load_script(path: str) -> ModuleType:
    """Return a script of this repository as a module; ``path`` is relative to the root."""
    place = Path(__file__).parents[1] / path
    spec = importlib.util.spec_from_file_location(f"script_{place.stem}", place)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module
