"""Stream an answer through a query engine; its confidence is there when the stream has ended."""

from llama_index.core import get_response_synthesizer
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.retrievers import BaseRetriever
from llama_index.core.schema import NodeWithScore, TextNode

from bitcal_integrations.llama_index import BitCalLLM, get_confidence, with_confidence

PASSAGE = "Most people in Torvaland speak Drelish. The capital of Torvaland is Kresta."


class OnePassage(BaseRetriever):
    """Always the same passage."""

    def _retrieve(self, query_bundle):
        return [NodeWithScore(node=TextNode(text=PASSAGE), score=1.0)]


llm = BitCalLLM(model="bitcal-tiny", weights="qint4", max_tokens=24)
synthesizer = get_response_synthesizer(llm=llm, streaming=True)
engine = with_confidence(RetrieverQueryEngine(OnePassage(), synthesizer))

for question in ("What is the capital of Torvaland?", "What is the capital of Belmark?"):
    response = engine.query(question)
    print(question, "", end="")
    for text in response.response_gen:
        print(text, end="", flush=True)
    confidence = get_confidence(response)
    print(f"  [right with probability {confidence.value:.2f}]")
