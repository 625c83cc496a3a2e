"""A verdict prompt is tuned to the same numbers after a cut, and refused where it cannot be."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from verdict_help import SHORT, rows

from bitcal_integrations import load
from bitcal_integrations.errors import BadRequest, CalibrationError
from bitcal_integrations.fit import fit_profile
from bitcal_integrations.model import CalibratedModel
from bitcal_integrations.quantize.soft_prompt import SoftPrompt, Tuning
from bitcal_integrations.testing.toy import ToyModel
from bitcal_integrations.verdict import tune_verdict

LESS = Tuning(tokens=2, steps=4, batch=4, every=2)


@pytest.fixture(scope="module")
def alone() -> Iterator[CalibratedModel]:
    with load("bitcal-tiny", weights="qint8", dtype="float32", profile=None) as model:
        yield model


def test_same_seed_same_verdict_and_a_cut_one_goes_on(
    alone: CalibratedModel, tmp_path: Path
) -> None:
    kept: dict[str, Any] = {
        "answers": tmp_path / "answers.jsonl",
        "out": tmp_path / "verdict.safetensors",
    }

    def cut(done: int, total: int, label: str) -> None:
        if (done, label) == (3, "tuning the verdict prompt"):  # kept after 2, and where it is cut
            raise KeyboardInterrupt

    def go(progress: Any) -> SoftPrompt:
        return tune_verdict(
            alone,
            rows(20, 8),
            tuning=LESS,
            progress=progress,
            **SHORT,
            **kept,
        )

    with pytest.raises(KeyboardInterrupt):
        go(cut)
    assert {p.name for p in tmp_path.iterdir()} == {"answers.jsonl", "verdict.safetensors.part"}
    steps: list[int] = []
    again = go(lambda done, total, label: steps.append(done))
    assert steps == [20, 4]
    whole = tune_verdict(alone, rows(20, 8), tuning=LESS, **SHORT, answers=kept["answers"])
    assert torch.equal(again.soft, whole.soft)
    assert again.report == whole.report
    assert {p.name for p in tmp_path.iterdir()} == {"answers.jsonl", "verdict.safetensors"}
    assert SoftPrompt.load(kept["out"]).digest == whole.digest


def test_what_nothing_can_be_tuned_on_is_refused(alone: CalibratedModel, tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="'toy' has no weights in this process"):
        tune_verdict(ToyModel({}), rows(30, 8))
    with pytest.raises(BadRequest, match="early_stop is not an option of tune_verdict"):
        tune_verdict(alone, rows(20, 8), early_stop="balanced")
    with pytest.raises(BadRequest, match="lies in no folder that exists"):
        tune_verdict(alone, rows(20, 8), out="no such folder/verdict.safetensors")
    with pytest.raises(BadRequest, match="is a folder: name a file in it"):
        tune_verdict(alone, rows(20, 8), out=tmp_path)
    with pytest.raises(BadRequest, match=r"tuning=\{'steps': 3\} must be a quantize"):
        tune_verdict(alone, rows(20, 8), tuning={"steps": 3})  # type: ignore[arg-type]
    kept, none = tmp_path / "answers.jsonl", "p_true_tuned is not allowed: 'bitcal-tiny' has no"
    with pytest.raises(BadRequest, match=none):
        alone.ask("Why?", features=["p_true_tuned"])
    with pytest.raises(BadRequest, match=none):
        fit_profile(alone, rows(10, 8), features=["p_true_tuned"], answers=kept, **SHORT)
    assert not kept.exists()  # or it would be of a model without one
    with pytest.raises(CalibrationError, match="of 10 judged answers are right"):
        tune_verdict(alone, rows(10, 8), **SHORT)
    wrong = [{**row, "gold": "no such place"} for row in rows(20, 8)]
    with pytest.raises(CalibrationError, match="0 of 20 judged answers are right"):
        tune_verdict(alone, wrong, **SHORT)
    one = [{**row, "group": "all"} for row in rows(20, 8)]
    with pytest.raises(CalibrationError, match="are of one group, 'all'"):
        tune_verdict(alone, one, **SHORT)
