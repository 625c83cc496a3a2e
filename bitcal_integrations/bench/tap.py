"""What the signal tap costs: our loop with it, against the same loop without it and `generate`.

Time: whole calls, prefill included, greedy, same prompts, same number of new tokens, in the dtype
that `load` picks. Ours also tokenizes and writes the texts; `generate` gets padded ids. "Without"
is our loop with a tap that measures nothing and gives zeros.

Memory: bytes that one more step adds to the peak, over the bytes of the scores of one step (rows x
vocabulary x 4). A loop that keeps scores has a ratio of 1, which the control shows: the same loop
with a tap that keeps them. Keys and values and the steps themselves are part of the figure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TypeAlias

import torch

from bitcal_integrations.bench._bed import Bed
from bitcal_integrations.bench._child import call
from bitcal_integrations.bench._loops import ours, rounds, theirs
from bitcal_integrations.bench._rows import Row, ratios
from bitcal_integrations.decode.tap import Tapped
from bitcal_integrations.quantize._dtype import name_of

Case: TypeAlias = "tuple[str, Callable[[], list[Row]]]"

TIME, GROWTH, CONTROL = "<= 1.05", "<= 0.05", ">= 0.9"

# Blocks above 64 KiB are mapped on their own and given back when they are freed.
PRECISE = {
    "MALLOC_MMAP_THRESHOLD_": "65536",
    "MALLOC_TRIM_THRESHOLD_": "0",
    "MALLOC_ARENA_MAX": "1",
}


def cases(bed: Bed) -> Iterator[Case]:
    """Each vocabulary with each batch, then the memory of all of them."""
    for vocabulary in bed.scale.vocabularies:
        for batch in bed.scale.batches:
            label = f"{name_of(bed.dtype)}, vocabulary {vocabulary:,}, batch {batch}"
            yield label, partial(_time, bed, vocabulary, batch, label)
    if bed.device.type == "cuda" or Path("/proc/self/clear_refs").exists():
        yield "memory", partial(_memory, bed)


def nothing(
    logits: torch.Tensor, chosen: torch.Tensor, best: torch.Tensor, top_k: int = 0
) -> Tapped:
    """A tap that measures nothing."""
    zeros = [0.0] * len(logits)
    return Tapped(zeros, zeros, zeros, zeros, [()] * len(logits))


def _time(bed: Bed, vocabulary: int, batch: int, label: str) -> list[Row]:
    net = bed.plain(vocabulary, bed.dtype)
    requests = bed.requests(vocabulary, [bed.scale.new_tokens] * batch)
    taken = rounds(
        {
            "with": lambda: ours(net, requests).whole,
            "without": lambda: ours(net, requests, nothing).whole,
            "generate": lambda: theirs(net, requests).whole,
        },
        bed.scale.pairs,
    )
    without, generate = (ratios(taken["with"], taken[k]) for k in ("without", "generate"))
    return [
        Row("tap", f"time with tap / without, {label}", without, TIME),
        Row("tap", f"time of our loop / generate, {label}", generate, TIME),
    ]


def _memory(bed: Bed) -> list[Row]:
    scale = bed.scale
    arguments = {
        "device": str(bed.device),
        "vocabularies": scale.vocabularies,
        "batches": scale.batches,
        "steps": scale.growth_steps,
        "pairs": scale.pairs,
        "threads": 1,  # nothing is timed, and a small model's threads mostly wait
    }
    rows = []
    for entry in call("_growth", arguments, fresh=scale.fresh, environment=PRECISE):
        scores = entry["vocabulary"] * entry["rows"] * 4
        where = f"vocabulary {entry['vocabulary']:,}, batch {entry['rows']}"
        what = f"bytes kept per step / {scores:,} bytes of scores, {where}"
        kept, control = (tuple(b / scores for b in entry[k]) for k in ("tap", "control"))
        rows.append(Row("tap", f"{what}, with tap", kept, GROWTH))
        rows.append(Row("tap", f"{what}, control that keeps scores", control, CONTROL))
    return rows
