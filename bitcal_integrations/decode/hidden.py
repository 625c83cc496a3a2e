"""The hidden state of an answer: read behind one layer while it is written, pooled at its end.

The state that counts for a token is the one it was chosen from, at the position before it: it is
there for every token without a further forward, the last one included. It knows layers and rows;
what the state says of the answer is for a probe.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch

from bitcal_integrations.errors import BadRequest

if TYPE_CHECKING:
    from bitcal_integrations.decode.net import Net
    from bitcal_integrations.decode.row import Row
    from bitcal_integrations.types import Generation, Request

DEPTH = 2 / 3  # of the layers, where none is named: probes of the middle layers do best


def layers_of(model: Any) -> torch.nn.ModuleList:
    """The layers that a model's text goes through, in order; an error where they cannot be told."""
    stack, config = model, model.config
    if getattr(config, "is_encoder_decoder", False):
        stack = model.get_decoder()
        number = getattr(config, "num_decoder_layers", None) or config.num_hidden_layers
    else:
        number = getattr(config.get_text_config(decoder=True), "num_hidden_layers", None)
    lists = [
        (name, part)
        for name, part in stack.named_modules()
        if isinstance(part, torch.nn.ModuleList) and len(part) == number
    ]
    outer = [part for name, part in lists if not _inside(name, [other for other, _ in lists])]
    if len(outer) != 1:
        raise BadRequest(
            f"the hidden states of {type(model).__name__} cannot be read: it has {len(outer)} "
            f"lists of {number} layers, and one is needed"
        )
    return outer[0]


def _inside(name: str, others: Sequence[str]) -> bool:
    return any(name.startswith(f"{other}.") for other in others)


def chosen(layers: torch.nn.ModuleList, layer: int) -> int:
    """The layer that is named; for 0 the usual one."""
    if layer == 0:
        return min(max(1, round(DEPTH * len(layers))), max(1, len(layers) - 1))
    if not 1 <= layer <= len(layers):
        raise BadRequest(
            f"hidden_layer={layer!r} is not allowed: the model has layers 1 to {len(layers)}"
        )
    return layer


class States:
    """The states of one row's tokens behind its layer, as they come."""

    def __init__(self, layer: int) -> None:
        self.layer = layer
        self._now: np.ndarray | None = None
        self._taken: list[np.ndarray] = []

    def see(self, state: np.ndarray) -> None:
        """The state that the next token is chosen from."""
        self._now = state.copy()  # the rest of the batch need not stay for it

    def take(self) -> None:
        """A token was chosen."""
        if self._now is not None:
            self._taken.append(self._now)

    def pooled(self, generation: Generation) -> np.ndarray | None:
        """The mean over the answer's tokens, over all where none is the answer; None without."""
        if not self._taken or len(self._taken) != len(generation.steps):
            return None
        inside = set(map(id, generation.answer_steps()))
        states = [
            state
            for state, step in zip(self._taken, generation.steps, strict=True)
            if not inside or id(step) in inside
        ]
        return np.asarray(np.mean(states, axis=0, dtype=np.float64), dtype=np.float32)


def states_of(net: Net, request: Request) -> States | None:
    """What keeps the states that a request asks for; None where it asks for none."""
    layer = request.hidden_layer
    return None if layer is None else States(net.layer_of(layer))


Last: TypeAlias = "dict[int, np.ndarray]"  # by layer, the last position of every seat


@contextmanager
def reading(net: Net, seats: Sequence[Row]) -> Iterator[Last]:
    """While a forward runs: the states behind the layers that rows ask for.

    Where no row asks, nothing is touched.
    """
    last: Last = {}
    wanted = {row.states.layer for row in seats if row.states is not None}
    hooks = [net.layers[at - 1].register_forward_hook(_keep(last, at)) for at in sorted(wanted)]
    try:
        yield last
    finally:
        for hook in hooks:
            hook.remove()


def _keep(last: Last, layer: int) -> Callable[[Any, Any, Any], None]:
    def hook(_module: Any, _given: Any, out: Any) -> None:
        states = out[0] if isinstance(out, tuple) else out
        if states.ndim != 3:
            raise BadRequest(
                f"the hidden states of this model cannot be read: layer {layer} gives a tensor of "
                f"the shape {tuple(states.shape)}, and rows, tokens and numbers are needed"
            )
        last[layer] = states[:, -1].detach().to("cpu", torch.float32).numpy()

    return hook


def show(seats: Sequence[Row], last: Last) -> None:
    """Let every row see its own state; one in a trial answer keeps that of its checkpoint."""
    for seat, row in enumerate(seats):
        aside = row.watch is not None and row.watch.telling is not None
        if row.states is not None and row.finish is None and not aside:
            row.states.see(last[row.states.layer][seat])
