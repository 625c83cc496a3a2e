"""Answers kept with their hidden states: what goes on from them, and what a probe may not do."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from probe_help import ASKED, EXAMPLES, FRESH, HOW, WITH_PROBE, made

from bitcal_integrations.answered import read_answers
from bitcal_integrations.errors import BadRequest, BitcalError, CalibrationError
from bitcal_integrations.features import PROBE, make_schema
from bitcal_integrations.fit import evaluate, fit_profile
from bitcal_integrations.model import CalibratedModel
from bitcal_integrations.profile import Profile
from bitcal_integrations.recalibrate import adapt_profile, transfer_profile
from bitcal_integrations.seen import is_marked
from bitcal_integrations.testing.toy import ToyModel

FEW = EXAMPLES[:160]


@pytest.fixture(scope="module")
def model() -> Iterator[CalibratedModel]:
    with made() as loaded:
        yield loaded


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kept") / "answers.jsonl"


@pytest.fixture(scope="module")
def profile(model: CalibratedModel, kept: Path) -> Profile:
    return fit_profile(model, FEW, features=WITH_PROBE, answers=kept, **HOW, **ASKED)


@pytest.fixture
def served(model: CalibratedModel, profile: Profile) -> CalibratedModel:
    one = model.without_profile()
    one.use_profile(profile)
    return one


# ---- kept answers ------------------------------------------------------------------------------


def test_kept_answers_give_the_same_profile_without_a_question(
    model: CalibratedModel, profile: Profile, kept: Path
) -> None:
    assert all(row.hidden["layer"] == 1 for row in read_answers(kept))
    bare, size = model.without_profile(), kept.stat().st_size
    again = fit_profile(bare, FEW, features=WITH_PROBE, answers=kept, **HOW, **ASKED)
    assert json.dumps(again.to_dict()) == json.dumps(profile.to_dict())
    assert kept.stat().st_size == size


def test_a_run_that_was_cut_goes_on(
    model: CalibratedModel, profile: Profile, tmp_path: Path
) -> None:
    keep = tmp_path / "a.jsonl"

    def cut(n: int, total: int, label: str) -> None:
        if n >= 80:
            raise KeyboardInterrupt

    options = {"features": WITH_PROBE, "answers": keep, **HOW, **ASKED}
    with pytest.raises(KeyboardInterrupt):
        fit_profile(model, FEW, progress=cut, **options)
    assert len(read_answers(keep)) >= 80
    found, whole = fit_profile(model, FEW, **options).task(), profile.task()
    assert found.counts == whole.counts
    np.testing.assert_allclose(found.schema.probe.weights, whole.schema.probe.weights, atol=1e-3)


def test_answers_of_another_layer_are_another_file(model: CalibratedModel, kept: Path) -> None:
    other = make_schema(WITH_PROBE, layer=2)
    with pytest.raises(CalibrationError, match="other features"):
        fit_profile(model, FEW, features=other, answers=kept, **HOW, **ASKED)


def test_what_a_later_probe_says_of_kept_answers_is_worked_out_anew(
    served: CalibratedModel, profile: Profile, tmp_path: Path
) -> None:
    """Answers kept under one profile, judged under another of the same model and layer."""
    keep, some = tmp_path / "a.jsonl", EXAMPLES[:30]
    first = evaluate(served, some, answers=keep, **HOW, **ASKED)
    one, size = profile.task(), keep.stat().st_size
    other = replace(one.schema.probe, bias=one.schema.probe.bias - 0.2)
    task = replace(one, schema=replace(one.schema, probe=other))
    served.use_profile(replace(profile, tasks={"default": task}))
    again = evaluate(served, some, answers=keep, **HOW, **ASKED)
    assert keep.stat().st_size == size
    fresh = evaluate(served, some, **HOW, **ASKED)
    for old, now, new in zip(first, again, fresh, strict=True):
        assert now.confidence.value == pytest.approx(new.confidence.value, abs=1e-4)
        signals = old.confidence.signals, now.confidence.signals
        assert signals[0][PROBE] - signals[1][PROBE] == pytest.approx(0.2)


def test_answers_without_a_state_are_asked_again(
    served: CalibratedModel, model: CalibratedModel, tmp_path: Path
) -> None:
    keep, some = tmp_path / "a.jsonl", EXAMPLES[:10]
    evaluate(model, some, answers=keep, **HOW, **ASKED)
    assert {row.hidden for row in read_answers(keep)} == {None}
    rows = evaluate(served, some, answers=keep, **HOW, **ASKED)
    assert all(row.confidence.calibrated and row.hidden for row in rows)


# ---- what is refused ---------------------------------------------------------------------------


def test_a_probe_is_not_carried_over_to_other_weights(profile: Profile) -> None:
    with made(seed=1) as other:
        other.add_sink(lambda record: pytest.fail("a question was asked"))
        for carry, data in ((transfer_profile, FRESH), (adapt_profile, EXAMPLES[:40])):
            with pytest.raises(CalibrationError, match="'hidden_probe' reads hidden states of the"):
                carry(profile, other, data, **HOW)


def test_its_own_model_may_adapt_it_with_kept_answers_too(
    model: CalibratedModel, profile: Profile, tmp_path: Path
) -> None:
    options = {**profile.options(), "answers": tmp_path / "a.jsonl", **HOW}
    del options["parser"]
    unfitted = profile.task().schema.behind(None)
    others = EXAMPLES[160:]
    fit_profile(model, others[:120], features=unfitted, **{**options, "parser": ASKED["parser"]})
    kept, fresh = (
        adapt_profile(profile, model, others[:60], **{**HOW, **more}) for more in (options, {})
    )
    assert kept.task().schema == profile.task().schema
    assert kept.task().calibrator.offset == pytest.approx(fresh.task().calibrator.offset, abs=1e-3)
    for seen in (profile.task().seen["fit"], kept.task().seen["fit"]):
        assert any(is_marked(e["prompt"], seen) for e in FEW)


def test_what_a_probe_was_fitted_on_is_no_news(model: CalibratedModel, profile: Profile) -> None:
    """A certificate on answers that 64 weights were fitted to would promise too much."""
    with pytest.raises(
        CalibrationError, match=r"'hidden_probe' was fitted on \d+ of these 80 examp"
    ):
        adapt_profile(profile, model, FEW[-40:] + EXAMPLES[160:200], parts=(0.5, 0.5, 0), **HOW)


def test_two_layers_at_once_are_refused(served: CalibratedModel) -> None:
    for options in ({"hidden_layer": 2}, {"features": make_schema((PROBE,), layer=2)}):
        with pytest.raises(
            BadRequest, match=r"hidden states of the layers . and . are not allowed"
        ):
            served.ask(FRESH[0], **options, **ASKED)


@pytest.mark.parametrize("options", [{"features": PROBE}, {"hidden_layer": 2}])
def test_a_model_that_shows_no_states_refuses_them(options: dict[str, Any]) -> None:
    with ToyModel({}) as toy, pytest.raises(BadRequest, match=r"no hidden states .* of 'toy'"):
        toy.ask("Why?", **options)


def test_a_fit_on_such_a_model_is_refused_before_a_question() -> None:
    with ToyModel({}) as toy:
        toy.add_sink(lambda record: pytest.fail("a question was asked"))
        with pytest.raises(BitcalError, match="no hidden states are to be had of 'toy'"):
            fit_profile(toy, EXAMPLES, features=WITH_PROBE, **HOW)
