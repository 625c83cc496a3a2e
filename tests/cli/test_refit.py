"""`bitcal refit`: writes a new profile where it is better, and the numbers where it is not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from drift_help import PARTS, answers, measured, record_of

from bitcal_integrations.decide import certify_threshold
from bitcal_integrations.monitor.history import HistoryModel
from bitcal_integrations.monitor.store import Store
from bitcal_integrations.profile import Profile

Bitcal = Callable[..., Any]


@pytest.fixture
def old(tmp_path: Path) -> Path:
    one, (x, y) = measured(n=800), answers(600, 50)
    found = certify_threshold(one.calibrator(x), y, max_error=0.2)
    profile = Profile(PARTS, {"default": replace(one, certificates=(found,))}, "default")
    profile.save(tmp_path / "old.json")
    return tmp_path / "old.json"


def filled(old: Path, worse: float, n: int = 300, source: str = "grader") -> Path:
    path, profile, (x, y) = (
        old.with_name("records.db"),
        Profile.load(old),
        answers(n, 1, worse=worse),
    )
    with Store(path, create=True) as store:
        store.add(record_of(profile, row, i) for i, row in enumerate(x))
        for i in range(n):
            store.label(f"record-{i}", bool(y[i]), source=source)
    return path


def test_a_better_profile_is_written_and_the_old_one_kept(bitcal: Bitcal, old: Path) -> None:
    store, new, before = filled(old, 0.25), old.with_name("new.json"), old.read_bytes()
    result = bitcal("refit", store, old, "--out", new)
    assert result.exit_code == 0, result.output
    assert "300 labels of 300 questions" in result.output
    assert "Brier score on held-out labels: old 0." in result.output
    assert "1 certificate of the old calibrator" in result.output
    assert "void" in result.output
    assert Profile.load(new).task().certificates == ()
    assert Profile.load(new).task().calibrator != Profile.load(old).task().calibrator
    assert old.read_bytes() == before


def test_what_is_no_better_is_not_written(bitcal: Bitcal, old: Path) -> None:
    store, new = filled(old, 0.0), old.with_name("new.json")
    result = bitcal("refit", store, old, "--out", new)
    assert result.exit_code == 1
    assert "error: nothing is written" in result.stderr
    assert "no clear improvement" in result.stderr
    assert "change" in result.stdout
    assert not new.exists()


def test_a_history_model_can_be_written_instead(bitcal: Bitcal, old: Path) -> None:
    store, new = filled(old, 0.3), old.with_name("history.json")
    result = bitcal("refit", store, old, "--out", new, "--history")
    assert result.exit_code == 0, result.output
    assert "attach" in result.output
    assert HistoryModel.load(new).tasks == ("default",)


def test_labels_of_users_need_to_be_asked_for(bitcal: Bitcal, old: Path) -> None:
    store, new = filled(old, 0.3, source="user"), old.with_name("new.json")
    refused = bitcal("refit", store, old, "--out", new)
    assert refused.exit_code == 1
    assert "300 given by users of their own accord" in refused.stderr
    assert bitcal("refit", store, old, "--out", new, "--all-labels").exit_code == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--out", "old.json"), "which is kept"),
        (("--out", "new.json", "--days", "0"), "--days 0 is not allowed"),
        (("--out", "new.json", "--history", "--task", "math"), "--task is not allowed here"),
        (("--out", "new.json", "--task", "math"), "no task 'math'"),
        (("--out", "new.json", "--method", "magic"), "magic"),
        (("--out", "nowhere/new.json"), "there is no folder"),
    ],
)
def test_wrong_options_are_one_line(
    bitcal: Bitcal, old: Path, options: tuple[str, ...], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = filled(old, 0.3, n=30)
    monkeypatch.chdir(old.parent)
    result = bitcal("refit", store, "old.json", *options)
    assert result.exit_code == 1
    assert words in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_no_store_is_told(bitcal: Bitcal, old: Path) -> None:
    result = bitcal("refit", old.with_name("missing.db"), old, "--out", old.with_name("new.json"))
    assert result.exit_code == 1
    assert "there is no store at" in result.stderr
    assert not old.with_name("missing.db").exists()


# ---- bitcal report of a store ------------------------------------------------------------------


def test_a_store_becomes_a_report_over_time(bitcal: Bitcal, old: Path) -> None:
    store = filled(old, 0.3)
    result = bitcal("report", store, "--profile", old, "--days", "2")
    assert result.exit_code == 0, result.output
    page = store.with_suffix(".html").read_text("utf-8")
    assert "Does the profile still hold?" in page
    assert "Task default: expired" in page
    text = bitcal("report", f"sqlite:///{store}", "--profile", old, "--markdown", "--title", "Mine")
    assert text.output.startswith("# Mine\n")
    other = bitcal("report", store, "--out", old.with_name("other.html"))
    assert "name one with --profile" in old.with_name("other.html").read_text("utf-8")
    assert other.exit_code == 0


def test_options_of_a_store_are_refused_elsewhere(bitcal: Bitcal, old: Path) -> None:
    result = bitcal("report", old, "--days", "2")
    assert result.exit_code == 1
    assert "--days is for a store of records" in result.stderr
    assert bitcal("report", filled(old, 0.3, n=30), "--days", "-1").exit_code == 1
    assert "cannot be read" in bitcal("report", old.with_name("missing.db")).stderr
