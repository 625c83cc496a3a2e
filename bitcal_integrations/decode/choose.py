"""The next token of a row: transformers' own logits processors and samplers, one row at a time.

A row is processed alone, over its own ids without padding, so its choice is the same in any
batch. Greedy rows of a model without processors never come here: an argmax of the batch serves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from bitcal_integrations.decode.net import Net
from bitcal_integrations.types import Request

if TYPE_CHECKING:
    from bitcal_integrations.decode.constraint import Constraint


class Chooser:
    """The processors, the random stream and the grammar of one request."""

    def __init__(
        self,
        net: Net,
        request: Request,
        prompt_tokens: int,
        constraint: Constraint | None = None,
    ) -> None:
        self._constraint = constraint
        self._sample = request.temperature > 0
        self._processors = _processors(net, request, prompt_tokens)
        self._random: torch.Generator | None = None
        if self._sample:
            self._random = torch.Generator(device=net.device)
            if request.seed is None:
                self._random.seed()
            else:
                self._random.manual_seed(request.seed)

    @property
    def plain(self) -> bool:
        """Whether the choice is the argmax of the raw logits."""
        free = self._constraint is None or self._constraint.idle
        return free and not self._sample and not self._processors

    def __call__(self, ids: torch.Tensor, logits: torch.Tensor) -> int:
        if self._constraint is None:
            return self._pick(ids, logits)
        return self._constraint.choose(logits, lambda masked: self._pick(ids, masked))

    def _pick(self, ids: torch.Tensor, logits: torch.Tensor) -> int:
        """A token by logits; what a grammar has set to -inf is never taken."""
        scores = logits.unsqueeze(0)
        if self._processors:
            scores = self._processors(ids.unsqueeze(0), scores.clone())
        if self._constraint is not None:
            scores = scores.masked_fill(logits == -torch.inf, -torch.inf)
            if not torch.isfinite(scores).any():  # a processor forbids all that the grammar allows
                scores = logits.unsqueeze(0)
        if not self._sample:
            return int(scores.argmax(-1))
        chances = torch.softmax(scores, dim=-1)
        return int(torch.multinomial(chances, 1, generator=self._random))


def _processors(net: Net, request: Request, prompt_tokens: int) -> Any:
    """What `generate` would apply for this model and these options, in its order."""
    options: dict[str, Any] = {"do_sample": request.temperature > 0, "num_beams": 1}
    if request.temperature > 0:
        options["temperature"] = float(request.temperature)
        if request.top_p is not None:
            options["top_p"] = float(request.top_p)
    model = net.model
    config, _ = model._prepare_generation_config(None, **options)
    config.eos_token_id = sorted(net.eos) or None
    config.pad_token_id = net.pad
    config.max_length = prompt_tokens + request.max_new_tokens
    model._prepare_special_tokens(config, True, device=net.device)
    return model._get_logits_processor(
        config, input_ids_seq_length=prompt_tokens, device=str(net.device), logits_processor=[]
    )
