"""Logged runs of the built-in model: kept in a file, gone on from, and never taken for others."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from bitcal_integrations import CalibratedModel, load
from bitcal_integrations.decide.stop import LoggedRun
from bitcal_integrations.errors import CalibrationError, ProfileError
from bitcal_integrations.kept_runs import read_runs
from bitcal_integrations.stopping import certify_stops, log_runs
from bitcal_integrations.tiny.tasks import questions

ASKED = [
    {"id": q.id, "prompt": q.prompt, "gold": q.gold} for q in questions("math", "calibration", 8)
]


@pytest.fixture(scope="module")
def model() -> Iterator[CalibratedModel]:
    with load("bitcal-tiny", weights=None, dtype="float32", max_new_tokens=160) as model:
        yield model


@pytest.fixture(scope="module")
def runs(model: CalibratedModel) -> list[LoggedRun]:
    return log_runs(model, ASKED, grader="tiny", task="math")


def test_a_log_survives_json(runs: list[LoggedRun]) -> None:
    assert LoggedRun.from_dict(json.loads(json.dumps(runs[0].to_dict()))) == runs[0]


@pytest.mark.parametrize(
    ("options", "quoted"),
    [
        ({"parser": "last_number"}, "parser is 'last_number', measured was 'tiny'"),
        ({"temperature": 0.5, "seed": 1}, "temperature is 0.5, measured was 0.0"),
    ],
)
def test_runs_of_another_decoding_certify_nothing(
    options: dict[str, object], quoted: str, model: CalibratedModel
) -> None:
    runs = log_runs(model, ASKED[:2], grader="tiny", **{"task": "math", **options})
    with pytest.raises(ProfileError, match=quoted):
        certify_stops(model, runs, task="math")


def test_runs_of_another_model_certify_nothing(
    model: CalibratedModel, runs: list[LoggedRun]
) -> None:
    other = [*runs, replace(runs[0], asked={**runs[0].asked, "model": "0" * 16})]
    with pytest.raises(ProfileError, match=r"run .* its model is 0000000000000000, measured was"):
        certify_stops(model, other, task="math")


def test_a_cut_log_goes_on_from_its_file(
    model: CalibratedModel, runs: list[LoggedRun], tmp_path: Path
) -> None:
    path, seen = tmp_path / "runs.jsonl.gz", list[LoggedRun]()

    def cut(run: LoggedRun) -> None:
        seen.append(run)
        if len(seen) == 3:
            raise KeyboardInterrupt

    how = {"grader": "tiny", "task": "math", "keep": path}
    with pytest.raises(KeyboardInterrupt):
        log_runs(model, ASKED, on_run=cut, **how)
    told: list[tuple[int, int]] = []
    again = log_runs(
        model, ASKED, on_run=seen.append, **how,
        progress=lambda done, total, label: told.append((done, total)),
    )  # fmt: skip
    assert told == [(done, 8) for done in range(4, 9)]
    assert sorted(run.id for run in seen) == sorted(run.id for run in runs)
    assert [run.answer for run in again] == [run.answer for run in runs]
    assert read_runs(path) == seen
    with pytest.raises(CalibrationError, match="made with another spacing"):
        log_runs(model, ASKED, spacing=8, **how)
