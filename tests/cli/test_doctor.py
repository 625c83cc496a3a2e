"""`bitcal doctor`: the facts, the self-test that can fail, and its exit code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bitcal_integrations.cli import _selftest
from bitcal_integrations.cli.doctor import versions

from .conftest import Bitcal


def test_doctor_finds_this_machine_well(bitcal: Bitcal) -> None:
    result = bitcal("doctor")
    assert result.exit_code == 0, result.output
    for word in ("python", "torch", "optimum-quanto", "llama-index-core", "dtype reason"):
        assert word in result.stdout
    assert result.stdout.count("  ok ") == 4
    assert "failed" not in result.stdout


def test_json(bitcal: Bitcal, folder: Path) -> None:
    result = bitcal("doctor", folder, "--weights", "qint8", "--json")
    report = json.loads(result.stdout)
    assert report["versions"] == versions()
    assert [check["ok"] for check in report["self_test"]] == [True] * 4
    assert report["machine"]["dtype"] in ("bfloat16", "float32")
    assert report["model"]["dtype_reason"]


def test_a_failed_check_is_shown_and_is_code_1(
    bitcal: Bitcal, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = _selftest.answer

    def changed_by_saving(folder: Path, weights: str, save: Path | None = None):
        tokens = real(folder, weights, save)
        return tokens if save else [(0, 0.0), *tokens]

    monkeypatch.setattr(_selftest, "answer", changed_by_saving)
    result = bitcal("doctor")
    assert result.exit_code == 1
    assert result.stdout.count("failed") == 2


def test_an_exception_in_a_check_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(_selftest, "make_model", broken)
    assert list(_selftest.self_test()) == [("make a tiny model", "OSError: no space left")]
