"""Where a model's values go in and out: the value and output layers of each attention module.

Between the two a model only mixes tokens, head by head, so that a change of basis in the one can
be undone in the other. Knows how the heads lie in the layers of the usual families; whether a
module does anything else with its values is tried by `fold.py`, not looked up here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

_VALUES = ("v_proj", "query_key_value", "qkv_proj")
_OUTPUTS = ("o_proj", "out_proj", "dense")


@dataclass(frozen=True, eq=False)
class Pair:
    """The value and output layer of one attention module.

    `rows[k, i]` is the row of the value layer that makes number i of key-value head k; the
    output layer reads `repeats` heads of each in turn.
    """

    name: str
    value_name: str
    output_name: str
    value: nn.Linear
    output: nn.Linear
    rows: torch.Tensor
    repeats: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """Key-value heads, heads that share one, and numbers per head."""
        heads, size = self.rows.shape
        return heads, self.repeats, size

    def values(self, weight: torch.Tensor) -> torch.Tensor:
        """A weight of the value layer as (head, number, input)."""
        return weight[self.rows]

    def outputs(self, weight: torch.Tensor) -> torch.Tensor:
        """A weight of the output layer as (head, repeat, output, number)."""
        return weight.unflatten(1, self.shape).permute(1, 2, 0, 3)

    def whole_value(self, weight: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """`values` in the places of the whole weight; its other rows are as they were."""
        made = weight.clone()
        made[self.rows] = values.to(weight.dtype)
        return made

    def whole_output(self, outputs: torch.Tensor) -> torch.Tensor:
        return outputs.permute(2, 0, 1, 3).flatten(1)


def find_pairs(model: Any) -> tuple[list[Pair], dict[str, str]]:
    """The pairs of a model, and why other attention modules have none, by name."""
    pairs: list[Pair] = []
    skipped: dict[str, str] = {}
    for name, module in model.named_modules():
        value, output = _child(module, _VALUES), _child(module, _OUTPUTS)
        if value is None or output is None:
            if "attention" in type(module).__name__.lower() and _linears(module):
                held = ", ".join(_linears(module))
                skipped[name] = f"{type(module).__name__} with {held} is not understood"
            continue
        found = _pair(model.config, name, module, value, output)
        if isinstance(found, Pair):
            pairs.append(found)
        else:
            skipped[name] = found
    return pairs, skipped


def _linears(module: nn.Module) -> list[str]:
    return [name for name, child in module.named_children() if isinstance(child, nn.Linear)]


def _child(module: nn.Module, names: tuple[str, ...]) -> str | None:
    there = _linears(module)
    return next((name for name in names if name in there), None)


def _pair(config: Any, name: str, module: Any, value: str, output: str) -> Pair | str:
    into, out = getattr(module, value), getattr(module, output)
    size = getattr(module, "head_dim", None) or getattr(module, "head_size", None)
    if not isinstance(size, int):
        return f"{type(module).__name__} does not say how long a head is"
    heads, rest = divmod(out.in_features, size)
    rows = _rows(config, module, value, into.out_features, size)
    if rows is None or rest or heads % rows.shape[0]:
        return (
            f"the heads of {type(module).__name__} are not understood: {value} gives "
            f"{into.out_features} numbers, {output} takes {out.in_features}, a head has {size}"
        )
    names = (f"{name}.{value}", f"{name}.{output}")
    return Pair(name, *names, into, out, rows, heads // rows.shape[0])


def _rows(config: Any, module: Any, value: str, total: int, size: int) -> torch.Tensor | None:
    """Which rows of the layer are values, by key-value head."""
    rows = torch.arange(total)
    if value == "v_proj":
        return rows.reshape(-1, size) if total % size == 0 else None
    if value == "qkv_proj":  # all queries, then all keys, then all values
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        return rows[-heads * size :].reshape(heads, size)
    # query_key_value: for each key-value head its queries, its key, its value
    heads = getattr(module, "num_kv_heads", None) or config.num_attention_heads
    return rows.reshape(heads, -1, size)[:, -1] if total % (heads * size) == 0 else None
