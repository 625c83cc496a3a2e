"""CalibratedModel: weights, engine and confidence together, as a user calls them."""

from __future__ import annotations

import asyncio
import copy
import json
import logging
import math
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest
import torch
from families import save_tiny, tiny_model, tiny_tokenizer

from bitcal_integrations import errors, load
from bitcal_integrations.model import CalibratedModel
from bitcal_integrations.types import Record, Step


@pytest.fixture(scope="module")
def model() -> Iterator[CalibratedModel]:
    with load(tiny_model("llama", layers=2), tokenizer=tiny_tokenizer(chat=True)) as model:
        yield model


def test_ask_one_ask_many_and_stream_agree(model: CalibratedModel) -> None:
    one = model.ask("Hello", max_new_tokens=8)
    (same,) = model.ask(["Hello"], max_new_tokens=8)
    *steps, last = model.stream("Hello", max_new_tokens=8)
    assert isinstance(last, Record)
    assert one.text == same.text == last.text == "".join(s.text for s in steps)
    assert one.generation.steps[0].logprob == pytest.approx(steps[0].logprob, abs=1e-4)
    assert model.ask([]) == []


async def test_the_async_twins(model: CalibratedModel) -> None:
    one, many = await asyncio.gather(
        model.aask("Hello", max_new_tokens=8), model.aask(["Hello", "You"], max_new_tokens=8)
    )
    events = [event async for event in model.astream("Hello", max_new_tokens=8)]
    assert one.text == many[0].text == events[-1].text
    assert isinstance(events[0], Step)


def test_messages_are_one_prompt_and_lists_of_them_are_many(model: CalibratedModel) -> None:
    chat = [{"role": "user", "content": "Hello"}]
    assert isinstance(model.ask(chat, max_new_tokens=2), Record)
    assert len(model.ask([chat, chat, "Hello"], max_new_tokens=2)) == 3


def test_without_a_profile_confidence_is_unknown_and_says_why(model: CalibratedModel) -> None:
    record = model.ask("Hello", max_new_tokens=8)
    confidence = record.confidence
    assert confidence.value is None
    assert not confidence.calibrated
    assert "cut at max_new_tokens" in confidence.reason
    answered = model.ask("Hello", max_new_tokens=8, parser="regex:^..(..)").confidence
    assert answered.value is None
    assert "no profile" in answered.reason
    mean = sum(s.logprob for s in record.generation.steps) / 8
    assert confidence.raw == pytest.approx(math.exp(mean))
    assert set(confidence.signals) >= {"mean_logprob", "sum_logprob", "mean_entropy"}
    json.dumps(record.to_dict())


def test_the_raw_score_is_that_of_the_answer_span(model: CalibratedModel) -> None:
    record = model.ask("Hello", max_new_tokens=8, parser="regex:^..(..)")
    inside = record.generation.answer_steps()
    mean = sum(s.logprob for s in inside) / len(inside)
    assert record.confidence.raw == pytest.approx(math.exp(mean))


def test_an_empty_or_unanswered_text_is_unknown(model: CalibratedModel) -> None:
    first = model.ask("Hello", max_new_tokens=8).text[0]
    empty = model.ask("Hello", max_new_tokens=8, stop=first).confidence
    assert (empty.value, empty.raw) == (None, None)
    assert empty.reason.startswith("no_answer")
    cut = model.ask("Hello", max_new_tokens=8, parser="gsm8k").confidence
    assert cut.value is None
    assert cut.reason.startswith("no_answer")
    assert cut.raw is not None


def test_a_failed_request_keeps_the_work_of_the_others(model: CalibratedModel) -> None:
    with pytest.raises(errors.BatchError, match="1 of 3 requests failed") as caught:
        model.ask(["ok", "x" * 900, "fine"], max_new_tokens=3)
    first, second, third = caught.value.results
    assert first.text
    assert third.text
    assert isinstance(second, errors.PromptTooLong)
    kept = model.ask(["ok", "x" * 900], max_new_tokens=3, return_errors=True)
    assert isinstance(kept[1], errors.PromptTooLong)
    with pytest.raises(errors.PromptTooLong):
        model.ask("x" * 900)


