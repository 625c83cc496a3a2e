"""An output parser that only ever sees answers that are sure enough; the others go elsewhere."""

from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda

from bitcal_integrations import LowConfidenceError
from bitcal_integrations.langchain import ChatBitCal, ConfidenceGate
from bitcal_integrations.tiny.tasks import questions


def number(text: str) -> int:
    return int(text.rpartition("####")[2])


int2 = ChatBitCal(model="bitcal-tiny", weights="qint2", max_tokens=160)
full = ChatBitCal(model="bitcal-tiny", weights=None, max_tokens=160)
prompt = ChatPromptTemplate.from_messages([("user", "{question}")])
gate = ConfidenceGate(min_confidence=0.9)

quick = prompt | int2 | gate | StrOutputParser() | number
careful = prompt | full | gate | StrOutputParser() | number
person = RunnableLambda(lambda _: "a person is asked")
chain = quick.with_fallbacks([careful, person], exceptions_to_handle=(LowConfidenceError,))

asked = [q for q in questions("math", "test", 60, seed=2) if q.wording == "plain"][:6]
for question, found in zip(
    asked, chain.batch([{"question": q.prompt} for q in asked]), strict=True
):
    print(f"{found!s:18} (right: {question.gold:>3})  {question.prompt[:60]}...")
