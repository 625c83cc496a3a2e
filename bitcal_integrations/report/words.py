"""Numbers as text and sentences, the same for the HTML page and for Markdown.

Knows the words for labels and for a teacher's answers: what agrees is never called right. It
judges by the intervals it is given and computes none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bitcal_integrations.report.evaluation import (
    CALIBRATED,
    Estimate,
    Evaluation,
    Promise,
    Stops,
)

UNKNOWN = "–"


def fixed(value: float | None, digits: int = 3) -> str:
    """
    >>> fixed(0.12345), fixed(None), fixed(-0.5, 1), fixed(-0.0)
    ('0.123', '–', '−0.5', '0.000')
    """
    if value is None:
        return UNKNOWN
    text = f"{value:.{digits}f}"
    return text.lstrip("-") if not float(text) else text.replace("-", "−")


def percent(value: float | None, digits: int = 1) -> str:
    """
    >>> percent(0.7512), percent(None), percent(0.1, 0)
    ('75.1%', '–', '10%')
    """
    return UNKNOWN if value is None else f"{100 * value:.{digits}f}%"


def level(value: float | None) -> str:
    """A chosen level such as 0.1 or 0.025, without digits that were not chosen.

    >>> level(0.1), level(0.025)
    ('10%', '2.5%')
    """
    return UNKNOWN if value is None else f"{100 * value:.6g}%"


def count(n: int, one: str = "", many: str = "") -> str:
    """
    >>> count(1234), count(1, "row"), count(2, "row")
    ('1,234', '1 row', '2 rows')
    """
    return f"{n:,}" if not one else f"{n:,} {one if n == 1 else many or one + 's'}"


def interval(estimate: Estimate, digits: int = 3, share: bool = False) -> str:
    """'[low, high]', or nothing where there is no interval."""
    if estimate.low is None or estimate.high is None:
        return ""
    if share:
        return f"[{percent(estimate.low)}, {percent(estimate.high)}]"
    return f"[{fixed(estimate.low, digits)}, {fixed(estimate.high, digits)}]"


@dataclass(frozen=True)
class Wording:
    """What right and wrong are called: with a teacher, an answer only agrees or disagrees."""

    accuracy: str
    right: str
    wrong: str
    are_wrong: str
    evidence: str
    source: str


def wording(claim: str) -> Wording:
    teacher = claim.removeprefix("agrees with ")
    if claim == "is right":
        return Wording("accuracy", "right", "wrong", "are wrong", "labelled answers", "")
    return Wording(
        accuracy="agreement",
        right="agreeing",
        wrong="disagreeing",
        are_wrong=f"disagree with {teacher}",
        evidence=f"answers compared with those of {teacher}",
        source=f"Nothing is promised about being right: the labels are the answers of {teacher}.",
    )


def overview(e: Evaluation) -> str:
    """How many rows there are, and what happened to each kind."""
    c, words = e.counts, wording(e.claim)
    parts = [f"{count(c.rows, 'answer')} in {count(c.groups, 'group')}"]
    parts.append(f"{count(c.judged)} judged ({count(c.right)} {words.right}, "
                 f"{count(c.wrong)} {words.wrong})")  # fmt: skip
    parts.append(f"{count(c.unjudged)} unjudged")
    parts.append(f"{count(c.unknown)} with unknown confidence")
    text = ", ".join(parts) + "."
    if c.left_out:
        which = " and ".join(f"{count(n)} of the {part} part" for part, n in c.left_out.items())
        text += f" Left out, because calibration or certificates were made on them: {which}."
    return text


def findings(e: Evaluation) -> list[str]:
    """What the numbers say, each with the interval it rests on."""
    found = [_against(e.change, "the raw score"), _against(e.gain, "the base rate")]
    found.append(_against_floor(e))
    return [text for text in found if text] or [_nothing(e)]


def _nothing(e: Evaluation) -> str:
    if not e.counts.judged:
        return "No answer was judged, so nothing can be said about how good the confidence is."
    if not e.counts.scored:
        return "No judged answer has a confidence, so nothing can be said about how good it is."
    return "No judged answer has a calibrated confidence: only the raw score is shown."


def _against(change: Estimate, other: str) -> str:
    if change.value is None:
        return ""
    if change.low is None or change.high is None:
        way = "lower" if change.value < 0 else "higher"
        return (
            f"The Brier score of the calibrated confidence is {fixed(abs(change.value), 4)} {way} "
            f"than that of {other}; there are too few groups for an interval."
        )
    if change.high < 0:
        less = Estimate(-change.value, -change.high, -change.low)
        return f"Calibrated confidence beats {other}: its Brier score is {_with(less)} lower."
    if change.low > 0:
        more = _with(change)
        return f"Calibrated confidence is worse than {other}: its Brier score is {more} higher."
    return (
        f"No clear difference between calibrated confidence and {other}: the Brier score differs "
        f"by {_with(change)}."
    )


def _with(estimate: Estimate) -> str:
    return f"{fixed(estimate.value, 4)} {interval(estimate, 4)}"


def _against_floor(e: Evaluation) -> str:
    scores = next((s for s in e.scores if s.name == CALIBRATED and s.n), None)
    if scores is None or e.bins < 2 or scores.ece.value is None or scores.ece_floor_p95 is None:
        return ""
    if scores.ece.value <= scores.ece_floor_p95:
        verdict = "no miscalibration can be seen in this sample"
    else:
        verdict = "this is more than sampling explains"
    return (
        f"The ECE over {count(e.bins, 'bin')} of equal mass is {fixed(scores.ece.value)}. A "
        f"perfectly calibrated score shows {fixed(scores.ece_floor)} on average, and more than "
        f"{fixed(scores.ece_floor_p95)} in 5% of such samples, so {verdict}."
    )


def promise(p: Promise) -> list[str]:
    """The promise, its evidence, and what its threshold does on the rows of this report."""
    c, words = p.certificate, wording(p.claim)
    target = level(c.get("max_error"))
    if c.get("threshold") is None:
        return [f"No threshold could be certified for an error of {target}.", *_nearest(c, target),
                _evidence(c, words)]  # fmt: skip
    sure = level(1 - float(c["delta"])) if c.get("delta") is not None else UNKNOWN
    first = (f"Accept an answer if its confidence is at least {fixed(c['threshold'], 4)}{_for(p)}. "
             f"With probability at least {sure}, {_risk(p, words, target)}.")  # fmt: skip
    return [text for text in (first, _evidence(c, words), words.source, _observed(p)) if text]


def _for(p: Promise) -> str:
    named = [f"{kind} {name}" for kind, name in (("task", p.task), ("weights", p.weights)) if name]
    return f" ({', '.join(named)} only)" if named else ""


def _risk(p: Promise, words: Wording, target: str) -> str:
    if p.risk == "joint":
        both = words.are_wrong.removeprefix("are ")
        return f"at most {target} of all answers are accepted and {both}"
    if p.risk == "system":
        return f"at most {target} of the final answers, the fallback's included, {words.are_wrong}"
    return f"at most {target} of the accepted answers {words.are_wrong}"


def _evidence(c: Mapping[str, Any], words: Wording) -> str:
    parts = []
    if c.get("n") is not None:
        parts.append(f"{count(int(c['n']))} {words.evidence}")
    if c.get("delta") is not None:
        parts.append(f"delta {c['delta']:g}")
    parts.append(f"label source: {c.get('label_source') or 'not stated'}")
    if c.get("threshold") is not None and c.get("coverage") is not None:
        parts.append(f"{percent(c['coverage'])} accepted when it was made")
    if (c.get("simultaneous") or 1) > 1:
        parts.append(f"holds together with {c['simultaneous'] - 1} more")
    return f"Evidence: {', '.join(parts)}."


def _nearest(c: Mapping[str, Any], target: str) -> list[str]:
    """What could be certified instead, or what this error rate would need."""
    found = [f"{str(c['reason']).capitalize().rstrip('.')}."] if c.get("reason") else []
    if c.get("nearest") is not None:
        found.append(f"The smallest error rate that labels like these could certify is "
                     f"{level(c['nearest'])}; ask for it on fresh labels.")  # fmt: skip
    if c.get("labels_needed") is not None:
        found.append(f"For {target} about {count(int(c['labels_needed']))} labels are needed.")
    return found


def _observed(p: Promise) -> str:
    if p.share is None:
        return "No row of this report can show what this threshold does."
    words = wording(p.claim)
    text = f"Of the {count(p.n, 'scored answer')} of this report it accepts {percent(p.share)}"
    if p.error.value is None:
        return f"{text}."
    shown = f"{percent(p.error.value)} {interval(p.error, share=True)}"
    if p.risk == "joint":
        text += f"; {shown} of all are accepted and {words.are_wrong.removeprefix('are ')}."
    else:
        text += f", and {shown} of these {words.are_wrong}."
    target = p.certificate.get("max_error")
    if target is not None and p.error.low is not None and p.error.low > float(target):
        text += (
            " That is clearly more than promised: these answers may be unlike the certified ones."
        )
    return text


def saving(s: Stops) -> list[str]:
    """What ending early has cost and saved, in sentences."""
    early = sum(part.rows for part in s.ended if part.name in ("settled", "hopeless"))
    said = [
        f"Of {count(s.rows, 'answer')} that could end early, {count(early)} did. All "
        f"{count(s.rows)} took {count(s.tokens, 'token')}, {count(s.probe_tokens)} of them for "
        "trial answers and whatever else was asked beside the answers.",
        *map(_kept_promise, s.promises),
    ]
    if s.saved is None:
        return [*said, "How much was saved is not known: no plan here comes with a promise."]
    some = "" if s.promised == s.rows else f", for the {count(s.promised)} with a promise"
    more = "fewer" if s.saved >= 0 else "more"
    said.append(
        f"By what the certificate measured, that is about {count(abs(s.saved), 'token')} {more} "
        f"({percent(abs(s.share or 0.0))}) than to the full length{some}: an expectation, since "
        "how long an ended answer would have become is not known."
    )
    return said


def _kept_promise(promise: Mapping[str, Any]) -> str:
    """What a plan in force promises of every level at which it ends answers."""
    source = promise.get("label_source") or "labels"
    right = "right" if source == "labels" else f"in agreement with the {source}"
    loss = f"spoils, or gives up, an answer that was {right} at full length"
    loss = "changes the answer" if promise.get("kind") == "changed" else loss
    return (
        f"Promised: with probability {level(1 - promise['delta'])} or more, ending early {loss} in "
        f"at most {level(promise['max_loss'])} of the answers (n = {count(promise['n'])})."
    )


def claims(e: Evaluation) -> tuple[list[str], list[str]]:
    """What is claimed, and what is not."""
    words = wording(e.claim)
    if e.counts.unknown == e.counts.rows:
        return ["Nothing: no answer here has a calibrated confidence."], [
            "That the raw score is a probability."
        ]
    claimed = [
        f"The confidence is the probability that an answer {e.claim}.",
        "It is marginally calibrated: of many answers with a confidence near p, a share near p is "
        f"{words.right}, for questions like those it was measured on.",
    ]
    if any(p.certificate.get("threshold") is not None for p in e.promises):
        claimed.append("The certified thresholds keep their error rate on such questions, with the "
                       "probability stated beside each.")  # fmt: skip
    if not e.counts.scored:
        claimed.append("This was not checked here: no judged answer has a confidence.")
    refused = [
        "Calibration within a task, a weight type, a label or a single question: the breakdowns "
        "show how far it holds, and promise nothing.",
        "Anything about other data, another model, other weights, another prompt template or "
        "other decoding than those measured.",
        "That the raw score is a probability.",
    ]
    if words.source:
        refused.insert(0, words.source)
    return claimed, refused
