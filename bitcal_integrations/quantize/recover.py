"""Trains the norm gains of a frozen quantized model to say what the unquantized one says.

A norm's gain is one number per channel, about a thousandth of all weights; everything else stays
as quantization made it, and so does the file format. Knows tokens and distributions; whether
answers get better is measured by who asks for it.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from optimum.quanto import QModuleMixin
from torch import nn
from torch.nn.functional import cross_entropy, kl_div, log_softmax

from bitcal_integrations.errors import BadRequest, CalibrationError
from bitcal_integrations.quantize._check import vocabulary
from bitcal_integrations.quantize._kept_layers import KeptLayers, Tensors, basis_of
from bitcal_integrations.quantize._recovery import Recovery
from bitcal_integrations.quantize._targets import Lesson, Targets, targets_of
from bitcal_integrations.quantize._texts import Batch, answer_logits, with_rest

WARM_UP = 0.05  # of all steps
SEGMENT = 10  # steps between two states that are kept
LONGEST = 1.0  # of a gradient, against single texts that throw all gains off

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Learned:
    """New gains by name, and the mean loss of the first and of the last tenth of the steps."""

    gains: dict[str, torch.Tensor]
    first: float
    last: float


def recover(
    student: Any,
    teacher: Any,
    batches: Sequence[Batch],
    how: Recovery | None = None,
    *,
    keep: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> Learned:
    """Gains with which `student` says what `teacher` does; `set_gains` puts them in.

    Both are models in memory. Where that is too much, `targets_of` asks the teacher, and `learn`
    needs the student alone. `keep` is a folder from which a cut run goes on.
    """
    how = how or Recovery()
    if vocabulary(student) != vocabulary(teacher):
        raise BadRequest(
            f"the teacher has {vocabulary(teacher)} tokens and the model {vocabulary(student)}: "
            "only a model with the same tokens can teach it"
        )
    lessons = [(b, targets_of(teacher, b, how.top, how.temperature)) for b in batches]
    return learn(student, lessons, how, keep=keep, progress=progress)


def gains_of(model: nn.Module) -> dict[str, nn.Parameter]:
    """The gains of all norms of a model (RMSNorm, LayerNorm and their kin), by name."""
    found = {}
    for name, module in model.named_modules():
        gain = module._parameters.get("weight")
        if type(module).__name__.endswith("Norm") and gain is not None and gain.ndim == 1:
            found[f"{name}.weight"] = gain
    if not found or getattr(getattr(model, "config", None), "is_encoder_decoder", False):
        reason = "is an encoder with a decoder" if found else "has no norm with gains"
        raise BadRequest(f"{type(model).__name__} {reason}: recovery trains the gains of decoders")
    return found


@torch.no_grad()
def set_gains(model: nn.Module, gains: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Put these gains in; what was there before."""
    held = gains_of(model)
    if set(held) != set(gains):
        differ = sorted(set(held) ^ set(gains))
        raise BadRequest(f"these are not the gains of {type(model).__name__}: {differ[0]!r}")
    before = {name: gain.detach().clone() for name, gain in held.items()}
    for name, gain in held.items():
        gain.copy_(gains[name])
    return before


def digest_of(gains: dict[str, torch.Tensor]) -> str:
    """A name for gains by all of their bytes."""
    return basis_of(*(part for item in sorted(gains.items()) for part in item))


