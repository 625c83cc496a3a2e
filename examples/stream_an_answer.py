"""Stream an answer of the built-in model, then look at what it thought of each token."""

from bitcal_integrations import Record, load

with load("bitcal-tiny", weights="qint4") as model:
    prompt = "Tom has 12 pens. Tom buys 30 more. How many pens does Tom have in the end?"
    for item in model.stream(prompt, parser="tiny", max_new_tokens=64):
        if not isinstance(item, Record):
            print(item.text, end="", flush=True)

        else:
            record = item

print(f"\n\nfinish: {record.generation.finish}, raw score: {record.confidence.raw}")
for step in record.generation.answer_steps():
    print(f"{step.text!r:8} log-probability {step.logprob:7.3f}  entropy {step.entropy:6.3f}")
