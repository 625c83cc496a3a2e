"""The same model behind a real vLLM server and here: numbers, profiles, routing, a server's death.

It runs where BITCAL_VLLM names a folder with the server's environment, which is made there if it
is not: `BITCAL_VLLM=~/vllm-env pytest tests/remote/test_vllm.py -rP` also prints what was measured.
"""

from __future__ import annotations

import json
import os
import runpy
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from vllm_help import CannotBeMade, VllmServer, make

from bitcal_integrations import load
from bitcal_integrations.answered import read_answers
from bitcal_integrations.calibrators import fit_calibrator
from bitcal_integrations.errors import EngineError
from bitcal_integrations.features import make_schema
from bitcal_integrations.fit import fit_profile
from bitcal_integrations.langchain import ChatBitCal
from bitcal_integrations.model import CalibratedModel
from bitcal_integrations.profile import Profile
from bitcal_integrations.tiny.assets import MODEL_DIR
from bitcal_integrations.tiny.tasks import questions
from bitcal_integrations.types import Record, Step

FOLDER = os.environ.get("BITCAL_VLLM", "")
pytestmark = [
    pytest.mark.skipif(not FOLDER, reason="BITCAL_VLLM names no environment for vLLM"),
    pytest.mark.slow,
]
EXAMPLES = Path(__file__).parents[2] / "examples"
# What the log-probabilities of the chosen tokens give; the others need the whole vocabulary.
CHOSEN = ("confidence", "sum_logprob", "min_logprob", "confidence_text", "length_text")
ASKED = {"max_new_tokens": 160, "parser": "tiny"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VllmServer]:
    try:
        program = make(Path(FOLDER).expanduser())
        server = VllmServer(program, MODEL_DIR, tmp_path_factory.mktemp("vllm") / "log.txt")
        print(f"the server answered after {server.start():.0f} s")
    except CannotBeMade as err:
        pytest.skip(str(err))
    yield server
    server.kill()


@pytest.fixture(scope="module")
def remote(server: VllmServer) -> Iterator[CalibratedModel]:
    with load(server.url, model="tiny", max_in_flight=32) as model:
        yield model


@pytest.fixture(scope="module")
def local() -> Iterator[CalibratedModel]:
    with load("bitcal-tiny", weights=None, dtype="float32", profile=None) as model:
        yield model


def asked(task: str, number: int, seed: int, split: str = "test") -> list[Any]:
    return list(questions(task, split, number, seed=seed))


def labelled(number: int) -> list[dict[str, Any]]:
    return [
        {"messages": list(q.messages), "gold": q.gold}
        for q in asked("math", number, 7, "calibration")
    ]


def pairs(remote: CalibratedModel, local: CalibratedModel) -> list[tuple[Record, Record]]:
    prompts = [list(q.messages) for task in ("math", "facts") for q in asked(task, 100, 5)]
    return list(zip(remote.ask(prompts, **ASKED), local.ask(prompts, **ASKED), strict=True))


def test_log_probabilities_are_those_of_the_local_engine(
    remote: CalibratedModel, local: CalibratedModel
) -> None:
    both = pairs(remote, local)
    same = [(a, b) for a, b in both if a.text.lstrip() == b.text.lstrip()]
    gaps = [
        abs(x.logprob - y.logprob)
        for a, b in same
        for x, y in zip(a.generation.steps, b.generation.steps, strict=True)
    ]
    ends = {(a.generation.finish, b.generation.finish) for a, b in both}
    print(
        f"{len(same)} of {len(both)} texts equal, {len(gaps)} tokens, gap {max(gaps):.1e}; {ends}"
    )
    assert len(same) >= 0.99 * len(both)
    assert max(gaps) <= 1e-3
    assert all(a.generation.prompt_tokens == b.generation.prompt_tokens for a, b in both)


def test_the_confidence_is_the_same_where_the_signals_exist(
    remote: CalibratedModel, local: CalibratedModel, tmp_path: Path
) -> None:
    rows, prompts = labelled(240), [list(q.messages) for q in asked("math", 100, 6)]
    values: dict[str, list[Any]] = {"with entropies": [], "tokens alone": []}
    for index, (model, scores) in enumerate(((remote, "top_k"), (local, "full"))):
        kept = tmp_path / f"{index}.jsonl"
        profile = fit_profile(model, rows, grader="tiny", answers=kept, **ASKED)
        assert profile.task().schema.scores == scores
        model.use_profile(profile)
        records = model.ask(prompts, **ASKED)
        model.use_profile(None)
        values["with entropies"].append([r.confidence.value for r in records])
        answered = [row for row in read_answers(kept) if row.correct is not None]
        schema = make_schema(CHOSEN)
        x, fresh = (
            np.array([schema.vector(one.confidence.signals) for one in some])
            for some in (answered, records)
        )
        fitted = fit_calibrator(x, [row.correct for row in answered], names=CHOSEN)
        values["tokens alone"].append(list(fitted(fresh)))
    gaps = {
        name: [abs(a - b) for a, b in zip(*both, strict=True) if a is not None and b is not None]
        for name, both in values.items()
    }
    for name, found in gaps.items():
        print(f"{name}: {len(found)}, gap {max(found):.4f}, mean {statistics.mean(found):.4f}")
    assert len(gaps["tokens alone"]) >= 95
    assert max(gaps["tokens alone"]) <= 0.01


