"""A Record for an answer, whoever gave it: our JSON dict, log-probabilities, or nothing at all.

What cannot be read gives a record of unknown confidence with the reason, never an error in the
middle of a chain. It knows no framework's objects: adapters hand over plain values.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

from bitcal_integrations.assess import NO_LOGPROBS, Assessor
from bitcal_integrations.chains._bitcal import ACTIONS, FINISHES, confidence_in, decision_in, one_of
from bitcal_integrations.decide import Policy
from bitcal_integrations.engines._remote_scored import Scored, steps_of
from bitcal_integrations.errors import BadRequest
from bitcal_integrations.grading import as_parser
from bitcal_integrations.profile import Profile
from bitcal_integrations.types import (
    Confidence,
    Decision,
    Finish,
    Generation,
    Record,
    Request,
    make_request,
)

NO_CONFIDENCE = "the model gives no confidence"
EMPTY = "no_answer: the text is empty"
# How hosted models say that an answer was cut or withheld; every other word of theirs is a stop.
FOREIGN: dict[str, Finish] = {
    "max_tokens": "length",
    "MAX_TOKENS": "length",
    "model_context_window_exceeded": "length",
    "content_filter": "error",
    "refusal": "error",
    "SAFETY": "error",
    "RECITATION": "error",
    "PROHIBITED_CONTENT": "error",
}
SHOWN = 2000  # characters kept of a prompt that our models could not take


def unknown_record(
    text: str,
    *,
    prompt: Any = "",
    model: str = "",
    reason: str = NO_CONFIDENCE,
    n_tokens: int = 0,
    prompt_tokens: int = 0,
    finish: str = "stop",
) -> Record:
    """A record of an answer that nothing is known about; `reason` says why.

    >>> unknown_record("Paris").confidence.value is None
    True
    """
    generation = Generation(text, finish_of(finish), prompt_tokens=prompt_tokens, n_tokens=n_tokens)
    return Record(_request(prompt), generation, Confidence(reason=reason), model=model)


def record_of_bitcal(
    data: Any,
    text: str,
    *,
    prompt: Any = "",
    model: str = "",
    prompt_tokens: int = 0,
    n_tokens: int = 0,
    record_id: Any = None,
) -> Record:
    """The record behind a `bitcal` dict: the inverse of Record.bitcal() as far as JSON goes.

    `record_id` is what a framework's object says beside it; without one the record gets its own.
    Keys beside its own (a route, votes, fields) are left alone. A dict that cannot be one of ours
    gives unknown confidence, with the reason.
    """
    try:
        confidence = confidence_in(data)
        finish = one_of(data, "finish", FINISHES, "stop")
        decision = decision_in(data.get("decision"))
    except BadRequest as err:
        return unknown_record(
            text, prompt=prompt, model=model, reason=f"malformed bitcal: {err.message}",
            n_tokens=n_tokens, prompt_tokens=prompt_tokens,
        )  # fmt: skip
    stopped = data.get("stopped")
    generation = Generation(
        text, finish, prompt_tokens=prompt_tokens, n_tokens=n_tokens,
        stopped=dict(stopped) if isinstance(stopped, Mapping) else None,
    )  # fmt: skip
    request = _request(prompt, confidence.task)
    record = Record(request, generation, confidence, decision, model=model)
    known = isinstance(record_id, str) and record_id
    return replace(record, id=record_id) if known else record


def record_of_logprobs(
    text: str,
    tokens: Sequence[Scored],
    *,
    tops: Sequence[Sequence[Scored]] = (),
    prompt: Any = "",
    model: str = "",
    profile: Profile | None = None,
    task: str = "default",
    finish: str = "stop",
    prompt_tokens: int = 0,
) -> Record:
    """Another model's answer, judged by its log-probabilities as OpenAI's shape gives them.

    `tokens` are the pieces of `text` with their log-probabilities, `tops` the best alternatives
    per token, from which entropy and margin come; without them both are unknown. A profile of the
    engine kind "remote" makes the confidence a calibrated one: it is taken to be of this model,
    asked as it was measured; a `model` of another name is refused. Without a profile, or with a
    foreign one, the confidence is unknown and `raw` is kept.
    """
    if not tokens:
        return unknown_record(
            text, prompt=prompt, model=model, reason=NO_LOGPROBS, finish=finish,
            prompt_tokens=prompt_tokens,
        )  # fmt: skip
    try:
        steps = steps_of(text, tokens, tops)
    except BadRequest as err:
        return unknown_record(
            text, prompt=prompt, model=model, reason=f"malformed log-probabilities: {err.message}",
            n_tokens=len(tokens), prompt_tokens=prompt_tokens, finish=finish,
        )  # fmt: skip
    assessor = _assessor(_Same(profile), model)
    request = _as_measured(assessor, _request(prompt, task))
    end = finish_of(finish)
    parse = as_parser(request.parser)
    answer = parse(text, ended=end != "length") if parse else None
    generation = Generation(text, end, steps, prompt_tokens, len(tokens), answer=answer)
    return Record(request, generation, assessor.confidence(request, generation), model=model)


def judged(policy: Policy, record: Record) -> Record:
    """The record with what the policy decides about it."""
    decision = policy.decide(record)
    if not isinstance(decision, Decision) or decision.action not in ACTIONS:
        raise BadRequest(
            f"the policy {policy!r:.80} decided {decision!r:.80}: it gives a Decision whose action "
            f"is one of {', '.join(ACTIONS)}"
        )
    return replace(record, decision=decision)


def known(record: Record) -> float | None:
    """The record's confidence; one that is not a number is unknown."""
    value = record.confidence.value
    return None if value is None or math.isnan(value) else value


def finish_of(word: Any) -> Finish:
    """Our word for how a generation ended, from ours or a hosted model's.

    >>> finish_of("length"), finish_of("tool_calls"), finish_of("max_tokens"), finish_of(None)
    ('length', 'stop', 'length', 'stop')
    """
    if isinstance(word, str) and word in FINISHES:
        return word
    return FOREIGN.get(word, "stop") if isinstance(word, str) else "stop"


class _Same:
    """A profile as a key: the same object is the same profile."""

    def __init__(self, profile: Profile | None) -> None:
        self.profile = profile

    def __hash__(self) -> int:
        return id(self.profile)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.profile is self.profile


@lru_cache(maxsize=32)
def _assessor(key: _Same, model: str) -> Assessor:
    """Kept between answers, because it watches whether their scores shift."""
    if key.profile is None:
        return Assessor(None, {})
    parts = {**key.profile.parts, "engine": "remote"}
    return Assessor(key.profile, {**parts, "model": model} if model else parts)


def _as_measured(assessor: Assessor, request: Request) -> Request:
    """The request with the decoding of its task: how another model decoded is not told."""
    task = assessor.task(request.task)
    if task is None:
        return request
    how = {**task.decoding, "stop": tuple(task.decoding["stop"]), "parser": task.parser}
    how["chat"] = None if how["chat"] else False
    how.pop("response_schema", None)  # kept as a digest, which no request can take
    return replace(request, **how)


def _request(prompt: Any, task: str = "default") -> Request:
    try:
        return make_request(prompt, task=task)
    except BadRequest:  # pictures, for one: another model may take what ours cannot
        return Request(f"{prompt!r:.{SHOWN}}", task=task)
