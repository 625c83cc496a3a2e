"""A model object that the user already holds: checked, described, never quantized a second time.

Knows a few libraries by the marks they leave on a model (PEFT, bitsandbytes, GPTQ, AWQ, quanto's
own config), and imports none of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from optimum.quanto import QModuleMixin
from torch import nn

from bitcal_integrations.errors import LoadError
from bitcal_integrations.quantize._check import device_of
from bitcal_integrations.quantize._dtype import check_dtype, name_of
from bitcal_integrations.quantize._plan import (
    TYPES,
    Exclude,
    Weights,
    assign,
    public_name,
    quantize_linears,
    wants_quantization,
)
from bitcal_integrations.quantize._shim import quantized_modules, weight_of


def unwrap(model: Any) -> Any:
    """The module that runs forward, out of quanto's or AWQ's wrapper."""
    inner = vars(model).get("_wrapped") if hasattr(model, "__dict__") else None
    if isinstance(inner, nn.Module):
        return inner
    inner = getattr(model, "model", None)
    if not hasattr(model, "prepare_inputs_for_generation") and hasattr(
        inner, "prepare_inputs_for_generation"
    ):
        return inner
    if not isinstance(model, nn.Module) or not hasattr(model, "config"):
        raise LoadError(
            f"model={type(model).__name__} is neither a name, a folder nor a transformers model"
        )
    return model


def quantization_of(model: Any) -> Any:
    """The quantization config of a model as plain values, or None."""
    found: Any = getattr(model.config, "quantization_config", None)
    if found is None and getattr(model, "hf_quantizer", None) is not None:
        found = model.hf_quantizer.quantization_config
    return found.to_dict() if hasattr(found, "to_dict") else found


def adapters_of(model: Any) -> Any:
    """Name -> configuration of each adapter, and which are active; None without adapters."""
    configs = getattr(model, "peft_config", None)
    if not configs:
        return None
    named = configs.items() if isinstance(configs, dict) else {"default": configs}.items()
    active = getattr(model, "active_adapter", None) or getattr(model, "active_adapters", None)
    if callable(active):
        active = active()
    return {
        "configs": {str(name): _plain(config) for name, config in named},
        "active": [active] if isinstance(active, str) else list(active or ()),
    }


def _plain(config: Any) -> Any:
    values = config.to_dict() if hasattr(config, "to_dict") else vars(config)
    return {k: sorted(v, key=str) if isinstance(v, set) else v for k, v in values.items()}


def weights_of(model: nn.Module) -> dict[str, str]:
    """Module name -> weight type of every frozen quanto layer."""
    return {
        name: public_name(weight_of(module).qtype.name) for name, module in quantized_modules(model)
    }


def wrap(
    model: Any,
    weights: Weights,
    exclude: Exclude,
    dtype: Any,
    device: Any,
    quantize: Callable[[Any, dict[str, str]], Any] = quantize_linears,
) -> tuple[dict[str, str], torch.dtype]:
    """Check the object, quantize it in place if it is plain and that was asked; types and dtype."""
    _check_quanto(model)
    own = _own_dtype(model)
    asked = check_dtype(dtype)
    if asked is not None and asked != own:
        raise LoadError(
            f"dtype={name_of(asked)!r} was asked for and the model is in {name_of(own)}",
            "A model object keeps its dtype: convert it before you quantize it.",
        )
    if str(device) != "auto" and torch.device(device).type != device_of(model).type:
        raise LoadError(
            f"device={str(device)!r} was asked for and the model is on {device_of(model)}",
            "A model object stays where it is: move it first.",
        )
    by = quantized_by(model)
    if by is not None and weights not in ("auto", weights_of(model) or "auto"):
        raise LoadError(
            f"weights={weights!r} was asked for and the model is already quantized ({by})",
            "Pass weights='auto' to use it as it is.",
        )
    model.eval()
    if by is None and wants_quantization(weights):
        quantize(model, assign(model, weights, exclude, own))
    return weights_of(model), own


def quantized_by(model: Any) -> str | None:
    """What has quantized or adapted a model already; None for a plain one."""
    config = quantization_of(model)
    if config is not None:
        method = config.get("quant_method") if isinstance(config, dict) else None
        return str(getattr(method, "value", method) or type(config).__name__)
    if weights_of(model):
        return "quanto"
    if getattr(model, "is_quantized", False) is True:
        return "by its library"
    return "with adapters" if adapters_of(model) else None


def _check_quanto(model: nn.Module) -> None:
    """Refuse quanto layers that are not frozen, or that quantize activations."""
    for name, module in model.named_modules():
        if not isinstance(module, QModuleMixin):
            continue
        if module.activation_qtype is not None:
            raise LoadError(
                f"{name!r} quantizes activations, which do not survive a reload in quanto",
                "Quantize the weights only.",
            )
        if module.weight_qtype is not None and not module.frozen:
            raise LoadError(
                f"{name!r} is quantized but not frozen", "Call optimum.quanto.freeze(model) first."
            )


def _own_dtype(model: Any) -> torch.dtype:
    """The float type of the model; an error where quantized and plain layers disagree."""
    embedding: torch.dtype = model.get_input_embeddings().weight.dtype
    for name, module in quantized_modules(model):
        weight = weight_of(module)
        if weight.dtype != embedding:
            raise LoadError(
                f"{name!r} is quantized for {name_of(weight.dtype)} and the embedding is in "
                f"{name_of(embedding)}",
                "Load it in one dtype: the dtype cannot change after quantization.",
            )
    return embedding


def check_saveable(model: Any) -> str:
    """Why the model cannot be written in our format; empty when it can."""
    if adapters_of(model):
        return "it carries adapters: save it with its own library, or merge them first"
    config = quantization_of(model)
    method = config.get("quant_method") if isinstance(config, dict) else config
    if config is not None and str(getattr(method, "value", method)) != "quanto":
        return f"it is quantized by {method}: save it with its own library"
    unknown = sorted({k for k in weights_of(model).values() if k not in TYPES})
    return f"the weight type {unknown[0]} has no name here" if unknown else ""
