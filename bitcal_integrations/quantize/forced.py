"""Two scores of a model on fixed texts: how far it has moved, and how good its confidence is.

The texts are fed as they are, so nothing is generated and equal weights give equal scores. Knows
token ids and logits; where the texts come from, and which answers are right, is the caller's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from bitcal_integrations.errors import BadRequest
from bitcal_integrations.quantize._check import vocabulary
from bitcal_integrations.quantize._texts import Batch, answer_logits, batch_of, with_rest

LIKELIEST = 256  # tokens told apart; all others count as one
LOGITS = 1 << 25  # at most so many in memory at once
PADDED = 1.25  # how much longer than the first text of a batch the last may be


@dataclass(frozen=True)
class Text:
    """Token ids, and from where to where they are scored; `right`: whether the answer is."""

    ids: tuple[int, ...]
    start: int
    end: int
    right: bool | None = None


class Divergence:
    """Nats per token between what a model expects next and what the first model did.

    `Divergence(model, texts)` remembers the distribution at every token that is scored, its
    likeliest tokens singly; calling it with a model gives the mean Kullback-Leibler divergence, 0
    for the same model.
    """

    def __init__(self, model: Any, texts: Sequence[Text]) -> None:
        self.batches = _batches(model, texts)
        with torch.no_grad():
            self.wanted = [_shape(logits) for logits in _logits(model, self.batches)]

    @torch.no_grad()
    def __call__(self, model: Any) -> float:
        total, n = 0.0, 0
        for (ids, before), logits in zip(self.wanted, _logits(model, self.batches), strict=True):
            total += _divergence(before, with_rest(logits.log_softmax(-1), ids))
            n += len(before)
        return total / n


class Brier:
    """Squared distance between a model's confidence in fixed answers and whether they are right.

    The confidence is the raw one: the geometric mean of the probabilities of the answer's tokens.
    """

    def __init__(self, model: Any, texts: Sequence[Text]) -> None:
        if any(text.right is None for text in texts):
            raise BadRequest("a Brier score needs to know of every text whether it is right")
        self.batches = _batches(model, texts)

    @torch.no_grad()
    def __call__(self, model: Any) -> float:
        total, n = 0.0, 0
        for batch, logits in zip(self.batches, _logits(model, self.batches), strict=True):
            said = _batch(batch).said.to(logits.device)
            logprobs = logits.log_softmax(-1).gather(1, said[:, None])[:, 0]
            parts = logprobs.split([t.end - t.start for t in batch])
            for text, mine in zip(batch, parts, strict=True):
                total += (float(mine.double().mean().exp()) - float(bool(text.right))) ** 2
                n += 1
        return total / n


def _batches(model: Any, texts: Sequence[Text]) -> list[list[Text]]:
    """Texts of like length together, as many as the memory allows."""
    usable = [text for text in texts if 0 < text.start < text.end <= len(text.ids)]
    if not usable:
        raise BadRequest("there is no text with a token to score")
    if getattr(model.config, "is_encoder_decoder", False):
        raise BadRequest(
            f"{type(model).__name__} has an encoder, so texts cannot be fed to it in one piece"
        )
    batches: list[list[Text]] = []
    for text in sorted(usable, key=lambda t: len(t.ids)):
        last, width = batches[-1] if batches else [], len(text.ids)
        room = (len(last) + 1) * width * vocabulary(model) <= LOGITS
        if last and room and width <= PADDED * len(last[0].ids):
            last.append(text)
        else:
            batches.append([text])
    return batches


def _logits(model: Any, batches: Sequence[Sequence[Text]]) -> Iterator[torch.Tensor]:
    """Of each batch the logits before every scored token, one row each."""
    return (answer_logits(model, _batch(texts)) for texts in batches)


def _batch(texts: Sequence[Text]) -> Batch:
    return batch_of([(t.ids[: t.start], t.ids[t.start : t.end]) for t in texts])


def _shape(logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The likeliest tokens of each row, and their log-probabilities with that of all others."""
    logprobs = logits.log_softmax(-1)
    ids = logprobs.topk(min(LIKELIEST, logprobs.shape[-1])).indices
    return ids, with_rest(logprobs, ids)


def _divergence(before: torch.Tensor, now: torch.Tensor) -> float:
    """The sum over rows of sum(p log(p / q)), in terms that are never negative.

    To each p log(p / q) belongs q - p, which adds up to nothing; without it rounding would drown
    what int8 weights change.
    """
    p, step = before.exp(), now - before
    near = p * (step.clamp(max=1.0).expm1() - step)
    terms = torch.where(step < 1.0, near, now.exp() - p - p * step)
    return float(terms.masked_fill(before.isneginf(), 0.0).double().sum())
