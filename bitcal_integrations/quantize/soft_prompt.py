"""Soft prompts: embeddings trained in front of fixed prompts while the model stays as it is.

`tune` takes a loss of a tensor, `loss(soft, rows) -> scalar`; what the rows ask, and of which
model, is the caller's. A SoftPrompt is a safetensors file that names the model it was trained on.
After Zhong et al., "Quantized Can Still Be Calibrated" (ACL 2025), whose released code also trains
the layer norms; here nothing of the model is changed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from bitcal_integrations.errors import BadRequest, LoadError
from bitcal_integrations.options import check_whole

FILE_NAME = "bitcal_verdict.safetensors"  # beside the weights, where `load` finds it
FORMAT, VERSION, STATE = "bitcal-soft-prompt", 1, "bitcal-soft-prompt-state"
EVAL_BATCH = 64
Loss = Callable[[torch.Tensor, Sequence[int]], torch.Tensor]


@dataclass(frozen=True)
class Tuning:
    """How soft tokens are trained: how many, for how many steps of how many prompts.

    `rate` is a step of Adam in units of the spread of the model's embeddings; it falls to 0. Every
    `every` steps the loss of the held-out rows is measured, and the best place is kept.
    """

    tokens: int = 16
    steps: int = 200
    batch: int = 16
    rate: float = 0.3
    every: int = 20
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("tokens", "steps", "batch", "every", "seed"):
            check_whole(name, getattr(self, name), int(name != "seed"))
        if not self.rate > 0:
            raise BadRequest(f"rate={self.rate!r} must be a number above 0")


@dataclass(frozen=True, eq=False)
class SoftPrompt:
    """Trained soft tokens, (tokens, width) in float32, and the model they belong to.

    `parts` is that model's fingerprint, `report` what the training came to, `seen` marks the
    prompts it has seen.
    """

    soft: torch.Tensor
    parts: Mapping[str, Any]
    report: Mapping[str, Any] = field(default_factory=dict)
    seen: str = ""

    @property
    def digest(self) -> str:
        """Sixteen hexadecimal digits that stand for these very numbers."""
        return sha256(self.soft.cpu().numpy().tobytes()).hexdigest()[:16]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the file beside itself first, so that a cut leaves the old one whole."""
        about = {"parts": self.parts, "report": self.report, "seen": self.seen}
        _write(Path(path), FORMAT, {"soft": self.soft}, about)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> SoftPrompt:
        """Read a file that `save` wrote."""
        tensors, about = _read(Path(path), FORMAT)
        try:
            return cls(tensors["soft"], about["parts"], about["report"], about["seen"])
        except KeyError as err:
            raise LoadError(f"{os.fspath(path)!r} is not a whole soft prompt: no {err}") from None


def as_soft_prompt(given: Any) -> SoftPrompt | None:
    """A soft prompt from a path, or as it is."""
    if isinstance(given, (str, os.PathLike)):
        return SoftPrompt.load(given)
    if given is None or isinstance(given, SoftPrompt):
        return given
    raise BadRequest(f"a soft prompt is a path, a SoftPrompt or None, not {given!r:.100}")


def beside(source: Any, parts: Mapping[str, Any]) -> SoftPrompt | None:
    """The soft prompt that was saved with these very weights, where they come from a folder."""
    if not isinstance(source, (str, os.PathLike)):
        return None
    path = Path(source) / FILE_NAME
    found = SoftPrompt.load(path) if path.is_file() else None
    return found if found is not None and found.parts == parts else None


class State(NamedTuple):
    """Where a training stands; `best` is the place with the least held-out loss so far."""

    step: int
    soft: torch.Tensor
    mean: torch.Tensor
    square: torch.Tensor
    best: torch.Tensor
    losses: tuple[float, float]  # held out: at the start, and the best


TENSORS = ("soft", "mean", "square", "best")


@dataclass(frozen=True)
class Kept:
    """The file in which a cut training is kept; `made` says of what, and another is refused."""

    path: Path
    made: Mapping[str, Any]

    def read(self) -> State | None:
        if not self.path.is_file():
            return None
        tensors, about = _read(self.path, STATE)
        if about["made"] != json.loads(json.dumps(self.made)):
            raise BadRequest(
                f"{str(self.path)!r} holds a training of another model, of other answers or with "
                "other settings: delete it to begin anew"
            )
        return State(step=about["step"], losses=tuple(about["losses"]), **tensors)

    def write(self, state: State) -> None:
        tensors = {name: getattr(state, name) for name in TENSORS}
        about = {"made": self.made, "step": state.step, "losses": state.losses}
        _write(self.path, STATE, tensors, about)


