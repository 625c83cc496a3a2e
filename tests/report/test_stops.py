"""What a report says of early stops: hand-counted rows, and rows of the built-in model."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from adapters.early_stops import certified

from bitcal_integrations import CalibratedModel, load
from bitcal_integrations.answered import Asking, answer_all
from bitcal_integrations.cli.evaluate import stopped
from bitcal_integrations.dataset import read_examples
from bitcal_integrations.decide import StopPlan, StopRule
from bitcal_integrations.errors import CalibrationError
from bitcal_integrations.report import draw_html, draw_markdown, prepare_evaluation
from bitcal_integrations.tiny.tasks import questions
from bitcal_integrations.types import Labelled

Row = Callable[..., Labelled]


def stop(level: str | None, probe_tokens: int = 0, saving: float | None = 0.25) -> dict[str, Any]:
    return {"level": level, "saving": saving, "probe_tokens": probe_tokens}


@pytest.fixture
def held(row: Row) -> list[Labelled]:
    """Four rows under a plan, of 120 tokens, and one that was not."""
    return [
        row(0.9, True, finish="settled", tokens=30, stop=stop("settled", 4)),
        row(0.8, False, finish="settled", tokens=20, stop=stop("settled")),
        row(None, None, finish="hopeless", tokens=10, stop=stop("hopeless", 6)),
        row(0.7, True, tokens=60, stop=stop(None, 10)),
        row(0.6, True, tokens=100),
    ]


def test_what_was_saved_is_expected_from_the_promise(held: list[Labelled]) -> None:
    found = prepare_evaluation(held).stops
    assert found is not None
    assert (found.rows, found.tokens, found.probe_tokens, found.promised) == (4, 120, 20, 4)
    assert found.saved == 40  # 120 / (1 - 1/4) less 120
    assert found.share == pytest.approx(0.25)
    assert [(p.name, p.rows, p.right, p.wrong, p.unjudged, p.tokens) for p in found.ended] == [
        ("settled", 2, 1, 1, 0, 25.0),
        ("hopeless", 1, 0, 0, 1, 10.0),
        ("its own end", 1, 1, 0, 0, 60.0),
    ]
    json.dumps(prepare_evaluation(held).to_dict())


def test_both_drawings_say_it(held: list[Labelled]) -> None:
    evaluation = prepare_evaluation(held)
    for text in (draw_html(evaluation), draw_markdown(evaluation)):
        assert "What was saved by ending early?" in text
        assert "Of 4 answers that could end early, 3 did. All 4 took 120 tokens, 20 of them" in text
        assert "about 40 tokens fewer (25.0%) than to the full length: an expectation" in text
    assert "| settled | 2 | 1 | 1 | 0 | 25.0 |" in draw_markdown(evaluation)


def test_without_a_promise_the_saving_is_not_known(row: Row) -> None:
    rows = [row(0.9, True, tokens=30, stop=stop("settled", 4, None))]
    found = prepare_evaluation(rows).stops
    assert found is not None
    assert (found.saved, found.share, found.promised) == (None, None, 0)
    text = draw_markdown(prepare_evaluation(rows))
    assert "How much was saved is not known: no plan here comes with a promise." in text


def test_a_promise_for_some_and_one_that_costs(row: Row) -> None:
    rows = [
        row(0.9, True, tokens=90, stop=stop(None, 9, -0.5)),
        row(0.9, True, tokens=10, stop=stop("settled", 0, None)),
    ]
    found = prepare_evaluation(rows).stops
    assert found is not None
    assert (found.saved, found.promised) == (-30, 1)  # 60 would have been the full length
    text = draw_markdown(prepare_evaluation(rows))
    assert "about 30 tokens more (50.0%) than to the full length, for the 1 with a promise" in text


def test_the_promises_in_force_are_told(row: Row) -> None:
    promise = {"max_loss": 0.02, "delta": 0.1, "n": 1600, "kind": "wrong", "label_source": "labels"}
    held = {**stop("settled"), "promise": promise}
    other = {**held, "promise": {**promise, "kind": "changed", "max_loss": 0.05}}
    rows = [row(0.9, True, tokens=9, stop=told) for told in (held, other, held, stop(None))]
    found = prepare_evaluation(rows).stops
    assert found is not None
    assert found.promises == (promise, other["promise"])
    text = draw_markdown(prepare_evaluation(rows))
    assert (
        "with probability 90% or more, ending early spoils, or gives up, an answer that was right "
        "at full length in at most 2% of the answers (n = 1,600)."
    ) in text
    assert "ending early changes the answer in at most 5% of the answers" in text


def test_the_command_line_says_it(held: list[Labelled]) -> None:
    first, second = stopped(held)
    assert first.startswith("Of 4 answers that could end early, 3 did.")
    assert "about 40 tokens fewer" in second
    assert stopped(held[-1:]) == []


def test_rows_that_could_not_end_early_have_no_section(four: list[Labelled]) -> None:
    evaluation = prepare_evaluation(four)
    assert evaluation.stops is None
    assert "ending early" not in draw_html(evaluation) + draw_markdown(evaluation)


# ---- from the model to the report ------------------------------------------------------------


@pytest.fixture(scope="module")
def model() -> Iterator[CalibratedModel]:
    with load("bitcal-tiny", weights=None, dtype="float32") as model:
        yield model


EXAMPLES = read_examples([(q.prompt, q.gold) for q in questions("math", "test", 6, seed=4)])
PLAN = StopPlan(
    settled=StopRule("settled", "trial_probability", 0.9),
    promise={"saved": 0.4, "max_loss": 0.02, "delta": 0.1, "n": 900},
)


def answered(model: CalibratedModel, value: Any, keep: Path | None = None) -> list[Labelled]:
    options = {"max_new_tokens": 160, "early_stop": value, "parser": "tiny"}
    return answer_all(model, EXAMPLES, Asking("numeric", options=options), keep)


def test_answers_tell_of_the_plan_in_force(model: CalibratedModel) -> None:
    rows = answered(model, PLAN)
    for row in rows:
        assert row.stop is not None
        assert row.stop["saving"] == 0.4
        assert row.stop["promise"] == {"max_loss": 0.02, "delta": 0.1, "n": 900}
        assert row.stop["level"] == ("settled" if row.finish == "settled" else None)
    assert any(row.finish == "settled" for row in rows)
    assert Labelled.from_dict(json.loads(json.dumps(rows[0].to_dict()))) == rows[0]
    found = prepare_evaluation(rows).stops
    assert found is not None
    spent = sum(row.tokens for row in rows)
    assert found.saved == round(spent / 0.6 - spent)
    assert all(row.stop is None for row in answered(model, None))


def test_kept_answers_are_those_of_their_plan(model: CalibratedModel, tmp_path: Path) -> None:
    keep = tmp_path / "answers.jsonl"
    kept = answered(model, PLAN, keep)
    assert answered(model, StopPlan.from_dict(PLAN.to_dict()), keep) == kept
    other = StopPlan(settled=StopRule("settled", "trial_probability", 0.5))
    with pytest.raises(CalibrationError):
        answered(model, other, keep)


def test_the_confidence_of_a_settled_answer_is_kept(model: CalibratedModel, tmp_path: Path) -> None:
    certificate = certified()
    keep = tmp_path / "answers.jsonl"
    first = answered(model, certificate, keep)
    settled = [row for row in first if row.finish == "settled"]
    assert all(row.confidence.value is not None for row in settled)
    assert answered(model, certificate, keep) == first
