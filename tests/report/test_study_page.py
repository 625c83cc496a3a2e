"""A study's page, table and CSV: whole, self-contained, escaped, and all of the same numbers."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from study_help import questions, toy

from bitcal_integrations.errors import LoadError
from bitcal_integrations.paired import KEYS, Difference
from bitcal_integrations.report import _study_limits as limits
from bitcal_integrations.report import study_text as text
from bitcal_integrations.report.study import draw_study_html
from bitcal_integrations.report.words import fixed, percent
from bitcal_integrations.studied import Score, Study, on_front
from bitcal_integrations.study import study
from bitcal_integrations.testing.toy import ToyModel

from .test_draw import HOSTILE, Page

LONG = "qint2+fold+clip+round+align+more"


def fails() -> ToyModel:
    raise LoadError(f"no layer can be quantized {HOSTILE}", "")


@pytest.fixture(scope="module")
def found() -> Study:
    """Three toys with made-up sizes and one variant that cannot be loaded."""
    made = {"none": toy("none"), LONG: toy("a"), "bad": toy("bad", 4.0), "broken": fails}
    whole = study(None, questions(), (), variants=made, method="logistic")
    sizes = {"none": 40 * 2**20, LONG: 10 * 2**20, "bad": 10 * 2**20}
    results = [replace(r, bytes=sizes.get(r.name), loading=1.5) for r in whole.results]
    return replace(whole, title="a <model>", results=tuple(on_front(results)))


@pytest.fixture(scope="module")
def page(found: Study) -> Page:
    return Page(draw_study_html(found))


def test_nothing_is_loaded_and_nothing_runs(page: Page) -> None:
    page.assert_it_stands_alone()


def test_it_fits_a_phone_and_can_be_read_without_eyes(page: Page) -> None:
    assert any(a.get("name") == "viewport" for tag, a in page.tags if tag == "meta")
    used = {c for _, a in page.tags for c in (a.get("class") or "").split()}
    assert used <= set(re.findall(r"\.([a-z]+)", page.style))
    charts = [a for tag, a in page.tags if tag == "svg" and a.get("aria-hidden") != "true"]
    assert len(charts) == 2 + 3 + 5  # size, reliability of each, differences
    assert all(a["role"] == "img" and a["aria-label"] for a in charts)
    points = " ".join(v or "" for _, a in page.tags for k, v in a.items() if k in ("points", "cx"))
    assert points
    assert not re.search("nan|inf", points)


def test_what_was_written_by_others_is_escaped(page: Page) -> None:
    assert "a <model>: weight types compared" in page.text
    assert "broken could not be measured: no layer can be quantized <script>" in page.text
    assert not page.names("model")


def test_the_page_says_what_was_measured(found: Study, page: Page) -> None:
    said = " ".join(page.text.split())
    assert "4 variants, 300 questions: 150 to fit each calibrator, 150 in 150 groups" in said
    for r in found.results[:3]:
        assert percent(r.accuracy) in said
        for score in (r.raw, r.calibrated):
            for key in ("nll", "mce", "ubce", "ubce_correct", "ubce_incorrect", "auroc", "ece"):
                assert fixed(score.numbers[key]) in said
        for key in text.SHOWN if r.differences else ():
            assert text.difference(key, r.differences[key]) in said.replace("[", " [")


def test_the_printed_tables_fit_a_hundred_columns(found: Study) -> None:
    lines = text.lines(found)
    assert max(map(len, lines)) <= 100
    assert sum(line.startswith(LONG[:12]) for line in lines) == 2
    assert not any(LONG in line for line in lines)  # cut to what is left of the width
    assert any(line.split() == ["broken", "not", "measured"] for line in lines)


def parsed(s: Study) -> dict[str, dict[str, str]]:
    return {row["name"]: row for row in csv.DictReader(io.StringIO(text.as_csv(s)))}


def number(cell: str) -> float | None:
    return float(cell) if cell else None


def test_the_csv_holds_what_was_printed(found: Study) -> None:
    rows, lines = parsed(found), text.lines(found)
    assert list(rows) == [r.name for r in found.results]
    for name in ("none", LONG, "bad"):
        row = rows[name]
        line = next(line for line in lines if line.startswith(name[:12]))
        mark = ["*"] if row["front"] == "True" else []
        assert line.split()[1:] == [
            text.mib(int(row["bytes"])), *mark, f"{float(row['speed']):,.0f}",
            percent(float(row["accuracy"]))[:-1],
            fixed(number(row["brier_raw"]), 4), fixed(number(row["brier_calibrated"]), 4),
            fixed(number(row["ece_raw"])), f"({fixed(number(row['ece_floor_raw']))[1:]})",
            fixed(number(row["ece_calibrated"])),
            f"({fixed(number(row['ece_floor_calibrated']))[1:]})",
            fixed(number(row["auroc_raw"])), fixed(number(row["auroc_calibrated"])),
        ]  # fmt: skip
    assert rows["broken"]["error"].startswith("no layer can be quantized <script>")
    assert rows["broken"]["brier_raw"] == ""
    for key in KEYS:
        ends = [number(rows["bad"][f"difference_{key}{end}"]) for end in ("", "_low", "_high")]
        assert Difference(*ends) == found.result("bad").differences[key]
        if key in text.SHOWN:
            shown = next(line for line in lines[6:] if line.startswith("bad"))
            assert text.spread(key, Difference(*ends)) in shown


def test_findings_name_what_is_clear_and_nothing_else(found: Study) -> None:
    said = text.findings(found)
    assert len(said) == 2
    bad = next(line for line in said if line.startswith("bad against none"))
    assert "share right worse, −" in bad
    assert "Brier raw worse, +" in bad
    alike = replace(found.results[1], differences=dict.fromkeys(KEYS, Difference(0.1, -0.1, 0.2)))
    one = replace(found, results=(found.results[0], alike))
    assert text.findings(one) == [f"{LONG}: no clear difference to none."]


def few(n: int) -> Study:
    return study(None, questions(n), (), variants={"none": toy("none"), "b": toy("b")}, timed=0)


@pytest.mark.parametrize(
    ("n", "words"),
    [(12, "With 6 groups to measure there are no intervals"), (60, "30 groups to measure are few")],
)
def test_too_little_data_is_said(n: int, words: str) -> None:
    small = few(n)
    assert any(words in line for line in limits.warnings(small))
    html = draw_study_html(small)
    assert words in Page(html).text
    assert not re.search(r"\bnan\b|\bNone\b|\binf\b", html)
    if n == 12:
        assert text.findings(small) == ["b: nothing can be told apart from none."]
        assert "[" not in "".join(text.lines(small))


def test_a_model_that_is_reliably_wrong_is_not_called_the_best(found: Study) -> None:
    worse = replace(found.result("bad"), front=True, accuracy=0.1)
    shown = replace(found, results=(*found.results[:2], worse))
    (line,) = [line for line in limits.warnings(shown) if "by its Brier score alone" in line]
    assert line.startswith(f"bad is on the front by its Brier score alone: {LONG}, which is no")


def test_the_same_numbers_give_the_same_page(found: Study) -> None:
    again: Any = found
    assert draw_study_html(found) == draw_study_html(again)
    assert text.as_csv(found) == text.as_csv(again)


def one_of(found: Study, **changes: Any) -> Study:
    return replace(found, results=(found.results[0], replace(found.results[2], **changes)))


def test_a_variant_that_puts_a_better_one_off_the_front_is_told(found: Study) -> None:
    """It is smaller, and its Brier score is lower for it knows that it is wrong."""
    small = replace(found.results[2], calibrated=Score({"brier": 0.01}, ()), accuracy=0.05)
    shown = replace(found, results=tuple(on_front([found.results[0], small])))
    assert [r.front for r in shown.results] == [False, True]
    (line,) = [line for line in limits.warnings(shown) if "by its Brier score alone" in line]
    assert "none, which it puts off the front, has" in line


def test_what_counts_in_some_numbers_only_is_told(found: Study) -> None:
    lines = limits.warnings(one_of(found, unknown=43, failed=3))
    assert "bad: 3 of 150 measured questions failed, and count nowhere." in lines
    assert any(
        line.startswith("bad: 40 of 150 measured questions have no answer") for line in lines
    )
    lines = limits.warnings(one_of(found, unknown=2))
    assert not any("150 measured questions" in line for line in lines)
    assert "failed" in text.as_csv(found).splitlines()[0].split(",")


def test_few_wrong_answers_are_told(found: Study) -> None:
    columns = found.results[2].columns
    nearly = replace(columns, right=np.where(np.arange(columns.right.size) < 5, 0.0, 1.0))
    lines = limits.warnings(one_of(found, columns=nearly))
    assert any(line.startswith("bad: fewer than 10 groups hold a right answer") for line in lines)
    assert not any("fewer than 10 groups" in line for line in limits.warnings(found))


@pytest.mark.parametrize("width", [60, 80, 100])
def test_tables_are_parted_where_the_console_is_narrow(found: Study, width: int) -> None:
    wide, lines = text.lines(found), text.lines(found, width)
    assert max(map(len, lines)) <= width
    if width < 100:
        assert sum(line.startswith("bad") for line in lines) > 2
        before, after = (
            [cell for line in shown if line.startswith("bad") for cell in line.split()[1:]]
            for shown in (wide, lines)
        )
        assert before == after


def test_what_is_claimed_depends_on_how_much_was_measured(found: Study) -> None:
    assert "in about 1 of 20 studies" in Page(draw_study_html(found)).text
    assert "in about 1 of 10 studies" in Page(draw_study_html(few(60))).text
    assert "whose interval leaves out 0" not in Page(draw_study_html(few(12))).text


def test_groups_of_several_questions_bound_what_ece_says(found: Study) -> None:
    said = "take every answer for independent"
    assert said not in Page(draw_study_html(found)).text
    assert said in Page(draw_study_html(replace(found, groups=75))).text


def test_calibrators_of_few_questions_are_told(found: Study) -> None:
    (line,) = [line for line in limits.warnings(found) if "luck is in no interval" in line]
    assert line.startswith("150 questions to fit each calibrator are few")
    assert not any("luck" in line for line in limits.warnings(replace(found, fit=400)))
    assert not any("luck" in line for line in limits.warnings(few(12)))
