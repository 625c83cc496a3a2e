"""What answered rows give: which of them are fitted on, and of how many a certificate speaks."""

from __future__ import annotations

from typing import Any

import numpy as np

from bitcal_integrations.features import make_schema
from bitcal_integrations.fitted import FitOptions, fit_rows, usable
from bitcal_integrations.types import Confidence, Labelled

SCHEMA = make_schema(("mean_logprob",))


def rows(n: int, part: str, seed: int = 0, **changed: Any) -> list[Labelled]:
    """Answers that are right as often as their probability says."""
    scores = np.random.default_rng(seed).uniform(-0.5, 0.0, n)
    right = np.random.default_rng(seed + 1).random(n) < np.exp(scores)
    given = {"text": "42", "answer": "42", "finish": "stop", **changed}
    made = []
    for i, (score, correct) in enumerate(zip(scores.tolist(), right.tolist(), strict=True)):
        confidence = Confidence(None, raw=float(np.exp(score)), signals={"mean_logprob": score})
        own = {"confidence": confidence, "correct": correct, **given}
        made.append(
            Labelled(f"{part}-{seed}-{i}", f"{part}-{seed}-{i}", "?", "42", part=part, **own)
        )
    return made


ANSWERED = [*rows(300, "fit"), *rows(200, "certify", 2), *rows(100, "report", 4)]
UNANSWERED = rows(
    50, "certify", 6, correct=None, answer=None, text="",
    confidence=Confidence(None, reason="no_answer: cut at the length"),
)  # fmt: skip


def test_the_share_accepted_is_of_all_that_is_asked() -> None:
    """A fifth has no answer: it is never accepted, and a certificate says so in its coverage."""
    how = FitOptions(max_errors=(0.4,))
    (whole,) = fit_rows(ANSWERED, SCHEMA, how).certificates
    (made,) = fit_rows([*ANSWERED, *UNANSWERED], SCHEMA, how).certificates
    assert (whole.n, whole.unknown) == (200, 0)
    assert (made.n, made.unknown) == (250, 50)
    assert made.accepted == whole.accepted > 0
    assert made.threshold == whole.threshold
    assert made.coverage == whole.coverage * 200 / 250


def test_an_answer_without_a_feature_is_unknown_and_one_without_a_verdict_is_left_out() -> None:
    unmeasured = rows(3, "certify", 8, confidence=Confidence(None, raw=0.5))
    unjudged = rows(4, "certify", 9, correct=None)
    part = usable([*ANSWERED, *UNANSWERED, *unmeasured, *unjudged], SCHEMA, "certify")
    assert (len(part.y), len(part.lost)) == (200, 53)
