"""A profile of a model behind a server: calibrate, go on after a failure, check, refuse others."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from remote_help import Fault, Server, said, serving
from typer.testing import CliRunner, Result

from bitcal_integrations import load
from bitcal_integrations.answered import read_answers
from bitcal_integrations.cli import app
from bitcal_integrations.cli._server import budget_of
from bitcal_integrations.errors import BadRequest, ProfileError
from bitcal_integrations.fit import fit_profile
from bitcal_integrations.model import CalibratedModel
from bitcal_integrations.profile import Profile
from bitcal_integrations.tiny.assets import profile_file

SIZE = 120
ASKED = ("--parser", "first_line", "--grader", "numeric", "--max-new-tokens", "20")


def table() -> dict[str, Any]:
    """Of every five sums the last is said wrongly, and less surely."""
    found = {}
    for n in range(SIZE):
        wrong = n % 5 == 4
        logprob = -0.4 - n % 7 / 10 if wrong else -0.05 - n % 7 / 20
        found[f"{n} + 1"] = said(str(n + 1 + wrong), "", logprob=logprob)
    return found


@pytest.fixture
def server() -> Iterator[Server]:
    with serving(Server(answers=table())) as server:
        yield server


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rows = [{"prompt": f"{n} + 1", "gold": str(n + 1)} for n in range(SIZE)]
    path = tmp_path / "sums.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments])


@pytest.fixture
def calibrate(server: Server, data: Path, tmp_path: Path) -> Any:
    def call(*more: object) -> Result:
        where = ("--out", tmp_path / "profile.json", "--answers", tmp_path / "kept.jsonl")
        return run("calibrate", server.url, "--data", data, *ASKED, *where, *more)

    return call


def test_a_server_is_measured_and_its_profile_holds_for_it_alone(
    server: Server, calibrate: Any, tmp_path: Path
) -> None:
    # The list of models, waves of 1 and 4, and one of 16 that must all be asked at once.
    together = Fault(meet=threading.Barrier(16))
    server.faults = [*[Fault()] * 6, *[together] * 16]
    result = calibrate("--model", "toy", "--api", "completions")
    assert result.exit_code == 0, result.output
    assert f"{SIZE} examples" in result.output
    assert server.most >= 16
    path = tmp_path / "profile.json"
    profile = Profile.load(path)
    assert profile.parts["engine"] == "remote"
    assert profile.task().schema.scores == "top_k"
    assert server.url not in path.read_text()
    with load(server.url, api="completions", profile=path) as model:
        right, wrong = (model.ask(f"{n} + 1", **profile.options()).confidence for n in (7, 9))
        assert right.value is not None
        assert wrong.value is not None
        assert right.value > 0.8 > 0.5 > wrong.value
        check = profile.check(model)
        assert (check.state, check.fingerprint) == ("same", "")
    with load(server.url, api="chat", profile=path) as chatting:
        confidence = chatting.ask("7 + 1", parser="first_line").confidence
        assert confidence.value is None
        assert "api is 'chat', measured was 'completions'" in confidence.reason
    with load(server.url, api="completions", top_logprobs=3, profile=path) as other:
        assert "top_logprobs is 3, measured was 5" in other.ask("7 + 1").confidence.reason


def test_a_profile_of_local_signals_and_one_of_a_server_refuse_each_other(
    server: Server, calibrate: Any, tmp_path: Path
) -> None:
    local = profile_file("none", "float32")
    with load(server.url, api="completions", profile=local) as model:
        record = model.ask("7 + 1")
    assert record.confidence.value is None
    assert record.confidence.raw is not None
    assert "the profile is of another model" in record.confidence.reason
    with pytest.raises(ProfileError, match="strict=True refuses"):
        load(server.url, api="completions", profile=local, strict=True)
    assert calibrate("--api", "completions").exit_code == 0
    with load("bitcal-tiny", profile=tmp_path / "profile.json") as tiny:
        assert "the profile is of another model" in tiny.ask("7 + 1").confidence.reason


def test_a_budget_stops_it_and_the_next_run_goes_on(
    server: Server, calibrate: Any, tmp_path: Path
) -> None:
    first = calibrate("--budget", "60", "--in-flight", "8")
    assert first.exit_code == 1
    assert "the budget of 60 requests is spent" in first.output
    assert len(read_answers(tmp_path / "kept.jsonl")) == 60
    asked = len(server.bodies())
    second = calibrate()
    assert second.exit_code == 0, second.output
    again = [body["prompt"] if "prompt" in body else body["messages"][0]["content"]
             for body in server.bodies()[asked:]]  # fmt: skip
    assert len(set(again)) >= SIZE - 60
    kept = [json.loads(line) for line in (tmp_path / "kept.jsonl").read_text().splitlines()[1:]]
    assert len(kept) == len({row["id"] for row in kept}) == SIZE


def test_a_server_that_dies_in_the_middle_costs_no_answer(
    server: Server, calibrate: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_wait = "bitcal_integrations.engines._remote_errors.Patience.pause"
    monkeypatch.setattr(no_wait, lambda *_: 0.0)
    server.faults = [Fault() for _ in range(100)]
    server.always = Fault(then="drop", tokens=1)
    first = calibrate("--api", "completions")
    failed = SIZE - len(read_answers(tmp_path / "kept.jsonl"))
    assert failed > 0, first.output
    server.always = None
    asked = len(server.bodies())
    second = calibrate("--api", "completions")
    assert second.exit_code == 0, second.output
    assert len(read_answers(tmp_path / "kept.jsonl")) == SIZE
    flips = 2 * Profile.load(tmp_path / "profile.json").task().flips["n"]
    assert len(server.bodies()) - asked == failed + flips


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["bitcal-tiny", "--model", "toy"], "--model belongs to a server"),
        (["bitcal-tiny", "--budget", "5"], "--budget belongs to a server"),
        (["http://here/v1", "--budget", "5"], "--budget needs --answers"),
        (["http://here/v1", "--budget", "5 cents", "--answers", "a"], "'5 cents' is not allowed"),
        (["http://here/v1", "--weights", "qint4"], "weights='qint4' is not allowed: a server"),
        (["http://here/v1", "--teacher", "same"], "--teacher same is not allowed for a server"),
        (["http://here/v1"], "say with --out"),
    ],
)
def test_options_that_do_not_belong_are_refused(
    arguments: list[str], words: str, tmp_path: Path
) -> None:
    out = ["--out", tmp_path / "p.json"] if words != "say with --out" else []
    result = run("calibrate", *arguments, "--data", "none.jsonl", *out)
    assert result.exit_code == 1
    assert words in " ".join(result.output.split())


def test_a_budget_in_words() -> None:
    assert (budget_of("5 requests").requests, budget_of("5tokens").tokens) == (5, 5)
    for wrong in ("", "0", "-5", "5,6", "5 requests, 6 requests"):
        with pytest.raises(BadRequest, match="--budget"):
            budget_of(wrong)


def test_without_log_probabilities_agreement_of_samples_can_be_calibrated(server: Server) -> None:
    server.logprobs = False
    rows = [(f"{n} + 1", str(n + 1)) for n in range(60)]
    with load(server.url, api="completions", top_logprobs=None) as model:
        assert isinstance(model, CalibratedModel)
        bare = model.ask("7 + 1").confidence
        assert (bare.value, bare.reason) == (None, "the answer came without log-probabilities")
        profile = fit_profile(
            model, rows, parser="first_line", grader="numeric", features=["agreement"],
            max_new_tokens=20, method="constant",
        )  # fmt: skip
        model.use_profile(profile)
        sure = model.ask("7 + 1", **profile.options()).confidence
    assert sure.value == pytest.approx(0.8, abs=0.1)
    assert sure.signals["agreement"] == sure.raw == 1.0


def test_a_server_is_asked_and_evaluated_with_its_profile(
    server: Server, data: Path, calibrate: Any, tmp_path: Path
) -> None:
    assert calibrate("--model", "toy", "--api", "completions").exit_code == 0
    how = (server.url, "--model", "toy", "--api", "completions")
    path = tmp_path / "profile.json"
    asked = run("ask", *how, "7 + 1", "--parser", "first_line", "--profile", path, "--json")
    assert asked.exit_code == 0, asked.output
    assert json.loads(asked.stdout)["confidence"]["value"] > 0.8
    judged = run("evaluate", *how, "--data", data, "--profile", path)
    assert judged.exit_code == 0, judged.output
    refused = run("ask", "bitcal-tiny", "7 + 1", "--model", "toy")
    assert refused.exit_code == 1
    assert "--model belongs to a server" in refused.output
