"""The extra passes run on the built-in model: chats, strings, system prompts, no template.

What it says of its own answers means nothing, for it has never seen such a question; here counts
that every pass is served and that its alternatives come with their texts.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bitcal_integrations import CalibratedModel, load
from bitcal_integrations.features import (
    extra_requests,
    make_schema,
    measure_all,
    sample_requests,
)
from bitcal_integrations.request import OPTIONS
from bitcal_integrations.types import Generation, Observation, Request, make_request

CHAT = [
    {"role": "system", "content": "You answer questions briefly and exactly."},
    {"role": "user", "content": "What is the capital of Italy?"},
]
LETTERS = "Which is the capital of France?\nA. Rome\nB. Paris\nC. Oslo\nAnswer:"


@pytest.fixture(scope="module")
def model() -> Iterator[CalibratedModel]:
    with load("bitcal-tiny", weights=None, dtype="float32", profile=None) as loaded:
        yield loaded


def ask(model: CalibratedModel, requests: tuple[Request, ...]) -> tuple[Generation, ...]:
    found = []
    for request in requests:
        options = {name: getattr(request, name) for name in OPTIONS}
        found.append(model.ask(request.prompt, **options).generation)
    return tuple(found)


@pytest.mark.parametrize(
    ("prompt", "options"),
    [
        ("What is the capital of France?", {"parser": "tiny"}),
        (CHAT, {"parser": "tiny"}),
        (CHAT[1:], {"chat": False}),
        ("Question: What is the capital of France?\nAnswer:", {"chat": False}),
        (LETTERS, {"parser": "choice"}),
    ],
)
def test_every_pass_is_served(model: CalibratedModel, prompt: object, options: dict) -> None:
    schema = make_schema(["confidence", "p_true", "verbalized", "perturb", "agreement", "cocoa"])
    request = make_request(prompt, max_new_tokens=12, **options)
    (generation,) = ask(model, (request,))
    extra = extra_requests(schema, request, generation)
    passes = {name: ask(model, requests) for name, requests in extra.items()}
    samples = ask(model, sample_requests(schema, request))
    assert len(samples) == schema.samples == 5
    for name in ("p_true", "verbalized"):
        step = passes[name][0].steps[0]
        assert len(step.top) == len(step.top_text) == 100
        assert step.text in (step.top_text[0], "")  # greedy; the end of a turn shows no text
    assert len(passes["p_true"][0].steps) == 1
    values = measure_all(Observation.of(generation, samples, passes), schema)
    # p_true is there where a verdict is among the alternatives; this model was taught none.
    assert {"confidence", "perturb", "agreement", "cocoa"} <= set(values)
    assert all(0 <= value <= 1 for value in values.values())
