"""The keywords of a call as the options of `model.ask`, under the defaults of the LLM.

LlamaIndex passes on whatever a caller wrote, so a keyword that would have no effect is refused
here rather than ignored. It asks no model.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bitcal_integrations.errors import BadRequest
from bitcal_integrations.grading import as_parser
from bitcal_integrations.request import OPTIONS, make_request

DEFAULTS = (
    "max_tokens", "temperature", "top_p", "seed", "stop", "task", "parser", "top_logprobs",
    "early_stop",
)  # fmt: skip
ALLOWED = (*OPTIONS, "max_tokens", "features")


def check_defaults(given: Mapping[str, Any]) -> None:
    """Refuse defaults that no call could be made with."""
    options = options_of(given, {})
    make_request("", **options)
    as_parser(options.get("parser"))


def as_saved(early_stop: Any) -> Any:
    """A plan or a certificate as plain JSON, which a call takes as well; a preset as it is."""
    return early_stop.to_dict() if hasattr(early_stop, "to_dict") else early_stop


def options_of(defaults: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """What `ask` is given; None means: as the model has it.

    >>> options_of({"max_tokens": 64, "temperature": None}, {"max_tokens": 8, "stop": ["."]})
    {'max_new_tokens': 8, 'stop': ['.']}
    """
    unknown = sorted(set(given) - set(ALLOWED))
    if unknown:
        raise BadRequest(
            f"unknown keyword {unknown[0]!r}; a call takes {', '.join(sorted(ALLOWED))}"
        )
    if given.get("max_tokens") is not None and given.get("max_new_tokens") is not None:
        raise BadRequest("max_tokens and max_new_tokens say the same: give one of them")
    options = {name: value for name, value in defaults.items() if value is not None}
    if given.get("max_new_tokens") is not None:
        options.pop("max_tokens", None)
    options |= {name: value for name, value in given.items() if value is not None}
    if "max_tokens" in options:
        options = {"max_new_tokens": options.pop("max_tokens"), **options}
    return options
