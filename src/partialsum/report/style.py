"""How figures look: colours that colour-blind readers can tell apart, type, and writing to SVG, PNG and PDF."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from partialsum.errors import InputError
from partialsum.workloads.gemm import Pass

PASS_COLOURS = {Pass.FORWARD: "#0072B2", Pass.GRAD_INPUT: "#009E73", Pass.GRAD_WEIGHT: "#D55E00"}
"""Okabe and Ito's blue, bluish green and vermilion: distinct with every common colour-vision deficiency."""

COLOURS_OF_SERIES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8c564b", "#66707a")
"""Okabe and Ito's, which colour-blind readers can tell apart, and two more."""

INK = "#1b1f24"
MUTED = "#66707a"
FAINT = "#e3e6e9"

SUFFIXES = (".svg", ".png", ".pdf")
"""File types a figure can be written as."""

_SETTINGS: dict[str, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["Helvetica Neue", "Helvetica", "Arial", "Liberation Sans", "DejaVu Sans"],
    "font.size": 9.0,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "svg.fonttype": "none",  # text stays text: it can be searched, selected and read aloud
    "svg.hashsalt": "partialsum",  # the same figure gives the same file
    "pdf.fonttype": 42,
    "savefig.dpi": 200,
}
_SVG = "http://www.w3.org/2000/svg"
_XLINK = "http://www.w3.org/1999/xlink"
_UNWANTED = (f"{{{_SVG}}}metadata", f"{{{_SVG}}}style")
_REFERENCE = re.compile(r"url\(#([^)]+)\)")


@contextmanager
def figure_style() -> Iterator[None]:
    """Draw and write figures inside this context; matplotlib's settings are the caller's own again afterwards."""
    import matplotlib as mpl

    with mpl.rc_context(_SETTINGS):
        yield


def check_figure_path(path: str | Path) -> Path:
    """Return ``path`` if its ending names a file type that a figure can be written as."""
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(f"a figure's file name must end in {', '.join(SUFFIXES)}, got {str(path)!r}")
    return path


def figure_bytes(figure: Any, kind: str) -> bytes:
    """Return a figure as the bytes of an ``svg``, ``png`` or ``pdf`` file, the same each time."""
    buffer = io.BytesIO()
    metadata = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(kind)
    with figure_style():
        figure.savefig(buffer, format=kind, metadata=metadata)
    return buffer.getvalue()


def inline_svg(figure: Any, *, prefix: str, label: str) -> str:
    """Return a figure as an SVG element for an HTML page.

    Its ids get ``prefix``, so that several figures can share a page; ``label`` is what a screen reader says.
    """
    ElementTree.register_namespace("", _SVG)
    ElementTree.register_namespace("xlink", _XLINK)
    root = ElementTree.fromstring(figure_bytes(figure, "svg"))
    for element in list(root.iter()):
        for child in list(element):
            if child.tag in _UNWANTED:  # a <style> in the page would apply to all of it
                element.remove(child)
        for name, value in element.attrib.items():
            if name == "id":
                element.set(name, f"{prefix}-{value}")
            elif name in ("href", f"{{{_XLINK}}}href") and value.startswith("#"):
                element.set(name, f"#{prefix}-{value[1:]}")
            else:
                element.set(name, _REFERENCE.sub(rf"url(#{prefix}-\1)", value))
    for name in ("width", "height", "version"):
        root.attrib.pop(name, None)
    root.attrib |= {"role": "img", "aria-label": label, "stroke-linejoin": "round"}
    return ElementTree.tostring(root, encoding="unicode")
