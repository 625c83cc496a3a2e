"""A fallback chain: int4 answers first, what it is unsure of goes to int8, then to full weights."""

from bitcal_integrations.langchain import ChatBitCal
from bitcal_integrations.tiny.tasks import questions

int4, int8, full = (
    ChatBitCal(model="bitcal-tiny", weights=weights, task="math", max_tokens=160)
    for weights in ("qint4", "qint8", None)
)
chain = int4.with_confidence_fallback(
    [int8, full], min_confidence=0.97, names=["int4", "int8", "full"]
)

asked = questions("math", "test", 8, seed=5)
answers = chain.batch([[(m["role"], m["content"]) for m in q.messages] for q in asked])

for question, message in zip(asked, answers, strict=True):
    bitcal = message.response_metadata["bitcal"]
    way = [(a["name"], a["confidence"]) for a in bitcal["route"]["attempts"]]
    told = " -> ".join(f"{name} {'?' if sure is None else f'{sure:.2f}'}" for name, sure in way)
    given = message.text.rpartition("####")[2].strip()
    print(f"{told:32}  {bitcal['decision']['action']:9} {given} (right: {question.gold})")

kept = sum(m.response_metadata["bitcal"]["route"]["escalations"] == 0 for m in answers)
print(f"\n{kept} of {len(answers)} were answered by int4 alone")
