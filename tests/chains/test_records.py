"""Records of answers that others gave: from our JSON dict, or from nothing."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import numpy as np
import pytest

from bitcal_integrations import CalibratedModel
from bitcal_integrations.chains import record_of_bitcal, unknown_record
from bitcal_integrations.chains.records import finish_of
from bitcal_integrations.testing.toy import ToyModel
from bitcal_integrations.types import Confidence, Decision, Finish, Generation, Record, Request

QUESTIONS = ("What is the capital of France?", "12+30=", "Which continent is Peru in?")


def full_record(finish: Finish = "answer") -> Record:
    confidence = Confidence(
        0.83, True, 0.78, 0.87, None, 0.97, {"length": 3.0}, "ab12", "facts", "shifted"
    )
    generation = Generation("Paris", finish, prompt_tokens=7, n_tokens=3)
    decision = Decision("accept", "0.83 >= 0.70")
    return Record(Request("?", task="facts"), generation, confidence, decision, model="tiny")


@pytest.mark.parametrize("finish", ["stop", "length", "answer", "loop", "settled", "hopeless"])
def test_json_and_back(finish: Finish) -> None:
    made = full_record(finish)
    data = json.loads(json.dumps(made.bitcal()))
    again = record_of_bitcal(data, "Paris", prompt="?", model="tiny", prompt_tokens=7, n_tokens=3)
    assert again.bitcal() == made.bitcal()
    assert dataclasses.replace(again, id=made.id) == made


def test_json_of_real_answers_and_back(tiny: CalibratedModel) -> None:
    for made in tiny.ask(list(QUESTIONS)):
        again = record_of_bitcal(json.loads(json.dumps(made.bitcal())), made.text)
        assert again.bitcal() == made.bitcal()


def test_an_unknown_confidence_stays_unknown() -> None:
    made = ToyModel({"?": ("Paris", None)}).ask("?")
    again = record_of_bitcal(made.bitcal(), "Paris")
    assert again.confidence.value is None
    assert again.confidence.raw == made.confidence.raw
    assert again.confidence.reason == "the table gives no confidence"


def test_keys_of_others_are_left_alone_and_absent_ones_are_empty() -> None:
    data = {"confidence": np.float64(0.5), "route": {"attempts": []}, "votes": 3, "raw": None}
    again = record_of_bitcal(data, "Paris")
    assert again.confidence == Confidence(0.5)
    assert type(again.confidence.value) is float
    assert again.generation.finish == "stop"
    assert again.decision is None


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (None, "None is not a dict"),
        ("0.7", "'0.7' is not a dict"),
        ({}, "no key 'confidence'"),
        ({"confidence": "0.7"}, "confidence='0.7'"),
        ({"confidence": True}, "confidence=True"),
        ({"confidence": 1.2}, "confidence=1.2"),
        ({"confidence": math.nan}, "confidence=nan"),
        ({"confidence": 0.7, "low": -1}, "low=-1"),
        ({"confidence": 0.7, "raw": [1]}, "raw=[1]"),
        ({"confidence": 0.7, "calibrated": "yes"}, "calibrated='yes'"),
        ({"confidence": 0.7, "signals": [1.0]}, "signals=[1.0]"),
        ({"confidence": 0.7, "signals": {"a": "b"}}, "signals={'a': 'b'}"),
        ({"confidence": 0.7, "profile": 3}, "profile=3"),
        ({"confidence": 0.7, "task": 3}, "task=3"),
        ({"confidence": 0.7, "finish": "tired"}, "finish='tired'"),
        ({"confidence": 0.7, "decision": "accept"}, "decision='accept'"),
        ({"confidence": 0.7, "decision": {"reason": "so"}}, "decision={'reason': 'so'}"),
        ({"confidence": 0.7, "decision": {"action": None}}, "decision={'action': None}"),
        ({"confidence": 0.7, "decision": {"action": "maybe"}}, "action='maybe'"),
    ],
)
def test_a_malformed_dict_is_an_unknown_confidence(data: Any, why: str) -> None:
    made = record_of_bitcal(data, "Paris", model="tiny", n_tokens=3)
    assert made.confidence.value is None
    assert made.confidence.calibrated is False
    assert made.confidence.reason.startswith("malformed bitcal: ")
    assert why in made.confidence.reason
    assert (made.text, made.model, made.generation.n_tokens) == ("Paris", "tiny", 3)


# ---- nothing is known ----------------------------------------------------------------------------


def test_unknown_record() -> None:
    made = unknown_record("Paris", prompt="?", model="hosted", n_tokens=4, finish="max_tokens")
    assert made.confidence == Confidence(reason="the model gives no confidence")
    assert (made.request.prompt, made.generation.n_tokens) == ("?", 4)
    assert made.generation.finish == "length"
    assert unknown_record("x", reason="a tool").confidence.reason == "a tool"


def test_a_prompt_that_our_models_could_not_take_is_kept_as_text() -> None:
    picture = [{"role": "user", "content": [{"type": "image_url", "image_url": "x" * 9999}]}]
    kept = unknown_record("A cat.", prompt=picture).request.prompt
    assert isinstance(kept, str)
    assert "image_url" in kept
    assert len(kept) == 2000
    messages = [{"role": "user", "content": "Hi"}]
    assert unknown_record("Hello.", prompt=messages).request.prompt == tuple(messages)


@pytest.mark.parametrize(
    ("word", "finish"),
    [("stop", "stop"), ("length", "length"), ("answer", "answer"), ("tool_calls", "stop"),
     ("end_turn", "stop"), ("max_tokens", "length"), ("MAX_TOKENS", "length"),
     ("content_filter", "error"), (None, "stop"), ("", "stop")],
)  # fmt: skip
def test_words_for_the_end(word: Any, finish: str) -> None:
    assert finish_of(word) == finish
