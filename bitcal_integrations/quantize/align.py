"""Aims each layer at what the float model gives, on token sequences that nobody has to provide.

Half of the sequences are random tokens, half the model writes by itself. Decoder layer by decoder
layer, each quantized linear layer is first moved so that, on the inputs that the layers before it
now give, it comes as near as it can to the float model's outputs; then it is rounded column by
column (round.py), each error moved on to the columns that are still free. Knows decoder-only
models whose layers can be called one by one; nothing about prompts or answers.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from bitcal_integrations.compat import cache_name
from bitcal_integrations.quantize._check import device_of, vocabulary

ROWS, TOKENS = 48, 128  # of random tokens, and as many of the model's own
DAMP = 0.1  # of the mean square: the inputs stand for others like them, not for themselves

_CACHES = ("past_key_values", "past_key_value", "layer_past")

Rounder = Callable[[str, torch.Tensor, torch.Tensor], torch.Tensor]


class NotAlignable(Exception):
    """Why the layers of a model cannot be run one by one."""


@dataclass(frozen=True)
class Call:
    """How a model calls one decoder layer on one batch, the hidden states apart."""

    name: str
    layer: nn.Module
    kwargs: dict[str, Any]

    def run(self, layer: nn.Module, hidden: torch.Tensor) -> torch.Tensor:
        out = layer(**{**self.kwargs, "hidden_states": hidden})
        return out[0] if isinstance(out, tuple) else out


@torch.no_grad()
def align(model: Any, names: set[str], rounder: Rounder, seed: int = 0) -> None:
    """Give every linear layer among `names` weights that `rounder(name, target, gram)` rounded.

    The layers stay float, on their grids. A model whose layers cannot be run one by one is left
    alone with `NotAlignable`.
    """
    batches = [_calls(model, ids) for ids in sequences(model, seed)]
    floats = [hidden for hidden, _ in batches]
    found = list(floats)
    for at, call in enumerate(batches[0][1]):
        calls = [calls[at] for _, calls in batches]
        original = copy.deepcopy(call.layer)
        mine = [n for n in names if n.startswith(f"{call.name}.")]
        for group in _groups(original, {n.removeprefix(f"{call.name}."): n for n in mine}, calls):
            inputs = [
                (_inputs(c, original, group, x), _inputs(c, call.layer, group, y))
                for c, x, y in zip(calls, floats, found, strict=True)
            ]
            gram, cross = _moments(inputs)
            for leaf, name in group.items():
                layer: Any = call.layer.get_submodule(leaf)
                target = _target(layer.weight.float(), gram, cross)
                layer.weight.data = rounder(name, target, gram).to(layer.weight.dtype)
        floats = [c.run(original, x) for c, x in zip(calls, floats, strict=True)]
        found = [c.run(call.layer, y) for c, y in zip(calls, found, strict=True)]


def _target(weight: torch.Tensor, gram: torch.Tensor, cross: torch.Tensor) -> torch.Tensor:
    """The weight whose outputs on the inputs at hand are nearest to the float model's."""
    moved = torch.linalg.solve(gram, (weight.double() @ (cross - gram)).mT).mT
    return weight + moved.float()


def _moments(
    inputs: list[tuple[torch.Tensor, torch.Tensor]],
) -> tuple[torch.Tensor, torch.Tensor]:
    """The damped Gram matrix of the inputs at hand, and theirs with the float model's inputs.

    Both batches count alike; the damping is in both, so that it holds a weight where it was.
    """
    gram = cross = torch.zeros((), dtype=torch.float64, device=inputs[0][0].device)
    for wanted, given in inputs:
        x, y = (t.reshape(-1, t.shape[-1]).float() for t in (wanted, given))
        size = y.square().mean().clamp_min(1e-30) * len(y)
        gram, cross = (old + (t.mT @ y / size).double() for old, t in ((gram, y), (cross, x)))
    hold = DAMP * len(inputs) * torch.eye(gram.shape[0], dtype=gram.dtype, device=gram.device)
    return gram + hold, cross + hold


