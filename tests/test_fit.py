"""From labelled examples to a profile: honest parts, right numbers, nothing lost.

The toy's answers are right with a known probability, so what a fit must find is known too.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bitcal_integrations.dataset import split
from bitcal_integrations.errors import BadRequest, BitcalError, CalibrationError, ProfileError
from bitcal_integrations.fit import FitOptions, evaluate, fit_profile, fit_rows
from bitcal_integrations.model import CalibratedModel
from bitcal_integrations.profile import Profile
from bitcal_integrations.testing.toy import ToyModel
from bitcal_integrations.types import Labelled

N = 1200
RATES = np.linspace(0.3, 0.95, N)
TABLE = {f"Question {n}?": (f"yes{n}", float(p), f"no{n}") for n, p in enumerate(RATES)}
EXAMPLES = [{"prompt": q, "gold": entry[0], "id": q, "level": "low" if n < N // 2 else "high"}
            for n, (q, entry) in enumerate(TABLE.items())]  # fmt: skip


def plain(name: str = "toy") -> CalibratedModel:
    """The toy's table behind an ordinary CalibratedModel, whose confidence is its profile's."""
    toy = ToyModel(TABLE, name=name)
    return CalibratedModel(toy._engine, name)


@pytest.fixture(scope="module")
def model() -> Iterator[CalibratedModel]:
    with plain() as model:
        yield model


@pytest.fixture(scope="module")
def profile(model: CalibratedModel) -> Profile:
    return fit_profile(model, EXAMPLES, grader="exact", seed=1)


def test_the_profile_says_what_was_measured(profile: Profile) -> None:
    task = profile.task()
    assert {k: task.counts[k] for k in ("fit", "certify", "report")} == {
        "fit": 600, "certify": 300, "report": 300,
    }  # fmt: skip
    assert task.counts["unanswered"] == task.counts["unjudged"] == 0
    assert task.claim == "is right"
    assert set(task.scores) == {"base", "raw", "calibrated"}
    assert task.scores["calibrated"]["n"] == 300
    assert task.scores["calibrated"]["brier"] < task.scores["base"]["brier"]
    assert [c.max_error for c in task.certificates] == [0.05, 0.1, 0.2]
    assert task.flips["n"] == 64
    assert task.flips["changed"] == 0
    assert len(profile.canaries) == 64
    assert profile.made_with["torch"]


def test_confidence_is_the_known_rate(model: CalibratedModel, profile: Profile) -> None:
    """The true probability is known for every prompt; a fit on 600 labels must come near it."""
    served = model.without_profile()
    served.use_profile(profile)
    records = served.ask([f"Question {n}?" for n in range(0, N, 7)])
    values = np.array([r.confidence.value for r in records], dtype=float)
    assert np.abs(values - RATES[::7]).mean() < 0.05
    assert all(r.confidence.calibrated for r in records)
    assert all(r.confidence.low <= r.confidence.value <= r.confidence.high for r in records)
    assert {r.confidence.profile for r in records} == {profile.fingerprint}
    assert model.ask("Question 3?").confidence.value is None  # the other view has no profile


def test_the_profile_survives_its_file(profile: Profile, tmp_path: Path) -> None:
    profile.save(tmp_path / "p.json")
    again = Profile.load(tmp_path / "p.json")
    assert again.to_dict() == profile.to_dict()
    x = np.array([[c.raw] * len(profile.task().schema.names) for c in profile.canaries])
    assert (again.task().calibrator(x) == profile.task().calibrator(x)).all()
    assert [p.name for p in tmp_path.iterdir()] == ["p.json"]


def test_fit_and_certify_do_not_see_the_report_part(model: CalibratedModel) -> None:
    """Turning every verdict of the report part over changes its scores and nothing else."""
    place = split_of_examples()
    turned = [{**e, "gold": "never"} if place[e["id"]] == "report" else e for e in EXAMPLES]
    one = fit_profile(model, EXAMPLES, grader="exact", seed=1).task()
    other = fit_profile(model, turned, grader="exact", seed=1).task()
    assert one.calibrator.to_dict() == other.calibrator.to_dict()
    assert one.certificates == other.certificates
    assert one.scores["calibrated"]["accuracy"] != other.scores["calibrated"]["accuracy"] == 0.0


def split_of_examples() -> dict[str, str]:
    from bitcal_integrations.dataset import read_examples

    return split(read_examples(EXAMPLES), seed=1)


def test_the_same_seed_gives_the_same_profile(model: CalibratedModel, profile: Profile) -> None:
    again = fit_profile(model, EXAMPLES, grader="exact", seed=1)
    assert json.dumps(again.to_dict()) == json.dumps(profile.to_dict())


def test_a_teacher_stands_in_and_is_named(model: CalibratedModel) -> None:
    with plain("big") as teacher:
        unlabelled = [{"prompt": e["prompt"], "id": e["id"]} for e in EXAMPLES[:400]]
        profile = fit_profile(model, unlabelled, grader="exact", gold="teacher", teacher=teacher)
    task = profile.task()
    assert task.claim == "agrees with big"
    assert task.label_source == "teacher: big"
    assert all("is right" not in str(c) for c in task.certificates)
    served = model.without_profile()
    served.use_profile(profile)
    assert "agrees with big" in served.ask("Question 5?").confidence.reason
    assert task.scores["calibrated"]["accuracy"] == 1.0  # the same table: it always agrees


@pytest.mark.parametrize("options", [{"gold": "teacher"}, {"teacher": object()}, {"gold": "guess"}])
def test_what_gold_may_be(model: CalibratedModel, options: dict[str, Any]) -> None:
    with pytest.raises(BadRequest, match="gold="):
        fit_profile(model, EXAMPLES[:4], **options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"method": "magic"}, "'magic'"),
        ({"objective": "log"}, "objective='log'"),
        ({"delta": 1.5}, "delta=1.5"),
        ({"max_errors": (0.1, 2)}, "max_error=2"),
        ({"parts": (0.5, 0.5)}, "three shares"),
        ({"grader": "fair"}, "'fair' is not a grader"),
        ({"parser": "magic"}, "'magic' is not a parser"),
        ({"temperature": -1}, "temperature=-1"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_asked(
    options: dict[str, Any], words: str
) -> None:
    with plain() as model:
        model.add_sink(lambda record: pytest.fail("a question was asked"))
        with pytest.raises(BitcalError, match=words):
            fit_profile(model, EXAMPLES, **options)


def words_of(text: str) -> str | None:
    return text.split()[0] if text.split() else None


def equal(answer: str, gold: Any) -> bool:
    return bool(answer == gold["is"])


def test_functions_of_the_user_stay_in_memory_and_leave_their_names_in_the_file(
    model: CalibratedModel, tmp_path: Path
) -> None:
    examples = [{"prompt": e["prompt"], "gold": {"is": e["gold"]}} for e in EXAMPLES[:300]]
    served = model.without_profile()
    profile = fit_profile(model, examples, parser=words_of, grader=equal)
    served.use_profile(profile)
    assert served.ask("Question 3?").confidence.calibrated
    assert profile.check(model).state == "same"
    assert {r.part for r in evaluate(served, examples)} == {"fit", "certify", "report"}
    profile.save(tmp_path / "p.json")
    again = Profile.load(tmp_path / "p.json")
    assert again.to_dict() == profile.to_dict()
    served.use_profile(again)
    needs = rf"needs parser=<your function> \({__name__}\.words_of\)"
    for use in (
        lambda: served.ask("Question 3?"),
        lambda: again.check(model),
        lambda: evaluate(served, examples, grader=equal),
    ):
        with pytest.raises(ProfileError, match=needs):
            use()
    assert served.ask("Question 3?", parser=words_of).confidence.calibrated
    other = served.ask("Question 3?", parser=lambda text: text.split()[0]).confidence
    assert "another decoding: parser is" in other.reason
    served.use_profile(again.using(parser=words_of))
    assert served.ask("Question 3?").confidence.calibrated
    with pytest.raises(ProfileError, match=r"needs grader=<your function> \(.*\.equal\)"):
        evaluate(served, examples)
    assert evaluate(served, examples[:3], grader=equal)[0].confidence.calibrated
    with pytest.raises(ProfileError, match="is not what was measured"):
        again.using(parser=equal)


def test_lambdas_are_told_apart(model: CalibratedModel) -> None:
    served = model.without_profile()
    served.use_profile(fit_profile(model, EXAMPLES[:100], parser=lambda text: text[:4] or None))
    same = served.ask("Question 3?", parser=lambda text: text[:4] or None)
    other = served.ask("Question 3?", parser=lambda text: text[:3] or None)
    assert same.confidence.calibrated
    assert not other.confidence.calibrated


def test_rows_that_the_profile_was_made_on_are_known_again(
    model: CalibratedModel, profile: Profile
) -> None:
    served = model.without_profile()
    served.use_profile(profile)
    place = split_of_examples()
    fresh = [{"prompt": f"Question {n}?", "gold": "x"} for n in range(N, N + 5)]
    with plain() as bare:
        assert {r.part for r in evaluate(bare, EXAMPLES[:9], grader="exact")} == {"report"}
    rows = evaluate(served, EXAMPLES)
    assert {r.id: r.part for r in rows} == place
    served.use_profile(Profile.from_dict(json.loads(json.dumps(profile.to_dict()))))
    again = [{"prompt": e["prompt"], "gold": e["gold"], "group": "one"} for e in EXAMPLES[:50]]
    assert [r.part for r in evaluate(served, again)] == [place[e["id"]] for e in EXAMPLES[:50]]
    assert {profile.task().part_of(e["prompt"]) for e in fresh} == {"report"}


def test_kept_answers_serve_with_any_profile(
    model: CalibratedModel, profile: Profile, tmp_path: Path
) -> None:
    """Evaluated without a profile, fitted on, evaluated with the profile: nothing asked again."""
    keep = tmp_path / "answers.jsonl"
    served = model.without_profile()
    evaluate(served, EXAMPLES[:200], grader="exact", answers=keep)
    size = keep.stat().st_size
    served.use_profile(profile)
    asked = [0]
    served.add_sink(lambda record: asked.__setitem__(0, asked[0] + 1))
    kept = evaluate(served, EXAMPLES[:200], answers=keep)
    assert asked == [0]
    fresh = evaluate(served, EXAMPLES[:200])
    assert [r.confidence.value for r in kept] == [r.confidence.value for r in fresh]
    assert all(r.confidence.calibrated for r in kept)
    fit_profile(served, EXAMPLES[:200], grader="exact", answers=keep)
    assert keep.stat().st_size == size
    served.use_profile(None)
    rows = evaluate(served, EXAMPLES[:200], grader="exact", answers=keep)
    assert {r.confidence.value for r in rows} == {None}


def test_a_teacher_whose_answer_is_no_number_is_no_gold(model: CalibratedModel) -> None:
    table = {f"Question {n}?": (str(n) if n % 2 else "who knows", 0.9) for n in range(80)}
    with plain() as student, CalibratedModel(ToyModel(table)._engine, "big") as teacher:
        prompts = [{"prompt": q} for q in table]
        profile = fit_profile(student, prompts, grader="numeric", gold="teacher", teacher=teacher)
    assert profile.task().counts["examples"] == 40


def test_nothing_to_fit_on_says_why(model: CalibratedModel) -> None:
    with pytest.raises(CalibrationError, match="none of the 8 examples"):
        fit_profile(model, EXAMPLES[:8], parser="gsm8k", grader="exact")


def test_unjudged_and_unanswered_rows_are_counted_and_left_out(model: CalibratedModel) -> None:
    rows = [
        Labelled.from_dict({**r.to_dict(), "part": "fit"})
        for r in evaluate(model, EXAMPLES[:60], grader="exact")
    ]
    some = [*rows[:50], *(Labelled.from_dict({**r.to_dict(), "correct": None}) for r in rows[50:])]
    from bitcal_integrations.features import make_schema

    fitted = fit_rows(some, make_schema(None), FitOptions())
    assert fitted.counts["fit"] == 50
    assert fitted.counts["unjudged"] == 10


def test_evaluate_keeps_labels_to_break_down_by(model: CalibratedModel) -> None:
    rows = evaluate(model, EXAMPLES[:10] + EXAMPLES[-10:], grader="exact", group_by="level")
    assert [r.by["level"] for r in rows] == ["low"] * 10 + ["high"] * 10
    assert {r.part for r in rows} == {"report"}
    assert sum(bool(r.correct) for r in rows[10:]) > sum(bool(r.correct) for r in rows[:10])
