"""Loading a folder that `save` wrote, against quantizing the plain folder while it is read.

Both through our loader, each in a fresh process, files warm in the system's cache, in the dtype
that `load` picks; the plain folder is stored in that dtype too. Time is that of `load_weights`,
imports apart. Memory is what it adds at its peak, with the pages of mapped files (resident) and
without them (own), which the system can take back.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TypeAlias

from bitcal_integrations.bench._bed import Bed, llama, tokenizer
from bitcal_integrations.bench._child import call
from bitcal_integrations.bench._rows import Row, ratios
from bitcal_integrations.bench._scale import SMOKE, Shape
from bitcal_integrations.quantize._dtype import name_of
from bitcal_integrations.quantize.weights import load_weights, save_weights

Case: TypeAlias = "tuple[str, Callable[[], list[Row]]]"


def cases(bed: Bed) -> Iterator[Case]:
    """Each weight type."""
    for weights in bed.scale.weights:
        label = f"{weights} {name_of(bed.dtype)}"
        yield label, partial(_load, bed, weights, label)


def _load(bed: Bed, weights: str, label: str) -> list[Row]:
    bed.release()
    vocabulary = bed.scale.vocabularies[0]
    with tempfile.TemporaryDirectory() as place:
        small = _folders(bed, Path(place, "small"), SMOKE.model, SMOKE.vocabularies[0], weights)
        large = _folders(bed, Path(place, "large"), bed.scale.loading, vocabulary, weights)
        ways = {"fly": (weights, 0), "saved": ("auto", 1)}
        found: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
        for _ in range(bed.scale.pairs):
            for way, (asked, which) in ways.items():
                arguments = {
                    "folder": str(large[which]),
                    "warm_up": str(small[which]),
                    "weights": asked,
                    "device": str(bed.device),
                }
                found[way].append(call("_load_once", arguments, fresh=bed.scale.fresh))
    words = {"seconds": "time", "resident": "peak memory (resident)", "own": "peak memory (own)"}
    return [
        Row("loading", f"{word} of a saved folder / on the fly, {label}", measured)
        for key, word in words.items()
        if (measured := _pairs(found, key))
    ]


def _pairs(found: dict[str, list[dict[str, float]]], key: str) -> tuple[float, ...]:
    """Saved over on the fly; nothing where the system does not tell."""
    saved, fly = ([entry[key] for entry in found[way]] for way in ("saved", "fly"))
    return ratios(saved, fly) if all(fly) else ()


def _folders(
    bed: Bed, place: Path, shape: Shape, vocabulary: int, weights: str
) -> tuple[Path, Path]:
    """A plain folder as transformers writes it, and the quantized one that we write."""
    plain, saved = place / "plain", place / weights
    model, words = llama(shape, vocabulary, bed.device).to(bed.dtype), tokenizer(vocabulary)
    with _quietly():
        model.save_pretrained(plain)
    words.save_pretrained(plain)
    save_weights(load_weights(model, weights=weights, tokenizer=words), saved)
    return plain, saved


@contextmanager
def _quietly() -> Iterator[None]:
    """Without the progress bars of transformers, which would break into ours."""
    from transformers.utils import logging

    enabled = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if enabled:
            logging.enable_progress_bar()
