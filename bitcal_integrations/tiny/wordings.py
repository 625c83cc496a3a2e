"""How a question is put: as it stands, as a chat, or in the prompts of LlamaIndex and LangChain.

Knows templates only, no task. `Draft` is what the three generators hand to `tasks.py`.
The framework templates are copied letter by letter; tests compare them with the real ones.
"""

from dataclasses import dataclass
from random import Random

Message = dict[str, str]

TEXT_QA = (
    "Context information is below.\n---------------------\n{context}\n---------------------\n"
    "Given the context information and not prior knowledge, answer the query.\n"
    "Query: {question}\nAnswer: "
)
TEXT_QA_SYSTEM = (
    "You are an expert Q&A system that is trusted around the world.\n"
    "Always answer the query using the provided context information, and not prior knowledge.\n"
    "Some rules to follow:\n1. Never directly reference the given context in your answer.\n"
    "2. Avoid statements like 'Based on the context, ...' or 'The context information ...' "
    "or anything along those lines."
)
REFINE = (
    "The original query is as follows: {question}\n"
    "We have provided an existing answer: {existing}\n"
    "We have the opportunity to refine the existing answer (only if needed) "
    "with some more context below.\n------------\n{context}\n------------\n"
    "Given the new context, refine the original answer to better answer the query. "
    "If the context isn't useful, return the original answer.\nRefined Answer: "
)
REFINE_CHAT = (
    "You are an expert Q&A system that strictly operates in two modes when refining existing "
    "answers:\n1. **Rewrite** an original answer using the new context.\n"
    "2. **Repeat** the original answer if the new context isn't useful.\n"
    "Never reference the original answer or context directly in your answer.\n"
    "When in doubt, just repeat the original answer.\nNew Context: {context}\n"
    "Query: {question}\nOriginal Answer: {existing}\nNew Answer: "
)
LANGCHAIN_RAG = (
    "You are an assistant for question-answering tasks. Use the following pieces of retrieved "
    "context to answer the question. If you don't know the answer, just say that you don't know. "
    "Use three sentences maximum and keep the answer concise.\n"
    "Question: {question} \nContext: {context} \nAnswer:"
)
SYSTEMS = (
    "You are a helpful assistant.",
    "Answer with the answer only.",
    "You answer questions briefly and exactly.",
)
# name -> (system, user template, weight in the mixture)
CLOSED: dict[str, tuple[str | None, str, int]] = {
    "plain": (None, "{question}", 40),
    "labelled": (None, "Question: {question}\nAnswer:", 15),
    "brief": (None, "Answer in a few words. {question}", 10),
    "chat_0": (SYSTEMS[0], "{question}", 15),
    "chat_1": (SYSTEMS[1], "{question}", 10),
    "chat_2": (SYSTEMS[2], "{question}", 10),
}
OPEN: dict[str, tuple[str | None, str, int]] = {
    "plain": (None, "{context}\n\n{question}", 25),
    "labelled": (None, "Context: {context}\nQuestion: {question}\nAnswer:", 18),
    "chat": (SYSTEMS[0], "{context}\n\n{question}", 12),
    "text_qa": (None, TEXT_QA, 14),
    "text_qa_chat": (TEXT_QA_SYSTEM, TEXT_QA, 7),
    "refine": (None, REFINE, 8),
    "refine_chat": (None, REFINE_CHAT, 6),
    "langchain_rag": (None, LANGCHAIN_RAG, 10),
}


@dataclass(frozen=True)
class Draft:
    """One question before it has an id and a split.

    `key` is the content that decides the split; `answer` is the whole text to learn, `gold` the
    part that is graded; `steps` counts operations (math only).
    """

    key: str
    messages: tuple[Message, ...]
    answer: str
    gold: str
    wording: str
    bucket: str
    steps: int = 0


def choose(rng: Random, frames: dict[str, tuple[str | None, str, int]]) -> str:
    """Draw the name of a wording by its weight."""
    return rng.choices(list(frames), [weight for _, _, weight in frames.values()])[0]


def closed(name: str, question: str) -> tuple[Message, ...]:
    """A question without a passage, as messages."""
    system, template, _ = CLOSED[name]
    return _messages(system, template.replace("{question}", question))


def opened(name: str, question: str, context: str, existing: str = "") -> tuple[Message, ...]:
    """A question with a passage, as messages; `existing` is the answer that refine starts from."""
    system, template, _ = OPEN[name]
    parts = {"question": question, "context": context, "existing": existing}
    return _messages(system, template.format(**parts))


def _messages(system: str | None, user: str) -> tuple[Message, ...]:
    head = ({"role": "system", "content": system},) if system else ()
    return (*head, {"role": "user", "content": user})
