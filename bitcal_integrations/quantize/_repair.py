"""What is asked of a repair: its steps and its seed, checked. Knows no weights."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

from bitcal_integrations.errors import BadRequest, LoadError
from bitcal_integrations.options import check_whole
from bitcal_integrations.quantize._plan import TYPES, wants_quantization

NAME = "data-free"
STEPS = ("fold", "clip", "round", "align")
# On top of these two, paired rounding brought nothing on the built-in model, and alignment nearer
# outputs but no better Brier score at six times the time: tests/benchmarks/repairs.py prints all.
DEFAULT = ("fold", "clip")
FOLD_STEPS = 300


@dataclass(frozen=True)
class Repair:
    """Which steps to take, from which seed; `keep` is a folder from which a cut run goes on.

    What the weights depend on, and thus the fingerprint, is in `parts()`; `keep` is not.
    """

    steps: tuple[str, ...] = DEFAULT
    seed: int = 0
    fold_steps: int = FOLD_STEPS
    keep: str | os.PathLike[str] | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        unknown = [s for s in self.steps if s not in STEPS]
        if unknown or not self.steps:
            offender = unknown[0] if unknown else self.steps
            raise BadRequest(f"{offender!r} is no step of a repair: use {', '.join(STEPS)}")
        for name in ("seed", "fold_steps"):
            check_whole(name, getattr(self, name), 0)

    def parts(self) -> dict[str, Any]:
        """Plain JSON: the same parts, on the same float weights, give the same model."""
        ordered = [s for s in STEPS if s in self.steps]
        made = {"name": NAME, "steps": ordered, "seed": self.seed}
        return made | ({"fold_steps": self.fold_steps} if "fold" in ordered else {})


def check_repair(repair: Any) -> Repair | None:
    """The repair asked for: None, "data-free", or a Repair as it is.

    >>> check_repair("data-free").parts()["steps"]
    ['fold', 'clip']
    """
    if repair is None or isinstance(repair, Repair):
        return repair
    if repair != NAME:
        raise BadRequest(f"repair={repair!r} is not known: use None or {NAME!r}")
    return Repair()


def already_quantized(repair: Repair, what: str) -> LoadError:
    """The error for a repair that comes too late."""
    return LoadError(
        f"repair={NAME!r} with the steps {', '.join(repair.parts()['steps'])} was asked for and "
        f"{what} already quantized",
        "What rounding lost is not there any more: repair while quantizing, from the original.",
    )


def needs_type(repair: Repair, weights: Any) -> None:
    """A repair without a weight type has nothing to do."""
    if not wants_quantization(weights):
        raise BadRequest(
            f"repair={NAME!r} betters low-bit weights, and weights={weights!r} quantizes nothing",
            f"Name a weight type with it: {', '.join(TYPES)}, or a plan.",
        )