def learn(
    student: Any,
    lessons: Sequence[Lesson],
    how: Recovery,
    *,
    keep: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> Learned:
    """The gains that batches and targets teach a model; its own stay as they are."""
    if not lessons:
        raise BadRequest("there is nothing to learn from: no batch was given")
    course = _Course(student, lessons, how)
    kept, state = KeptLayers(keep), course.start()
    basis = course.basis()
    for begin in range(0, course.steps, SEGMENT):

        def run(begin: int = begin, state: Tensors = state) -> Tensors:
            return course.run(begin, state, progress)

        held = (basis, begin, *(state[name] for name in sorted(state)))
        state = kept.get("train", f"steps-{begin:06d}", held, run)
        if progress is not None:
            progress(min(begin + SEGMENT, course.steps), course.steps, "recover")
    losses = state["losses"].tolist()
    some = max(1, len(losses) // 10)
    gains = {name: gain.detach().clone() for name, gain in course.gains(state["moved"]).items()}
    return Learned(gains, sum(losses[:some]) / some, sum(losses[-some:]) / some)


class _Course:
    """One training: the order of the batches, and how far the gains have moved, as one vector.

    The vector is in float32 and in units of the size of each norm's gains, which differ by orders
    of magnitude between the layers of one model.
    """

    def __init__(self, student: Any, lessons: Sequence[Lesson], how: Recovery) -> None:
        self.student, self.lessons, self.how = student, lessons, how
        self.held = gains_of(student)
        self.sizes = {name: _size(student, name) for name in self.held}
        self.steps = how.epochs * len(lessons)
        source = torch.Generator().manual_seed(how.seed)
        self.order = [
            i
            for _ in range(how.epochs)
            for i in torch.randperm(len(lessons), generator=source).tolist()
        ]

    def start(self) -> Tensors:
        """The state before the first step: nothing moved, and AdamW's two running means."""
        none = torch.zeros(sum(gain.numel() for gain in self.held.values()))
        return {"moved": none, "mean": none, "square": none, "losses": none[:0]}

    def basis(self) -> str:
        """A digest of all that the result depends on besides the state."""
        parts: list[Any] = [self.how.parts()]
        for batch, targets in self.lessons:
            parts += [batch.ids, batch.scored, targets.top, targets.chances]
        return basis_of(*parts, _weights_digest(self.student))

    def gains(self, moved: torch.Tensor) -> dict[str, torch.Tensor]:
        """The gains of the model, moved by the vector, in their own type."""
        parts = moved.split([gain.numel() for gain in self.held.values()])
        found = {}
        for (name, gain), part in zip(self.held.items(), parts, strict=True):
            step = self.sizes[name] * part.to(gain.device)
            found[name] = (gain.detach().float() + step).to(gain.dtype)
        return found

    def run(self, begin: int, state: Tensors, progress: Progress | None) -> Tensors:
        """The state after the next few steps."""
        device = next(iter(self.held.values())).device
        moved = nn.Parameter(state["moved"].to(device, copy=True))
        adam = torch.optim.AdamW([moved], lr=self.how.rate, weight_decay=0.0)
        adam.state[moved] = {
            "step": torch.tensor(float(begin)),
            "exp_avg": state["mean"].to(device, copy=True),
            "exp_avg_sq": state["square"].to(device, copy=True),
        }
        losses = []
        end = min(begin + SEGMENT, self.steps)
        with torch.enable_grad(), _trainable(self.student):
            for step in range(begin, end):
                adam.param_groups[0]["lr"] = self.how.rate * _share(step, self.steps)
                losses.append(self._step(step, moved, adam))
                if progress is not None:
                    progress(step, self.steps, "recover")
        held = adam.state[moved]
        return {
            "moved": moved.detach().cpu(),
            "mean": held["exp_avg"].cpu(),
            "square": held["exp_avg_sq"].cpu(),
            "losses": torch.cat([state["losses"].cpu(), torch.tensor(losses)]),
        }

    def _step(self, step: int, moved: nn.Parameter, adam: torch.optim.Optimizer) -> float:
        batch, targets = self.lessons[self.order[step]]
        logits = answer_logits(self.student, batch, self.gains(moved))
        loss = loss_of(logits, batch, targets, self.how)
        if not math.isfinite(loss.item()):
            raise CalibrationError(
                f"the loss is {loss.item()} at step {step} of {self.steps}",
                f"Try a rate below {self.how.rate}, or dtype='float32'.",
            )
        adam.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_([moved], LONGEST)
        adam.step()
        return loss.item()


def loss_of(logits: torch.Tensor, batch: Batch, targets: Targets, how: Recovery) -> torch.Tensor:
    """The mean loss of a token of the answers."""
    top, wanted = targets.top.to(logits.device), targets.chances.to(logits.device)
    found = with_rest(log_softmax(logits / how.temperature, dim=-1), top)
    loss = (
        how.alpha
        * how.temperature**2
        * kl_div(found, wanted, log_target=True, reduction="sum")
        / len(top)
    )
    if how.alpha < 1:
        loss = loss + (1 - how.alpha) * cross_entropy(logits, batch.said.to(logits.device))
    return loss


@torch.no_grad()
def _size(model: nn.Module, name: str) -> float:
    """The root mean square by which a norm stretches its input, for some add their gains to 1."""
    norm = model.get_submodule(name.removesuffix(".weight"))
    gain: torch.Tensor = norm.weight  # type: ignore[assignment]
    ones = torch.ones_like(gain)
    ones[1::2] = -1  # of mean 0 and of size 1, so that every kind of norm leaves it as it is
    try:
        stretched = (norm(ones) - norm(-ones)) / 2
    except (TypeError, AttributeError):  # a gated norm needs more than its input
        stretched = gain
    return max(float(stretched.float().square().mean().sqrt()), 1e-6)


def _share(step: int, steps: int) -> float:
    """The share of the highest rate: up in a line, down along a cosine."""
    up = max(1, round(WARM_UP * steps))
    if step < up:
        return (step + 1) / up
    return 0.5 * (1 + math.cos(math.pi * (step - up) / max(1, steps - up)))


@contextmanager
def _trainable(model: nn.Module) -> Iterator[None]:
    """Within this, no weight collects a gradient, and what a quantized layer gives may be changed
    in place, as Falcon does."""
    free = [p for p in model.parameters() if p.requires_grad]
    hooks = [
        module.register_forward_hook(lambda _module, _inputs, out: out.clone())
        for module in model.modules()
        if isinstance(module, QModuleMixin)
    ]
    try:
        for parameter in free:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in free:
            parameter.requires_grad_(True)
        for hook in hooks:
            hook.remove()


def _weights_digest(model: nn.Module) -> str:
    """Which model this is, by a few values of every tensor."""
    h = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        if isinstance(tensor, torch.Tensor):
            flat = tensor.detach().flatten()
            some = flat[:: max(1, flat.numel() // 32)][:32]
            h.update(f"{name} {tensor.dtype} {some.tolist()}".encode())
    return h.hexdigest()[:32]
