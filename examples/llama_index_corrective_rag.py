"""Corrective RAG as a workflow: read the notes, then the library if the answer is not certain."""

import asyncio

from llama_index.core import get_response_synthesizer
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.retrievers import BaseRetriever
from llama_index.core.schema import NodeWithScore, TextNode
from llama_index.core.workflow import Context, Event, StartEvent, StopEvent, Workflow, step

from bitcal_integrations.llama_index import BitCalLLM, ConfidenceGate, with_confidence
from bitcal_integrations.tiny.countries import countries

llm = BitCalLLM(model="bitcal-tiny", weights="qint4", max_tokens=24)
TOLD = "The capital of {name} is {capital}. The phone code of {name} is {phone}."


class Shelf(BaseRetriever):
    """A passage on the country that is asked about, if it is among the largest `n`."""

    def __init__(self, n):
        self.rows = countries()[:n]
        super().__init__()

    def _retrieve(self, query_bundle):
        rows = [row for row in self.rows if row["name"] in query_bundle.query_str]
        return [NodeWithScore(node=TextNode(text=TOLD.format(**row)), score=1.0) for row in rows]


def reader(n):
    return with_confidence(RetrieverQueryEngine(Shelf(n), get_response_synthesizer(llm=llm)))


class AskLibrary(Event):
    """The notes do not say it, or not certainly enough."""


class CorrectiveRAG(Workflow):
    notes, library, gate = reader(100), reader(193), ConfidenceGate(min_confidence=0.7)

    @step
    async def read_notes(self, ctx: Context, ev: StartEvent) -> StopEvent | AskLibrary:
        answer, wider = await self.notes.aquery(ev.question), AskLibrary(question=ev.question)
        return self.gate(answer, accept=StopEvent, reject=wider, ctx=ctx)

    @step
    async def read_library(self, ctx: Context, ev: AskLibrary) -> StopEvent:
        answer = await self.library.aquery(ev.question)
        return self.gate(answer, accept=StopEvent, reject=StopEvent(result="not certain"), ctx=ctx)


async def main():
    for country in ("Germany", "Bhutan", "Iceland", "Grenada"):
        handler = CorrectiveRAG().run(question=f"What is the capital of {country}?")
        told = [ev async for ev in handler.stream_events() if hasattr(ev, "action")]
        print(f"{country:8} {await handler!s:11}", *(f"{e.action}: {e.reason};" for e in told))


asyncio.run(main())
