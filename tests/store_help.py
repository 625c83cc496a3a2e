"""Records for the tests of the store: one with a text in every place, and many plain ones."""

from __future__ import annotations

import json
import math

from bitcal_integrations.testing.toy import ToyModel
from bitcal_integrations.types import (
    Answer,
    Confidence,
    Decision,
    Generation,
    Record,
    Timing,
    make_request,
)

TOOL = {
    "type": "function",
    "function": {
        "name": "secret_tool",
        "description": "secret_description",
        "parameters": {"type": "object", "properties": {"secret_key": {"type": "string"}}},
    },
}


def full_record() -> Record:
    """A record with a text in every place that can hold one; all contain `secret`."""
    request = make_request(
        [
            {"role": "system", "content": "secret_system"},
            {"role": "secret_role", "content": "secret_user", "name": "secret_name"},
            {"role": "assistant", "content": None, "tool_calls": [{"id": "secret_call"}]},
        ],
        tools=[TOOL],
        tool_choice="secret_tool",
        stop=["secret_stop"],
        chat_template_kwargs={"secret_kwarg": "secret_value"},
        response_schema={"properties": {"secret_field": {"const": "secret_const"}}},
        task="sums",
    )
    raw = "secret_thought</think>secret_answer"
    generation = Generation(
        raw, "answer", prompt_tokens=7, n_tokens=5, content_start=22, reasoning="secret_thought",
        answer=Answer("secret_answer", 22, 35), stop_string="secret_stop", probe_tokens=2,
    )  # fmt: skip
    signals = {"mean_logprob": -0.25, "gone": math.nan}
    confidence = Confidence(
        0.8, True, 0.7, 0.9, "beta", 0.6, signals, "ab12", "sums", "no_answer: secret_reason"
    )
    decision = Decision("accept", "secret_decision")
    return Record(request, generation, confidence, decision, Timing(0.1, 0.2, 0.5), "tiny")


def plain(record: Record) -> str:
    return json.dumps(record.to_dict(), default=dict, sort_keys=True)


def many(n: int) -> list[Record]:
    toy = ToyModel({}, default=("yes", 0.5))
    return [toy.ask(f"question {i}") for i in range(n)]
