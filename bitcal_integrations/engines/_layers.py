"""What some features need of a model: a layer to read a hidden state behind, a tuned verdict.

It knows requests, schemas and whether they are there to be had; it reads and asks nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from bitcal_integrations.errors import BadRequest
from bitcal_integrations.features import TUNED, Schema
from bitcal_integrations.types import Request


def with_layer(
    request: Request, schemas: Sequence[Schema | None], engine: Any, name: str
) -> Request:
    """The request with the one layer that it and these schemas need, checked."""
    needed = [schema.layer or 0 for schema in schemas if schema is not None and schema.hidden]
    if request.hidden_layer is not None:
        needed.append(request.hidden_layer)
    if not needed:
        return request
    find = getattr(engine, "layer_of", None)
    if find is None:
        raise BadRequest(
            f"no hidden states are to be had of {name!r}: only a model that runs in this process "
            "shows them",
            "Leave out hidden_layer and every feature that reads a hidden state.",
        )
    layers = sorted({find(layer) for layer in needed})
    if len(layers) > 1:
        raise BadRequest(
            f"hidden states of the layers {layers[0]} and {layers[1]} are not allowed together: "
            "the state of an answer is read behind one layer"
        )
    return replace(request, hidden_layer=layers[0])


def tuned_in(model: Any) -> Any:
    """The tuned verdict prompt that a model has in use; an error where there is none."""
    if (verdict := getattr(model, "verdict", None)) is None:
        raise BadRequest(
            f"{TUNED} is not allowed: {model.name!r} has no tuned verdict prompt in use",
            "Make one with verdict.tune_verdict and hand it to verdict.use_verdict.",
        )
    return verdict
