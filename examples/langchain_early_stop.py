"""Three steps, each dearer than the one before; the chain ends as soon as a step is certain."""

from langchain_core.runnables import RunnableLambda

from bitcal_integrations.langchain import ChatBitCal, early_stop_chain
from bitcal_integrations.tiny.tasks import questions

int4 = ChatBitCal(model="bitcal-tiny", weights="qint4", max_tokens=160)
full = ChatBitCal(model="bitcal-tiny", weights=None, max_tokens=160)

check = RunnableLambda(lambda question: f"{question} Check your steps.")

chain = early_stop_chain(
    [int4, check | int4, check | full],
    names=["int4", "int4, checking", "full weights, checking"],
    stop_above=0.99,
    carry=lambda answer, question: question,  # every step is asked the question itself
)

plain = [q for q in questions("math", "test", 60, seed=4) if q.wording == "plain"][:6]
for asked in sorted(plain, key=lambda q: -q.steps):  # after the hard ones, it knows what it saves
    answer = chain.invoke(asked.prompt)
    steps = answer.response_metadata["bitcal"]["steps"]
    way = " -> ".join(f"{s['name']} {s['confidence'] or 0:.2f}" for s in steps["steps"])
    given, saved = answer.text.rpartition("#")[2].strip(), steps["saved"]
    tokens = "not known yet" if saved["tokens"] is None else f"about {saved['tokens']}"
    print(f"{given} (right: {asked.gold}), {steps['ended']}: {way}")
    print(f"    saved: {saved['steps']} steps, tokens: {tokens}")
