"""Memory that runs out and forwards that fail hit as few requests as they can."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import pytest
import torch
from engine_help import assert_same, failing, generations, submit
from families import tiny_tokenizer
from transformers import Gemma3nForCausalLM, Gemma3nTextConfig

from bitcal_integrations.decode.net import Net
from bitcal_integrations.decode.run import generate
from bitcal_integrations.engines import _failures, _memory
from bitcal_integrations.engines._ticket import Outcome, collect, stream
from bitcal_integrations.engines.local import LocalEngine
from bitcal_integrations.errors import BadRequest, EngineError, OutOfMemory
from bitcal_integrations.types import Step, make_request


def test_one_poisoned_request_does_not_fail_its_batch(
    net: Net, engine: LocalEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison = net.tokenizer("~")["input_ids"][0]
    requests = [make_request(p, max_new_tokens=6) for p in ("good", "~", "also good")]
    expected = [generate(net, [requests[i]])[0] for i in (0, 2)]
    failing(net, monkeypatch, lambda rows, ids: bool((ids == poison).any()), IndexError("poison"))
    good, bad, also = collect(engine, requests)
    assert isinstance(bad, EngineError)
    assert "IndexError: poison" in str(bad)
    for got, want in zip(generations([good, also]), expected, strict=True):
        assert_same(got, want, 1e-4)


def test_hidden_states_of_several_streams_are_refused_and_other_rows_go_on() -> None:
    config = Gemma3nTextConfig(
        vocab_size=384, vocab_size_per_layer_input=384, hidden_size=64, intermediate_size=64,
        num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=16,
        hidden_size_per_layer_input=8, altup_num_inputs=2, num_kv_shared_layers=0, laurel_rank=8,
        activation_sparsity_pattern=[0.0] * 2, layer_types=["full_attention"] * 2,
    )  # fmt: skip
    net = Net(Gemma3nForCausalLM(config).eval(), tiny_tokenizer())
    asked = [make_request("Hi", max_new_tokens=3, hidden_layer=layer) for layer in (1, None)]
    with closing(LocalEngine(net)) as engine:
        refused, answer = collect(engine, asked)
    assert isinstance(refused, BadRequest)
    assert "layer 1 gives a tensor of the shape (2, 1, " in str(refused)
    assert len(generations([answer])[0].steps) == 3


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
        MemoryError(),
    ],
)
def test_out_of_memory_halves_the_batch_and_loses_nothing(
    net: Net, engine: LocalEngine, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    requests = [make_request(c * 5, max_new_tokens=9) for c in "abcdefgh"]
    expected = generate(net, requests)
    failing(net, monkeypatch, lambda rows, ids: rows > 3, error)
    for got, want in zip(generations(collect(engine, requests)), expected, strict=True):
        assert_same(got, want, 1e-4)
    assert engine.report()["halved_for_memory"] >= 1
    assert engine.report()["cells_allowed"] < 4 * (5 + 9)


def test_out_of_memory_alone_is_one_clear_error(
    net: Net, engine: LocalEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(net, monkeypatch, lambda rows, ids: True, MemoryError())
    (result,) = collect(engine, [make_request("abc")])
    assert isinstance(result, OutOfMemory)
    assert "3 prompt tokens, 0 of 512 new tokens" in str(result)


def test_a_request_beyond_the_memory_for_keys_and_values_is_refused(net: Net) -> None:
    engine = LocalEngine(net, kv_bytes=100 * net.kv_bytes_per_token)
    try:
        with pytest.raises(OutOfMemory, match="bytes of keys and values"):
            next(stream(engine, make_request("a", max_new_tokens=100)))
        requests = [make_request("a", max_new_tokens=39) for _ in range(6)]
        generations(collect(engine, requests))
        assert engine.report()["largest_batch"] == 2  # 2 x 40 fit into 100 tokens, 3 x 40 do not
    finally:
        engine.close()


def test_memory_errors_are_told_from_others() -> None:
    assert _failures.is_out_of_memory(MemoryError())
    assert not _failures.is_out_of_memory(RuntimeError("shape mismatch"))
    assert not _failures.is_out_of_memory(ValueError("out of memory"))
    assert _memory.kv_budget(torch.device("cpu")) > 0


@pytest.mark.parametrize("where", ["join", "keep_rows"])
def test_a_stream_loses_no_step_when_memory_runs_out_after_the_choice(
    net: Net, engine: LocalEngine, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    from bitcal_integrations.decode import cache

    failures = [MemoryError()]
    original = getattr(cache, where)

    def once(*args):
        if failures:
            raise failures.pop()
        return original(*args)

    monkeypatch.setattr(cache, where, once)
    waits = [submit(engine, make_request(c, max_new_tokens=n))[1] for c, n in (("a", 9), ("b", 4))]
    waits.append(submit(engine, make_request("c", max_new_tokens=12))[1])
    for events in waits:
        steps = []
        while isinstance(event := events.get(timeout=30), Step):
            steps.append(event)
        assert isinstance(event, Outcome)
        assert [s.token_id for s in steps] == [s.token_id for s in event.generation.steps]
        assert "".join(s.text for s in steps) == event.generation.raw


def test_after_a_while_of_good_turns_the_batch_grows_again(
    net: Net, engine: LocalEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        failing(net, patch, lambda rows, ids: rows > 1, MemoryError())
        generations(collect(engine, [make_request(c, max_new_tokens=3) for c in "abcd"]))
    assert engine.report()["cells_allowed"] is not None
    for _ in range(4):
        generations(collect(engine, [make_request("a", max_new_tokens=300, loop_stop=False)]))
    assert engine.report()["cells_allowed"] is None


def test_logits_that_are_no_numbers_are_an_error(
    net: Net, engine: LocalEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward, calls = net._forward, []

    def patched(*args, **kwargs):
        logits, cache = forward(*args, **kwargs)
        calls.append(None)
        return (logits * float("nan") if len(calls) > 2 else logits), cache

    monkeypatch.setattr(net, "_forward", patched)
    (result,) = collect(engine, [make_request("a", max_new_tokens=9)])
    assert isinstance(result, EngineError)
    assert "not finite at new token 2" in str(result)


def test_an_error_does_not_keep_what_the_failed_forward_held(
    net: Net, engine: LocalEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    import weakref

    held: list = []

    def patched(*args, **kwargs):
        activations = torch.ones(8)
        held.append(weakref.ref(activations))
        raise RuntimeError("broken kernel")

    monkeypatch.setattr(net, "_forward", patched)
    (result,) = collect(engine, [make_request("a")])
    assert "broken kernel" in str(result)
    assert held[0]() is None


@pytest.fixture
def keep_rows_fails_once(monkeypatch: pytest.MonkeyPatch) -> list[Exception]:
    """Memory runs out when rows leave, each time there is an error in this list."""
    from bitcal_integrations.decode import cache

    failures: list[Exception] = []
    original = cache.keep_rows

    def keep_rows(*args: Any) -> None:
        if failures:
            raise failures.pop()
        original(*args)

    monkeypatch.setattr(cache, "keep_rows", keep_rows)
    return failures


def test_the_last_one_of_a_batch_is_tried_alone_before_it_fails(
    net: Net, engine: LocalEngine, keep_rows_fails_once: list[Exception]
) -> None:
    requests = [make_request(c, max_new_tokens=n) for c, n in (("a", 4), ("b", 20))]
    expected = generate(net, requests)
    keep_rows_fails_once.append(MemoryError())
    with engine._worker._condition:  # both are there before either runs
        waits = [submit(engine, request)[1] for request in requests]
    for events, want in zip(waits, expected, strict=True):
        while isinstance(event := events.get(timeout=30), Step):
            pass
        assert isinstance(event, Outcome), event
        assert_same(event.generation, want, 1e-4)
    assert not keep_rows_fails_once


def test_memory_that_runs_out_when_a_request_is_cancelled_fails_no_other(
    net: Net, engine: LocalEngine, keep_rows_fails_once: list[Exception]
) -> None:
    requests = [make_request(c, max_new_tokens=n) for c, n in (("a", 400), ("b", 60))]
    expected = generate(net, requests[1:])
    (first, one), (_, two) = (submit(engine, request) for request in requests)
    assert isinstance(one.get(timeout=30), Step)
    assert isinstance(two.get(timeout=30), Step)
    keep_rows_fails_once.append(MemoryError())
    first.cancel()
    while isinstance(event := two.get(timeout=30), Step):
        pass
    assert isinstance(event, Outcome)
    assert_same(event.generation, expected[0], 1e-4)
    assert not engine.closed
