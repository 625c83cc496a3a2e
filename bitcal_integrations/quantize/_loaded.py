"""What `load_weights` gives: a checked model, and what is known about it. Loads nothing itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NoReturn


@dataclass(frozen=True, eq=False)
class LoadedWeights:
    """A model that was checked, with what is known about it. Copying it gives itself.

    `weights` is module name -> type of every quantized layer; `parts` is what a fingerprint hashes;
    `source` is the hub id, the folder, or the class of the object that was passed; `repaired` is
    the report of a repair that was made while loading.
    """

    model: Any
    tokenizer: Any
    source: str
    revision: str | None
    weights: dict[str, str]
    dtype: str
    dtype_reason: str
    device: str
    parts: dict[str, Any]
    repaired: dict[str, Any] | None = None

    def __repr__(self) -> str:
        kinds = ", ".join(sorted(set(self.weights.values()))) or "not quantized"
        return f"LoadedWeights({self.source!r}, {kinds}, {self.dtype} on {self.device})"

    def __copy__(self) -> LoadedWeights:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> LoadedWeights:
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError("loaded weights are not pickled: save them with save_weights(folder)")
