"""A probe of hidden states from labels to served confidence, on a model whose states tell more."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from probe_help import ASKED, EXAMPLES, FRESH, HOW, WITH_PROBE, made

from bitcal_integrations import metrics
from bitcal_integrations.answered import read_answers
from bitcal_integrations.dataset import read_examples, split
from bitcal_integrations.errors import CalibrationError
from bitcal_integrations.features import PROBE, make_schema
from bitcal_integrations.fit import fit_profile
from bitcal_integrations.fitted import FitOptions, Fitted, fit_rows, fit_rows_together, probed
from bitcal_integrations.model import CalibratedModel
from bitcal_integrations.monitor.refit import labelled_rows
from bitcal_integrations.monitor.store import Store
from bitcal_integrations.profile import Profile
from bitcal_integrations.signals._probe import read
from bitcal_integrations.types import Labelled, Record


@pytest.fixture(scope="module")
def model() -> Iterator[CalibratedModel]:
    with made() as loaded:
        yield loaded


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kept") / "answers.jsonl"


@pytest.fixture(scope="module")
def profile(model: CalibratedModel, kept: Path) -> Profile:
    return fit_profile(model, EXAMPLES, features=WITH_PROBE, answers=kept, **HOW, **ASKED)


@pytest.fixture(scope="module")
def rows(model: CalibratedModel, profile: Profile, kept: Path) -> list[Labelled]:
    """The answers that the profile was made of, in their parts."""
    place = split(read_examples(EXAMPLES))
    return [replace(row, part=place[row.id]) for row in read_answers(kept)]


SCHEMA = make_schema(WITH_PROBE, layer=1)


def fitted(rows: Sequence[Labelled]) -> Fitted:
    return fit_rows(rows, SCHEMA, FitOptions())


def judged(rows: Sequence[Labelled], verdict: Callable[[Labelled], bool]) -> list[Labelled]:
    return [replace(row, correct=verdict(row)) for row in rows]


@pytest.fixture
def served(model: CalibratedModel, profile: Profile) -> CalibratedModel:
    one = model.without_profile()
    one.use_profile(profile)
    return one


def same(one: list[Record], other: list[Record]) -> None:
    for a, b in zip(one, other, strict=True):
        assert a.text == b.text
        assert a.confidence.value == pytest.approx(b.confidence.value, abs=1e-4)
        assert a.confidence.signals[PROBE] == pytest.approx(b.confidence.signals[PROBE], abs=1e-4)


# ---- what is fitted ----------------------------------------------------------------------------


def test_a_probe_reads_what_the_free_features_cannot_say(
    rows: list[Labelled], profile: Profile
) -> None:
    bare = fit_rows(rows, make_schema(), FitOptions()).scores["calibrated"]
    better = profile.task().scores["calibrated"]
    assert better["n"] == bare["n"] == 100
    assert better["brier"] < bare["brier"] - 0.05
    assert better["auroc"] > bare["auroc"] + 0.1
    assert "200 held-out answers" in profile.task().schema.probe.reason


def test_the_profile_holds_it_and_survives_its_file(profile: Profile, tmp_path: Path) -> None:
    schema = profile.task().schema
    assert (schema.layer, len(schema.probe.weights)) == (1, 64)
    profile.save(tmp_path / "p.json")
    again = Profile.load(tmp_path / "p.json")
    assert again.to_dict() == profile.to_dict()
    assert again.task().schema == schema


def test_answers_that_another_probe_scored_are_of_another_profile(
    served: CalibratedModel, profile: Profile, tmp_path: Path
) -> None:
    """A store keeps scores without states: those of an older probe must not teach a newer one."""
    one = profile.task()
    probe = replace(one.schema.probe, bias=one.schema.probe.bias + 1)
    later = replace(
        profile, tasks={"default": replace(one, schema=replace(one.schema, probe=probe))}
    )
    assert later.parts == profile.parts
    with Store(tmp_path / "records.db", create=True) as store:
        records = served.ask(FRESH, **ASKED)
        store.add(records)
        for record in records:
            store.label(record.id, record.text < "n", source="grader")
        assert len(labelled_rows(store, profile, "default").y) == len(FRESH)
        with pytest.raises(CalibrationError, match="0 labels of 0 questions can be used"):
            labelled_rows(store, later, "default")


def test_the_probe_sees_the_fit_part_alone(rows: list[Labelled]) -> None:
    """Verdicts of the other parts, all turned over, change neither probe nor calibrator."""
    one = fitted(rows)
    other = fitted(judged(rows, lambda r: bool(r.correct) == (r.part == "fit")))
    assert other.schema == one.schema
    assert other.calibrator.to_dict() == one.calibrator.to_dict()
    assert other.scores["calibrated"]["auroc"] < 0.3 < one.scores["calibrated"]["auroc"]
    turned = fitted(judged(rows, lambda r: bool(r.correct) == (r.part != "fit")))
    assert turned.schema != one.schema


def test_the_calibrator_is_fitted_on_scores_of_the_folds(rows: list[Labelled]) -> None:
    """Scores that the final probe gives the rows it was fitted on would look better."""
    ready, schema = probed(rows, SCHEMA, FitOptions())
    mine = [row for row in ready if row.part == "fit"]
    states = [read(row.hidden, 1) for row in mine]
    own = np.array([schema.probe(state) for state in states])
    held_out = np.array([row.confidence.signals[PROBE] for row in mine])
    right = np.array([float(row.correct) for row in mine])
    assert (own != held_out).all()
    assert metrics.auroc(own / 9 + 0.5, right) > metrics.auroc(held_out / 9 + 0.5, right) + 0.02
    for row in ready:
        if row.part != "fit":
            assert row.confidence.signals[PROBE] == schema.probe(read(row.hidden, 1))


def test_a_question_that_was_answered_twice_is_in_one_fold(rows: list[Labelled]) -> None:
    """Answers to one question share its verdict: one must not be scored by what saw the other."""
    twins = [replace(row, id=f"{row.id} again") for row in rows]
    ready, _ = probed([*rows, *twins], SCHEMA, FitOptions())
    mine = {row.id: row.confidence.signals[PROBE] for row in ready if row.part == "fit"}
    assert len(mine) == 400
    assert all(mine[f"{row.id} again"] == mine[row.id] for row in rows if row.part == "fit")


def test_verdicts_by_chance_are_not_believed(rows: list[Labelled]) -> None:
    """A probe has 64 weights for 200 labels: scores of its own rows would look excellent."""
    for seed in range(3):
        rng = Random(seed)
        scores = fitted(judged(rows, lambda r, rng=rng: rng.random() < 0.5)).scores
        assert scores["calibrated"]["brier"] < scores["base"]["brier"] + 0.01
        assert 0.3 < scores["calibrated"]["auroc"] < 0.7


def test_each_of_several_weight_types_has_a_probe_of_its_own(rows: list[Labelled]) -> None:
    turned = judged(rows, lambda r: not r.correct)
    both = fit_rows_together({"one": rows, "other": turned}, SCHEMA, FitOptions())
    assert both["one"].schema == fitted(rows).schema
    weights = [np.array(both[name].schema.probe.weights) for name in ("one", "other")]
    assert np.corrcoef(weights)[0, 1] < -0.9


def test_rows_without_a_state_are_counted_and_left_out(rows: list[Labelled]) -> None:
    lost = [replace(r, hidden=None) if i % 10 == 0 else r for i, r in enumerate(rows)]
    counts = fitted(lost).counts
    assert sum(counts[part] for part in ("fit", "certify", "report")) == 360


def test_the_layer_may_be_chosen(model: CalibratedModel) -> None:
    schema = make_schema(("confidence", PROBE), layer=2)
    found = fit_profile(model, EXAMPLES[:120], features=schema, **HOW, **ASKED)
    assert found.task().schema.layer == 2
    assert found.check(model).state == "same"


def test_too_few_labels_are_refused(model: CalibratedModel) -> None:
    with pytest.raises(CalibrationError, match=r"30 questions .* too few for a probe"):
        fit_profile(model, EXAMPLES[:60], features=WITH_PROBE, **HOW, **ASKED)


# ---- what is served ----------------------------------------------------------------------------


def test_the_confidence_is_what_probe_and_calibrator_say_of_the_state(
    served: CalibratedModel, profile: Profile
) -> None:
    one = profile.task()
    for record in served.ask(FRESH, **ASKED):
        state, signals = record.generation.hidden, dict(record.confidence.signals)
        by_hand = one.schema.probe.bias + sum(
            w * s for w, s in zip(one.schema.probe.weights, state.tolist(), strict=True)
        )
        assert signals[PROBE] == pytest.approx(by_hand, abs=1e-9)
        value = one.calibrator(one.schema.vector(signals)[None, :])[0]
        assert record.confidence.value == pytest.approx(float(value))
        assert record.confidence.calibrated


def test_alone_in_lists_in_streams_and_one_by_one_it_is_the_same(served: CalibratedModel) -> None:
    together = served.ask(FRESH[:8], **ASKED)
    same([served.ask(p, **ASKED) for p in FRESH[:8]], together)
    same([list(served.stream(p, **ASKED))[-1] for p in FRESH[:8]], together)
    each = dict(served.ask_each(FRESH[:8], **ASKED))
    same([each[i] for i in range(8)], together)


def test_a_state_of_another_layer_is_never_taken_for_its_own(served: CalibratedModel) -> None:
    """Asked before the profile was in use, judged after."""
    record = served.ask(FRESH[0], **ASKED)
    for layer in (None, 2):
        request = replace(record.request, hidden_layer=layer)
        found = served._assessor.confidence(request, record.generation)
        assert (found.value, found.reason) == (None, f"not measured: {PROBE}")


def test_samples_and_further_passes_are_not_read(
    model: CalibratedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, submit_all = [], model._engine.submit_all

    def spied(requests: Any, **options: Any) -> Any:
        asked.extend(request.hidden_layer for request, _ in requests)
        return submit_all(requests, **options)

    monkeypatch.setattr(model._engine, "submit_all", spied)
    model.ask(FRESH[0], features=(PROBE, "agreement"), **ASKED)
    assert asked == [1] + [None] * 5


def test_without_the_feature_nothing_is_read(model: CalibratedModel) -> None:
    record = model.ask(FRESH[0], **ASKED)
    assert record.request.hidden_layer is None
    assert record.generation.hidden is None


def test_its_state_may_be_had_without_a_profile(model: CalibratedModel) -> None:
    record = model.ask(FRESH[0], hidden_layer=0, **ASKED)
    assert record.request.hidden_layer == 1
    assert record.generation.hidden.shape == (64,)
    assert PROBE not in model.ask(FRESH[0], features=PROBE, **ASKED).confidence.signals


def test_another_model_is_unknown_and_not_read(profile: Profile) -> None:
    with made(seed=1) as other:
        other.use_profile(profile)
        record = other.ask(FRESH[0], **ASKED)
    assert record.confidence.value is None
    assert "another model" in record.confidence.reason
    assert record.generation.hidden is None


def test_with_a_shared_budget_those_that_were_not_cut_are_known(served: CalibratedModel) -> None:
    same(served.ask(FRESH[:4], total_tokens=8, **ASKED), served.ask(FRESH[:4], **ASKED))


def test_of_a_text_in_pieces_it_is_unknown_and_said_why(
    model: CalibratedModel, profile: Profile
) -> None:
    one, parser = model.without_profile(), "regex:[Zz]"
    task = replace(profile.task(), parser=parser)
    task = replace(task, decoding={**task.decoding, "parser": parser})
    one.use_profile(replace(profile, tasks={"default": task}))
    found = one.ask(FRESH[:16], total_tokens=60, max_new_tokens=40, parser=parser)
    (apart,) = [r for r in found if r.generation.finish == "answer" and r.confidence.value is None]
    assert apart.confidence.reason.startswith("not measured: hidden_probe (the shared budget let")
