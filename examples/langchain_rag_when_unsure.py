"""Answers from memory while it is certain; otherwise it retrieves the facts with BM25 and reads.

Needs the package rank-bm25.
"""

from typing import Any

from langchain_core.documents import Document
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnablePassthrough
from rank_bm25 import BM25Okapi

from bitcal_integrations.langchain import ChatBitCal, ConfidenceRouter
from bitcal_integrations.tiny.countries import facts
from bitcal_integrations.tiny.reading import SENTENCES


def words(text: str) -> list[str]:
    return text.lower().replace("?", "").replace(".", "").split()


class BM25Retriever(BaseRetriever):
    """The `k` documents that share the rarest words with the query."""

    documents: list[Document]
    index: Any  # of rank_bm25
    k: int = 3

    def _get_relevant_documents(self, query, *, run_manager):
        return self.index.get_top_n(words(query), self.documents, self.k)


known = [SENTENCES[fact.attribute][0].format(e=fact.country, v=fact.value) for fact in facts()]
index = BM25Okapi([words(sentence) for sentence in known])
retriever = BM25Retriever(documents=[Document(sentence) for sentence in known], index=index)

chat = ChatBitCal(model="bitcal-tiny", weights="qint8", max_tokens=24)
read = ChatPromptTemplate.from_template("Context: {context}\nQuestion: {question}\nAnswer:")
together = {
    "context": retriever | (lambda found: " ".join(d.page_content for d in found)),
    "question": RunnablePassthrough(),
}
app = ConfidenceRouter(
    chat, [together | read | chat], min_confidence=0.8, names=["from memory", "after reading"]
)

for country in ("France", "Japan", "Ireland", "Lithuania", "Tuvalu", "Denmark"):
    message = app.invoke(f"What is the capital of {country}?")
    bitcal = message.response_metadata["bitcal"]
    tried = [(a["name"], a["confidence"]) for a in bitcal["route"]["attempts"]]
    way = " -> ".join(f"{name} {'unknown' if c is None else f'{c:.2f}'}" for name, c in tried)
    sure = "sure" if bitcal["decision"]["action"] == "accept" else "unsure"
    print(f"{country:10} {message.text:10} {sure:7} {way}")
