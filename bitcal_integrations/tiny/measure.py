"""Asks the built-in model its questions under one weight type and dtype, and fits its profile.

Answers are kept in files, so that a cut run goes on. Knows the questions and the fit; the words of
the card are elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from bitcal_integrations import metrics
from bitcal_integrations.answered import Asking, Progress, answer_all
from bitcal_integrations.dataset import Example, split
from bitcal_integrations.features import make_schema
from bitcal_integrations.fit import FitOptions, answered, profile_of
from bitcal_integrations.model import CalibratedModel, load
from bitcal_integrations.profile import Profile
from bitcal_integrations.tiny.answers import MAX_NEW_TOKENS, PARSER
from bitcal_integrations.tiny.assets import profile_file
from bitcal_integrations.tiny.tasks import TASKS, Question, stream
from bitcal_integrations.types import Labelled

SHARES = {"math": 0.4, "facts": 0.3, "reading": 0.3}
BLOCK, BATCH = 1000, 64
WAVES = (1, 4, 16, 1024)
PARTS = (0.85, 0.1, 0.05)  # the card's own questions stand in for most of the report part
LABELS_SEED, TEST_SEED = 1013, 2026
GROUPS = {"math": ("steps", "bucket", "wording"), "facts": ("bucket", "wording")}
GROUPS["reading"] = GROUPS["facts"]


@dataclass(frozen=True)
class Setting:
    """A weight type ("none" for float weights), a dtype, and the name of a repair or "".

    >>> Setting.of("qint4-bfloat16"), Setting.of("qint2+data-free-float32").repair
    (Setting(weights='qint4', dtype='bfloat16', repair=''), 'data-free')
    """

    weights: str
    dtype: str
    repair: str = ""

    @classmethod
    def of(cls, name: str) -> Setting:
        """The setting of a name such as qint4-bfloat16 or qint2+data-free-bfloat16."""
        made, _, dtype = name.rpartition("-")
        weights, _, repair = made.partition("+")
        return cls(weights, dtype, repair)

    def __str__(self) -> str:
        return profile_file(self.weights, self.dtype, self.repair).stem

    def arguments(self) -> dict[str, Any]:
        """What `load` takes for it."""
        weights = None if self.weights == "none" else self.weights
        return {"weights": weights, "dtype": self.dtype, "repair": self.repair or None}

    def load(self, folder: Path) -> CalibratedModel:
        return load(folder, **self.arguments(), profile=None, max_batch=BATCH)


def draw(split_name: str, n: int, seed: int) -> list[Example]:
    """Fresh questions of the three tasks in their shares, as examples with their groups.

    In blocks of a thousand, a task after the other: a smaller draw begins a larger one, and rows
    of like length share batches.
    """
    asked: list[Question] = []
    streams = {task: stream(task, split_name, seed) for task in TASKS}
    for at in range(0, n, BLOCK):
        for task, share in SHARES.items():
            asked += islice(streams[task], round(min(BLOCK, n - at) * share))
    return examples_of(asked)


def examples_of(asked: Sequence[Question]) -> list[Example]:
    """Examples of questions; equal questions form one group and get numbered ids."""
    seen: dict[str, int] = {}
    found = []
    for q in asked:
        seen[q.id] = seen.get(q.id, 0) + 1
        by = {"task": q.task, "steps": str(q.steps), "bucket": q.bucket, "wording": q.wording}
        found.append(Example(f"{q.id}-{seen[q.id]}", q.id, q.messages, q.gold, by))
    return found


def ask(
    model: CalibratedModel, asked: Sequence[Example], keep: Path, progress: Progress | None
) -> list[Labelled]:
    """Every question with its answer and verdict."""
    return answer_all(model, asked, asking(progress), keep)


def asking(progress: Progress | None = None) -> Asking:
    """How the built-in model is asked, here and by its profiles."""
    options = {"parser": PARSER, "max_new_tokens": MAX_NEW_TOKENS}
    return Asking(
        "tiny", make_schema(None), "default", options, progress, waves=WAVES, shuffle=False
    )


def fit(model: CalibratedModel, rows: Sequence[Labelled], seed: int) -> Profile:
    """The profile of one setting: all questions as the default task, and each kind by itself."""
    place = split([Example(r.id, r.group, r.prompt) for r in rows], PARTS, seed)
    rows = [replace(r, part=place[r.id]) for r in rows]
    how, schema = FitOptions(seed=seed), make_schema(None)
    profile = profile_of(model, rows, schema, asking(), how, "default")
    for task in TASKS:
        mine = [r for r in rows if r.by["task"] == task]
        profile = profile.with_tasks(profile_of(model, mine, schema, asking(), how, task))
    return profile


def scores(rows: Sequence[Labelled], profile: Profile) -> dict[str, Any]:
    """What the card says of one setting: each task and all of them, raw and calibrated."""
    found = {"all": _scores(rows, profile, "default")}
    for task in TASKS:
        mine = [r for r in rows if r.by["task"] == task]
        found[task] = {**_scores(mine, profile, task), **_groups(mine, GROUPS[task])}
    return found


def _scores(rows: Sequence[Labelled], profile: Profile, task: str) -> dict[str, Any]:
    one = profile.task(task)
    usable = [r for r in rows if answered(r) and r.correct is not None]
    x = np.array([one.schema.vector(r.confidence.signals) for r in usable])
    p = one.calibrator(x)
    whole = np.isfinite(p)
    y = np.array([bool(r.correct) for r in usable], dtype=float)[whole]
    raw = np.array([r.confidence.raw for r in usable], dtype=float)[whole]
    return {
        "n": len(rows),
        "unknown": len(rows) - int(whole.sum()),
        "accuracy": round(float(np.mean([bool(r.correct) for r in rows])), 4),
        "raw": _rounded(metrics.summary(raw, y)),
        "calibrated": _rounded(metrics.summary(p[whole], y)),
    }


def _rounded(summary: dict[str, Any]) -> dict[str, Any]:
    return {k: round(v, 4) if isinstance(v, float) else v for k, v in summary.items()}


def _groups(rows: Sequence[Labelled], names: Sequence[str]) -> dict[str, Any]:
    """Accuracy per value of each label of the questions."""
    found: dict[str, Any] = {}
    for name in names:
        found[name] = {}
        for value in sorted({r.by[name] for r in rows}):
            right = [bool(r.correct) for r in rows if r.by[name] == value]
            found[name][value] = {"n": len(right), "accuracy": round(sum(right) / len(right), 4)}
    return found


def samples(rows: Sequence[Labelled], each: int = 4) -> list[dict[str, Any]]:
    """A few questions of each task with what was said, right or wrong."""
    shown = []
    for task in TASKS:
        for row in [r for r in rows if r.by["task"] == task][: 40 * each : 40]:
            assert not isinstance(row.prompt, str)
            prompt = "\n\n".join(message["content"] for message in row.prompt)
            fact = {"task": task, "prompt": prompt, "gold": row.gold, "text": row.text}
            shown.append(fact | {"confidence": row.confidence.raw, "right": row.correct})
    return shown
