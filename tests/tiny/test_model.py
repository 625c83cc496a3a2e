"""The packaged model: small, loads as any other, and about as right as its card says."""

import io
import json
import zipfile
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from bitcal_integrations.tiny.answers import answers
from bitcal_integrations.tiny.assets import MODEL_DIR, model_folder
from bitcal_integrations.tiny.batches import collate
from bitcal_integrations.tiny.examples import example
from bitcal_integrations.tiny.tasks import Question, grade, questions

TEXTS = ("Paris", "12+30=42", "Ana has 407 eggs.\nHow many?", "São Tomé, naïve", "two  spaces")


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(model_folder())


@pytest.fixture(scope="module")
def model() -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(model_folder(), dtype=torch.float32).eval()


def share_right(model: PreTrainedModel, tokenizer, asked: list[Question]) -> float:
    given = answers(model, tokenizer, asked)
    return sum(grade(q, a.text) for q, a in zip(asked, given, strict=True)) / len(asked)


def test_the_folder_is_small_and_complete() -> None:
    files = [path for path in Path(MODEL_DIR).rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 10_000_000
    assert {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json"} <= {
        path.name for path in files
    }
    settings = json.loads((MODEL_DIR / "tokenizer_config.json").read_text())
    assert "assistant" in settings["chat_template"]


def test_weights_are_bfloat16_and_wide_enough_for_int4_groups() -> None:
    model = AutoModelForCausalLM.from_pretrained(MODEL_DIR)
    assert model.dtype == torch.bfloat16
    assert model.config.hidden_size == 256
    assert model.config.max_position_embeddings >= 1024
    assert model.config.tie_word_embeddings


def test_digits_are_split_and_text_comes_back(tokenizer) -> None:
    for text in TEXTS:
        assert tokenizer.decode(tokenizer.encode(text), skip_special_tokens=True) == text
    tokens = tokenizer.tokenize("407 eggs")
    assert [t for t in tokens if any(c.isdigit() for c in t)] == ["4", "0", "7"]


def test_the_chat_template_marks_every_turn(tokenizer) -> None:
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi?"}]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert text == "<|bos|><|system|>Be brief.<|end|><|user|>Hi?<|end|><|assistant|>"
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]
    assert ids[0] == tokenizer.bos_token_id
    assert ids.count(tokenizer.eos_token_id) == 2


def test_only_answers_are_learned(tokenizer) -> None:
    question = questions("facts", "train", 1)[0]
    for raw in (False, True):
        one = example(tokenizer, [question], raw)
        learned = [i for i, flag in zip(one.ids, one.learn, strict=True) if flag]
        assert tokenizer.decode(learned) == question.answer + "<|end|>"
    batch = collate([one, example(tokenizer, [question, question], False)], 0)
    assert int(batch.answer.sum()) == 3 * len(learned)
    assert not (batch.answer & batch.prompt).any()


# 60 questions tell an accuracy to .1 or so: the card has the narrow numbers.
@pytest.mark.parametrize(("task", "low", "high"), [("math", 0.7, 1.0), ("reading", 0.78, 1.0)])
def test_accuracy_lies_in_a_wide_band(model, tokenizer, task: str, low: float, high: float) -> None:
    assert low <= share_right(model, tokenizer, questions(task, "test", 60, seed=5)) <= high


def test_head_facts_are_known_and_the_tail_is_guessed(model, tokenizer) -> None:
    asked = questions("facts", "test", 400, seed=5)
    head = [q for q in asked if q.bucket == "head"]
    tail = [q for q in asked if q.bucket == "tail"]
    assert share_right(model, tokenizer, head) > 0.9
    assert share_right(model, tokenizer, tail) < 0.6


def test_plain_generate_and_a_raw_completion_work(model, tokenizer) -> None:
    capitals = {"France": "Paris", "Japan": "Tokyo", "Italy": "Rome"}
    said = []
    for country in capitals:
        prompt = f"Question: What is the capital of {country}?\nAnswer:"
        inputs = tokenizer(prompt, return_tensors="pt")
        ids = model.generate(**inputs, max_new_tokens=16, do_sample=False)
        assert ids[0, -1] == tokenizer.eos_token_id
        new = ids[0, inputs["input_ids"].shape[1] :]
        said.append(tokenizer.decode(new, skip_special_tokens=True).strip())
    right = sum(a == b for a, b in zip(said, capitals.values(), strict=True))
    assert right >= 2, said  # a raw completion is the rarer form in training


def test_a_long_prompt_is_read(model, tokenizer) -> None:
    filler = "The trains are slow but cheap. " * 100
    context = f"{filler}The capital of Drovaken is Lumitar. {filler}"
    messages = ({"role": "user", "content": f"{context}\n\nName the capital of Drovaken."},)
    question = questions("reading", "test", 1)[0]
    asked = Question(**{**vars(question), "messages": messages, "gold": "Lumitar"})
    assert len(tokenizer.encode(context)) > 1000
    (answer,) = answers(model, tokenizer, [asked])
    assert answer.text
    assert 0 < answer.confidence.raw <= 1


def test_the_package_fits_into_a_small_wheel() -> None:
    """About as a wheel packs it; what it would leave out is left out here."""
    package, packed = MODEL_DIR.parents[1], io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as wheel:
        for path in package.rglob("*"):
            if path.is_file() and path.suffix != ".pyc":
                wheel.write(path, path.relative_to(package))
    assert len(packed.getvalue()) < 10_000_000
