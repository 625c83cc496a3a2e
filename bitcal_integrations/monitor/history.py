"""A history correctness model: P(right) from what kept being right or wrong before.

After "Generalized Correctness Models": what was right of several models and tasks tells more of an
answer than the answering model knows itself. Here it is a calibrator over the signals, the old
confidence, which profile (and so which weights) and task an answer came from, and cheap features
of its texts. It is fitted on a store's labels, saved as JSON, and put over a model by `attach`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from bitcal_integrations import calibrators
from bitcal_integrations.assess import Assessor
from bitcal_integrations.calibrators import fit_calibrator
from bitcal_integrations.errors import CalibrationError
from bitcal_integrations.monitor._numbers import STOPPED
from bitcal_integrations.monitor._void import without_promises
from bitcal_integrations.types import Confidence, Generation, Observation, Request

FORMAT, VERSION = "bitcal-history", 1
ASKED = ("how many", "how", "what", "when", "where", "which", "who", "why")
DOUBT = re.compile(
    r"\b(?:not sure|unsure|maybe|perhaps|probably|possibly|might|i think|i believe|i don'?t know|"
    r"unknown|cannot|can'?t)\b",
    re.IGNORECASE,
)
TEXT = (
    "prompt_length", "prompt_digits", *(f"asks_{w.replace(' ', '_')}" for w in ASKED),
    "answer_length", "answer_digits", "answer_sentences", "answer_doubt", "answer_number",
)  # fmt: skip

__all__ = ["HistoryModel", "fit_history"]


@dataclass(frozen=True)
class Told:
    """What a history model reads of one answer."""

    profile: str
    task: str
    confidence: float
    signals: Mapping[str, float]
    prompt: str
    answer: str


@dataclass(frozen=True)
class HistoryModel:
    """P(right) of an answer, and what it was learned from; made by `fit_history`.

    `signals` are its columns of that name; an answer of a profile or task that is not among
    `profiles` and `tasks` has no P(right). `text` says whether it reads texts.
    """

    calibrator: Any
    signals: tuple[str, ...]
    profiles: tuple[str, ...]
    tasks: tuple[str, ...]
    text: bool

    def rows(self, told: Sequence[Told]) -> np.ndarray:
        """The columns of answers; NaN where something is missing or unheard of."""
        return np.array([self._row(t) for t in told]).reshape(len(told), len(self.names))

    @property
    def names(self) -> tuple[str, ...]:
        return columns_of(self.signals, self.profiles, self.tasks, self.text)

    def __call__(self, told: Sequence[Told]) -> np.ndarray:
        """P(right) of each answer; NaN where it is unknown."""
        p: np.ndarray = self.calibrator(self.rows(told))
        return p

    def _row(self, told: Told) -> list[float]:
        if told.profile not in self.profiles or told.task not in self.tasks:
            return [math.nan] * len(self.names)
        row = [told.confidence, *(told.signals.get(name, math.nan) for name in self.signals)]
        row += [float(told.profile == name) for name in self.profiles[1:]]
        row += [float(told.task == name) for name in self.tasks[1:]]
        return row + (text_features(told.prompt, told.answer) if self.text else [])

    def attach(self, model: Any) -> None:
        """Let a model say this confidence from here on; `model.use_profile` takes it off again.

        The certificates and early stops of its profile were made for another confidence: the model
        goes on without them. Drift tests go on comparing with the profile itself.
        """
        if model.profile is None or model.profile.fingerprint not in self.profiles:
            mine = "none" if model.profile is None else model.profile.fingerprint
            raise CalibrationError(
                f"the model's profile is {mine}; this history knows {', '.join(self.profiles)}"
            )
        while not model.swap_assessor(old := model._assessor, _WithHistory(old, self)):
            pass  # a task was turned off meanwhile, and stays off

    def save(self, path: str | Path) -> None:
        """Write it as JSON."""
        data = {
            "format": FORMAT, "version": VERSION, "calibrator": self.calibrator.to_dict(),
            "signals": self.signals, "profiles": self.profiles, "tasks": self.tasks,
            "text": self.text,
        }  # fmt: skip
        Path(path).write_text(json.dumps(data, allow_nan=False) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> HistoryModel:
        """Read what `save` wrote."""
        try:
            data = json.loads(Path(path).read_text(encoding="utf-8"))
            if data["format"] != FORMAT or data["version"] != VERSION:
                raise ValueError(f"format {data['format']!r}, version {data['version']!r}")
            named = {k: tuple(data[k]) for k in ("signals", "profiles", "tasks")}
            return cls(calibrators.from_dict(data["calibrator"]), **named, text=data["text"])
        except OSError as err:
            raise CalibrationError(f"{str(path)!r} cannot be read: {err.strerror}") from err
        except (ValueError, KeyError, TypeError) as err:
            raise CalibrationError(f"{str(path)!r} is no history model: {err!r:.200}") from err


def columns_of(
    signals: Sequence[str], profiles: Sequence[str], tasks: Sequence[str], text: bool
) -> tuple[str, ...]:
    """The first profile and task are those that all other columns of the kind are compared with."""
    return (
        "profile_confidence", *signals, *(f"profile {name}" for name in profiles[1:]),
        *(f"task {name}" for name in tasks[1:]), *(TEXT if text else ()),
    )  # fmt: skip


def fit_history(
    told: Sequence[Told],
    correct: Any,
    groups: Any = None,
    *,
    signals: Sequence[str],
    text: bool = True,
    method: str = "logistic",
) -> HistoryModel:
    """Learn from answers that are known to be right or wrong.

    `signals` are read by these names; answers of any number of profiles and tasks may be mixed.
    """
    profiles = tuple(sorted({t.profile for t in told}))
    tasks = tuple(sorted({t.task for t in told}))
    blank = HistoryModel(None, tuple(signals), profiles, tasks, text)
    x = blank.rows(told)
    return replace(blank, calibrator=fit_calibrator(x, correct, blank.names, method, groups=groups))


def text_features(prompt: str, answer: str) -> list[float]:
    """Numbers of a question and an answer that need no model: lengths, digits, wording.

    >>> found = dict(zip(TEXT, text_features("How many are 2 and 2?", "Maybe 4."), strict=True))
    >>> found["asks_how_many"], found["answer_doubt"], found["answer_number"]
    (1.0, 1.0, 1.0)
    """
    asked = prompt.lower()
    first = next((w for w in ASKED if re.search(rf"\b{w}\b", asked)), None)
    return [
        math.log1p(len(prompt)), _digits(prompt), *(float(w == first) for w in ASKED),
        math.log1p(len(answer)), _digits(answer), float(len(re.findall(r"[.!?](?:\s|$)", answer))),
        float(len(DOUBT.findall(answer))), float(bool(re.search(r"\d", answer))),
    ]  # fmt: skip


def _digits(text: str) -> float:
    return sum(c.isdigit() for c in text) / max(1, len(text))


def told_of(request: Request, text: str, confidence: Confidence, task: str) -> Told:
    """What a history model reads of an answer with its confidence; `task` is its very name."""
    prompt = request.prompt
    last = prompt if isinstance(prompt, str) else str(prompt[-1]["content"])
    value = math.nan if confidence.value is None else confidence.value
    return Told(confidence.profile or "", task, value, confidence.signals, last, text)


class _WithHistory(Assessor):
    """An assessor whose confidence a history model has the last word on."""

    def __init__(self, assessor: Assessor, history: HistoryModel) -> None:
        self.__dict__.update(assessor.__dict__)
        self._below, self._history = assessor, history
        if assessor.profile is not None:
            self.profile = without_promises(assessor.profile)

    def confidence(
        self, request: Request, generation: Generation, observation: Observation | None = None
    ) -> Confidence:
        found = self._below.confidence(request, generation, observation)
        if found.value is None or self.profile is None or generation.finish in STOPPED:
            return found  # one that ended early has its confidence from its stop
        told = told_of(request, generation.text, found, self.profile.name_of(request.task))
        row = self._history.rows([told])
        value = float(self._history.calibrator(row)[0])
        if math.isnan(value):
            missing = "not measured: the history knows nothing like this answer"
            return replace(
                found, value=None, calibrated=False, low=None, high=None, interval=None,
                reason=missing,
            )  # fmt: skip
        low, high = (float(v) for v in self._history.calibrator.interval(row)[0])
        kind = f"{self._history.calibrator.interval_kind}, of a history model"
        if found.interval is not None and found.interval.startswith("none"):
            low, high, kind = 0.0, 1.0, found.interval
        return replace(found, value=value, low=low, high=high, interval=kind)
