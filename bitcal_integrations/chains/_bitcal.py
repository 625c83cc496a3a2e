"""The parts of a `bitcal` dict, checked: what cannot be one of ours is refused and quoted.

It reads values; what a broken dict means for a chain is for records.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from bitcal_integrations.decide._check import is_number
from bitcal_integrations.errors import BadRequest
from bitcal_integrations.types import Action, Confidence, Decision, Finish

FINISHES: tuple[Finish, ...] = get_args(Finish)
ACTIONS: tuple[Action, ...] = get_args(Action)


def confidence_in(data: Any) -> Confidence:
    if not isinstance(data, Mapping):
        raise BadRequest(f"{data!r:.80} is not a dict")
    if "confidence" not in data:
        raise BadRequest("it has no key 'confidence'")
    return Confidence(
        value=_share(data, "confidence"),
        calibrated=_typed(data, "calibrated", bool, False),
        low=_share(data, "low"),
        high=_share(data, "high"),
        raw=_share(data, "raw"),
        signals=_signals(data.get("signals")),
        profile=_typed(data, "profile", str, None),
        task=_typed(data, "task", str, "default"),
        reason=_typed(data, "reason", str, ""),
    )


def _share(data: Mapping[str, Any], key: str) -> float | None:
    value = data.get(key)
    if value is None:
        return None
    if not is_number(value) or not 0 <= value <= 1:
        raise BadRequest(f"{key}={value!r:.80} is no number from 0 to 1")
    return float(value)


def _typed(data: Mapping[str, Any], key: str, kind: type, default: Any) -> Any:
    value = data.get(key)
    if value is None:
        return default
    if not isinstance(value, kind):
        raise BadRequest(f"{key}={value!r:.80} is no {kind.__name__}")
    return value


def _signals(values: Any) -> dict[str, float]:
    if values is None:
        return {}
    if not isinstance(values, Mapping) or not all(map(_is_real, values.values())):
        raise BadRequest(f"signals={values!r:.80} is no dict of numbers")
    return {str(name): float(value) for name, value in values.items()}


def _is_real(value: Any) -> bool:
    return is_number(value) or value != value  # a signal may be NaN: not measured


def one_of(data: Mapping[str, Any], key: str, known: tuple[Any, ...], default: Any) -> Any:
    value = data.get(key)
    if value is None:
        return default
    if value not in known:
        raise BadRequest(f"{key}={value!r:.80} is not one of {', '.join(known)}")
    return value


def decision_in(data: Any) -> Decision | None:
    if data is None:
        return None
    if not isinstance(data, Mapping) or "action" not in data:
        raise BadRequest(f"decision={data!r:.80} is no dict with an action")
    action = one_of(data, "action", ACTIONS, None)
    if action is None:
        raise BadRequest(f"decision={data!r:.80} has no action")
    return Decision(action, _typed(data, "reason", str, ""))
