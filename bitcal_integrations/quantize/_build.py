"""An empty model, and the places its tensors go to.

The parameters of an empty model take no memory; its buffers are real, because those that no
checkpoint carries (rotary frequencies) are computed when the model is built and must not be lost.
Knows nothing about files.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from optimum.quanto import QModuleMixin
from torch import nn
from transformers import AutoModelForCausalLM

from bitcal_integrations.errors import LoadError

_BUILDING = threading.Lock()  # torch's default dtype and the hook below belong to the process


@contextmanager
def _parameters_on_meta() -> Iterator[None]:
    """Within this, every new parameter is a shape without memory; buffers stay as they are.

    The hook belongs to the process: other threads, and what they build, are left alone.
    """
    original = nn.Module.register_parameter
    builder = threading.get_ident()

    def register(self: nn.Module, name: str, param: nn.Parameter | None) -> None:
        original(self, name, param)
        if threading.get_ident() != builder:
            return
        if param is not None and param.device.type != "meta":
            empty = nn.Parameter(param.detach().to("meta"), requires_grad=param.requires_grad)
            self._parameters[name] = empty

    nn.Module.register_parameter = register  # type: ignore[method-assign]
    try:
        yield
    finally:
        nn.Module.register_parameter = original  # type: ignore[method-assign]


def empty_model(config: Any, dtype: torch.dtype, trust_remote_code: bool = False) -> Any:
    """The model of a config with empty parameters, in eval mode."""
    try:
        with _BUILDING, _parameters_on_meta():
            model = AutoModelForCausalLM.from_config(
                config, dtype=dtype, trust_remote_code=trust_remote_code
            )
    except Exception as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise LoadError(
            f"no causal language model can be built from this config "
            f"(model_type {getattr(config, 'model_type', None)!r}): {first}"
        ) from None
    return model.eval().requires_grad_(False)


@dataclass
class Slot:
    """One tensor of a model: all names it is tied under, and the modules that hold it."""

    names: list[str]
    places: list[tuple[nn.Module, str]]
    tensor: torch.Tensor

    def fill(self, value: torch.Tensor) -> None:
        """Put a tensor into every place; tied places share it, the slot itself keeps nothing."""
        is_parameter = isinstance(self.tensor, nn.Parameter)
        value = nn.Parameter(value, requires_grad=False) if is_parameter else value
        for module, leaf in self.places:
            held: dict[str, Any] = module._parameters if is_parameter else module._buffers
            held[leaf] = value


def slots(model: nn.Module) -> list[Slot]:
    """Every tensor of the model that a checkpoint carries, in the order of its state dict.

    The weights of quanto layers are left out: they are several tensors each.
    """
    found: dict[int, Slot] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        held: dict[str, Any] = dict(module._parameters)
        temporary = module._non_persistent_buffers_set
        held.update({k: b for k, b in module._buffers.items() if k not in temporary})
        if isinstance(module, QModuleMixin):
            held.pop("weight", None)
        for leaf, tensor in held.items():
            if tensor is None:
                continue
            slot = found.setdefault(id(tensor), Slot([], [], tensor))
            slot.names.append(f"{name}.{leaf}" if name else leaf)
            slot.places.append((module, leaf))
    return list(found.values())


def check_shape(name: str, tensor: torch.Tensor, expected: torch.Tensor) -> None:
    if tensor.shape != expected.shape:
        raise LoadError(
            f"the tensor {name!r} has shape {tuple(tensor.shape)}, "
            f"the model needs {tuple(expected.shape)}",
            "config.json and the weights do not belong together.",
        )


def check_keys(missing: set[str], unexpected: set[str], where: str) -> None:
    """Refuse a checkpoint that does not have exactly the tensors of the model."""
    parts = [
        f"{len(keys)} {word} ({', '.join(sorted(keys)[:3])}{', ...' if len(keys) > 3 else ''})"
        for word, keys in (("missing", missing), ("unexpected", unexpected))
        if keys
    ]
    if parts:
        raise LoadError(
            f"the tensors in {where} are not those of the model: {', '.join(parts)}",
            "Loading it would give a partly random model, so it is refused.",
        )


def finish(model: nn.Module, device: torch.device) -> None:
    """Move what the checkpoint did not carry, and see that nothing is empty."""
    for name, module in model.named_modules():
        for leaf, buffer in module._buffers.items():
            if buffer is not None and buffer.device.type != "meta":
                module._buffers[leaf] = buffer.to(device)
        held = [*module._parameters.items(), *module._buffers.items()]
        empty = {f"{name}.{k}" for k, t in held if t is not None and t.device.type == "meta"}
        check_keys(empty, set(), "the checkpoint")


def settle_tie(model: Any) -> None:
    """Let the config say that embeddings and head are two tensors, where they are.

    A quantized head is no longer tied; a later tie_weights() would undo it.
    """
    if not getattr(model.config, "tie_word_embeddings", False):
        return
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    if head is not None and embedding is not None and head.weight is not embedding.weight:
        model.config.tie_word_embeddings = False


def _find_trim() -> Callable[[int], int] | None:
    try:
        found: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
        return found
    except (OSError, AttributeError, TypeError):
        return None


_trim = _find_trim()


def release_memory() -> None:
    """Give freed memory back to the system, where the C library can.

    glibc keeps freed blocks of up to 32 MiB in its heap; without this, the float copies of all
    layers stay resident although only one was alive at a time.
    """
    if _trim is not None:
        _trim(0)
