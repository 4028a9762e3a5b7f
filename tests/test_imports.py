"""The direction of imports, read from the source, and what the light commands must not load."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import partialsum

PACKAGE = Path(partialsum.__file__).parent
MODULES = {
    ".".join(("partialsum", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}
CHAIN = ("formats", "accumulators", "arithmetic", "emulation", "experiments")
FOUNDATION = {"errors", "choices", "files"}
TORCH_FREE = ("theory", "hardware", "formats", "accumulators", *sorted(FOUNDATION))
MAY_USE_TORCH = {f"partialsum.theory.{name}" for name in ("drawing", "montecarlo", "sampling")}
REFERENCE = {f"partialsum.arithmetic.{name}" for name in ("random", "reference", "reference_aligned", "rounding")}
"""The exact reference, plain Python: what hardware is tested against, and the only arithmetic it may import."""
ITSELF = {"partialsum.arithmetic"}
KERNELS = {"partialsum.arithmetic.error_moments"}
"""The one thing of arithmetic that the theory's evolution uses: moments of many rounding errors, natively."""


def imported_modules(name: str) -> Iterator[str]:
    """Every module that a module's source imports anywhere, functions included, with full dotted names."""
    tree = ast.parse(MODULES[name].read_text(encoding="utf-8"))
    package = name if MODULES[name].name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parent = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parent, *([node.module] if node.module else [])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names if f"{base}.{alias.name}" in MODULES)
            yield from (f"{base}.{alias.name}" for alias in node.names if alias.name.startswith("_native"))


def room(module: str) -> str:
    """The part of the package a module lies in: ``partialsum.theory.solver`` lies in ``theory``."""
    parts = module.split(".")
    return parts[1] if parts[0] == "partialsum" and len(parts) > 1 else ""


def rooms_used(name: str) -> set[str]:
    return {room(module) for module in imported_modules(name)} - {"", room(name)}


def inside() -> list[str]:
    """All modules but the package's own front door, which names everything."""
    return [name for name in MODULES if name != "partialsum"]


def test_all_modules_are_seen() -> None:
    assert {"partialsum.formats", "partialsum.report.analysis", "partialsum.cli.analyze"} <= set(MODULES)
    assert "partialsum.errors" in set(imported_modules("partialsum.formats"))
    assert "report" in rooms_used("partialsum.cli.analyze")


@pytest.mark.parametrize("name", inside())
def test_imports_point_one_way(name: str) -> None:
    own, used = room(name), rooms_used(name)
    if own != "cli" and name != "partialsum.__main__":
        assert "cli" not in used
    if own in FOUNDATION:
        assert used <= FOUNDATION
    if own in CHAIN:
        assert not used & set(CHAIN[CHAIN.index(own) + 1 :])
    if own in CHAIN[:-1]:  # experiments take their predicted widths from an analysis and draw with its style
        assert "report" not in used
    if own == "theory":
        assert not used & {"workloads", "emulation", "experiments", "hardware", "report"}
    if own == "workloads":
        assert not used & {"theory", "arithmetic", "emulation", "experiments", "hardware", "report"}
    if own == "hardware":
        assert not used & {"theory", "workloads", "emulation", "experiments", "report"}
        assert {m for m in imported_modules(name) if room(m) == "arithmetic"} <= REFERENCE | ITSELF
    if {"theory", "workloads"} <= used | {own}:
        assert own in {"report", "cli"}


@pytest.mark.parametrize("name", [n for n in inside() if room(n) in TORCH_FREE and n not in MAY_USE_TORCH])
def test_theory_and_hardware_never_import_torch(name: str) -> None:
    assert not {module for module in imported_modules(name) if module.split(".")[0] in {"torch", "transformers"}}
    light = {"hardware": REFERENCE | ITSELF, "theory": KERNELS}.get(room(name), set())
    rooms = {room(module) for module in imported_modules(name) if module not in light}
    assert not rooms & {"arithmetic", "emulation", "workloads"}


@pytest.mark.parametrize("name", [*sorted(KERNELS), "partialsum.arithmetic.native"])
def test_kernels_of_the_theory_need_no_torch(name: str) -> None:
    assert not {module for module in imported_modules(name) if module.split(".")[0] in {"torch", "transformers"}}


@pytest.mark.parametrize("name", sorted(REFERENCE))
def test_the_reference_stays_light(name: str) -> None:
    used = {module for module in imported_modules(name) if room(module) == "arithmetic"}
    assert used <= REFERENCE | ITSELF | {
        "partialsum.arithmetic.reference_blocks",
        "partialsum.arithmetic.reference_dots",
    }
    assert not {module for module in imported_modules(name) if module.split(".")[0] in {"torch", "transformers"}}


@pytest.mark.parametrize("name", [n for n in inside() if room(n) != "arithmetic"])
def test_only_arithmetic_imports_the_native_module(name: str) -> None:
    assert not [module for module in imported_modules(name) if module.rpartition(".")[2].startswith("_native")]


@pytest.mark.parametrize(
    "statement",
    [
        "import partialsum; partialsum.parse_format('e6m9')",
        "import partialsum.cli; partialsum.cli.app(['formats'], standalone_mode=False)",
        "import partialsum.cli; partialsum.cli.app(['bits', '4096'], standalone_mode=False)",
        "import partialsum; partialsum.analyze",
    ],
)
def test_light_uses_do_not_load_torch_or_drawing(statement: str) -> None:
    heavy = "{'torch', 'transformers', 'onnx', 'matplotlib', 'jinja2'} & set(sys.modules)"
    code = f"import sys; {statement}; found = {heavy}; print(found, file=sys.stderr); sys.exit(bool(found))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr
