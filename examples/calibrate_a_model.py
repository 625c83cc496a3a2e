"""Measure a model on labelled examples, keep the profile, and see what it promises.

Here the model is the built-in one with 4-bit weights.
"""

from bitcal_integrations import load
from bitcal_integrations.fit import evaluate, fit_profile
from bitcal_integrations.tiny.tasks import questions


def rows(split: str, n: int) -> list[dict]:
    """Labelled examples: a prompt, its right answer, and an id."""
    asked = questions("reading", split, n)
    return [
        {"prompt": q.messages, "gold": q.gold, "id": f"{q.id}-{i}", "kind": q.bucket}
        for i, q in enumerate(asked)
    ]


with load("bitcal-tiny", weights="qint4", profile=None, max_new_tokens=40) as model:
    profile = fit_profile(
        model,
        rows("calibration", 400),
        parser="first_line",
        grader="normalised",
        answers="answers.jsonl",
    )
    profile.save("profile.json")
    model.use_profile("profile.json")
    fresh = evaluate(model, rows("test", 100), group_by="kind")

task = profile.task()
print("calibrator:", task.calibrator.method, "-", task.calibrator.reason)
for name, scores in task.scores.items():
    print(f"{name:<11} Brier {scores['brier']:.3f}  ECE {scores['ece']:.3f}")
for certificate in task.certificates:
    print(certificate)

known = [row for row in fresh if row.confidence.value is not None]
claimed = sum(row.confidence.value for row in known) / len(known)
right = sum(bool(row.correct) for row in known) / len(known)
print(f"{len(known)} fresh questions: {claimed:.0%} claimed, {right:.0%} right")
