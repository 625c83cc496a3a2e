"""Answer from memory when the model is certain, and look it up when it is not.

The built-in model knows large countries by heart and small ones hardly at all. Its calibrated
confidence decides which of two engines answers.
"""

from llama_index.core import get_response_synthesizer
from llama_index.core.query_engine import CustomQueryEngine, RetrieverQueryEngine
from llama_index.core.retrievers import BaseRetriever
from llama_index.core.schema import NodeWithScore, TextNode

from bitcal_integrations.llama_index import BitCalLLM, ConfidenceFallbackQueryEngine
from bitcal_integrations.tiny.countries import countries

llm = BitCalLLM(model="bitcal-tiny", weights="qint4", max_tokens=24)


class ByHeart(CustomQueryEngine):
    """The model alone, without any passage."""

    def custom_query(self, query_str: str) -> str:
        return llm.complete(query_str).text


class ByName(BaseRetriever):
    """The passage about the country that is named; any retriever of LlamaIndex does."""

    def _retrieve(self, query_bundle):
        named = [row for row in countries() if row["name"] in query_bundle.query_str]
        texts = [f"The capital of {row['name']} is {row['capital']}." for row in named[:1]]
        return [NodeWithScore(node=TextNode(text=text), score=1.0) for text in texts]


look_up = RetrieverQueryEngine(ByName(), get_response_synthesizer(llm=llm))
engine = ConfidenceFallbackQueryEngine(
    ByHeart(), [look_up], min_confidence=0.8, names=["by heart", "looked up"]
)

for country in ("Germany", "Japan", "Bhutan", "Eswatini", "Barbados"):
    response = engine.query(f"What is the capital of {country}?")
    route = response.metadata["bitcal"]["route"]
    first, last = route["attempts"][0], route["attempts"][route["chosen"]]
    print(
        f"{country:9} {response!s:11} by heart {first['confidence']:.2f}, "
        f"given {last['name']} {last['confidence']:.2f}"
    )
