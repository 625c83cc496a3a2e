"""What a model expects at every token of the answers in batches of texts.

Of each distribution the likeliest tokens are kept, and the sum of all others, so that the float
model need not be there while another one learns from it. Knows nothing of how that learns.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch.nn.functional import log_softmax

from bitcal_integrations.errors import BadRequest
from bitcal_integrations.quantize._check import vocabulary
from bitcal_integrations.quantize._recovery import Recovery
from bitcal_integrations.quantize._texts import Batch, Text, answer_logits, batch_of, with_rest


@dataclass(frozen=True)
class Targets:
    """For every token of the answers of a batch what a model expected there.

    `top` are its likeliest tokens; `chances` their log-probabilities, softened, and in a last
    column that of all other tokens together (none where all of them are kept).
    """

    top: torch.Tensor
    chances: torch.Tensor


Lesson = tuple[Batch, Targets]


@torch.no_grad()
def targets_of(model: Any, batch: Batch, top: int, temperature: float) -> Targets:
    """What a model expects at each token of the answers."""
    if int(batch.ids.max()) >= vocabulary(model):
        raise BadRequest(
            f"the token {int(batch.ids.max())} is not one of the model's {vocabulary(model)}"
        )
    chances = log_softmax(answer_logits(model, batch) / temperature, dim=-1)
    likely = chances.topk(min(top, chances.shape[-1])).indices
    return Targets(likely.cpu(), with_rest(chances, likely).cpu())


def lessons_of(model: Any, texts: Sequence[Text], how: Recovery) -> list[Lesson]:
    """The texts in batches, with what a model expects at each token of their answers."""
    batches = (batch_of(texts[at : at + how.rows]) for at in range(0, len(texts), how.rows))
    return [(batch, targets_of(model, batch, how.top, how.temperature)) for batch in batches]


def tensors_of(lessons: Iterable[Lesson]) -> dict[str, torch.Tensor]:
    """Batches with their targets as named tensors, which a file keeps."""
    return {
        f"{number}.{name}": tensor
        for number, lesson in enumerate(lessons)
        for part in lesson
        for name, tensor in vars(part).items()
    }


def from_tensors(kept: Mapping[str, torch.Tensor]) -> list[Lesson]:
    """What `tensors_of` was made of."""

    def part(number: int, kind: type[Any]) -> Any:
        return kind(**{field.name: kept[f"{number}.{field.name}"] for field in fields(kind)})

    count = sum(name.endswith(".ids") for name in kept)
    return [(part(number, Batch), part(number, Targets)) for number in range(count)]