def _groups(
    layer: nn.Module, leaves: dict[str, str], calls: list[Call]
) -> Iterator[dict[str, str]]:
    """Linear layers that get one and the same input, in the order in which they run."""
    seen: list[tuple[torch.Tensor, dict[str, str]]] = []

    def watch(leaf: str, given: torch.Tensor) -> None:
        if not seen or seen[-1][0] is not given:
            seen.append((given, {}))
        seen[-1][1][leaf] = leaves[leaf]

    with _watching(layer, leaves, watch):
        calls[0].run(layer, torch.zeros_like(calls[0].kwargs["hidden_states"]))
    for _, group in seen:
        yield group


def _inputs(
    call: Call, layer: nn.Module, group: dict[str, str], hidden: torch.Tensor
) -> torch.Tensor:
    """What the first layer of a group gets."""
    seen: list[torch.Tensor] = []
    with _watching(layer, list(group)[:1], lambda _, given: seen.append(given)):
        call.run(layer, hidden)
    return seen[0]


@contextmanager
def _watching(
    layer: nn.Module, leaves: Any, watch: Callable[[str, torch.Tensor], None]
) -> Iterator[None]:
    hooks = [
        layer.get_submodule(leaf).register_forward_pre_hook(
            lambda _, inputs, leaf=leaf: watch(leaf, inputs[0])
        )
        for leaf in leaves
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _calls(model: Any, ids: torch.Tensor) -> tuple[torch.Tensor, list[Call]]:
    """The hidden states before the first decoder layer, and the calls of all of them."""
    calls: list[Call] = []
    handed: list[torch.Tensor] = []

    def enter(name: str, layer: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        bound = inspect.signature(layer.forward).bind(*args, **kwargs).arguments
        bound.update(bound.pop("kwargs", {}))
        for held in _CACHES:  # a layer that is run again must not see what it kept
            if held in bound:
                bound[held] = None
        if "hidden_states" not in bound or (handed and bound["hidden_states"] is not handed[-1]):
            raise NotAlignable(f"{type(layer).__name__} gets more than the layer before it gives")
        calls.append(Call(name, layer, dict(bound)))

    def leave(out: Any) -> None:
        handed.append(out[0] if isinstance(out, tuple) else out)

    hooks = []
    for name, layer in _decoder_layers(model):
        hooks.append(
            layer.register_forward_pre_hook(
                lambda m, a, k, name=name: enter(name, m, a, k), with_kwargs=True
            )
        )
        hooks.append(layer.register_forward_hook(lambda _m, _a, out: leave(out)))
    try:
        model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    return calls[0].kwargs["hidden_states"], calls


def _decoder_layers(model: Any) -> list[tuple[str, nn.Module]]:
    number = getattr(model.config, "num_hidden_layers", None)
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == number:
            return [(f"{name}.{i}", layer) for i, layer in enumerate(module)]
    raise NotAlignable(f"{type(model).__name__} has no list of decoder layers")


@torch.no_grad()
def sequences(model: Any, seed: int) -> list[torch.Tensor]:
    """Random tokens, and as many that the model draws from its own distribution."""
    source = torch.Generator().manual_seed(seed)
    size = vocabulary(model)
    random = torch.randint(0, size, (ROWS, TOKENS), generator=source).to(device_of(model))
    start = random[:, :1]
    if isinstance(model.config.bos_token_id, int):
        start = torch.full_like(start, model.config.bos_token_id)
    return [random, _written(model, start, source)]


def _written(model: Any, rows: torch.Tensor, source: torch.Generator) -> torch.Tensor:
    cache, name = None, cache_name(model)
    while rows.shape[1] < TOKENS:
        given = rows if cache is None else rows[:, -1:]
        out = model(input_ids=given, use_cache=True, **({} if cache is None else {name: cache}))
        cache = out.get(name)
        if cache is None:
            raise NotAlignable(f"{type(model).__name__} keeps no cache to write with")
        chances = out.logits[:, -1].float().softmax(-1).cpu()
        drawn = torch.multinomial(chances, 1, generator=source)
        rows = torch.cat([rows, drawn.to(rows.device)], 1)
    return rows
