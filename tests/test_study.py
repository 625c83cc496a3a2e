"""Studies: honest parts, one model at a time, kept answers, and numbers that references confirm."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss, log_loss, roc_auc_score
from study_help import N, questions, toy

from bitcal_integrations.answered import read_answers
from bitcal_integrations.errors import BadRequest, CalibrationError, LoadError, UnknownName
from bitcal_integrations.features import make_schema
from bitcal_integrations.paired import Columns
from bitcal_integrations.repair import Repair
from bitcal_integrations.studied import Result, Score, Study, numbers_of, on_front
from bitcal_integrations.study import grid, study
from bitcal_integrations.testing.toy import ToyModel
from bitcal_integrations.types import Confidence, Labelled

TOYS = {"none": toy("none"), "good": toy("good"), "bad": toy("bad", overconfident=4.0)}


def toys(data: Any = None, **options: Any) -> Study:
    given = {"variants": TOYS, "method": "logistic", **options}
    return study(None, data or questions(), (), **given)


@pytest.fixture(scope="module")
def found() -> Study:
    return toys()


def test_the_numbers_are_those_of_scikit_learn(found: Study) -> None:
    for result in found.results:
        c = result.columns
        assert result.accuracy == pytest.approx(c.right.mean())
        for kind, score in (("raw", result.raw), ("calibrated", result.calibrated)):
            p = getattr(c, kind)
            assert score.numbers["brier"] == pytest.approx(brier_score_loss(c.right, p))
            assert score.numbers["auroc"] == pytest.approx(roc_auc_score(c.right, p))
            assert score.numbers["nll"] == pytest.approx(log_loss(c.right, p))
            assert sum(b.n for b in score.bins) == c.right.size


def test_what_the_toys_were_made_to_show_is_found(found: Study) -> None:
    """One that is right less often than it says is worse, and calibration mends part of that."""
    good, bad = found.result("good"), found.result("bad")
    assert found.reference == "none"
    assert not found.result("none").differences
    assert not good.differences["brier_raw"].clear
    assert bad.differences["brier_raw"].low > 0
    assert bad.differences["accuracy"].high < 0
    assert bad.raw.numbers["ece"] > bad.raw.numbers["ece_floor_p95"]
    assert bad.calibrated.numbers["ece"] < bad.raw.numbers["ece"] / 2
    assert found.compare("bad", "good")["brier_raw"].value == pytest.approx(
        bad.raw.numbers["brier"] - good.raw.numbers["brier"]
    )


def row(number: int, p: float, right: bool, part: str) -> Labelled:
    confidence = Confidence(raw=p, signals={"confidence": p, "mean_entropy": p})
    return Labelled(
        f"{part}{number}", f"g{part}{number}", "?", "a", "a", "a", "stop", right, confidence,
        part=part,
    )  # fmt: skip


def test_ubce_and_its_halves_by_hand() -> None:
    """(.1 + .8 + .4 + .3) / 4 in all, of which (.1 + .4) / 4 is doubt and the rest is trust."""
    measured = [(0.9, True), (0.8, False), (0.6, True), (0.3, False)]
    rows = [row(i, p, y, "report") for i, (p, y) in enumerate(measured)]
    rows += [row(i, p, y, "fit") for i, (p, y) in enumerate(measured)]
    result = numbers_of(Result("a"), rows, make_schema("confidence"), "constant")
    assert result.raw.numbers["ubce"] == pytest.approx(0.4)
    assert result.raw.numbers["ubce_correct"] == pytest.approx(0.125)
    assert result.raw.numbers["ubce_incorrect"] == pytest.approx(0.275)
    assert result.raw.numbers["brier_low"] is None  # four groups bound nothing
    assert result.entropy == pytest.approx(0.65)
    assert (result.fit, result.calibrator, result.accuracy) == (4, "constant", 0.5)


def test_no_calibrator_sees_what_is_measured() -> None:
    rng = np.random.default_rng(0)
    rows = [row(i, float(p), bool(rng.random() < p), part)
            for part in ("fit", "report") for i, p in enumerate(rng.random(100))]  # fmt: skip
    flipped = [replace(r, correct=not r.correct) if r.part == "report" else r for r in rows]
    one, other = (
        numbers_of(Result("a"), r, make_schema("confidence"), "auto") for r in (rows, flipped)
    )
    assert (one.columns.calibrated == other.columns.calibrated).all()
    assert (one.columns.right != other.columns.right).all()


def test_groups_are_never_in_both_parts() -> None:
    seen: list[Columns] = []
    for seed in (0, 1):
        one = {"none": TOYS["none"]}
        data = questions(per_group=3)
        result = toys(data, seed=seed, fit_share=0.3, variants=one).result("none")
        seen.append(result.columns)
        n = len(set(result.columns.groups))
        assert result.columns.right.size == 3 * n  # whole groups
        assert result.fit == N - 3 * n
    assert set(seen[0].groups) != set(seen[1].groups)


def unknown(measured: bool) -> Labelled:
    kept = row(99, 0.5, True, "report")
    signals = dict(kept.confidence.signals) if measured else {}
    reason = "no_answer: nothing for parser 'choice'" if measured else ""
    confidence = Confidence(raw=0.5, signals=signals, reason=reason)
    return replace(kept, id="x", correct=False, confidence=confidence)


@pytest.mark.parametrize("measured", [True, False], ids=["no answer", "a feature is missing"])
def test_an_unknown_answer_counts_in_the_share_right_alone(measured: bool) -> None:
    rows = [row(i, 0.4 + i / 50, i % 2 == 0, part) for part in ("fit", "report") for i in range(20)]
    whole = numbers_of(Result("a"), rows, make_schema("confidence"), "auto")
    result = numbers_of(Result("a"), [*rows, unknown(measured)], make_schema("confidence"), "auto")
    assert (whole.unknown, result.unknown) == (0, 1)
    assert result.accuracy == pytest.approx(10 / 21)
    assert result.raw.numbers["n"] == 20
    assert result.raw.numbers["brier"] == whole.raw.numbers["brier"]


def test_a_calibrator_that_cannot_be_fitted_is_told() -> None:
    rows = [row(i, 0.5 + i / 50, True, part) for part in ("fit", "report") for i in range(20)]
    result = numbers_of(Result("a"), rows, make_schema("confidence"), "platt")
    assert result.calibrator.startswith("none: all 20 labelled answers are right")
    assert result.calibrated is None
    assert result.raw


class Watched:
    """Makes toys and remembers each one; one of them is cut after some answers."""

    def __init__(self, cut: str = "", after: int = 0) -> None:
        self.cut, self.after = cut, after
        self.opened: list[ToyModel] = []
        self.asked = 0

    def variants(self) -> dict[str, Callable[[], ToyModel]]:
        return {name: partial(self.open, name) for name in TOYS}

    def open(self, name: str) -> ToyModel:
        assert all(model.closed for model in self.opened)
        model = TOYS[name]()
        self.opened.append(model)
        original = model.ask_each

        def ask_each(prompts: Any, **options: Any) -> Iterator[Any]:
            for answer in original(prompts, **options):
                if name == self.cut and self.after == 0:
                    raise KeyboardInterrupt
                self.after -= name == self.cut
                self.asked += 1
                yield answer

        model.ask_each = ask_each
        return model


def test_a_cut_study_goes_on_and_ends_the_same(found: Study, tmp_path: Path) -> None:
    cut = Watched("good", after=50)
    with pytest.raises(KeyboardInterrupt):
        toys(variants=cut.variants(), folder=tmp_path)
    assert all(model.closed for model in cut.opened)
    assert len(cut.opened) == 2
    again = Watched()
    result = toys(variants=again.variants(), folder=tmp_path)
    assert again.asked == 3 * N - N - 50
    assert len(read_answers(tmp_path / "good.jsonl")) == N
    for mine, whole in zip(result.results, found.results, strict=True):
        assert mine.raw.numbers == whole.raw.numbers
        assert mine.calibrated.numbers == whole.calibrated.numbers
        assert mine.differences == whole.differences


def test_what_cannot_be_loaded_is_reported_and_the_others_go_on() -> None:
    def fails() -> ToyModel:
        raise LoadError("there is not enough memory", "Use fewer bits.")

    result = toys(questions(60), variants={**TOYS, "none": fails})
    assert result.result("none").error == "there is not enough memory. Use fewer bits."
    assert result.reference == "good"
    assert result.result("bad").differences
    assert not result.result("none").differences
    assert result.compare("bad", "none") == {}
    with pytest.raises(LoadError, match="no variant could be measured; a: there is not enough"):
        toys(questions(60), variants={"a": fails, "b": fails})


def test_progress_names_the_variant() -> None:
    seen: list[tuple[int, int, str]] = []
    toys(questions(60), progress=lambda *said: seen.append(said), variants={"a": toy("a")})
    assert seen[0] == (0, 60, "a: answering")
    assert seen[-1] == (60, 60, "a: answering")


def test_names_of_the_grid() -> None:
    steps = Repair(("clip", "fold"))
    assert list(grid([None, "qint4", "auto"], [None, "data-free", steps])) == [
        "none", "qint4", "qint4+data-free", "qint4+clip+fold", "auto", "auto+data-free",
        "auto+clip+fold",
    ]  # fmt: skip
    assert list(grid("qint4", "data-free")) == ["qint4+data-free"]
    assert list(grid(None, steps)) == ["none"]
    assert grid(["qint4"], [steps])["qint4+clip+fold"] == {"weights": "qint4", "repair": steps}


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"weights": ("qint3",)}, LoadError, "qint3"),
        ({"weights": ({"*": "qint2"},)}, BadRequest, "give a plan one in variants="),
        ({"weights": {"*": "qint2"}}, BadRequest, "it is a list of names"),
        ({"weights": 5}, BadRequest, "weights=5 is not allowed"),
        ({"weights": "qint3"}, LoadError, "'qint3'"),
        ({"variants": [1]}, BadRequest, "a dict of name: variant"),
        ({"variants": {"none": {}}}, BadRequest, "'none' is a weight type of this study"),
        ({"repairs": [Repair(seed=s) for s in (0, 1)]}, BadRequest, "two variants are called"),
        ({"fit_share": "half"}, BadRequest, "fit_share='half'"),
        ({"timed": -1}, BadRequest, "timed=-1"),
        ({"weights": ()}, BadRequest, "needs a variant"),
        ({"repairs": ("magic",)}, BadRequest, "magic"),
        ({"variants": {"a/b": {}}}, BadRequest, "'a/b' names no variant"),
        ({"variants": {"a": 3}}, BadRequest, "a dict of arguments for load"),
        ({"fit_share": 1.0}, BadRequest, "fit_share=1.0"),
        ({"method": "magic"}, UnknownName, "magic"),
        ({"grader": "fair"}, (BadRequest, UnknownName), "fair"),
        ({"parser": "nonsense"}, (BadRequest, UnknownName), "nonsense"),
        ({"early_stop": "fast"}, BadRequest, "early_stop is not an option of a study"),
        ({"data": [("q0", "yes")]}, CalibrationError, "1 examples in 1 groups are too few"),
        ({"data": [{"prompt": "q0"}]}, CalibrationError, "no right answer"),
    ],
)
def test_what_cannot_be_is_refused_before_a_model_is_loaded(
    arguments: dict[str, Any], error: Any, words: str
) -> None:
    def opener(**_: Any) -> ToyModel:
        raise AssertionError("it was loaded")

    with pytest.raises(error, match=words):
        study(opener, arguments.pop("data", questions(40)), **arguments)


def test_an_unknown_name_of_a_variant(found: Study) -> None:
    with pytest.raises(UnknownName, match="'qint2' is no variant of this study: none, good, bad"):
        found.result("qint2")


def scored(name: str, size: int | None, brier: float) -> Result:
    return Result(name, bytes=size, calibrated=Score({"brier": brier}, ()))


def test_the_front_by_hand() -> None:
    results = [
        scored("large", 100, 0.10), scored("best", 50, 0.10), scored("small", 20, 0.15),
        scored("beaten", 30, 0.16), scored("twin", 20, 0.15), scored("unknown", None, 0.01),
    ]  # fmt: skip
    assert [r.name for r in on_front(results) if r.front] == ["best", "small", "twin"]