def test_defaults_and_a_system_prompt() -> None:
    base = tiny_model("llama", layers=1)
    tokenizer = tiny_tokenizer(chat=True)
    with load(base, tokenizer=tokenizer, system="Be brief.", max_new_tokens=3) as model:
        record = model.ask("Hi")
        assert record.generation.n_tokens == 3
        assert record.request.prompt[0] == {"role": "system", "content": "Be brief."}
        own = [{"role": "system", "content": "Mine."}, {"role": "user", "content": "Hi"}]
        assert model.ask(own, max_new_tokens=1).request.prompt[0]["content"] == "Mine."


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"profile": "mine.json"}, "'mine.json' cannot be read"),
        ({"profile": 3}, "profile=3"),
        ({"repair": "data-free"}, "repair='data-free'"),
        ({"strict": True}, "strict=True"),
        ({"max_batch": 0}, "max_batch"),
        ({"temprature": 1}, "'temprature'"),
        ({"system": 3}, "system=3"),
        ({"deterministic": True, "dtype": "bfloat16"}, "deterministic=True needs dtype float32"),
    ],
)
def test_wrong_arguments_of_load(tmp_path, options: dict, words: str) -> None:
    folder = save_tiny(tmp_path / "m")
    with pytest.raises(errors.BitcalError) as caught:
        load(folder, **options)
    assert words in str(caught.value)


def test_sinks_see_every_record_and_cannot_break_an_answer(
    model: CalibratedModel, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[Record] = []

    def broken(record: Record) -> None:
        raise OSError("disk full")

    remove_broken, remove = model.add_sink(broken), model.add_sink(seen.append)
    with caplog.at_level(logging.ERROR):
        record = model.ask("Hello", max_new_tokens=2)
    remove_broken()
    remove()
    assert seen == [record]
    assert "disk full" in caplog.text
    with pytest.raises(errors.BadRequest):
        model.add_sink("log.txt")


def test_no_copy_and_no_pickle_reaches_the_weights(model: CalibratedModel) -> None:
    assert copy.deepcopy({"m": model})["m"] is model
    assert copy.copy(model) is model
    with pytest.raises(errors.BitcalError, match="cannot be pickled"):
        pickle.dumps(model)


@pytest.mark.parametrize("weights", ["qint8", "qint4"])
def test_save_and_load_answer_bit_exactly(tmp_path, weights: str) -> None:
    plain = save_tiny(tmp_path / "plain")
    options = {"max_new_tokens": 12}
    with load(plain, weights=weights, deterministic=True) as model:
        model.save(tmp_path / "saved")
        before = model.ask("Hello", **options).generation
        assert model.memory_report()["total"] > 0
    with load(tmp_path / "saved", deterministic=True) as model:
        assert model.ask("Hello", **options).generation == before
        assert set(model.report()["weights"]) == {weights}


def test_the_report_says_how_it_runs(model: CalibratedModel) -> None:
    report = model.report()
    assert report["dtype"] == "float32"
    assert report["dtype_reason"]
    assert "rows leave and join" in report["batching"]
    json.dumps(report)


def test_threads_may_ask_at_once(model: CalibratedModel) -> None:
    expected = {p: model.ask(p, max_new_tokens=10).text for p in "abcdef"}
    got: dict[str, str] = {}

    def ask(prompt: str) -> None:
        got[prompt] = model.ask(prompt, max_new_tokens=10).text

    threads = [threading.Thread(target=ask, args=(p,)) for p in expected]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == expected


INTERRUPTED = """
import threading
from families import tiny_model, tiny_tokenizer
from bitcal_integrations import load

base = tiny_model("llama", layers=2)
base.config.max_position_embeddings = 1_000_000
model = load(base, tokenizer=tiny_tokenizer())
try:
    for index, _ in enumerate(model.stream("go", max_new_tokens=900_000, loop_stop=False)):
        if index == 3:
            print("running", flush=True)
except KeyboardInterrupt:
    after = model.ask("still there", max_new_tokens=2)
    model.close()
    print(after.generation.n_tokens, [t.name for t in threading.enumerate()], flush=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_ctrl_c_stops_the_model_and_leaves_it_usable() -> None:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    child = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED], stdout=subprocess.PIPE, text=True, env=env
    )
    with child:
        assert child.stdout is not None
        assert child.stdout.readline() == "running\n"
        child.send_signal(signal.SIGINT)
        assert child.stdout.read() == "2 ['MainThread']\n"
    assert child.returncode == 0


def test_bfloat16_weights_decode(tmp_path) -> None:
    folder = save_tiny(tmp_path / "m")
    with load(folder, weights="qint4", dtype="bfloat16") as model:
        assert model._loaded.model.dtype == torch.bfloat16
        assert model.ask("Hello", max_new_tokens=4).generation.n_tokens == 4
