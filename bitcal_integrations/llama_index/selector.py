"""ConfidenceSelector: which tool a query is for, read from the probability of its number.

LLMSingleSelector parses JSON out of a text; here one token is generated and the probabilities of
the choices' numbers are compared, so there is always a choice, and it says how sure it is. The
probabilities are the model's own, not calibrated.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llama_index.core.base.base_selector import BaseSelector, SelectorResult, SingleSelection
from llama_index.core.prompts.mixin import PromptDictType
from llama_index.core.schema import QueryBundle
from llama_index.core.tools.types import ToolMetadata

from bitcal_integrations.errors import BadRequest, LowConfidenceError
from bitcal_integrations.llama_index._grounded import OPTIONS, asks
from bitcal_integrations.signals._ask import word, words_of
from bitcal_integrations.types import Record

PROMPT = (
    "Which of these is most useful for the question?\n{choices}\n\nQuestion: {question}\n"
    "Reply with its number only."
)
MOST = 9  # numbers of one digit are one token


class ConfidenceSelector(BaseSelector):
    """For `RouterQueryEngine(selector=ConfidenceSelector(model), ...)`; `model` is one that `load`
    gave, or a BitCalLLM.

    The most probable choice is selected, its probability among the choices is its `reason`. With
    `cover` further choices are, the most probable first, until together they have that much:
    a router then asks several engines where the model is in doubt.
    """

    def __init__(self, model: Any, cover: float | None = None, prompt: str = PROMPT) -> None:
        if cover is not None and not 0 < cover <= 1:
            raise BadRequest(f"cover={cover!r} is not allowed: a number in (0, 1], or None")
        self._model, self._cover, self._prompt = asks(model), cover, prompt

    def _get_prompts(self) -> PromptDictType:
        return {}

    def _update_prompts(self, prompts: PromptDictType) -> None:
        """There is none of LlamaIndex's kind: the choices are part of it."""

    def _select(self, choices: Sequence[ToolMetadata], query: QueryBundle) -> SelectorResult:
        return self._selected(len(choices), self._model.ask(self._asked(choices, query), **OPTIONS))

    async def _aselect(self, choices: Sequence[ToolMetadata], query: QueryBundle) -> SelectorResult:
        record = await self._model.aask(self._asked(choices, query), **OPTIONS)
        return self._selected(len(choices), record)

    def _asked(self, choices: Sequence[ToolMetadata], query: QueryBundle) -> str:
        if not 0 < len(choices) <= MOST:
            raise BadRequest(f"{len(choices)} choices cannot be numbered by one token: 1 to {MOST}")
        told = [f"{i}. {choice.description}" for i, choice in enumerate(choices, 1)]
        return self._prompt.format(choices="\n".join(told), question=query.query_str)

    def _selected(self, n: int, record: Record) -> SelectorResult:
        shares = shares_of(n, record)
        order = sorted(range(n), key=lambda i: -shares[i])
        chosen, covered = order[:1], shares[order[0]]
        while self._cover is not None and covered < self._cover and len(chosen) < n:
            chosen.append(order[len(chosen)])
            covered += shares[chosen[-1]]
        reasons = {i: f"probability {shares[i]:.2f} among {n} choices" for i in chosen}
        return SelectorResult(
            selections=[SingleSelection(index=i, reason=reasons[i]) for i in chosen]
        )


def shares_of(n: int, record: Record) -> list[float]:
    """The probability of each of the numbers 1 to n at the first token, summing to 1."""
    steps = record.generation.steps
    words = words_of(steps[0]) if steps else []
    if steps and not words:  # an engine that shows no alternatives
        words = [(word(steps[0].text), 1.0)]
    found = [sum(p for w, p in words if w == str(i)) for i in range(1, n + 1)]
    if not sum(found):
        raise LowConfidenceError(f"the model said {record.text!r:.40}, no number to {n}", record)
    return [p / sum(found) for p in found]
