"""Does the context say so? The model's own yes or no about an answer, as a probability.

One token is generated and none of its text is used: the probability of all ways to write yes, over
that of yes and no. It knows a prompt and a token; what the number is worth is for a calibrator.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from bitcal_integrations.errors import BadRequest, PromptTooLong
from bitcal_integrations.signals._ask import ALTERNATIVES, word, words_of
from bitcal_integrations.types import Record

QUESTION = (
    "Context:\n{context}\n\nQuestion: {question}\nProposed answer: {answer}\n\n"
    "Does the context say that this is the answer? Reply with one word, yes or no."
)
OPTIONS: dict[str, Any] = {
    "max_new_tokens": 1, "temperature": 0.0, "parser": None, "loop_stop": False, "stop": (),
    "top_logprobs": ALTERNATIVES,
}  # fmt: skip


def asks(model: Any) -> Any:
    """What to ask: a model, or the one behind an llm of ours, without profile and sinks.

    The question is no answer of the app, so nobody who watches its answers hears of it.
    """
    inner = getattr(model, "calibrated", model)
    if not callable(getattr(inner, "ask", None)) or not callable(getattr(inner, "aask", None)):
        raise BadRequest(
            f"{model!r:.80} cannot be asked for its yes or no: pass a model that load gave, "
            "or a BitCalLLM"
        )
    bare = getattr(inner, "without_profile", None)
    return bare() if callable(bare) else inner


def prompt_of(question: str, answer: str, passages: Sequence[str]) -> str:
    """The question about an answer."""
    context = "\n\n".join(passages)
    return QUESTION.format(context=context, question=question, answer=answer)


def share_of(result: Any) -> float:
    """P(yes) of what came; NaN where neither word was among the alternatives, or no room was."""
    if isinstance(result, PromptTooLong):
        return math.nan
    if isinstance(result, Exception):
        raise result
    return yes_share(result)


def yes_share(record: Record) -> float:
    """P(yes) over P(yes) and P(no) at the first token.

    A word that is not among the alternatives counts as the last of them, the most it can be. An
    engine that shows no alternatives is taken at its one word.
    """
    steps = record.generation.steps
    if not steps:
        return math.nan
    words = words_of(steps[0])
    if not words:
        said, p = word(steps[0].text), math.exp(steps[0].logprob)
        return {"yes": p, "no": 1 - p}.get(said, math.nan)
    found = {w: sum(p for other, p in words if other == w) for w in ("yes", "no")}
    if not any(found.values()):
        return math.nan
    least = min(p for _, p in words)
    yes, no = (found[w] or least for w in ("yes", "no"))
    return yes / (yes + no)
