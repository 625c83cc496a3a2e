"""`bitcal calibrate --signals`: what the confidence is made of, on the real tool."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from probe_help import EXAMPLES, WITH_PROBE, made

from bitcal_integrations.profile import Profile

from .conftest import Bitcal

HOW = ("--weights", "none", "--dtype", "float32", "--parser", "regex:[A-Za-z]", "--grader", "exact",
       "--max-new-tokens", 4)  # fmt: skip


@pytest.fixture(scope="module")
def letters(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(model folder, labelled examples): an answer is right where it is a z."""
    folder = tmp_path_factory.mktemp("letters")
    with made() as model:
        model.save(folder / "model")
    data = folder / "data.jsonl"
    data.write_text("".join(json.dumps({**e, "gold": "z"}) + "\n" for e in EXAMPLES[:240]))
    return folder / "model", data


def test_the_probe_is_fitted_and_named(bitcal: Bitcal, letters: tuple[Path, Path]) -> None:
    model, data = letters
    result = bitcal(
        "calibrate", model, "--data", data, *HOW, "--signals", "default, hidden_probe"
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "probe behind layer 1: the squared error of 120 held-out answers goes" in result.stdout
    schema = Profile.load(model / "bitcal_profile.json").task().schema
    assert schema.names == WITH_PROBE
    assert schema.probe is not None
    asked = bitcal("ask", model, "abc", *HOW[:4], *HOW[-2:], "--json")
    assert asked.exit_code == 0, asked.output
    told = json.loads(asked.stdout)["confidence"]
    assert told["calibrated"]
    assert "hidden_probe" in told["signals"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--signals", "default,magic"), "'magic' is not a feature"),
        (("--signals", "default,confidence"), "'confidence' is named twice"),
        (("--signals", "default", "--from", "x.json"), "--signals is not allowed here"),
    ],
)
def test_what_is_wrong_is_said_before_the_model_is_loaded(
    bitcal: Bitcal, options: tuple[str, ...], words: str
) -> None:
    result = bitcal("calibrate", "no/such/model", "--data", "no.jsonl", "--out", "p.json", *options)
    assert result.exit_code == 1
    assert words in " ".join(result.output.split())
