"""Structured answers of a ConfidenceFallbackLLM: every llm fills the schema in its own way.

The value is a model of the user's, with no room for a confidence, so it is judged by what the
collector saw while it was made.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bitcal_integrations.chains.cascade import Cascade
from bitcal_integrations.chains.records import unknown_record
from bitcal_integrations.errors import LowConfidenceError
from bitcal_integrations.llama_index._course import arun, given, run
from bitcal_integrations.llama_index.collector import Collector, collect, note
from bitcal_integrations.types import Record

if TYPE_CHECKING:
    from bitcal_integrations.llama_index.fallback_llm import ConfidenceFallbackLLM

UNSEEN = "the llm that filled the schema tells no confidence"
Made = tuple[Any, Record]


def structured(fallback: ConfidenceFallbackLLM, *args: Any, **kwargs: Any) -> Any:
    """The value of the first llm that was certain enough of it."""

    def ask(index: int) -> Made:
        with collect() as seen:
            value = fallback.llms[index].structured_predict(*args, **kwargs)
        return value, _record(value, seen, fallback._names[index])

    cascade = fallback._cascade()
    with collect(hide=True):
        made = run(cascade, ask, _judged)
    return _chosen(cascade, made)


async def astructured(fallback: ConfidenceFallbackLLM, *args: Any, **kwargs: Any) -> Any:
    """`structured` for an event loop."""

    async def ask(index: int) -> Made:
        with collect() as seen:
            value = await fallback.llms[index].astructured_predict(*args, **kwargs)
        return value, _record(value, seen, fallback._names[index])

    cascade = fallback._cascade()
    with collect(hide=True):
        made = await arun(cascade, ask, _judged)
    return _chosen(cascade, made)


def _record(value: Any, seen: Collector, name: str) -> Record:
    if seen.records:
        return seen.records[-1]
    return unknown_record(value.model_dump_json(), model=name, reason=UNSEEN)


def _judged(index: int, made: Made) -> Record:
    return made[1]


def _chosen(cascade: Cascade, made: dict[int, Made]) -> Any:
    outcome = cascade.outcome()
    record = given(cascade, outcome)
    note(record, route=cascade.provenance())
    if outcome.index is None:  # a sentence is no value of the schema
        tried = [attempt.record for attempt in cascade.attempts if attempt.record is not None]
        raise LowConfidenceError(f"no value is certain enough: {outcome.reason}", tried[-1])
    return made[outcome.index][0]
