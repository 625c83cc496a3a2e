"""Ask in steps, stop at the first answer that is certain, and give up where it is hopeless.

Every step puts the question in other words. One certain answer ends the steps; a hopeless one
hands the question to an engine that looks it up.
"""

from llama_index.core.indices.query.query_transform.base import BaseQueryTransform
from llama_index.core.query_engine import CustomQueryEngine
from llama_index.core.schema import QueryBundle

from bitcal_integrations.llama_index import BitCalLLM, ConfidenceMultiStepQueryEngine
from bitcal_integrations.tiny.countries import countries

llm = BitCalLLM(model="bitcal-tiny", weights="qint4", max_tokens=24)
TOLD = "The phone code of {name} is {phone}. The capital of {name} is {capital}."
WORDINGS = ("What is the", "Name the", "Tell me the")


class ByHeart(CustomQueryEngine):
    """The model alone."""

    def custom_query(self, query_str: str) -> str:
        return llm.complete(query_str).text


class LookUp(CustomQueryEngine):
    """The model with the right passage before the question."""

    def custom_query(self, query_str: str) -> str:
        row = next(row for row in countries() if row["name"] in query_str)
        passage = TOLD.format(**row)
        return llm.complete(f"{passage}\n\n{query_str}").text


class OtherWords(BaseQueryTransform):
    """Step by step another wording; a real app would decompose the question."""

    def _get_prompts(self):
        return {}

    def _update_prompts(self, prompts):
        """There are none."""

    def _run(self, query_bundle, metadata):
        step = metadata["prev_reasoning"].count("\n") // 2
        return QueryBundle(query_bundle.query_str.replace(WORDINGS[0], WORDINGS[step]))


engine = ConfidenceMultiStepQueryEngine(
    ByHeart(), OtherWords(), stop_above=0.9, stop_below=0.1,
    fallback_query_engine=LookUp(), answer_with="step", llm=llm,
)  # fmt: skip

for country in ("Germany", "Lesotho", "Libya", "Belize"):
    response = engine.query(f"What is the capital of {country}?")
    trail = response.metadata["bitcal"]["trail"]
    steps = " ".join(f"{step['confidence']:.2f}" for step in trail["steps"])
    sure = response.metadata["confidence"]
    print(f"{country:8} {response!s:10} {sure:.2f}  {trail['stopped']:9}  steps: {steps}")
