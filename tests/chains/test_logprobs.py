"""Records of other models' answers from their log-probabilities, with a profile and without."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import pytest

from bitcal_integrations import CalibratedModel
from bitcal_integrations.chains import record_of_logprobs
from bitcal_integrations.chains.records import NO_LOGPROBS
from bitcal_integrations.engines._remote_scored import spread
from bitcal_integrations.errors import BadRequest
from bitcal_integrations.features import NO_PROFILE
from bitcal_integrations.profile import Profile
from bitcal_integrations.types import Confidence, Observation, Record

CAPITAL = "What is the capital of France?"
QUESTIONS = (
    CAPITAL,
    "What is the capital of Kenya?",
    "Which continent is Peru in?",
    "Tom has 3 apples and buys 4 more. How many apples does Tom have now?",
)


def remote(profile: Profile | None, **parts: Any) -> Profile:
    """The same measurements, as a server that serves this model would have been measured."""
    assert profile is not None
    return dataclasses.replace(profile, parts={**profile.parts, "engine": "remote", **parts})


def test_without_a_profile_the_raw_score_is_kept() -> None:
    made = record_of_logprobs("Paris", [("Par", math.log(0.9)), ("is", math.log(0.4))], model="m")
    assert made.confidence.value is None
    assert made.confidence.reason == NO_PROFILE
    assert made.confidence.raw == pytest.approx(math.sqrt(0.9 * 0.4))
    assert made.confidence.signals["min_logprob"] == pytest.approx(math.log(0.4))
    assert "mean_entropy" not in made.confidence.signals  # no alternatives were shown
    assert "mean_margin" not in made.confidence.signals
    assert json.dumps(made.bitcal(), allow_nan=False)
    assert made.generation.n_tokens == 2


def test_entropy_and_margin_come_from_the_alternatives() -> None:
    tokens = [("a", math.log(0.5)), ("b", math.log(0.1))]
    tops = [
        [("a", math.log(0.5)), ("x", math.log(0.25))],
        [("x", math.log(0.6)), ("y", math.log(0.2))],  # the token itself is not among them
    ]
    steps = record_of_logprobs("ab", tokens, tops=tops).generation.steps
    first = 0.5 * math.log(2) + 2 * 0.25 * math.log(4)  # the rest is one more alternative
    second = -sum(p * math.log(p) for p in (0.6, 0.2, 0.1, 0.1))
    assert [s.entropy for s in steps] == pytest.approx([first, second])
    assert [s.margin for s in steps] == pytest.approx([math.log(2), math.log(3)])
    assert steps[1].top_text == ("x", "y")
    assert [value for _, value in steps[1].top] == [math.log(0.6), math.log(0.2)]


def test_one_alternative_has_no_margin_and_minus_infinity_no_weight() -> None:
    entropy, margin = spread("a", 0.0, [("a", 0.0)])
    assert entropy == 0
    assert math.isnan(margin)
    assert spread("a", 0.0, [("a", 0.0), ("b", -math.inf)])[0] == 0
    assert spread("a", 0.0, [("a", 0.0), ("b", -9999.0)]) == (0.0, 9999.0)


def as_served(record: Record) -> dict[str, Any]:
    """An answer of ours in the shape in which a server would have sent it."""
    generation = record.generation
    words = [generation.raw[s.start : s.end] or "</s>" for s in generation.steps]
    return {
        "text": record.text,
        "tokens": [(w, s.logprob) for w, s in zip(words, generation.steps, strict=True)],
        "tops": [
            [(w if i == s.token_id else f"<{i}>", value) for i, value in s.top]
            for w, s in zip(words, generation.steps, strict=True)
        ],
        "prompt": record.request.prompt,
        "finish": generation.finish,
        "prompt_tokens": generation.prompt_tokens,
    }


def test_a_profile_gives_what_the_model_itself_gives(tiny: CalibratedModel) -> None:
    """The same tokens as a server would show them: the same score and nearly the same confidence,
    since of 512 alternatives 100 are shown."""
    profile = remote(tiny.profile)
    for own in tiny.ask(list(QUESTIONS), top_logprobs=100):
        made = record_of_logprobs(**as_served(own), profile=profile)
        assert made.generation.answer == own.generation.answer
        seen, true = Observation.of(made.generation), Observation.of(own.generation)
        assert (seen.span, seen.answer) == (true.span, true.answer)
        assert seen.logprob == pytest.approx(true.logprob)
        assert seen.margin == pytest.approx(true.margin, abs=1e-3)
        assert seen.entropy == pytest.approx(true.entropy, rel=0.15, abs=0.05)
        assert (seen.entropy <= true.entropy + 1e-3).all()
        assert made.confidence.raw == pytest.approx(own.confidence.raw)
        assert made.confidence.reason == own.confidence.reason
        assert made.confidence.value == pytest.approx(own.confidence.value, abs=0.02)
        assert made.confidence.profile == profile.fingerprint


def test_a_task_of_the_profile_is_chosen(tiny: CalibratedModel) -> None:
    own = tiny.ask(QUESTIONS[-1], task="math", top_logprobs=100)
    made = record_of_logprobs(**as_served(own), profile=remote(tiny.profile), task="math")
    assert made.confidence.task == "math"
    assert made.confidence.value == pytest.approx(own.confidence.value, abs=0.02)
    with pytest.raises(BadRequest, match="'chess'"):
        record_of_logprobs(**as_served(own), profile=remote(tiny.profile), task="chess")


@pytest.mark.parametrize(
    ("parts", "model", "why"),
    [
        ({"engine": "local"}, "", "engine is 'remote', measured was 'local'"),
        ({"model": "small"}, "big", "model is 'big', measured was 'small'"),
    ],
)
def test_a_foreign_profile_is_no_measurement(
    tiny: CalibratedModel, parts: dict[str, str], model: str, why: str
) -> None:
    made = record_of_logprobs(
        "4", [("4", -0.1)], model=model, profile=remote(tiny.profile, **parts)
    )
    assert made.confidence.value is None
    assert made.confidence.reason == f"the profile is of another model: {why}"
    assert made.confidence.raw == pytest.approx(math.exp(-0.1))


def test_a_profile_of_this_very_name_holds(tiny: CalibratedModel) -> None:
    own = tiny.ask(CAPITAL, top_logprobs=100)
    made = record_of_logprobs(
        **as_served(own), model="served", profile=remote(tiny.profile, model="served")
    )
    assert made.confidence.calibrated
    assert made.model == "served"


def test_what_the_profile_needs_and_was_not_shown_is_named(tiny: CalibratedModel) -> None:
    served = {**as_served(tiny.ask(CAPITAL, top_logprobs=2)), "tops": ()}
    made = record_of_logprobs(**served, profile=remote(tiny.profile))
    assert made.confidence.value is None
    assert made.confidence.reason == "not measured: mean_entropy, mean_margin"


def test_scores_unlike_the_calibration_set_are_noticed(tiny: CalibratedModel) -> None:
    """The same profile is the same watch, from answer to answer."""
    profile = remote(tiny.profile)
    tops = [[("4", -4.0), ("5", -4.1)]]
    seen = [
        record_of_logprobs("4", [("4", -4.0)], tops=tops, profile=profile).confidence
        for _ in range(64)
    ]
    assert seen[0].reason == ""
    assert seen[-1].reason.startswith("shifted: ")
    assert (seen[-1].low, seen[-1].high) == (0.0, 1.0)


def test_a_cut_or_withheld_text_holds_no_answer(tiny: CalibratedModel) -> None:
    for finish, why in (("length", "was cut"), ("content_filter", "failed")):
        made = record_of_logprobs("The", [("The", -0.1)], finish=finish)
        assert made.confidence.value is None
        assert made.confidence.reason.startswith("no_answer")
        assert why in made.confidence.reason
    half = [("1", -0.1)]  # of a number, perhaps
    whole, cut = (
        record_of_logprobs("1", half, profile=remote(tiny.profile), finish=finish)
        for finish in ("stop", "length")
    )
    assert whole.generation.answer is not None
    assert cut.confidence.reason == "no_answer: nothing for parser 'tiny'"
    empty = record_of_logprobs("", [("<call>", -0.1)], profile=remote(tiny.profile))
    assert empty.confidence.reason == "no_answer: the text is empty"


@pytest.mark.parametrize(
    ("tokens", "tops", "why"),
    [
        ([("Paris", None)], (), "('Paris', None)"),
        ([("Paris", math.nan)], (), "('Paris', nan)"),
        ([("Paris", 0.4)], (), "('Paris', 0.4)"),
        ([(3, -0.4)], (), "(3, -0.4)"),
        ([-0.4], (), "-0.4"),
        ([("Paris", -0.1)], [[], []], "2 lists of alternatives for 1 tokens"),
        ([("Paris", -0.1)], [[("x",)]], "('x',)"),
    ],
)
def test_malformed_log_probabilities_are_an_unknown_confidence(
    tokens: Any, tops: Any, why: str
) -> None:
    made = record_of_logprobs("Paris", tokens, tops=tops, finish="length")
    assert made.confidence.value is None
    assert made.confidence.reason.startswith("malformed log-probabilities: ")
    assert why in made.confidence.reason
    assert (made.text, made.generation.finish) == ("Paris", "length")


def test_no_log_probabilities_are_an_unknown_confidence() -> None:
    made = record_of_logprobs("Paris", [], prompt="?", model="hosted")
    assert made.confidence == Confidence(reason=NO_LOGPROBS)
    assert made.request.prompt == "?"


def test_a_token_that_is_certain_but_for_rounding() -> None:
    made = record_of_logprobs("Paris", [("Paris", 1e-9)], tops=[None])  # type: ignore[list-item]
    assert made.confidence.raw == 1.0
    certain_of_nothing = record_of_logprobs("Paris", [("Paris", -math.inf)])
    assert certain_of_nothing.confidence.raw is None
