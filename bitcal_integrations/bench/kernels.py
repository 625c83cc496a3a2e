"""How fast quantized weights decode: against the plain float32 model, and against quanto itself.

Speed is tokens per second from the first token to the last, so prefill does not count. Plain and
ours run in our loop; "quanto" is `quantize` and `freeze` of the same layers and `model.generate`,
with our `unpack` in place of the one that quanto would compile on its first int4 forward (measured
as equally fast). The head stays float in all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TypeAlias

import torch

from bitcal_integrations.bench._bed import Bed
from bitcal_integrations.bench._loops import Spent, ours, rounds, theirs
from bitcal_integrations.bench._rows import Row, ratios
from bitcal_integrations.decode.net import Net
from bitcal_integrations.quantize._dtype import name_of
from bitcal_integrations.types import Request

Case: TypeAlias = "tuple[str, Callable[[], list[Row]]]"

QUANTO, INT4 = ">= 1.0", ">= 1.5"


def cases(bed: Bed) -> Iterator[Case]:
    """Each weight type in each dtype that the device has."""
    for weights in bed.scale.weights:
        for dtype in dict.fromkeys((bed.dtype, torch.float32)):
            label = f"{weights} {name_of(dtype)}"
            yield label, partial(_speed, bed, weights, dtype, label)


def _speed(bed: Bed, weights: str, dtype: torch.dtype, label: str) -> list[Row]:
    vocabulary = bed.scale.vocabularies[0]
    plain = bed.plain(vocabulary, torch.float32)
    own = bed.quantized(vocabulary, dtype, weights)
    quanto = bed.quanto(vocabulary, dtype, weights)
    wanted = INT4 if (weights, dtype) == ("qint4", torch.bfloat16) else None
    contestants = {"plain": (ours, plain), "ours": (ours, own), "quanto": (theirs, quanto)}
    rows = []
    for batch in bed.scale.batches:
        requests = bed.requests(vocabulary, [bed.scale.new_tokens] * batch)
        taken = rounds(
            {name: partial(_decode, *it, requests) for name, it in contestants.items()},
            bed.scale.pairs,
        )
        over_plain, over_quanto = (ratios(taken[k], taken["ours"]) for k in ("plain", "quanto"))
        speed = f"decode speed of {label}"
        rows += [
            Row("kernels", f"{speed} / plain float32, batch {batch}", over_plain, wanted),
            Row("kernels", f"{speed} / quanto's, batch {batch}", over_quanto, QUANTO),
        ]
    return rows


def _decode(loop: Callable[..., Spent], net: Net, requests: Sequence[Request]) -> float:
    return loop(net, requests).decode
