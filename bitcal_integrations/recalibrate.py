"""A profile for a model that has few labels or none, from the profile of another one.

`transfer_profile` needs prompts only, `adapt_profile` a few labels. What is carried over certifies
nothing: a certificate comes from labelled answers of the model that it is for. Knows profiles and
rows; no framework.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from bitcal_integrations.answered import (
    Asking,
    Progress,
    answer_all,
    comparable,
)
from bitcal_integrations.calibrators import adapt, transfer
from bitcal_integrations.dataset import (
    PARTS,
    Example,
    read_examples,
    split,
)
from bitcal_integrations.errors import CalibrationError
from bitcal_integrations.features import PROBE, Schema
from bitcal_integrations.fit import profile_of, unprofiled
from bitcal_integrations.fitted import (
    MAX_ERRORS,
    FitOptions,
    Fitted,
    Part,
    answered,
    measured,
    parts_of,
    usable,
)
from bitcal_integrations.grading import as_grader
from bitcal_integrations.kept import judged_ids, read_kept
from bitcal_integrations.profile import Profile, TaskProfile, differing
from bitcal_integrations.seen import CERTIFY, FIT, with_labels
from bitcal_integrations.types import Labelled

SURE = 3.29  # standard errors: p < .001

__all__ = ["adapt_profile", "transfer_profile"]


def transfer_profile(
    profile: Profile,
    model: Any,
    prompts: Any,
    *,
    source: Any = None,
    task: str = "default",
    grader: Any = None,
    answers: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> Profile:
    """The profile of one task for another model, by quantiles of its scores; no label is used.

    `prompts` are like those that the profile was fitted on: a path to JSONL, or a list of texts or
    dicts. `source` is the model that was measured, or a file of its kept answers to these prompts;
    without it the scores and canaries in the profile stand for it. Take many: on recorded runs the
    map of 50 prompts cost .0035 Brier score, that of 200 .0016, with `source` less. The share of
    answers in which the two models differ, as `grader` compares them, widens every interval, and
    beyond the share that was tested the transfer is refused. Other options are those of `ask`;
    what is left out is as the task was measured.
    """
    if not differing(profile.parts, model.fingerprint_parts):
        raise CalibrationError("the profile was measured on this very model: use it as it is")
    one, asking = profile.task(task), _asking(profile, task, grader, options, progress)
    _check_probe(one.schema)
    asked = [replace(e, gold=None) for e in read_examples(_dicts(prompts), need_gold=False)]
    old = (
        _of_profile(profile, task)
        if source is None
        else _of_source(profile, asked, source, asking, answers)
    )
    ours = {r.id: r for r in answer_all(unprofiled(model), [*asked, *old.asked], asking, answers)}
    rows = [replace(ours[e.id], part="fit") for e in asked]
    calibrator = transfer(
        one.calibrator, source=old.x, target=_features(rows, one.schema),
        disagreement=_disagreement(old.said, ours, asking.grader),
    )  # fmt: skip
    how = FitOptions(label_source=one.label_source)
    parts = {part: usable(rows, one.schema, part) for part in PARTS}
    fitted = measured(calibrator, rows, parts, how)
    return _carried(profile, task, unprofiled(model), rows, asking, how, fitted)


def adapt_profile(
    profile: Profile,
    model: Any,
    examples: Any,
    *,
    task: str = "default",
    sd: float = 0.15,
    parts: Sequence[float] = (1.0, 0.0, 0.0),
    max_errors: Sequence[float] = MAX_ERRORS,
    delta: float = 0.1,
    group_id: Any = None,
    grader: Any = None,
    answers: str | os.PathLike[str] | None = None,
    seed: int = 0,
    progress: Progress | None = None,
    **options: Any,
) -> Profile:
    """The profile of one task for a model with a few labelled examples, by a shrunk offset.

    `profile` is another model's, as it is or after `transfer_profile`, or the model's own. `sd` is
    the prior standard deviation of the offset on the logit. `parts` are the shares of the examples
    that the offset, certificates and scores are made of; as it stands all go into the offset, and
    nothing is certified. Refused where the labels speak clearly against the profile. Other options
    are those of `ask`; what is left out is as the task was measured.
    """
    one, asking = profile.task(task), _asking(profile, task, grader, options, progress)
    if one.label_source != "labels":
        raise CalibrationError(
            f"a confidence of this profile means that an answer {one.claim}: labels of right "
            "answers cannot be mixed with that"
        )
    if differing(profile.parts, model.fingerprint_parts):
        _check_probe(one.schema)
    asked = read_examples(examples, group_id=group_id, judged=judged_ids(answers))
    _check_unseen(one, asked)
    place, bare = split(asked, parts, seed), unprofiled(model)
    rows = [replace(r, part=place[r.id]) for r in answer_all(bare, asked, asking, answers)]
    found = parts_of(rows, one.schema)
    calibrator = adapt(
        one.calibrator, found["fit"].x, found["fit"].y, sd, groups=found["fit"].groups
    )
    _check_labels(calibrator, found["fit"])
    how = FitOptions(max_errors=tuple(max_errors), delta=delta, seed=seed)
    fitted = measured(calibrator, rows, found, how)
    return _carried(profile, task, bare, rows, asking, how, fitted)


def _check_probe(schema: Schema) -> None:
    """Refuse to carry a probe over: other weights, other states."""
    if schema.probe is not None:
        raise CalibrationError(
            f"the feature {PROBE!r} reads hidden states of the very weights that it was fitted on, "
            "so the profile cannot be carried over to another model",
            "Fit one of its own, or start from a profile without this feature.",
        )


def _check_unseen(one: TaskProfile, asked: Sequence[Example]) -> None:
    """Refuse what a probe was fitted on: it knows more of these answers than of any other."""
    if known := [e for e in asked if one.told(e.prompt)]:
        raise CalibrationError(
            f"the feature {PROBE!r} was fitted on {len(known)} of these {len(asked)} examples, the "
            f"first of them {known[0].id!r}: what it says of them it has been told",
            "Take other examples.",
        )


def _check_labels(calibrator: Any, few: Part) -> None:
    """Refuse where the share right is not what the offset, shrunk as it is, can explain."""
    p, right = calibrator(few.x), int(few.y.sum())
    copies = len(p) / len(set(few.groups))  # rows of one question count as one label
    if abs(right - p.sum()) > SURE * np.sqrt(copies * np.sum(p * (1 - p))):
        raise CalibrationError(
            f"{right} of {len(few.y)} labelled answers are right where {p.sum():.0f} are expected: "
            "the profile does not hold for this model",
            "Fit one on labels of its own, or trust these few more with a larger sd.",
        )


# ---- what the measured model said --------------------------------------------------------------


@dataclass(frozen=True)
class _Old:
    """Features of the measured model (None: those in its profile), its answers by example id, and
    the prompts to be asked for these beside the given ones."""

    x: np.ndarray | None
    said: Mapping[str, str]
    asked: tuple[Example, ...] = ()


def _of_profile(profile: Profile, task: str) -> _Old:
    name = profile.name_of(task)
    canaries = {f"canary {i}": c for i, c in enumerate(profile.canaries) if c.task == name}
    if not canaries:
        raise CalibrationError(
            f"the profile has no canaries of the task {name!r} to compare answers with",
            "Name the measured model, or a file of its kept answers, as source.",
        )
    asked = tuple(Example(key, key, canary.prompt) for key, canary in canaries.items())
    return _Old(None, {key: canary.answer for key, canary in canaries.items()}, asked)


def _of_source(
    profile: Profile, asked: Sequence[Example], source: Any, asking: Asking, answers: Any
) -> _Old:
    assert asking.schema is not None
    if isinstance(source, (str, os.PathLike)):
        rows = _kept(Path(source), profile, {e.id for e in asked})
    else:
        _check_measured(profile, source.fingerprint_parts, f"the model {source.name!r}")
        keep = answers and f"{os.fspath(answers)}.source"
        rows = answer_all(unprofiled(source), asked, asking, keep)
    rows = [row for row in rows if answered(row)]
    return _Old(_features(rows, asking.schema), {row.id: _said(row) for row in rows})


def _kept(path: Path, profile: Profile, wanted: set[str]) -> list[Labelled]:
    """Rows of a file of answers that the measured model gave, to the prompts that are wanted."""
    kept = read_kept(path)
    _check_measured(profile, kept.header.get("model", {}), f"the answers in {str(path)!r}")
    rows = [row for row in kept.rows.values() if row.id in wanted]
    if not rows:
        raise CalibrationError(f"{str(path)!r} answers none of the {len(wanted)} prompts")
    return rows


def _check_measured(profile: Profile, parts: Mapping[str, Any], what: str) -> None:
    if different := differing(profile.parts, parts):
        raise CalibrationError(f"{what} is not of the model that was measured: {different}")


def _disagreement(said: Mapping[str, str], ours: Mapping[str, Labelled], grader: Any) -> float:
    """The share of answers that differ; where the new model has none, it differs."""
    same = as_grader(grader)
    alike = [
        answered(ours[key]) and comparable(text, grader) and same(_said(ours[key]), text)
        for key, text in said.items()
    ]
    return 1 - sum(verdict is True for verdict in alike) / len(alike)


def _said(row: Labelled) -> str:
    return row.answer or row.text.strip()


def _features(rows: Sequence[Labelled], schema: Schema) -> np.ndarray:
    found = [schema.vector(row.confidence.signals) for row in rows if answered(row)]
    return np.array(found).reshape(len(found), len(schema.names))


# ---- the new profile ---------------------------------------------------------------------------


def _dicts(prompts: Any) -> Any:
    """Bare texts as examples; a single string is the path of a file."""
    if isinstance(prompts, (str, os.PathLike)) or not isinstance(prompts, Iterable):
        return prompts
    return [{"prompt": p} if isinstance(p, str) else p for p in prompts]


def _asking(
    profile: Profile, task: str, grader: Any, options: Mapping[str, Any], progress: Any
) -> Asking:
    """As the task was measured, but for what is given."""
    one = profile.task(task)
    as_measured = {**profile.options(task), **options}
    return Asking(grader or one.grader, one.schema, "default", as_measured, progress)


def _carried(
    profile: Profile,
    task: str,
    model: Any,
    rows: Sequence[Labelled],
    asking: Asking,
    how: FitOptions,
    fitted: Fitted,
) -> Profile:
    """The new model's profile of one task, which says where it came from."""
    name, old = profile.name_of(task), profile.task(task)
    new = profile_of(model, rows, old.schema, asking, how, name, fitted)
    other = differing(profile.parts, new.parts)
    origin = profile.fingerprint if other else old.transferred_from
    one = replace(new.task(name), transferred_from=origin)
    if not other:  # the shape of the calibrator, and a probe, come from what the old one has seen
        learned = {part: marks for part, marks in old.seen.items() if part != CERTIFY}
        probe, fit = old.schema.probe is not None, one.seen.get(FIT, "")
        one = replace(one, seen={**one.seen, **with_labels(learned, fit, probe)})
    return replace(new, tasks={name: one})
