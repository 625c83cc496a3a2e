"""Answers of a made-up model whose confidence is measured: a profile, and records to hold to it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from bitcal_integrations.calibrators import fit_calibrator
from bitcal_integrations.features import Schema
from bitcal_integrations.profile import Profile, TaskProfile, decoding_of
from bitcal_integrations.types import (
    Answer,
    Confidence,
    Finish,
    Generation,
    Record,
    Timing,
    make_request,
)

NAMES = ("confidence", "mean_entropy")
PARTS = {"model": "made up", "dtype": "float32"}


def answers(n: int, seed: int, hard: float = 0.0, worse: float = 0.0) -> tuple[Any, Any]:
    """Features and labels: `hard` questions have lower scores that still come true, `worse` are
    right less often than their scores say."""
    rng = np.random.default_rng(seed)
    score = 1 / (1 + np.exp(-rng.normal(1.0 - hard, 1.2, n)))
    entropy = 1.5 * (1 - score) + 0.2 * rng.random(n)
    y = (rng.random(n) < np.clip(score - worse, 0.02, 0.98)).astype(float)
    return np.column_stack([score, entropy]), y


def measured(n: int = 2000, seed: int = 0, method: str = "logistic", **fields: Any) -> TaskProfile:
    x, y = answers(n, seed)
    return TaskProfile(
        parser=None,
        grader="normalised",
        decoding=decoding_of(make_request("")),
        schema=Schema(NAMES),
        calibrator=fit_calibrator(x, y, NAMES, method),
        counts={"fit": n, "certify": 0, "report": 0},
        **fields,
    )


def made_profile(*tasks: str, **options: Any) -> Profile:
    names = tasks or ("default",)
    one = measured(**options)
    return Profile(PARTS, dict.fromkeys(names, one), names[0])


def record_of(profile: Profile, row: Any, number: int = 0, **given: Any) -> Record:
    """The record of an answer with these features."""
    task = given.get("task", "default")
    one = profile.task(task)
    signals = dict(zip(NAMES, map(float, row), strict=True))
    value = float(one.calibrator(np.asarray(row)[None, :])[0])
    finish: Finish = given.get("finish", "answer")
    prompt, text = given.get("prompt", f"Question {number}?"), given.get("text", f"It is {number}.")
    return Record(
        make_request(prompt, task=task),
        Generation(text, finish, n_tokens=5, answer=Answer(text, 0, len(text))),
        Confidence(
            value, True, raw=signals["confidence"], signals=signals,
            profile=profile.fingerprint, task=task,
        ),
        decision=given.get("decision"),
        timing=Timing(total=given.get("seconds", 0.1)),
        model="made up",
        id=given.get("id", f"record-{number}"),
    )  # fmt: skip


def records_of(profile: Profile, x: Any, **given: Any) -> Iterator[Record]:
    return (record_of(profile, row, number, **given) for number, row in enumerate(x))
