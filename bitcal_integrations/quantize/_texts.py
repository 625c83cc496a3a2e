"""Texts as padded batches of tokens, and what a model says of every token of their answers.

Texts are fed as they are, so nothing is generated and equal weights say the same. Knows token ids
and logits; what is made of them is others' business.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.func import functional_call

from bitcal_integrations.errors import BadRequest
from bitcal_integrations.quantize._check import device_of

Text = tuple[Sequence[int], Sequence[int]]  # the tokens of a prompt and of its answer


@dataclass(frozen=True)
class Batch:
    """Texts, padded on the right. `scored` marks the tokens after which an answer's token comes."""

    ids: torch.Tensor
    mask: torch.Tensor
    scored: torch.Tensor

    @property
    def said(self) -> torch.Tensor:
        """The tokens of all answers, in one row."""
        return self.ids[:, 1:][self.scored[:, :-1]]


def batch_of(texts: Sequence[Text], filler: int = 0) -> Batch:
    """The texts as one batch, in order.

    >>> batch = batch_of([([5, 6], [7, 8]), ([5], [9])])
    >>> batch.ids.tolist(), batch.said.tolist()
    ([[5, 6, 7, 8], [5, 9, 0, 0]], [7, 8, 9])
    """
    for prompt, answer in texts:
        if not prompt or not answer:
            raise BadRequest(f"a text needs tokens to ask and to answer, not {(prompt, answer)!r}")
    longest = max((len(prompt) + len(answer) for prompt, answer in texts), default=0)
    if not longest:
        raise BadRequest("a batch needs texts")
    ids = torch.full((len(texts), longest), filler, dtype=torch.long)
    mask, scored = torch.zeros_like(ids), torch.zeros_like(ids, dtype=torch.bool)
    for row, (prompt, answer) in enumerate(texts):
        end = len(prompt) + len(answer)
        ids[row, :end] = torch.tensor([*prompt, *answer])
        mask[row, :end] = 1
        scored[row, len(prompt) - 1 : end - 1] = True
    return Batch(ids, mask, scored)


def answer_logits(
    model: nn.Module, batch: Batch, values: Mapping[str, torch.Tensor] | None = None
) -> torch.Tensor:
    """The logits, in float32, from which each token of the answers comes.

    With `values`, as if these were the parameters of those names.
    """
    device = device_of(model)
    given = {"input_ids": batch.ids.to(device), "attention_mask": batch.mask.to(device)}
    out = functional_call(model, dict(values or {}), kwargs={**given, "use_cache": False})
    found: torch.Tensor = out.logits[batch.scored.to(device)].float()
    return found


def with_rest(chances: torch.Tensor, top: torch.Tensor) -> torch.Tensor:
    """The log-probabilities of these tokens, and of all others together in a last column.

    >>> halves = torch.tensor([[0.5, 0.25, 0.25]]).log()
    >>> with_rest(halves, torch.tensor([[0]])).exp().tolist()
    [[0.5, 0.5]]
    """
    taken = chances.gather(-1, top)
    if top.shape[-1] == chances.shape[-1]:
        return taken
    others = chances.scatter(-1, top, -torch.inf).logsumexp(-1, keepdim=True)
    return torch.cat([taken, others], dim=-1)
