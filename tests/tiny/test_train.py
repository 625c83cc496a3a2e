"""Training from a seed: a cut run goes on, any size is served, wrong sizes are refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from bitcal_integrations import load
from bitcal_integrations.errors import BadRequest
from bitcal_integrations.tiny import train
from bitcal_integrations.tiny.assets import MODEL_DIR
from bitcal_integrations.tiny.batches import batches
from bitcal_integrations.tiny.network import Size, config, has_bfloat16
from bitcal_integrations.tiny.tokenizer import save_tokenizer

SMALL = Size(width=128, layers=1)


def run_in(folder: Path, tokens: int, monkeypatch: pytest.MonkeyPatch) -> train.Run:
    monkeypatch.setattr(train, "EVALUATE_QUESTIONS", 1)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(MODEL_DIR)
    save_tokenizer(tokenizer, folder / "tokenizer")
    return train.Run(folder, 3, None, tokens, SMALL, torch.device("cpu"))


def test_a_run_goes_on_from_its_checkpoint_and_is_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run_in(tmp_path, 4000, monkeypatch)
    first.train()
    assert first.state.tokens >= 4000
    second = run_in(tmp_path, 8000, monkeypatch)
    second.load()
    assert second.state == first.state
    for one, other in zip(first.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(one, other)
    steps = second.state.step
    second.train()
    assert second.state.step > steps
    assert len(second.state.curve) == 2
    second.export(tmp_path / "model")
    with load(tmp_path / "model", weights="qint8", profile=None) as model:
        assert model.ask("What is the capital of France?").generation.n_tokens


def test_the_same_seed_gives_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [run_in(tmp_path / name, 3000, monkeypatch) for name in ("a", "b")]
    for run in runs:
        run.train()
    for one, other in zip(*(run.model.parameters() for run in runs), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(("width", "layers"), [(0, 4), (100, 4), (96, 4), (256, 0)])
def test_a_size_that_cannot_be(width: int, layers: int) -> None:
    with pytest.raises(BadRequest, match=f"width {width} with {layers} layers"):
        Size(width, layers)


def test_the_larger_size_has_more_than_twenty_million_weights() -> None:
    tokenizer = PreTrainedTokenizerFast.from_pretrained(MODEL_DIR)
    with torch.device("meta"):
        model = LlamaForCausalLM(config(tokenizer, Size(640, 6)))
    assert 20e6 < model.num_parameters() < 35e6


def test_devices_without_bfloat16() -> None:
    assert not has_bfloat16("mps")


def test_workers_agree_on_how_far_the_run_is(tmp_path: Path) -> None:
    """Each draws its own questions. If each counted its own tokens, one would end before the other
    does: after two steps this is where the one has more than the limit and the other less."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(MODEL_DIR)
    counts = [steps_of(tokenizer, worker, 2) for worker in (0, 1)]
    own = [2 * sum(count) for count in counts]  # as if the other had as many
    limit = sum(own) // 2
    assert min(own) < limit < max(own)
    save_tokenizer(tokenizer, tmp_path / "tokenizer")
    train.main(tmp_path, tokens=limit, width=128, layers=1)
    record = json.loads((tmp_path / "model" / "training.json").read_text())
    both = [one + other for one, other in zip(*counts, strict=True)]
    assert record["step"] == 2
    assert record["tokens"] == sum(both)


def steps_of(tokenizer: PreTrainedTokenizerFast, worker: int, steps: int) -> list[int]:
    """How many tokens a worker learns from in each of the first steps, at seed 0."""
    feed = [batches(tokenizer, task, n, f"0|0|{worker}") for task, n in train.TOKENS.items()]
    each = [[next(one) for one in feed] for _ in range(steps)]
    return [sum(int(b.answer.sum()) + int(b.prompt.sum()) for b in step) for step in each]
