"""The HTML page: self-contained, well formed, and no name in it is ever markup."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser

import pytest

import partialsum as ps
from networks import HOSTILE, hostile, small
from partialsum.report.network_cost import network_cost

VOID = {"meta", "wbr", "input", "br", "link", "img"}


class Page(HTMLParser):
    """Collects tags, texts and attributes, and checks that every element that opens also closes."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.stack: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(text)
        self.close()
        assert self.stack == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append((self.stack[-1] if self.stack else "", data))

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    def text_in(self, tag: str) -> list[str]:
        return [text for name, text in self.texts if name == tag]


@pytest.fixture(scope="module")
def page() -> Page:
    return Page(ps.analyze(small(), density=0.5).to_html(command="partialsum analyze small --html a.html"))


@pytest.fixture(scope="module")
def attacked() -> Page:
    return Page(ps.analyze(hostile()).to_html(command=f"partialsum analyze {HOSTILE}"))


def test_it_carries_the_numbers_the_figures_and_where_they_come_from(page: Page) -> None:
    text = " ".join(text for _, text in page.texts)
    report = ps.analyze(small(), density=0.5)
    assert f"One accumulator with {report.headline.shared.man_bits} mantissa bits" in text
    assert len(page.of("svg")) == 5
    assert all(svg["role"] == "img" and svg["aria-label"] for svg in page.of("svg"))
    assert "https://arxiv.org/abs/1901.06588" in {a["href"] for a in page.of("a")}
    for part in (*report.assumptions, *report.notes, ps.__version__, "partialsum analyze small --html a.html"):
        assert part in text
    cost = network_cost(report)
    priced = (1 + len(cost.options)) + (1 + len(cost.options[0].by_pass)) + (1 + len(cost.inference))
    assert len([tag for tag, _ in page.tags if tag == "tr"]) == (1 + 13) + priced


def test_nothing_is_fetched_and_only_the_packaged_script_runs(page: Page, attacked: Page) -> None:
    for found in (page, attacked):
        (script,) = found.text_in("script")
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        policy = next(m["content"] for m in found.of("meta") if m.get("http-equiv") == "Content-Security-Policy")
        assert policy is not None
        assert f"script-src 'sha256-{digest}'" in policy
        assert "default-src 'none'" in policy
        assert not {tag for tag, _ in found.tags} & {"img", "link", "iframe", "object", "embed", "base"}
        for _, attributes in found.tags:
            assert not [name for name in attributes if name.startswith("on") or name == "src"]
    assert page.text_in("script") == attacked.text_in("script")


def test_ids_are_unique_and_references_resolve(page: Page) -> None:
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    links = [
        v for _, a in page.tags for k, v in a.items() if k in {"href", "xlink:href"} and v and v.startswith("#")
    ]
    clips = [match for _, a in page.tags for v in a.values() for match in re.findall(r"url\(#([^)]+)\)", v or "")]
    assert clips or links
    assert {link[1:] for link in links} | set(clips) <= set(ids)


def test_hostile_names_stay_text_everywhere(attacked: Page) -> None:
    assert len(attacked.of("script")) == 1
    assert HOSTILE in "".join(attacked.text_in("title"))
    assert HOSTILE in "".join(attacked.text_in("h1"))
    assert any(HOSTILE in text for text in attacked.text_in("text")), "in an SVG label"
    assert HOSTILE in "".join(attacked.text_in("td"))
    assert sum(HOSTILE in text for text in attacked.text_in("li")) >= 2, "the note and the reason"
    assert any(HOSTILE in text for text in attacked.text_in("code"))
    assert "alert(1)" not in "".join(attacked.text_in("script"))


def test_the_data_can_be_taken_out_again(attacked: Page) -> None:
    report = ps.analyze(hostile())
    found = {a["download"]: a["href"] for a in attacked.of("a") if "download" in a}
    assert sorted(found) == [
        "net--script-alert-1---script-----x-2.csv",
        "net--script-alert-1---script-----x-2.json",
    ]
    for name, link in found.items():
        assert name is not None
        assert link is not None
        text = base64.b64decode(link.partition(",")[2]).decode()
        assert text == (report.to_csv() if name.endswith("csv") else report.to_json(indent=None))
    assert json.loads(report.to_json())["gemms"][-1]["layer"] == HOSTILE


def test_the_same_report_is_the_same_page() -> None:
    first, second = (ps.analyze(small()).to_html() for _ in range(2))
    assert first == second
