"""Quantized Hugging Face models whose every answer carries the probability that it is right.

The story, in the order of the folders:

1. `quantize` loads a model with 8, 4 or 2 bit weights and checks it before it is served.
2. `decode` runs it token by token and taps what the model thought of each; `engines` lets many
   callers share one model.
3. `signals` turn those numbers into scores of an answer.
4. A profile, measured on labelled examples, turns scores into a probability. Until a model has
   one, `confidence.value` is None with a reason, and the raw score is kept.
5. `model` joins the stages: `load(...)` gives a model, `model.ask(...)` a Record.
6. `langchain` and `llama_index` translate, and their chains act on the confidence.

The public names are resolved when they are first used, so that importing this package loads
neither torch nor a framework.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bitcal_integrations.lazy import lazy_names

if TYPE_CHECKING:
    from bitcal_integrations.errors import BitcalError, LowConfidenceError
    from bitcal_integrations.model import CalibratedModel, load
    from bitcal_integrations.profile import Profile
    from bitcal_integrations.types import Confidence, Generation, Record, Step

    __version__: str

__all__ = [
    "BitcalError",
    "CalibratedModel",
    "Confidence",
    "Generation",
    "LowConfidenceError",
    "Profile",
    "Record",
    "Step",
    "load",
]

_HOME = {
    "BitcalError": "errors",
    "CalibratedModel": "model",
    "Confidence": "types",
    "Generation": "types",
    "LowConfidenceError": "errors",
    "Profile": "profile",
    "Record": "types",
    "Step": "types",
    "load": "model",
}

_find, _names = lazy_names(globals(), _HOME)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("bitcal-integrations")
    return _find(name)


def __dir__() -> list[str]:
    return [*_names(), "__version__"]
