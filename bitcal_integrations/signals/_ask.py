"""The question after the answer: one more turn whose first tokens are read, never its text.

A string that goes through no chat template is continued as text; everything else becomes a
dialogue, with the system prompt and earlier turns as they were.
"""

from __future__ import annotations

import math
from dataclasses import replace

from bitcal_integrations.types import Generation, Request, Step

ALTERNATIVES = 100  # as many per token as a request may keep
# A model that can think first would otherwise begin with that.
_NO_THINKING = {"enable_thinking": False}


def follow_up(
    request: Request, generation: Generation, question: str, reply: str, tokens: int
) -> Request:
    """Ask `question` about the answer; `reply` is how a text without turns leads to the reply."""
    answer = generation.text.strip()
    if isinstance(request.prompt, str) and request.chat is False:
        prompt = f"{request.prompt}{generation.text}\n\n{question}\n{reply}"
        return replace(_plain(request, tokens), prompt=prompt)
    turns = (
        ({"role": "user", "content": request.prompt},)
        if isinstance(request.prompt, str)
        else request.prompt
    )
    said = {"role": "assistant", "content": answer}
    asked = {"role": "user", "content": question}
    return replace(_plain(request, tokens), prompt=(*turns, said, asked))


def _plain(request: Request, tokens: int) -> Request:
    """Greedy, short, with alternatives, and nothing that could end it before its tokens."""
    return replace(
        request, max_new_tokens=tokens, temperature=0.0, top_p=None, seed=None, stop=(),
        parser=None, loop_stop=False, top_logprobs=ALTERNATIVES,
        tools=(), tool_choice=None, response_schema=None,
        chat_template_kwargs={**request.chat_template_kwargs, **_NO_THINKING},
    )  # fmt: skip


def words_of(step: Step) -> list[tuple[str, float]]:
    """The alternatives at a token as (word, probability): without space and marks, lower case."""
    texts = step.top_text
    pairs = zip(texts, step.top, strict=True)
    return [(word(text), math.exp(logprob)) for text, (_, logprob) in pairs]


def word(text: str) -> str:
    """A token's text as a word.

    >>> word(" **True"), word("False."), word("▁85")
    ('true', 'false', '85')
    """
    return text.strip(" \t\n\r▁Ġ*_.,:;!\"'`()").casefold()
