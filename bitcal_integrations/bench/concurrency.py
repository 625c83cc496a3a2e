"""What one queue and shared batches gain: requests at once, and rows of very different length.

At once: `ask` with a list against `ask` one by one, same model, same prompts. Different lengths:
more requests than seats through the engine, where a waiting request takes the seat of a finished
one, against groups in order, each of which starts when the group before it has ended. "Padded":
every row of a group computes until the longest is done, as in one `generate` call. "Shrinking":
our own loop without a queue, where finished rows leave and nobody takes their seats. The lengths
are drawn once from a seed; only the tokens that were asked for count as throughput.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TypeAlias

import torch

from bitcal_integrations.bench._bed import EXCLUDE, Bed, tokenizer
from bitcal_integrations.bench._loops import expect, ours, rounds, timed
from bitcal_integrations.bench._rows import Row, ratios
from bitcal_integrations.decode.net import Net
from bitcal_integrations.engines._ticket import Outcome, collect
from bitcal_integrations.engines.local import LocalEngine
from bitcal_integrations.model import load
from bitcal_integrations.quantize._dtype import name_of
from bitcal_integrations.types import Request

Case: TypeAlias = "tuple[str, Callable[[], list[Row]]]"

AT_ONCE, DIFFERENT = ">= 3.0", ">= 1.3"


def cases(bed: Bed) -> Iterator[Case]:
    """The plain model in float32, then the last weight type in the dtype that `load` picks."""
    kinds: list[tuple[str | None, torch.dtype]] = [
        (None, torch.float32),
        (bed.scale.weights[-1], bed.dtype),
    ]
    for weights, dtype in kinds:
        what = f"{weights or 'plain'} {name_of(dtype)}"
        yield f"at once, {what}", partial(_at_once, bed, weights, dtype, what)
    weights, dtype = kinds[-1]
    yield f"different lengths, {what}", partial(_different, bed, str(weights), dtype, what)


def _at_once(bed: Bed, weights: str | None, dtype: torch.dtype, what: str) -> list[Row]:
    scale, vocabulary = bed.scale, bed.scale.vocabularies[0]
    prompts = bed.prompts(vocabulary, scale.concurrent)
    model = load(
        bed.model(vocabulary, dtype),
        weights=weights,
        tokenizer=tokenizer(vocabulary),
        exclude=EXCLUDE,
        max_new_tokens=scale.new_tokens,
    )
    with model:
        taken = rounds(
            {
                "at once": lambda: timed(lambda: model.ask(prompts), bed.device),
                "one by one": lambda: timed(lambda: [model.ask(p) for p in prompts], bed.device),
            },
            scale.pairs,
        )
    setting = f"throughput of {scale.concurrent} requests at once / one by one, {what}"
    return [Row("concurrency", setting, ratios(taken["one by one"], taken["at once"]), AT_ONCE)]


def _different(bed: Bed, weights: str, dtype: torch.dtype, what: str) -> list[Row]:
    scale, vocabulary = bed.scale, bed.scale.vocabularies[0]
    dice = random.Random(0)
    requests = bed.requests(vocabulary, [dice.randint(*scale.lengths) for _ in range(scale.mixed)])
    groups = [requests[i : i + scale.seats] for i in range(0, len(requests), scale.seats)]
    net = bed.quantized(vocabulary, dtype, weights)
    engine = LocalEngine(net, max_batch=scale.seats)
    short = [dataclasses.replace(request, max_new_tokens=scale.lengths[0]) for request in groups[0]]
    try:
        _through(engine, short)
        _in_groups(net, [short])
        taken = rounds(
            {
                "engine": lambda: timed(lambda: _through(engine, requests), bed.device),
                "padded": lambda: _in_groups(net, [_to_longest(group) for group in groups]),
                "shrinking": lambda: _in_groups(net, groups),
            },
            scale.pairs,
            warm_up=False,
        )
    finally:
        engine.close()
    low, high = scale.lengths
    rows = []
    for name in ("padded", "shrinking"):
        setting = (
            f"throughput of {scale.mixed} requests of {low} to {high} tokens on {scale.seats} seats"
            f" / {name} groups, {what}"
        )
        target = DIFFERENT if name == "padded" else None
        rows.append(Row("concurrency", setting, ratios(taken[name], taken["engine"]), target))
    return rows


def _through(engine: LocalEngine, requests: Sequence[Request]) -> None:
    tokens = []
    for result in collect(engine, requests):
        if not isinstance(result, Outcome):
            raise result
        tokens.append(result.generation.n_tokens)
    expect(tokens, requests)


def _to_longest(group: Sequence[Request]) -> list[Request]:
    longest = max(request.max_new_tokens for request in group)
    return [dataclasses.replace(request, max_new_tokens=longest) for request in group]


def _in_groups(net: Net, groups: Sequence[Sequence[Request]]) -> float:
    return sum(ours(net, group).whole for group in groups)
