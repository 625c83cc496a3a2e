"""Labelled questions to which the built-in model answers in a few tokens."""

from __future__ import annotations

from typing import Any

from bitcal_integrations.tiny.tasks import questions

SHORT: dict[str, Any] = {"parser": "first_line", "max_new_tokens": 12}


def rows(n: int, seed: int, split: str = "calibration") -> list[dict[str, Any]]:
    asked = questions("facts", split, n, seed)
    return [{"prompt": q.messages, "gold": q.gold} for q in asked]
