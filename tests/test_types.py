"""Requests are checked where they are made; records travel as plain JSON."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from bitcal_integrations.errors import BadRequest
from bitcal_integrations.types import (
    Answer,
    Confidence,
    Decision,
    Generation,
    Observation,
    Record,
    Step,
    Timing,
    make_request,
)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_new_tokens", 0),
        ("max_new_tokens", 2.5),
        ("max_new_tokens", True),
        ("temperature", -1),
        ("temperature", float("nan")),
        ("temperature", "hot"),
        ("temperature", 1e-40),
        ("top_p", 0),
        ("top_p", 1.1),
        ("seed", -1),
        ("seed", 1.0),
        ("stop", [""]),
        ("stop", [3]),
        ("stop", 7),
        ("top_logprobs", 101),
        ("loop_stop", "yes"),
        ("chat", 1),
        ("chat_template_kwargs", []),
        ("parser", 3),
        ("task", None),
        ("early_stop", "soon"),
        ("early_stop", 0.5),
    ],
)
def test_a_wrong_option_is_quoted_with_what_is_allowed(name: str, value: object) -> None:
    with pytest.raises(BadRequest) as caught:
        make_request("x", **{name: value})
    assert name in str(caught.value)
    assert "it must be" in str(caught.value)


def user(content: object) -> list[dict]:
    return [{"role": "user", "content": content}]


@pytest.mark.parametrize(
    "prompt",
    [
        None, 3, [], ["a"], [{"role": "user"}], b"bytes", "\ud800", user(None), user(3),
        user([{"type": "image_url", "image_url": "x"}]), user("\ud800"),
        [{"role": 1, "content": ""}],
    ],
)  # fmt: skip
def test_a_wrong_prompt_is_refused(prompt: object) -> None:
    with pytest.raises(BadRequest):
        make_request(prompt)


def test_text_parts_are_joined() -> None:
    parts = [{"type": "text", "text": "Hello "}, {"type": "text", "text": "you"}, "!"]
    assert make_request(user(parts)).prompt[0]["content"] == "Hello you!"
    called = [{"role": "assistant", "content": None, "tool_calls": [{}]}]
    assert make_request(called).prompt[0]["content"] == ""


def test_numbers_of_numpy_become_plain_ones() -> None:
    request = make_request("x", max_new_tokens=np.int64(3), temperature=np.float32(0.5))
    assert type(request.max_new_tokens) is int
    json.dumps(request.to_dict())


def test_an_unknown_option_names_the_known_ones() -> None:
    with pytest.raises(BadRequest, match=r"'temprature'.*temperature"):
        make_request("x", temprature=1)


def test_stop_takes_a_string_a_list_or_none() -> None:
    assert make_request("x", stop="a").stop == ("a",)
    assert make_request("x", stop=["a", "b"]).stop == ("a", "b")
    assert make_request("x", stop=None).stop == ()


def steps(*pieces: str) -> tuple[Step, ...]:
    out, at = [], 0
    for index, piece in enumerate(pieces):
        out.append(Step(index, piece, at, at + len(piece), -index / 10, 0.5, 0.2, 1.0))
        at += len(piece)
    return tuple(out)


def example() -> Record:
    generation = Generation(
        raw="so #### 42",
        finish="answer",
        steps=steps("so", " ####", " 4", "2"),
        prompt_tokens=3,
        n_tokens=4,
        answer=Answer("42", 8, 10),
    )
    return Record(
        make_request([{"role": "user", "content": "?"}], parser="gsm8k", stop=["x"]),
        generation,
        Confidence(raw=0.4, signals={"mean_logprob": -0.9}, reason="no profile"),
        decision=Decision("escalate", "unknown"),
        timing=Timing(0.1, 0.2, 0.3),
        model="m",
    )


def test_a_record_survives_json_without_its_steps() -> None:
    record = example()
    back = Record.from_dict(json.loads(json.dumps(record.to_dict())))
    bare = dataclasses.replace(record.generation, steps=())
    assert back == dataclasses.replace(record, generation=bare)


def test_the_bitcal_dict_has_plain_values_and_the_promised_keys() -> None:
    data = json.loads(json.dumps(example().bitcal()))
    assert data["confidence"] is None
    assert data["raw"] == 0.4
    assert data["decision"] == {"action": "escalate", "reason": "unknown"}
    expected = (
        "confidence calibrated low high raw signals profile task finish stopped decision".split()
    )
    assert set(expected) <= set(data)


def test_the_answers_steps_are_those_that_touch_it() -> None:
    generation = example().generation
    assert [s.text for s in generation.answer_steps()] == [" 4", "2"]
    observation = Observation.of(generation)
    assert observation.span == (2, 4)
    np.testing.assert_allclose(observation.logprob, [0, -0.1, -0.2, -0.3])


def test_an_observation_of_nothing_is_empty() -> None:
    observation = Observation.of(Generation("", "stop"))
    assert observation.logprob.shape == (0,)
    assert observation.span is None


def test_content_and_finish_reason() -> None:
    generation = Generation("<think>a</think>b", "loop", content_start=16)
    assert (generation.text, generation.finish_reason) == ("b", "stop")
    assert Generation("x", "length").finish_reason == "length"
