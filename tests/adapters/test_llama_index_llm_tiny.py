"""BitCalLLM on the built-in model: loading by name, templates, batches, structured output."""

from __future__ import annotations

import asyncio
import pickle
from pathlib import Path
from typing import Any

import pytest
from adapters.llama_index_help import engine_of
from llama_index.core import Settings
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.prompts import PromptTemplate
from pydantic import BaseModel

from bitcal_integrations import load
from bitcal_integrations.llama_index import BitCalLLM, get_confidence, with_confidence
from bitcal_integrations.llama_index.collector import collect
from bitcal_integrations.testing._probes import watched

FRANCE = "What is the capital of France?"
CITIES = PromptTemplate("What is the capital of {country}?")


class City(BaseModel):
    """A city and its size."""

    name: str
    millions: int


@pytest.fixture(scope="module")
def llm() -> BitCalLLM:
    return BitCalLLM(weights="qint4", max_tokens=32)  # whoever else names it shares its model


def torch_model(llm: Any) -> Any:
    return llm.calibrated._loaded.model


class TestByName:
    """The model is the one that `load` gives."""

    def test_it_answers_as_the_model_does(self, llm: BitCalLLM) -> None:
        record = llm.calibrated.ask(FRANCE, max_new_tokens=32)
        assert llm.complete(FRANCE).raw["bitcal"] == record.bitcal()
        assert get_confidence(llm.complete(FRANCE)).calibrated

    def test_equal_arguments_share_one_model(self, llm: BitCalLLM) -> None:
        again = BitCalLLM(model="bitcal-tiny", weights="qint4", temperature=0.5)
        assert again.calibrated is llm.calibrated
        bare = BitCalLLM(weights="qint4", profile=None)
        assert bare.calibrated is not llm.calibrated
        assert get_confidence(bare.complete(FRANCE)).value is None

    def test_copies_are_made_by_name(self, llm: BitCalLLM) -> None:
        data = llm.to_dict()
        assert data["load_arguments"] == {"weights": "qint4"}
        for again in (BitCalLLM.from_dict(data), pickle.loads(pickle.dumps(llm))):
            assert again.calibrated is llm.calibrated
            assert again.to_dict() == data

    def test_a_saved_folder(self, llm: BitCalLLM, tmp_path: Path) -> None:
        llm.calibrated.save(tmp_path / "saved")
        again = BitCalLLM.from_json(BitCalLLM(model=tmp_path / "saved", max_tokens=32).to_json())
        assert again.complete(FRANCE).text == llm.complete(FRANCE).text
        again.calibrated.close()

    def test_traces_see_weights_and_profile(self, llm: BitCalLLM) -> None:
        payload = llm.to_payload()
        assert payload["weights"] == {"qint4": 28}
        assert payload["profile"] == llm.calibrated.profile.fingerprint

    def test_its_tokenizer_counts_for_llama_index(self, llm: BitCalLLM) -> None:
        undo = llm.set_as_default()
        try:
            assert len(Settings.tokenizer(FRANCE)) == len(llm.tokenizer.tokenize(FRANCE))
        finally:
            undo()


class TestTemplates:
    """What the model reads."""

    def ids(self, llm: BitCalLLM, **kwargs: Any) -> str:
        with watched(torch_model(llm)) as probe:
            llm.complete(**kwargs)
        return str(llm.tokenizer.decode(probe.inputs[0]))

    def test_a_completion_goes_through_the_chat_template(self, llm: BitCalLLM) -> None:
        assert self.ids(llm, prompt=FRANCE).count("<|user|>") == 1

    def test_a_formatted_prompt_does_not(self, llm: BitCalLLM) -> None:
        text = self.ids(llm, prompt="The capital of France is", formatted=True)
        assert "<|user|>" not in text
        assert text.count(llm.tokenizer.bos_token) == 1

    def test_a_written_out_prompt_gets_no_second_bos(self, llm: BitCalLLM) -> None:
        written = llm.tokenizer.apply_chat_template(
            [{"role": "user", "content": FRANCE}], tokenize=False, add_generation_prompt=True
        )
        assert self.ids(llm, prompt=written, formatted=True) == self.ids(llm, prompt=FRANCE)


class TestAtOnce:
    """Queries under way together share batches."""

    async def test_queries_share_batches_and_keep_their_confidence(self) -> None:
        with load("bitcal-tiny", weights="qint4", dtype="float32") as model:
            engine = with_confidence(engine_of(BitCalLLM(model=model, max_tokens=24), "A text."))
            countries = ("France", "Italy", "Spain", "Japan", "Peru", "Kenya", "Cuba", "Chad")
            prompts = [f"What is the capital of {country}?" for country in countries]
            alone = [await engine.aquery(prompt) for prompt in prompts]
            with watched(model._loaded.model) as probe:
                probe.hold()  # so that all of them wait for the model when it begins
                tasks = [asyncio.create_task(engine.aquery(prompt)) for prompt in prompts]
                assert await asyncio.to_thread(probe.wait_for, 1)
                while len(model._engine._worker._waiting) < len(prompts) - 1:
                    await asyncio.sleep(0)
                probe.release()
                responses = await asyncio.gather(*tasks)
            assert model.report()["largest_batch"] == len(prompts)
        assert [str(r) for r in responses] == [str(r) for r in alone]
        for response, before in zip(responses, alone, strict=True):
            found, expected = (r.metadata["confidence"] for r in (response, before))
            assert found == pytest.approx(expected, abs=1e-3)

    def test_a_batch(self, llm: BitCalLLM) -> None:
        prompts = [FRANCE, "What is the capital of Italy?"]
        found = llm.complete_batch(prompts)
        assert [r.text for r in found] == [llm.complete(p).text for p in prompts]


class TestStructured:
    """Valid by construction, with a confidence for each field."""

    def test_an_object_with_the_confidence_of_its_fields(self, llm: BitCalLLM) -> None:
        with collect() as collector:
            city = llm.structured_predict(City, CITIES, country="France")
        assert isinstance(city, City)
        assert (
            CITIES.output_parser is None
        )  # LlamaIndex leaves its parser in the prompt it is given
        (record,) = collector.records
        assert record.request.response_schema == City.model_json_schema()

    async def test_async_and_streams(self, llm: BitCalLLM) -> None:
        city = await llm.astructured_predict(City, CITIES, country="France")
        grown = list(llm.stream_structured_predict(City, CITIES, country="France"))
        agrown = await llm.astream_structured_predict(City, CITIES, country="France")
        assert len(grown) > 2
        assert grown[-1].model_dump() == city.model_dump()
        assert [c async for c in agrown][-1].model_dump() == city.model_dump()

    def test_a_structured_llm(self, llm: BitCalLLM) -> None:
        """It replaces `raw` by the object; the collector has the record all the same."""
        with collect() as collector:
            response = llm.as_structured_llm(City).chat([ChatMessage(FRANCE)])
        assert isinstance(response.raw, City)
        assert "no confidence" in get_confidence(response).reason
        assert len(collector.records) == 1

    def test_a_schema_of_a_call(self, llm: BitCalLLM) -> None:
        response = llm.complete(FRANCE, response_schema=City.model_json_schema())
        City.model_validate_json(response.text)
        fields = response.raw["bitcal"]["fields"]
        assert set(fields) == {"name", "millions"}
        assert all(0 <= value <= 1 for value in fields.values())
