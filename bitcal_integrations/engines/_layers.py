"""The layer that an answer's hidden state is read behind, for the features that need one.

It knows requests, schemas and whether an engine has layers to read; it reads none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from bitcal_integrations.errors import BadRequest
from bitcal_integrations.features import Schema
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
