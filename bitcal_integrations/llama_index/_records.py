"""A Record for whatever LlamaIndex hands back, and a dict of it put into a response.

Ours carry `bitcal`; another model's answer is judged by its log-probabilities where it has some
and a profile says what they are worth; everything else is unknown with the reason. Knows the
shapes of the framework's answers, no model.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    CompletionResponse,
    LogProb,
)
from llama_index.core.base.response.schema import PydanticResponse

from bitcal_integrations.chains.records import (
    known,
    record_of_bitcal,
    record_of_logprobs,
    unknown_record,
)
from bitcal_integrations.chains.trail import Trail
from bitcal_integrations.errors import BadRequest
from bitcal_integrations.profile import Profile
from bitcal_integrations.types import Confidence, Record

NOTHING = "the answer carries no confidence and no log-probabilities"
UNSPELLED = "the log-probabilities do not spell the answer's text"


def text_of(answer: Any) -> str:
    """The words of an answer; empty where it has none."""
    if isinstance(answer, PydanticResponse):  # it would answer for every name of its model
        return str(answer) if answer.response is not None else ""
    for name in ("text", "response_txt", "response", "content", "message"):
        value = getattr(answer, name, None)
        if isinstance(value, str):
            return value
        if isinstance(value, ChatMessage):
            return value.content or ""
    return ""


def bitcal_of(answer: Any) -> Mapping[str, Any] | None:
    """The dict under `bitcal`, wherever this kind of answer carries it."""
    found = _told(answer).get("bitcal")
    return found if isinstance(found, Mapping) else None


def _told(answer: Any) -> Mapping[str, Any]:
    """What holds the dict under `bitcal`, with the id of its record beside it."""
    for place in ("metadata", "raw"):
        found = getattr(answer, place, None)
        if isinstance(found, Mapping) and isinstance(found.get("bitcal"), Mapping):
            return found
    output = getattr(answer, "raw_output", None)
    return {} if output is None else _told(output)


def record_of(
    answer: Any,
    *,
    prompt: Any = "",
    model: str = "",
    profile: Profile | None = None,
    task: str = "default",
) -> Record:
    """The Record behind an answer: a Record itself, a response of an llm, an engine or an agent.

    `profile` is what another model's log-probabilities have been measured to be worth, by `task`.
    """
    if isinstance(answer, Record):
        return answer
    if answer is None or isinstance(answer, (str, bytes, int, float, Mapping, list, tuple)):
        raise BadRequest(
            f"{answer!r:.80} is no answer of LlamaIndex: pass a response of an llm, a query "
            "engine, a chat engine or an agent, or a Record"
        )
    data, text = bitcal_of(answer), text_of(answer)
    used = usage_of(answer)
    if data is not None:
        known = _told(answer).get("record_id")
        return record_of_bitcal(data, text, prompt=prompt, model=model, record_id=known, **used)
    if isinstance(answer, (ChatResponse, CompletionResponse)) and answer.logprobs:
        return _of_logprobs(
            text, answer.logprobs, used, prompt=prompt, model=model, profile=profile, task=task
        )
    return unknown_record(
        text, prompt=prompt, model=model, reason=NOTHING, n_tokens=used["n_tokens"]
    )


def usage_of(answer: Any) -> dict[str, int]:
    """Tokens of the prompt and of the answer, as `raw["usage"]` says; 0 where nothing does."""
    raw = getattr(answer, "raw", None)
    usage = raw.get("usage") if isinstance(raw, Mapping) else None
    usage = usage if isinstance(usage, Mapping) else {}
    asked = usage.get("prompt_tokens", usage.get("input_tokens"))
    said = usage.get("completion_tokens", usage.get("output_tokens"))
    return {"prompt_tokens": int(asked or 0), "n_tokens": int(said or 0)}


def _of_logprobs(
    text: str, logprobs: Sequence[Sequence[LogProb]], used: Mapping[str, int], **about: Any
) -> Record:
    chosen = chosen_of(text, logprobs)
    if chosen is None:
        prompt, model, n = about["prompt"], about["model"], used["n_tokens"]
        return unknown_record(text, prompt=prompt, model=model, reason=UNSPELLED, n_tokens=n)
    tops = [[(c.token, c.logprob) for c in candidates] for candidates in logprobs[: len(chosen)]]
    return record_of_logprobs(text, chosen, tops=tops, prompt_tokens=used["prompt_tokens"], **about)


def turns_of(asked: Any) -> Any:
    """What an llm was asked: a text as it is, chat messages as role and content."""
    if isinstance(asked, str):
        return asked
    return [{"role": m.role.value, "content": m.content or ""} for m in asked or ()] or ""


def chosen_of(text: str, logprobs: Sequence[Sequence[LogProb]]) -> list[tuple[str, float]] | None:
    """Which candidate of each token was generated; None where no choice spells the text.

    Some integrations give the best candidates in order of probability, and the generated one
    anywhere among them: it is the one that the text goes on with. Several ways to spell the text
    are told apart by their probability.

    >>> row = [LogProb(token="Lon", logprob=-0.1), LogProb(token="Par", logprob=-2.4)]
    >>> chosen_of("Paris", [row, [LogProb(token="is", logprob=-0.2)]])
    [('Par', -2.4), ('is', -0.2)]
    """
    ways: dict[int, tuple[float, tuple[tuple[str, float], ...]]] = {0: (0.0, ())}
    for candidates in logprobs:
        longer: dict[int, tuple[float, tuple[tuple[str, float], ...]]] = {}
        for at, (total, path) in ways.items():
            for c in candidates:
                end, score = at + len(c.token), total + c.logprob
                better = end not in longer or score > longer[end][0]
                if text.startswith(c.token, at) and better:
                    longer[end] = (score, (*path, (c.token, c.logprob)))
        if not longer and len(text) in ways:
            break  # what follows the text is the mark of its end
        ways = longer
    found = ways.get(len(text))
    return None if found is None else list(found[1])


def as_mapping(raw: Any) -> dict[str, Any]:
    """What an llm gave as `raw`, as a dict that keys can be added to, nothing of it lost."""
    if isinstance(raw, Mapping):
        return dict(raw)
    if raw is None:
        return {}
    dumped = getattr(raw, "model_dump", None)
    return dict(dumped()) if callable(dumped) else {"raw": raw}


def confidence_keys(record: Record, **more: Any) -> dict[str, Any]:
    """What metadata and raw carry of a record: `confidence`, and `bitcal` with `more` in it."""
    told = {name: _counted(value) for name, value in more.items()}
    bitcal = {**record.bitcal(), **told}
    return {"confidence": record.confidence.value, "bitcal": bitcal, "record_id": record.id}


def _counted(about: Any) -> Any:
    """A route or trail without the counts of tokens that an engine's response does not tell."""
    if not isinstance(about, Mapping):
        return about
    lists = {k: about[k] for k in ("attempts", "steps") if k in about}
    for name, entries in lists.items():
        lists[name] = [{k: v for k, v in entry.items() if k != "tokens" or v} for entry in entries]
    return {**about, **lists}


def with_keys(response: Any, record: Record, **more: Any) -> Any:
    """A copy of an engine's response with the confidence in its metadata, beside what was there."""
    before = response.metadata or {}
    keys = confidence_keys(record, **more)
    if isinstance(before.get("bitcal"), Mapping):  # what else is said there: calls, steps
        keys["bitcal"] = {**before["bitcal"], **keys["bitcal"]}
    return dataclasses.replace(response, metadata={**before, **keys})


def joined(last: Record, trail: Trail) -> Record:
    """The last answer's record with the confidence of the whole trail, which nobody measured."""
    old = last.confidence
    if trail.aggregate == "last" or len(trail.records) == 1:
        return last
    about = f"the {trail.aggregate} over {len(trail.records)} steps"
    if trail.value is None:
        unknown = next(r for r in trail.records if known(r) is None)
        about += f", of which one is unknown: {unknown.confidence.reason}"
    confidence = Confidence(
        trail.value, raw=old.raw, signals=old.signals, profile=old.profile, task=old.task,
        reason=about,
    )  # fmt: skip
    return dataclasses.replace(last, confidence=confidence)
