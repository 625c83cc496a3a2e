"""Drives a Cascade over what each runnable would say, for the tests of chains."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bitcal_integrations.chains import Cascade, Outcome
from bitcal_integrations.decide import as_policy
from bitcal_integrations.types import Confidence, Generation, Record, Request

NAMES = ("int4", "int8", "full")


def record(value: float | None, reason: str = "", text: str = "42", model: str = "") -> Record:
    generation = Generation(text, "stop", n_tokens=3)
    return Record(Request("?"), generation, Confidence(value, reason=reason), model=model)


def run(course: Cascade, answers: Sequence[Any]) -> Outcome:
    """Drive a cascade over what each would say: a confidence, None, a Record or an error."""
    while (at := course.next) is not None:
        said = answers[at]
        if isinstance(said, BaseException):
            course.failed(said)
        else:
            course.judge(said if isinstance(said, Record) else record(said))
    return course.outcome()


def cascade(policy: Any = 0.7, n: int = 3, **options: Any) -> Cascade:
    return Cascade(as_policy(policy), NAMES[:n], **options)
