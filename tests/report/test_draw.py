"""The page and the text: well-formed, self-contained, escaped, and saying what the numbers say."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise

import pytest

from bitcal_integrations.report import draw_html, draw_markdown, prepare_evaluation
from bitcal_integrations.types import Confidence, Labelled

Row = Callable[..., Labelled]
VOID = {"meta", "br"}
CERTIFICATE = {
    "threshold": 0.6, "coverage": 0.7, "max_error": 0.35, "delta": 0.1, "n": 500,
    "label_source": "labels",
}  # fmt: skip
NONE = {"threshold": None, "max_error": 0.01, "delta": 0.1, "n": 500, "nearest": 0.07,
        "labels_needed": 2300, "label_source": "labels", "reason": "too few labels"}  # fmt: skip
HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&|`*_[a](b) \x00\ud800"


class Page(HTMLParser):
    """Reads a page and keeps its tags, attributes and text; every tag must be closed in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.style = ""
        self.feed(html)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        assert len(dict(attrs)) == len(attrs), (tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "style":
            self.style += data
        else:
            self.text += data

    def names(self, *wanted: str) -> list[str]:
        return [tag for tag, _ in self.tags if tag in wanted]

    def assert_it_stands_alone(self) -> None:
        """Nothing is loaded from elsewhere, and nothing runs."""
        assert not self.names("script", "link", "img", "iframe", "object", "a", "form")
        used = {name for _, attributes in self.tags for name in attributes}
        assert not {"src", "href", "xlink:href", "style", "srcset"} & used
        assert not [name for name in used if name.startswith("on")]
        assert not re.search(r"url\(|@import|http", self.style)


@pytest.fixture(scope="module")
def page(many: list[Labelled]) -> Page:
    profile = {"model": "bitcal-tiny", "counts": {"fit": 10}}
    return Page(draw_html(prepare_evaluation(many, [CERTIFICATE, NONE], profile, "A run")))


def test_nothing_is_loaded_and_nothing_runs(page: Page) -> None:
    page.assert_it_stands_alone()


def test_it_can_be_read_without_eyes(page: Page) -> None:
    levels = [int(h[1]) for h in page.names("h1", "h2", "h3", "h4")]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b - a <= 1 for a, b in pairwise(levels))
    charts = [a for tag, a in page.tags if tag == "svg" and a.get("aria-hidden") != "true"]
    assert len(charts) == 6
    assert all(a["role"] == "img" and a["aria-label"] for a in charts)
    tables = [a for tag, a in page.tags if tag == "table"]
    assert all(a["role"] == "table" and a["aria-label"] for a in tables)
    assert all(a["scope"] in ("col", "row") for tag, a in page.tags if tag == "th")
    assert ("html", {"lang": "en"}) in page.tags


def test_it_fits_a_phone_and_the_dark(page: Page) -> None:
    assert any(a.get("name") == "viewport" for tag, a in page.tags if tag == "meta")
    assert "prefers-color-scheme: dark" in page.style
    assert "max-width: 800px" in page.style


def test_every_class_that_is_drawn_has_a_style(page: Page) -> None:
    used = {c for _, a in page.tags for c in (a.get("class") or "").split()}
    assert used <= set(re.findall(r"\.([a-z]+)", page.style))


def test_no_number_of_a_drawing_is_broken(page: Page) -> None:
    points = " ".join(v or "" for _, a in page.tags for k, v in a.items() if k in ("points", "d"))
    assert points
    assert not re.search("nan|inf", points)


def test_what_the_page_says(page: Page) -> None:
    text = " ".join(page.text.split())
    for said in (
        "Accept an answer if its confidence is at least 0.6000. With probability at least 90%, "
        "at most 35% of the accepted answers are wrong.",
        "Evidence: 500 labelled answers, delta 0.1, label source: labels",
        "No threshold could be certified for an error of 1%. Too few labels.",
        "The smallest error rate that labels like these could certify is 7%",
        "For 1% about 2,300 labels are needed.",
        "Calibrated confidence beats the raw score",
        "The confidence is the probability that an answer is right.",
        "no_answer: the text was cut at max_new_tokens",
        "14 unjudged",
        "24 with unknown confidence",
    ):
        assert said in text.replace(".No", ". No").replace(".Too", ". Too"), said


