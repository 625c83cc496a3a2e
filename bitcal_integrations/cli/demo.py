"""`bitcal demo`: a dozen questions, a confidence bar each, and which answers it would send on.

`compute` asks and grades, `draw` shows; neither does the other's work. Knows one model, the
built-in one.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from textwrap import wrap
from typing import TYPE_CHECKING, Any

from bitcal_integrations.cli._options import Weights, weights_of

if TYPE_CHECKING:
    from bitcal_integrations.decide import Certificate
    from bitcal_integrations.profile import TaskProfile
    from bitcal_integrations.tiny.tasks import Question
    from bitcal_integrations.types import Record

THRESHOLD, MAX_ERROR = 0.7, 0.1
WORDINGS = ("plain", "labelled")
# task -> the steps of a word problem, or the kind of a question, easy ones first
KINDS: dict[str, tuple[int | str, ...]] = {
    "math": (1, 2, 4, 6),
    "facts": ("head", "head", "torso", "tail"),
    "reading": ("answerable", "answerable", "answerable", "unknown"),
}
TITLES = {
    "math": "word problems",
    "facts": "facts, without a source",
    "reading": "reading: the answer is in the passage, or nowhere",
}
BAR = 20


@dataclass(frozen=True)
class Answered:
    """One question of the demo with its answer, graded, and what would be done with it."""

    question: Question
    record: Record
    right: bool
    send_on: bool
    why: str


@dataclass(frozen=True)
class Demo:
    """All that the demo shows: answers, seconds for all of them, memory in bytes."""

    answers: tuple[Answered, ...]
    seconds: float
    memory: dict[str, Any]
    dtype: str
    task: TaskProfile | None = None

    @property
    def tokens(self) -> int:
        return sum(a.record.generation.n_tokens for a in self.answers)


def demo(weights: Weights = "qint4") -> None:
    """Ask the built-in model a dozen questions, with scores."""
    from bitcal_integrations.cli._show import console

    draw(console(), compute(weights_of(weights)))


def compute(weights: str | None) -> Demo:
    """Ask all questions as one list, so that they share batches, and grade the answers."""
    from bitcal_integrations.cli._show import progress
    from bitcal_integrations.model import load

    asked = chosen()
    with progress() as report:
        model = load("bitcal-tiny", weights=weights, progress=report)
    with model:
        began = time.perf_counter()
        records = model.ask([q.messages for q in asked], parser="tiny", max_new_tokens=160)
        seconds = time.perf_counter() - began
        memory, dtype = model.memory_report(), model.report()["dtype"]
        task = model.profile.task() if model.profile is not None else None
    return Demo(graded(asked, records, promised(task)), seconds, memory, dtype, task)


def promised(task: TaskProfile | None) -> Certificate | None:
    """The certificate whose threshold decides, where one was made."""
    certificate = task.certificate(MAX_ERROR) if task is not None else None
    return None if certificate is None or certificate.threshold is None else certificate


def graded(
    asked: list[Question], records: list[Record], certificate: Certificate | None = None
) -> tuple[Answered, ...]:
    """Each question with its answer, right or wrong, and its fate."""
    from bitcal_integrations.tiny.tasks import grade

    return tuple(
        Answered(question, record, grade(question, record.text), *sent_on(record, certificate))
        for question, record in zip(asked, records, strict=True)
    )


def chosen() -> list[Question]:
    """The same dozen every time: easy and hard ones of each task, in wordings that fit here."""
    from bitcal_integrations.tiny.tasks import questions

    found: list[Question] = []
    for task, kinds in KINDS.items():
        fitting = [q for q in questions(task, "test", 300, seed=0) if q.wording in WORDINGS]
        for kind in kinds:
            right_kind = (q for q in fitting if kind in (q.steps, q.bucket) and q not in found)
            found.append(next(right_kind))
    return found


def sent_on(record: Record, certificate: Certificate | None = None) -> tuple[bool, str]:
    """Whether an answer would go to a stronger model, and why.

    Without a certified threshold, a usual one decides, which promises nothing.
    """
    from bitcal_integrations.cli._show import score
    from bitcal_integrations.decide import as_policy

    if record.confidence.value is not None:
        decision = as_policy(certificate or THRESHOLD).decide(record)
        return decision.action != "accept", decision.reason
    raw = record.confidence.raw
    if raw is None:
        return True, "no score"
    return raw < THRESHOLD, f"{score(raw)} {'<' if raw < THRESHOLD else '>='} {THRESHOLD:.2f}"


def shown_score(record: Record) -> float | None:
    """The calibrated probability, or the raw score where there is none."""
    value = record.confidence.value
    return record.confidence.raw if value is None else value


def draw(screen: Any, shown: Demo) -> None:
    """Print the demo: a block per task, then the sums."""
    for task, title in TITLES.items():
        screen.print(f"\n{title}", style="bold")
        for answered in shown.answers:
            if answered.question.task == task:
                draw_answer(screen, answered)
    screen.print()
    for line in sums(shown):
        screen.print(line)


def draw_answer(screen: Any, answered: Answered) -> None:
    """Two lines: the question, then bar, score, right or wrong, the answer and its fate."""
    from rich.text import Text

    from bitcal_integrations.cli._show import bar, score, shorten
    from bitcal_integrations.tiny.tasks import parse_answer

    shown = shown_score(answered.record)
    number = f"{shown:.2f}" if answered.record.confidence.calibrated else score(shown)
    colour = "yellow" if answered.send_on else "green"
    said = parse_answer(answered.record.text) or "nothing"
    if not answered.right:
        said += f" (it is {answered.question.gold})"
    screen.print(Text("  " + shorten(asked_text(answered.question), 76)))
    screen.print(
        Text.assemble(
            ("  " + bar(shown or 0.0, BAR), colour),
            f" {number}  ",
            ("right", "green") if answered.right else ("wrong", "red"),
            f"  {shorten(said, 20):<20}  ",
            (f"{'send on' if answered.send_on else 'keep'}: {answered.why}", colour),
        ),
        soft_wrap=True,
    )


def asked_text(question: Question) -> str:
    """The question itself, without the passage before it and the frame around it.

    For a person to read; the model gets all of it.
    """
    lines = str(question.messages[-1]["content"]).strip().splitlines()
    last = [line for line in lines if line.strip() and line.strip() != "Answer:"][-1]
    return last.removeprefix("Question: ")


def sums(shown: Demo) -> list[str]:
    """What came of it, what it cost, and what the scores are not."""
    from bitcal_integrations.cli._memory import rows
    from bitcal_integrations.cli._show import size

    kept = [a for a in shown.answers if not a.send_on]
    sent = [a for a in shown.answers if a.send_on]
    right = sum(a.right for a in shown.answers)
    lines = [
        f"right    {right} of {len(shown.answers)}",
        f"keep     {len(kept)}, {sum(a.right for a in kept)} of them right",
        f"send on  {len(sent)}, {sum(not a.right for a in sent)} of them wrong",
    ]
    total = rows(shown.memory, shown.dtype)[-1]
    return [
        *lines,
        f"speed    {shown.tokens / shown.seconds:.0f} tokens/s: {shown.tokens} tokens in "
        f"{shown.seconds:.1f} s, all {len(shown.answers)} as one list",
        f"memory   {size(total.after)} of weights ({size(total.before)} in {shown.dtype}), "
        f"{size(shown.memory['kv_bytes_per_token'])} of cache per token",
        "",
        *meaning(shown),
    ]


def meaning(shown: Demo) -> list[str]:
    """What the bars are, and on what evidence."""
    if shown.task is not None and any(a.record.confidence.calibrated for a in shown.answers):
        return calibrated(shown.task)
    reasons = [a.record.confidence.reason for a in shown.answers if a.record.generation.answer]
    return [
        f"The bars are raw scores, uncalibrated: {(reasons or ['no profile'])[0].rstrip('.')}.",
        f"A score of {THRESHOLD:.2f} does not mean that {THRESHOLD:.0%} of such answers are right;",
        "only a profile, measured on labelled examples, turns it into a probability.",
    ]


def calibrated(task: TaskProfile) -> list[str]:
    """What calibrated bars mean, and what the threshold promises."""
    counts, certificate = task.counts, promised(task)
    answers = sum(counts[part] for part in ("fit", "certify", "report"))
    said = (
        "The bars are calibrated: the probability that the answer is right, measured for these "
        f"weights on {answers:,} answers to other questions. "
    )
    if certificate is None:
        return wrap(f"{said}Kept is what reaches {THRESHOLD:.2f}; nothing is promised for it.", 79)
    return wrap(
        f"{said}Kept is what the certificate accepts, made on {counts['certify']:,} of these "
        f"answers, to {certificate.n:,} different questions: {certificate}",
        79,
    )