def test_a_stream_stops_at_the_answer(remote: CalibratedModel) -> None:
    messages = list(asked("math", 1, 5)[0].messages)
    *steps, record = remote.stream(messages, max_new_tokens=160, parser=r"regex:(\d+)\D")
    assert isinstance(record, Record)
    assert all(isinstance(s, Step) for s in steps)
    assert "".join(s.text for s in steps) == record.text
    assert record.generation.finish == "answer"
    assert record.generation.prompt_tokens > 0


def test_calibrate_goes_on_after_the_server_was_killed(server: VllmServer, tmp_path: Path) -> None:
    data, kept, out = (tmp_path / n for n in ("data.jsonl", "kept.jsonl", "profile.json"))
    data.write_text("".join(json.dumps(row) + "\n" for row in labelled(240)))
    command = [
        sys.executable, "-m", "bitcal_integrations", "calibrate", server.url, "--model", "tiny",
        "--data", str(data), "--out", str(out), "--answers", str(kept), "--parser", "tiny",
        "--grader", "tiny", "--max-new-tokens", "160", "--task", "math",
    ]  # fmt: skip
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    while not kept.exists() or kept.read_bytes().count(b"\n") < 60:
        assert running.poll() is None, running.stdout and running.stdout.read()
        time.sleep(0.02)
    server.kill()
    running.communicate(timeout=300)  # it fails, or makes do with what came; it does not hang
    before = len(read_answers(kept))
    assert 60 <= before + 1 < 240
    server.start()
    since = time.perf_counter()
    again = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert again.returncode == 0, again.stdout + again.stderr
    print(f"{before} of 240 were kept; the rest took {time.perf_counter() - since:.0f} s")
    print(again.stdout)
    assert len(read_answers(kept)) == 240
    profile = Profile.load(out)
    with load(server.url, model="tiny", profile=out) as model:
        since = time.perf_counter()
        check = profile.check(model)
        took = time.perf_counter() - since
        print(f"{check}, in {took:.1f} s")
        assert check.state == "same"
        assert took < 60
    for name in ("server_fallback_langchain", "server_fallback_llama_index"):
        _example(name, server.url, str(out))


def _example(name: str, *arguments: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [name, *arguments])
        runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")


@pytest.fixture
def mortal(server: VllmServer) -> Iterator[VllmServer]:
    """The server, for a test that kills it."""
    yield server
    if not server.running:
        server.start()


def many() -> list[Any]:
    return [list(q.messages) for q in asked("math", 200, 9)]


def test_a_server_that_dies_among_200_requests_leaves_nobody_waiting(mortal: VllmServer) -> None:
    results: list[Any] = []
    since = time.perf_counter()
    with load(mortal.url, model="tiny", max_in_flight=16, max_retries=2) as there:
        for _, result in there.ask_each(many(), max_new_tokens=160):
            results.append(result)
            if len(results) == 40:
                mortal.kill()
    took = time.perf_counter() - since
    failed = [r for r in results if isinstance(r, EngineError)]
    answered = [r for r in results if isinstance(r, Record)]
    print(f"{len(answered)} answered, {len(failed)} failed, in {took:.0f} s; {failed[0]}")
    assert len(answered) + len(failed) == 200
    assert len(answered) >= 40
    assert len(failed) >= 100
    assert all("the server at 127.0.0.1" in str(r) for r in failed)
    assert took < 120


def test_requests_fall_back_when_the_server_dies_among_them(mortal: VllmServer) -> None:
    here = load("bitcal-tiny", weights="qint4", dtype="bfloat16")
    there = load(mortal.url, model="tiny", max_in_flight=16, max_retries=2)
    seen: list[Record] = []

    def kill_after_some(record: Record) -> None:
        seen.append(record)
        if len(seen) == 40:
            mortal.kill()

    there.add_sink(kill_after_some)
    small = ChatBitCal(model=here, task="math", max_tokens=160)
    chain = ChatBitCal(model=there, max_tokens=160).with_confidence_fallback(
        [small], min_confidence=0.5, names=["server", "int4"], on_unknown="accept"
    )
    asking = [[(m["role"], m["content"]) for m in messages] for messages in many()]
    since = time.perf_counter()
    answers = chain.batch(asking, config={"max_concurrency": 16})
    routes = [a.response_metadata["bitcal"]["route"] for a in answers]
    lost = sum(bool(r["attempts"][0]["error"]) for r in routes)
    took = time.perf_counter() - since
    print(f"200 answered, of {lost} the server had gone, in {took:.0f} s")
    assert len(answers) == 200
    assert lost >= 100
    assert all(a.text.strip() for a in answers)
    there.close()
    here.close()