def test_a_teachers_answers_are_never_called_right(many: list[Labelled]) -> None:
    teacher = {"label_source": "teacher: big-model"}
    e = prepare_evaluation(many[:80], [{**CERTIFICATE, **teacher}, {**NONE, **teacher}], teacher)
    for text in (Page(draw_html(e)).text, draw_markdown(e)):
        assert "at most 35% of the accepted answers disagree with big-model" in text
        assert "The confidence is the probability that an answer agrees with big-model." in text
        honest = text.replace("Nothing is promised about being right", "")
        assert not re.search(r"\bright\b|\bwrong\b|\baccuracy\b", honest)


def hostile(row: Row) -> list[Labelled]:
    first = row(
        0.9, False, id=HOSTILE, group=HOSTILE, prompt=HOSTILE, text=HOSTILE, answer=HOSTILE,
        gold=HOSTILE, task=HOSTILE, weights=HOSTILE, by={HOSTILE: HOSTILE},
    )  # fmt: skip
    unknown = replace(first, id="x", confidence=Confidence(reason=HOSTILE))
    return [first, unknown]


def test_what_a_model_or_user_wrote_is_escaped(row: Row) -> None:
    source = {"label_source": f"teacher: {HOSTILE}", "reason": HOSTILE, "threshold": None}
    e = prepare_evaluation(hostile(row), [source], {HOSTILE: HOSTILE}, HOSTILE)
    html = draw_html(e)
    read = Page(html)
    assert not read.names("script", "img")
    assert read.text.count("<script>alert(1)</script>") > 10
    assert not [a for _, a in read.tags if "onerror" in a]
    html.encode("utf-8")
    assert not re.search("[\x00-\x08]", html)


def test_markdown_is_escaped_and_its_tables_are_whole(row: Row) -> None:
    source = {"label_source": f"teacher: {HOSTILE}", "reason": HOSTILE, "threshold": None}
    text = draw_markdown(prepare_evaluation(hostile(row), [source], {HOSTILE: HOSTILE}, HOSTILE))
    text.encode("utf-8")
    assert not re.search(r"(?<!\\)<", text)
    assert not re.search(r"(?<!\\)\]\(", text)
    for table in re.findall(r"(?:^\|.*\n?)+", text, re.MULTILINE):
        cells = {len(re.findall(r"(?<!\\)\|", line)) for line in table.strip().split("\n")}
        assert len(cells) == 1


@pytest.mark.parametrize("n", [0, 1, 2])
@pytest.mark.parametrize("correct", [True, False, None])
@pytest.mark.parametrize("value", [0.0, 0.7, 1.0, None])
def test_little_data_is_drawn(row: Row, n: int, correct: bool | None, value: float | None) -> None:
    e = prepare_evaluation([row(value, correct) for _ in range(n)], [CERTIFICATE, NONE])
    html, text = draw_html(e), draw_markdown(e)
    Page(html)
    for out in (html, text):
        assert not re.search(r"\bnan\b|\bNone\b|\binf\b", out)


def test_nothing_is_claimed_where_nothing_is_calibrated(row: Row) -> None:
    e = prepare_evaluation([row(None, True, raw=0.4)])
    assert "Nothing: no answer here has a calibrated confidence." in draw_markdown(e)
    assert "probability that an answer" not in draw_html(e)


def test_a_broken_promise_is_said(row: Row) -> None:
    rows = [row(0.9, i % 2 == 0) for i in range(100)]
    text = draw_markdown(prepare_evaluation(rows, [{**CERTIFICATE, "max_error": 0.1}]))
    assert "clearly more than promised" in text


def test_the_same_numbers_give_the_same_page(many: list[Labelled]) -> None:
    first, again = (prepare_evaluation(many[:80], [CERTIFICATE]) for _ in range(2))
    assert draw_html(first) == draw_html(again)
    assert draw_markdown(first) == draw_markdown(again)
