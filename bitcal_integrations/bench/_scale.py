"""How large a benchmark is: the default for a CPU, the default for a GPU, and the smoke test.

A step of the default models costs what a step of a small real model costs: on a CPU 42M weights
in the linear layers and 25M or 98M in the head, on a GPU 1.1B weights.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from bitcal_integrations.errors import BadRequest


@dataclass(frozen=True)
class Shape:
    """A Llama without its vocabulary; sizes in units of its config."""

    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int


@dataclass(frozen=True)
class Scale:
    """Sizes of one run. Lengths are in tokens; `pairs` counts measured pairs per figure.

    `seats` and `lengths` are those of the requests of different length, `growth_steps` the short
    and the long run whose peaks are compared; `loading` is the model that is loaded. With
    `fresh`, memory and loading are measured in processes of their own.
    """

    model: Shape
    loading: Shape
    vocabularies: tuple[int, ...]
    batches: tuple[int, ...]
    pairs: int
    prompt: tuple[int, int]
    new_tokens: int
    concurrent: int
    mixed: int
    seats: int
    lengths: tuple[int, int]
    growth_steps: tuple[int, int]
    weights: tuple[str, ...] = ("qint8", "qint4")
    fresh: bool = True


CPU = Scale(
    model=Shape(768, 2048, 6, 12, 4),
    loading=Shape(1024, 2816, 12, 16, 4),
    vocabularies=(32_000, 128_256),
    batches=(1, 8),
    pairs=5,
    prompt=(8, 24),
    new_tokens=32,
    concurrent=16,
    mixed=32,
    seats=8,
    lengths=(8, 128),
    growth_steps=(16, 64),
)
GPU = Scale(
    model=Shape(2048, 5632, 22, 32, 4),
    loading=Shape(2048, 5632, 22, 32, 4),
    vocabularies=(32_000, 128_256),
    batches=(1, 8),
    pairs=5,
    prompt=(8, 24),
    new_tokens=32,
    concurrent=16,
    mixed=32,
    seats=8,
    lengths=(8, 128),
    growth_steps=(16, 64),
)
SMOKE = Scale(
    model=Shape(256, 256, 1, 4, 2),
    loading=Shape(256, 256, 1, 4, 2),
    vocabularies=(512,),
    batches=(1, 2),
    pairs=1,
    prompt=(3, 6),
    new_tokens=4,
    concurrent=3,
    mixed=4,
    seats=2,
    lengths=(2, 6),
    growth_steps=(4, 12),
    weights=("qint4",),
    fresh=False,
)


def scale_of(size: str, device: torch.device) -> Scale:
    """The sizes by name: "default" depends on the device."""
    scales = {"default": GPU if device.type == "cuda" else CPU, "smoke": SMOKE}
    if size not in scales:
        raise BadRequest(f"size={size!r} is not allowed: it must be 'default' or 'smoke'")
    return scales[size]
