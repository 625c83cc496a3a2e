"""A profile carried to another model: what it then says, what it refuses, and that it says whence.

The toys give the same answers as the one that was measured, or know how far they differ, so what
a transfer must find is known.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bitcal_integrations.engines._ticket import Listener, Outcome
from bitcal_integrations.errors import BitcalError, CalibrationError
from bitcal_integrations.fit import evaluate, fit_profile, fit_profiles
from bitcal_integrations.model import CalibratedModel
from bitcal_integrations.profile import Profile
from bitcal_integrations.recalibrate import adapt_profile, transfer_profile
from bitcal_integrations.testing.toy import _Done, _say, _Table
from bitcal_integrations.types import Request, Timing

N = 800
RATES = np.linspace(0.3, 0.95, N)
TABLE = {f"Question {n}?": (f"yes{n}", float(p), f"no{n}") for n, p in enumerate(RATES)}
EXAMPLES = [{"prompt": q, "gold": entry[0], "id": q} for q, entry in TABLE.items()]
PROMPTS = list(TABLE)
SCORE = ("confidence",)  # of the toy's signals the one that a power leaves in order


class Distorted(_Table):
    """The answers of the table, said with another confidence; some of the right ones spoilt."""

    def __init__(self, power: float, spoilt: float = 0.0, seed: int = 0) -> None:
        super().__init__({**TABLE}, ("?", 0.5), seed)
        self._power, self._spoilt = power, spoilt

    def submit(self, request: Request, listener: Listener, steps: bool = True) -> _Done:
        answer, value = self.look_up(request)
        assert value is not None
        number = int(answer.strip("yesno"))
        if (number * 0.618034) % 1 < self._spoilt:
            answer = f"no{number}"
        listener(Outcome(_say(request, answer, value**self._power), Timing()))
        return _Done()


def toy(name: str, power: float = 1.0, spoilt: float = 0.0, seed: int = 0) -> CalibratedModel:
    return CalibratedModel(Distorted(power, spoilt, seed), name)


@pytest.fixture(scope="module")
def old() -> Iterator[CalibratedModel]:
    with toy("old") as model:
        yield model


@pytest.fixture(scope="module")
def profile(old: CalibratedModel) -> Profile:
    return fit_profile(old, EXAMPLES, grader="exact", method="logistic", features=SCORE, seed=1)


def values(model: CalibratedModel, profile: Profile) -> np.ndarray:
    served = model.without_profile()
    served.use_profile(profile, strict=True)
    return np.array([r.confidence.value for r in served.ask(PROMPTS[::7])], dtype=float)


def test_scores_of_another_scale_are_read_without_a_label(profile: Profile) -> None:
    with toy("new", power=3) as new:
        moved = transfer_profile(profile, new, PROMPTS)
        right = values(new, moved)
        plain = evaluate(new.without_profile(), EXAMPLES[::7], grader="exact")
    x = [profile.task().schema.vector(r.confidence.signals) for r in plain]
    assert np.abs(profile.task().calibrator(x) - RATES[::7]).mean() > 0.12
    assert np.abs(right - RATES[::7]).mean() < 0.05


def test_what_is_carried_over_says_so_and_promises_nothing(
    profile: Profile, tmp_path: Path
) -> None:
    with toy("new", power=3, spoilt=0.1) as new:
        moved = transfer_profile(profile, new, PROMPTS)
        moved.save(tmp_path / "moved.json")
        assert Profile.load(tmp_path / "moved.json").to_dict() == moved.to_dict()
        assert moved.parts == new.fingerprint_parts
        assert moved.check(new).state == "same"
        served = new.without_profile()
        served.use_profile(moved)
        confidence = served.ask(PROMPTS[400]).confidence
    task = moved.task()
    assert task.transferred_from == profile.fingerprint
    assert task.certificates == ()
    assert task.scores == {}
    assert (task.counts["fit"], task.counts["examples"]) == (0, N)
    assert task.calibrator.transferred
    assert 0.02 < task.calibrator.disagreement < 0.15  # a tenth was spoilt, most of it right before
    assert str(confidence.interval).endswith("disagreement, transferred")


def test_right_answers_that_stand_by_are_not_looked_at(profile: Profile) -> None:
    with toy("new", power=2) as new:
        bare = transfer_profile(profile, new, [{"prompt": e["prompt"]} for e in EXAMPLES])
        turned = transfer_profile(profile, new, [{**e, "gold": "never"} for e in EXAMPLES])
    assert bare.task().calibrator.maps == turned.task().calibrator.maps
    assert turned.task().counts["unjudged"] == N


def test_the_measured_model_and_its_kept_answers_are_the_same_source(
    profile: Profile, old: CalibratedModel, tmp_path: Path
) -> None:
    kept = tmp_path / "old.jsonl"
    fit_profile(
        old, EXAMPLES, grader="exact", method="logistic", features=SCORE, seed=1, answers=kept
    )
    some = [{"prompt": p, "id": p} for p in PROMPTS[::2]]
    with toy("new", power=2, spoilt=0.1) as new:
        asked = transfer_profile(profile, new, some, source=old)
        read = transfer_profile(profile, new, some, source=kept)
        assert asked.to_dict() == read.to_dict()
        answers = tmp_path / "new.jsonl"
        transfer_profile(profile, new, some, source=old, answers=answers)
        assert sorted(p.name for p in tmp_path.iterdir()) == [
            "new.jsonl", "new.jsonl.source", "old.jsonl",
        ]  # fmt: skip
        with pytest.raises(CalibrationError, match=r"'.*new.jsonl' is not of the model .*'new'"):
            transfer_profile(profile, new, some, source=answers)
        with pytest.raises(CalibrationError, match="the model 'new' is not of the model that was"):
            transfer_profile(profile, new, some, source=new)
        with pytest.raises(CalibrationError, match="answers none of the 1 prompts"):
            transfer_profile(profile, new, ["Another?"], source=kept)


def test_a_model_that_answers_otherwise_is_refused(profile: Profile) -> None:
    with toy("other", seed=5) as other, pytest.raises(CalibrationError, match="differ in"):
        transfer_profile(profile, other, PROMPTS)


def test_the_measured_model_itself_needs_no_transfer(
    profile: Profile, old: CalibratedModel
) -> None:
    with pytest.raises(CalibrationError, match="this very model"):
        transfer_profile(profile, old, PROMPTS)


def test_a_few_labels_move_the_offset(profile: Profile) -> None:
    """A third of the answers is spoilt, so each is right two times in three of what it was."""
    with toy("new", spoilt=0.34) as new:
        adapted = adapt_profile(profile, new, EXAMPLES[3::10], sd=0.5)
        far = np.abs(values(new, adapted) - RATES[::7] * 0.66).mean()
    assert adapted.task().calibrator.adapted == 80
    assert adapted.task().calibrator.offset < -0.3
    assert adapted.task().transferred_from == profile.fingerprint
    assert adapted.task().certificates == ()
    assert far < 0.1
    assert np.abs(RATES[::7] - RATES[::7] * 0.66).mean() > 0.2  # what it would be without


def test_labels_that_speak_against_the_profile_are_heard(profile: Profile) -> None:
    with toy("broken", spoilt=0.7) as broken:
        with pytest.raises(CalibrationError, match=r"of 80 labelled answers are right where \d\d "):
            adapt_profile(profile, broken, EXAMPLES[3::10])
        assert adapt_profile(profile, broken, EXAMPLES[3::10], sd=3).task().calibrator.offset < -1


def test_labels_that_are_kept_apart_certify_and_report(profile: Profile) -> None:
    with toy("new", power=2) as new:
        moved = transfer_profile(profile, new, PROMPTS)
        both = adapt_profile(
            moved, new, EXAMPLES, parts=(0.2, 0.5, 0.3), max_errors=(0.2, 0.4), delta=0.2
        )
    task = both.task()
    assert [c.max_error for c in task.certificates] == [0.2, 0.4]
    assert task.certificates[1].threshold is not None
    assert task.certificates[1].n == task.counts["certify"] == 400
    assert task.scores["calibrated"]["brier"] < task.scores["raw"]["brier"]
    assert task.transferred_from == profile.fingerprint  # of the first step
    assert task.calibrator.maps == moved.task().calibrator.maps


def test_more_labels_of_the_measured_model_come_from_nowhere_else(
    profile: Profile, old: CalibratedModel
) -> None:
    again = adapt_profile(profile, old, EXAMPLES[:50])
    assert again.task().transferred_from is None
    assert again.fingerprint == profile.fingerprint


def test_labels_are_not_mixed_with_a_teachers(old: CalibratedModel) -> None:
    with toy("big") as teacher, toy("new") as new:
        taught = fit_profile(
            old, EXAMPLES[:300], grader="exact", features=SCORE, gold="teacher", teacher=teacher
        )
        with pytest.raises(CalibrationError, match="agrees with big"):
            adapt_profile(taught, new, EXAMPLES[:50])
        assert transfer_profile(taught, new, PROMPTS).task().claim == "agrees with big"


def test_weight_types_are_fitted_together(tmp_path: Path) -> None:
    models = {"plain": toy("plain"), "worse": toy("worse", spoilt=0.3)}
    found = fit_profiles(
        models,
        EXAMPLES,
        grader="exact",
        method="logistic",
        features=SCORE,
        answers=tmp_path / "kept",
    )
    one, two = found["plain"].task(), found["worse"].task()
    assert one.calibrator.params == two.calibrator.params
    assert one.calibrator.offset > 0 > two.calibrator.offset
    assert {c.simultaneous for c in (*one.certificates, *two.certificates)} == {6}
    assert found["worse"].parts == models["worse"].fingerprint_parts
    assert np.abs(values(models["worse"], found["worse"]) - 0.7 * RATES[::7]).mean() < 0.07
    assert sorted(p.name for p in tmp_path.iterdir()) == ["kept.plain", "kept.worse"]


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda p, m: fit_profiles({}, EXAMPLES), "models={} is not allowed"),
        (lambda p, m: transfer_profile(p, m, PROMPTS, task="sums"), "no task 'sums'"),
        (lambda p, m: transfer_profile(p, m, PROMPTS[:5]), "target has 5 complete rows"),
        (lambda p, m: transfer_profile(p, m, 7), "a path to JSONL or an iterable"),
        (lambda p, m: transfer_profile(p, m, PROMPTS, grader="fair"), "'fair' is not a grader"),
        (lambda p, m: adapt_profile(p, m, EXAMPLES[:20], sd=-1), "sd=-1"),
        (lambda p, m: adapt_profile(p, m, PROMPTS), "a dict or a"),
    ],
)
def test_wrong_input_is_named(call: Any, said: str, profile: Profile) -> None:
    with toy("new") as new, pytest.raises(BitcalError, match=said):
        call(profile, new)