def tune(
    loss: Loss,
    start: torch.Tensor,
    rows: Sequence[int],
    held_out: Sequence[int],
    how: Tuning,
    spread: float,
    keep: Kept | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> State:
    """Train soft tokens from `start` on `rows`; the best place by the loss of `held_out`.

    `spread` is the standard deviation of the model's embeddings. With `keep`, a training that is
    cut goes on from its last whole step and comes to the same numbers.
    """
    state = keep.read() if keep else None
    if state is not None:
        state = state._replace(**{n: getattr(state, n).to(start.device) for n in TENSORS})
    else:
        first, zeros = mean_loss(loss, start, held_out), torch.zeros_like(start)
        state = State(0, start, zeros, zeros, start, (first, first))
    try:
        while state.step < how.steps:
            state = _step(loss, state, rows, held_out, how, spread)
            if progress is not None:
                progress(state.step, how.steps, "tuning the verdict prompt")
            if keep is not None and state.step % how.every == 0:
                keep.write(state)
    except BaseException:
        if keep is not None:
            keep.write(state)
        raise
    return state


def _step(
    loss: Loss,
    state: State,
    rows: Sequence[int],
    held_out: Sequence[int],
    how: Tuning,
    spread: float,
) -> State:
    """One step of Adam, and the held-out loss where it is due."""
    soft = state.soft.clone().requires_grad_()
    with torch.enable_grad():
        (slope,) = torch.autograd.grad(loss(soft, _batch(rows, state.step, how)), [soft])
    step = state.step + 1
    mean = 0.9 * state.mean + 0.1 * slope
    square = 0.999 * state.square + 0.001 * slope.square()
    rate = how.rate * spread * (1 - state.step / how.steps)
    move = mean / (1 - 0.9**step) / ((square / (1 - 0.999**step)).sqrt() + 1e-8)
    after = state.soft - rate * move
    best, (first, least) = state.best, state.losses
    if step % how.every == 0 or step == how.steps:
        found = mean_loss(loss, after, held_out)
        best, least = (after, found) if found < least else (best, least)
    return State(step, after, mean, square, best, (first, least))


def _batch(rows: Sequence[int], step: int, how: Tuning) -> list[int]:
    """The rows of a step: all of them in turn, in an order that only the seed decides."""
    each = -(-len(rows) // how.batch)
    epoch, at = divmod(step, each)
    order = list(rows)
    Random(f"{how.seed}|{epoch}").shuffle(order)
    return order[at * how.batch : (at + 1) * how.batch]


@torch.no_grad()
def mean_loss(loss: Loss, soft: torch.Tensor, rows: Sequence[int]) -> float:
    """The loss of many rows, a few at a time."""
    some = [rows[at : at + EVAL_BATCH] for at in range(0, len(rows), EVAL_BATCH)]
    return sum(float(loss(soft, part)) * len(part) for part in some) / len(rows)


# ---- files -------------------------------------------------------------------------------------


def _write(
    path: Path, kind: str, tensors: Mapping[str, torch.Tensor], about: Mapping[str, Any]
) -> None:
    told = {"format": kind, "version": VERSION, **about}
    held = {name: tensor.cpu().contiguous().clone() for name, tensor in tensors.items()}
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(save(held, {"bitcal": json.dumps(told, ensure_ascii=False)}))
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _read(path: Path, kind: str) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    try:
        with safe_open(path, framework="pt") as file:
            told = json.loads((file.metadata() or {}).get("bitcal", "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, ValueError) as err:
        raise LoadError(f"the soft prompt {str(path)!r} cannot be read: {err}") from err
    if told.get("format") != kind or told.get("version") != VERSION:
        found = f"format {told.get('format')!r}, version {told.get('version')!r}"
        raise LoadError(f"{str(path)!r} holds {found}, not {kind!r}, {VERSION}")
    return tensors, told
