"""Labels of answers that a probe was fitted on are no news to a refit, and all others are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from probe_help import ASKED, EXAMPLES, HOW, WITH_PROBE, made

from bitcal_integrations.errors import CalibrationError
from bitcal_integrations.fit import fit_profile
from bitcal_integrations.model import CalibratedModel
from bitcal_integrations.monitor.refit import refit_profile
from bitcal_integrations.monitor.relearn import refit_history
from bitcal_integrations.monitor.store import Store
from bitcal_integrations.profile import Profile
from bitcal_integrations.recalibrate import adapt_profile

OLD, NEW = EXAMPLES[:160], EXAMPLES[160:280]
LEFT_OUT = "of answers that the profile's probe was fitted on"


@pytest.fixture(scope="module")
def served() -> Iterator[CalibratedModel]:
    with made() as bare:
        profile = fit_profile(bare, OLD, features=WITH_PROBE, parts=(1, 0, 0), **HOW, **ASKED)
        model = bare.without_profile()
        model.use_profile(profile)
        yield model


@pytest.fixture(scope="module")
def store(served: CalibratedModel, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """Labels that contradict the profile: what was right is wrong now."""
    with Store(tmp_path_factory.mktemp("store") / "records.db", create=True) as opened:
        records = served.ask([e["prompt"] for e in OLD + NEW], **ASKED)
        opened.add(records)
        for record in records:
            opened.label(record.id, not HOW["grader"](record.text[:1], "n"), source="grader")
        yield opened


@pytest.fixture(scope="module")
def renewed(served: CalibratedModel, store: Store) -> Profile:
    assert served.profile is not None
    found = refit_profile(store, served.profile)
    assert (found.n, found.left_out) == (len(NEW), {LEFT_OUT: len(OLD)})
    assert found.profile is not None
    return found.profile


def test_a_refit_leaves_out_what_the_probe_was_fitted_on(renewed: Profile) -> None:
    one = renewed.task()
    assert {one.part_of(e["prompt"]) for e in OLD + NEW} == {"fit"}
    assert [one.told(e["prompt"]) for e in OLD + NEW] == [True] * len(OLD) + [False] * len(NEW)


def test_its_labels_can_be_used_again_the_next_time(
    served: CalibratedModel, store: Store, renewed: Profile, tmp_path: Path
) -> None:
    renewed.save(tmp_path / "profile.json")
    again = refit_profile(store, Profile.load(tmp_path / "profile.json"))
    assert (again.n, again.left_out) == (len(NEW), {LEFT_OUT: len(OLD)})
    adapted = adapt_profile(renewed, served.without_profile(), NEW[:40], sd=9.0, **HOW)
    assert [adapted.task().told(e["prompt"]) for e in (OLD[0], NEW[0], NEW[-1])] == [
        True, False, False,
    ]  # fmt: skip
    with pytest.raises(CalibrationError, match="was fitted on 1 of these 40 examples"):
        adapt_profile(renewed, served.without_profile(), OLD[:1] + NEW[:39], **HOW)


def test_a_history_leaves_them_out_too(served: CalibratedModel, store: Store) -> None:
    assert served.profile is not None
    found = refit_history(store, served.profile)
    assert (found.n, found.left_out) == (len(NEW), {LEFT_OUT: len(OLD)})
