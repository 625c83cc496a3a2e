"""The signal tap: four numbers per token from the raw logits, never a kept score tensor.

It reads logits before any processor or temperature, so a signal means the same under greedy and
sampled decoding. The two work tensors are reused from step to step: what it holds does not grow
with the number of steps.
"""

from __future__ import annotations

from typing import NamedTuple

import torch


class Tapped(NamedTuple):
    """Per row, in nats: log-probability of the chosen token, entropy, top-2 margin, logsumexp."""

    logprob: list[float]
    entropy: list[float]
    margin: list[float]
    logsumexp: list[float]
    top: list[tuple[tuple[int, float], ...]]


class Tap:
    """Measures one step of a batch; call it with float32 logits (rows, vocabulary).

    `best` is their argmax, which the choice of the token needs anyway.
    """

    def __init__(self) -> None:
        self._work: tuple[torch.Tensor, torch.Tensor] | None = None

    def __call__(
        self, logits: torch.Tensor, chosen: torch.Tensor, best: torch.Tensor, top_k: int = 0
    ) -> Tapped:
        shifted, powers = self._buffers(logits)
        peak_at = best.unsqueeze(-1)
        peak = logits.gather(-1, peak_at)
        torch.sub(logits, peak, out=shifted)
        torch.exp(shifted, out=powers)
        total = powers.sum(-1, keepdim=True)
        log_total = total.log()
        weighted = torch.linalg.vecdot(powers, shifted).unsqueeze(-1)
        entropy = log_total - weighted / total
        if not bool(torch.isfinite(entropy).all()):  # a masked logit makes 0 x -inf
            entropy = torch.special.entr(powers / total).sum(-1, keepdim=True)
        logprob = shifted.gather(-1, chosen.unsqueeze(-1)) - log_total
        top = self._top(shifted, log_total, top_k)
        second = shifted.scatter_(-1, peak_at, -torch.inf).amax(dim=-1, keepdim=True)
        numbers = torch.cat([logprob, entropy, -second, peak + log_total], dim=-1)
        chosen_logprob, spread, margin, log_sum = numbers.T.tolist()
        return Tapped(chosen_logprob, spread, margin, log_sum, top)

    def _buffers(self, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        rows, vocabulary = logits.shape
        work = self._work
        if work is None or work[0].shape[0] < rows or work[0].shape[1] != vocabulary:
            work = self._work = (torch.empty_like(logits), torch.empty_like(logits))
        return work[0][:rows], work[1][:rows]

    def _top(
        self, shifted: torch.Tensor, log_total: torch.Tensor, top_k: int
    ) -> list[tuple[tuple[int, float], ...]]:
        if not top_k:
            return [()] * len(shifted)
        values, ids = (shifted - log_total).topk(min(top_k, shifted.shape[-1]), dim=-1)
        return [
            tuple(zip(i, v, strict=True))
            for i, v in zip(ids.tolist(), values.tolist(), strict=True)
        ]
