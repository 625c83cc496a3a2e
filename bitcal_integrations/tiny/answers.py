"""Greedy answers of a model in padded batches, with a raw confidence each.

The stand-in for the package's engine in training and in the model card: it knows the chat
template and a KV cache, and no signal but the geometric mean of token probabilities.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerFast

from bitcal_integrations.tiny.tasks import Question

MAX_NEW_TOKENS = 160


class Answer(NamedTuple):
    """Text, and geometric-mean token probability of the answer span and of the whole text."""

    text: str
    confidence: float
    whole: float


def answers(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    questions: Sequence[Question],
    batch: int = 128,
) -> list[Answer]:
    """One answer per question, in order."""
    prompts = [
        tokenizer.apply_chat_template(list(q.messages), add_generation_prompt=True, tokenize=False)
        for q in questions
    ]
    rows = [
        e.ids for e in tokenizer.backend_tokenizer.encode_batch(prompts, add_special_tokens=False)
    ]
    order = sorted(
        range(len(rows)), key=lambda i: (questions[i].task, questions[i].steps, len(rows[i]))
    )
    found: dict[int, Answer] = {}
    for at in range(0, len(order), batch):
        group = order[at : at + batch]
        ids, logprobs = decode(model, [rows[i] for i in group], tokenizer)
        for i, tokens, scores in zip(group, ids, logprobs, strict=True):
            found[i] = _answer(tokenizer, tokens, scores)
    return [found[i] for i in range(len(questions))]


@torch.no_grad()
def decode(
    model: PreTrainedModel, rows: list[list[int]], tokenizer: PreTrainedTokenizerFast
) -> tuple[list[list[int]], list[list[float]]]:
    """Greedy tokens up to and with the end token, and their log-probabilities."""
    width = max(map(len, rows))
    ids = torch.tensor([[tokenizer.pad_token_id] * (width - len(r)) + r for r in rows])
    mask = torch.tensor([[0] * (width - len(r)) + [1] * len(r) for r in rows])
    position = (mask.cumsum(1) - 1).clamp(min=0)
    cache, done = DynamicCache(config=model.config), torch.zeros(len(rows), dtype=torch.bool)
    tokens: list[list[int]] = [[] for _ in rows]
    scores: list[list[float]] = [[] for _ in rows]
    for _ in range(MAX_NEW_TOKENS):
        logits = model(
            input_ids=ids, attention_mask=mask, position_ids=position, past_key_values=cache,
            use_cache=True, logits_to_keep=1,
        ).logits[:, -1].float()  # fmt: skip
        best, chosen = logits.log_softmax(-1).max(-1)
        for row, (token, score) in enumerate(zip(chosen.tolist(), best.tolist(), strict=True)):
            if not done[row]:
                tokens[row].append(token)
                scores[row].append(score)
        done |= chosen == tokenizer.eos_token_id
        if done.all():
            break
        ids, position = chosen[:, None], position[:, -1:] + 1
        mask = torch.cat([mask, torch.ones_like(ids)], 1)
    return tokens, scores


def _answer(tokenizer: PreTrainedTokenizerFast, tokens: list[int], scores: list[float]) -> Answer:
    text = tokenizer.decode(tokens, skip_special_tokens=True)
    span = _span(tokenizer, tokens)
    geometric = [
        float(torch.tensor(part).mean().exp()) if part else 0.0 for part in (scores[span:], scores)
    ]
    return Answer(text, *geometric)


def _span(tokenizer: PreTrainedTokenizerFast, tokens: list[int]) -> int:
    """Index of the first token after `####`; 0 where there is none."""
    marks = [i for i, token in enumerate(tokens) if "##" in tokenizer.convert_ids_to_tokens(token)]
    return marks[-1] + 1 if marks else 0
