"""Sphinx configuration: ``sphinx-build -W docs build/docs`` with the ``docs`` extra installed."""

from __future__ import annotations

from pathlib import Path

import partialsum

project = "partialsum"
author = "The partialsum authors"
project_copyright = author
release = version = partialsum.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.mathjax"]
myst_enable_extensions = ["dollarmath", "deflist"]
myst_heading_anchors = 3
exclude_patterns = ["data"]
html_theme = "furo"
html_title = "partialsum"

autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_type_aliases = {name: name for name in ("AnyAccumulator", "Array", "Format", "Inputs", "Product", "Window")}
add_module_names = False

ROOMS = {
    "accumulators": "Accumulators",
    "arithmetic": "Arithmetic",
    "emulation": "Emulation",
    "errors": "Errors",
    "experiments": "Experiments",
    "formats": "Formats",
    "hardware": "Hardware",
    "measurement": "Measurement",
    "report": "Reports",
    "theory": "Theory",
    "workloads": "Workloads",
}


def write_reference(_app: object) -> None:
    """Write one page of the reference per room, from the table of public names."""
    folder = Path(__file__).parent / "reference"
    folder.mkdir(exist_ok=True)
    for room, title in ROOMS.items():
        names = [name for name, home in partialsum._HOMES.items() if home.split(".")[0] == room]
        if names:
            (folder / f"{room}.md").write_text(page(title, names))


def page(title: str, names: list[str]) -> str:
    """Return the page of one room: what autodoc says of each of its public names."""
    parts = [f"# {title}\n"]
    for name in names:
        value = getattr(partialsum, name)
        kind = "class" if isinstance(value, type) else "function" if callable(value) else "data"
        options = "   :members:\n" if kind == "class" else ""
        parts.append(f"```{{eval-rst}}\n.. auto{kind}:: {value_path(name, value)}\n{options}```\n")
    return "\n".join(parts)


def value_path(name: str, value: object) -> str:
    """Return where ``name`` is defined, which is where autodoc finds its docstring."""
    home = f"partialsum.{partialsum._HOMES[name]}"
    return f"{getattr(value, '__module__', None) or home}.{name}" if isinstance(value, type) else f"{home}.{name}"


def setup(app: object) -> None:
    """Register the reference's writer."""
    app.connect("builder-inited", write_reference)  # type: ignore[attr-defined]
