"""ToyModel: answers from a table, with a confidence that is true by construction.

It has the surface of CalibratedModel (ask, aask, stream, astream, add_sink, close), no weights
and no torch, and answers in microseconds: for tests of routing, chains and adapters.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypeAlias

from bitcal_integrations.engines._ticket import Listener, Outcome
from bitcal_integrations.errors import BadRequest, EngineClosed
from bitcal_integrations.features import uncalibrated
from bitcal_integrations.grading import as_parser
from bitcal_integrations.model import CalibratedModel
from bitcal_integrations.types import (
    Confidence,
    Finish,
    Generation,
    Observation,
    Request,
    Step,
    Timing,
)

# (answer, confidence) or (answer, confidence, wrong answer); confidence None is unknown
Entry: TypeAlias = "tuple[str, float | None] | tuple[str, float | None, str]"


class ToyModel(CalibratedModel):
    """Answers from `table`, which maps a prompt to (answer, confidence).

    With a third member, a wrong answer, the first is given with exactly that probability and the
    third otherwise, drawn from the seed and the prompt: the confidence is then the true rate of
    right answers. A prompt is found by the text of its last message; `default` answers the rest.

    >>> toy = ToyModel({"Capital of France?": ("Paris", 0.9)})
    >>> record = toy.ask("Capital of France?")
    >>> record.text, record.confidence.value
    ('Paris', 0.9)
    """

    def __init__(
        self,
        table: Mapping[str, Entry],
        default: Entry = ("I do not know.", 0.0),
        seed: int = 0,
        name: str = "toy",
    ) -> None:
        for prompt, entry in [*table.items(), ("default", default)]:
            _check(prompt, entry)
        self._table = _Table(dict(table), default, seed)
        super().__init__(self._table, name)

    def _confidence(
        self, request: Request, generation: Generation, observation: Observation
    ) -> Confidence:
        _, value = self._table.look_up(request)
        measured = uncalibrated(request, generation, observation)
        if value is None or measured.raw is None:
            reason = "the table gives no confidence" if value is None else measured.reason
            return replace(measured, reason=reason)
        return replace(
            measured, value=value, calibrated=True, low=value, high=value, interval="exact",
            profile="toy", reason="",
        )  # fmt: skip


def _check(prompt: str, entry: Any) -> None:
    shape = isinstance(entry, tuple) and len(entry) in (2, 3) and isinstance(entry[0], str)
    if not shape or (len(entry) == 3 and not isinstance(entry[2], str)):
        raise BadRequest(f"the entry {entry!r} of {prompt!r} is not (answer, confidence[, wrong])")
    value = entry[1]
    if value is not None and not 0 <= value <= 1:
        raise BadRequest(f"the confidence {value!r} of {prompt!r} is not in [0, 1] or None")


class _Done:
    def cancel(self) -> None:
        """A toy answer has always ended already."""


class _Table:
    """The toy's engine: it answers inside `submit`."""

    def __init__(self, table: dict[str, Entry], default: Entry, seed: int) -> None:
        self._table, self._default, self._seed = table, default, seed
        self._closed = False

    def submit(self, request: Request, listener: Listener, steps: bool = True) -> _Done:
        if self._closed:
            raise EngineClosed("the model is closed")
        answer, value = self.look_up(request)
        generation = _say(request, answer, value)
        for step in generation.steps if steps else ():
            listener(step)
        listener(Outcome(generation, Timing()))
        return _Done()

    def look_up(self, request: Request) -> tuple[str, float | None]:
        """What is said to this request, and how likely it is right."""
        text = _text(request)
        entry = self._table.get(text, self._default)
        if len(entry) == 3 and entry[1] is not None:
            draw = random.Random(f"{self._seed}|{request.seed}|{text}").random()
            return (entry[0] if draw < entry[1] else entry[2]), entry[1]
        return entry[0], entry[1]

    def report(self) -> dict[str, Any]:
        return {"batching": "answers from a table", "prompts": len(self._table)}

    @property
    def closed(self) -> bool:
        return self._closed

    def close(self) -> None:
        self._closed = True


def _text(request: Request) -> str:
    if isinstance(request.prompt, str):
        return request.prompt
    content = request.prompt[-1]["content"]
    return content if isinstance(content, str) else str(content)


def _say(request: Request, answer: str, value: float | None) -> Generation:
    """The answer word by word, cut as the request asks; each word as likely as `value` says."""
    cuts = [(answer.find(s), s) for s in request.stop if s in answer]
    end, stop = min(cuts, default=(len(answer), None))
    words = re.findall(r"\s*\S+|\s+$", answer[:end])
    finish: Finish = "length" if len(words) > request.max_new_tokens else "stop"
    words = words[: request.max_new_tokens]
    raw = "".join(words)
    found = as_parser(request.parser)
    prompt = _text(request).split()
    return Generation(
        raw, finish, _steps(words, value), len(prompt), len(words),
        answer=found(raw, ended=finish == "stop") if found else None,
        stop_string=stop if finish == "stop" else None,
    )  # fmt: skip


def _steps(words: list[str], value: float | None) -> tuple[Step, ...]:
    p = min(max(0.5 if value is None else value, 1e-6), 1 - 1e-6)
    entropy = -(p * math.log(p) + (1 - p) * math.log(1 - p))
    margin = abs(math.log(p) - math.log(1 - p))
    steps, at = [], 0
    for index, word in enumerate(words):
        steps.append(Step(index, word, at, at + len(word), math.log(p), entropy, margin, 0.0))
        at += len(word)
    return tuple(steps)
