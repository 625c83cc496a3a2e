"""Keep the answers that a model is sure of and send the others on; needs no weights."""

from bitcal_integrations.testing.toy import ToyModel

THRESHOLD = 0.7

small = ToyModel({"Capital of France?": ("Paris", 0.95), "Capital of Palau?": ("Koror", 0.40)})
large = ToyModel({"Capital of Palau?": ("Ngerulmud", 0.90)})

with small, large:
    for question in ("Capital of France?", "Capital of Palau?"):
        record = small.ask(question)
        sure = record.confidence.value is not None and record.confidence.value >= THRESHOLD
        by = "small" if sure else "large"
        if not sure:
            record = large.ask(question)
        print(f"{question:20} {record.text:10} {record.confidence.value:.2f}  by the {by} model")
