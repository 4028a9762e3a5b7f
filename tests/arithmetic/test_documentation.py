"""The examples of docs/arithmetic.md give what the page shows."""

from __future__ import annotations

import doctest
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "arithmetic.md"


def test_examples_of_the_page_on_arithmetic_run() -> None:
    text = PAGE.read_text()
    examples = doctest.DocTestParser().get_doctest(text.replace("\n```", "\n\n"), {}, PAGE.name, str(PAGE), 0)
    assert len(examples.examples) > 40
    report: list[str] = []
    results = doctest.DocTestRunner(verbose=False).run(examples, out=report.append)
    if results.failed:
        pytest.fail("".join(report))
