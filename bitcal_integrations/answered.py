"""Asks a model every example and keeps each answer as it comes, so that a cut run goes on.

Kept answers are used again where the same was asked of the same model; what a profile says of
them is computed afresh. Knows how to grade, not how to calibrate.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any

from bitcal_integrations.assess import Assessor
from bitcal_integrations.canary import answer_of
from bitcal_integrations.dataset import ANSWERS_FORMAT, Example
from bitcal_integrations.decide._stop_asked import as_asked, plan_of
from bitcal_integrations.engines._layers import tuned_in
from bitcal_integrations.errors import BadRequest, CalibrationError, EngineClosed
from bitcal_integrations.features import NO_PROFILE, PROBE, TUNED, Schema, parts_for, with_probe
from bitcal_integrations.grading import as_grader, as_parser, check_gold, name_of
from bitcal_integrations.kept import add_verdicts, kept_in, read_answers, read_kept, state_needed
from bitcal_integrations.request import OPTIONS
from bitcal_integrations.seen import is_marked
from bitcal_integrations.signals._probe import written
from bitcal_integrations.types import (
    Confidence,
    Labelled,
    Record,
    Request,
    make_request,
)

__all__ = [
    "Asking",
    "Progress",
    "add_verdicts",
    "answer_all",
    "check_golds",
    "comparable",
    "gold_of",
    "judged_again",
    "read_answers",
    "read_kept",
]

logger = logging.getLogger(__name__)
# Lists of mixed length, so that batches of every size leave their mark on what is calibrated.
WAVES = (1, 4, 16, 256)
Progress = Callable[[int, int, str], None]
PROMISED = ("max_loss", "delta", "n", "kind", "label_source")  # of a plan, told with each answer


@dataclass(frozen=True)
class Asking:
    """How every example is asked and graded; `options` are those of `ask`."""

    grader: Any = "normalised"
    schema: Schema | None = None
    task: str = "default"
    options: Mapping[str, Any] | None = None
    progress: Progress | None = None
    waves: tuple[int, ...] = WAVES
    shuffle: bool = True  # a file sorted by kind would look like a shift of the scores

    def header(self, model: Any) -> dict[str, Any]:
        """What must be equal for kept answers to be used again.

        A profile is not part of it: what it says of kept answers is computed from their signals. A
        verdict prompt that its features need is: they were measured with that one.
        """
        options = {k: v for k, v in self.plain_options.items() if k != "early_stop"}
        request, usual = self.request(model), make_request("")
        # What the model or its task adds; a kept state says of itself which layer's it is.
        for name in set(OPTIONS) - {"task", "hidden_layer", *options}:
            if (value := getattr(request, name)) != getattr(usual, name):
                options[name] = value
        if request.early_stop is not None:  # what a name stands for, which may change
            options["early_stop"] = request.early_stop
        header = {
            "format": ANSWERS_FORMAT,
            "model": parts_for(model.fingerprint_parts, *_schemas(model, self)),
            "grader": self.grader if isinstance(self.grader, str) else name_of(self.grader),
            "features": replace(self.schema, probe=None).to_dict() if self.schema else None,
            "options": options,
        }
        plain: dict[str, Any] = json.loads(json.dumps(header, default=_saved))
        return plain

    @property
    def plain_options(self) -> dict[str, Any]:
        return {k: v for k, v in (self.options or {}).items() if k != "return_errors"}

    def request(self, model: Any) -> Request:
        """How the model takes it: with its defaults, and with the parser of its task."""
        request: Request = model.request_of("", **{**self.plain_options, "task": self.task})
        return request


def answer_all(
    model: Any,
    examples: Sequence[Example],
    asking: Asking,
    keep: str | os.PathLike[str] | None = None,
) -> list[Labelled]:
    """Every example with its answer, features and verdict, in order.

    An example that fails is in the list with finish "error" and no verdict; with `keep` it is
    asked again the next time.
    """
    grader = as_grader(asking.grader)
    request = asking.request(model)
    check_golds(examples, asking.grader, request)
    needed = _needed(_schemas(model, asking))
    _check_untuned(model, examples, needed)
    with kept_in(keep, asking.header(model)) as store:
        kept = store.rows_of(examples, needed)
        done = dict(_renewed(kept, model, request, asking.schema))
        left = [e for e in examples if e.id not in done]
        if asking.shuffle:
            left.sort(key=lambda e: sha256(e.id.encode()).digest())
        report = asking.progress or (lambda done, total, label: None)
        report(len(done), len(examples), "answering")
        for wave in _waves(left, asking.waves):
            for example, result in _ask(model, wave, asking):
                row = _labelled(example, result, asking, grader, model)
                done[example.id] = row
                if row.finish != "error":
                    store.add(row)
                report(len(done), len(examples), "answering")
    rows = [replace(done[e.id], task=asking.task) for e in examples]
    failed = [row for row in rows if row.finish == "error"]
    if len(failed) == len(rows):
        raise CalibrationError(f"no example could be answered: {failed[0].confidence.reason}")
    if failed:
        logger.warning(
            "%d of %d examples failed: %s", len(failed), len(rows), failed[0].confidence.reason
        )
    return rows


def check_golds(examples: Sequence[Example], grader: Any, request: Request) -> None:
    """Refuse a parser that is none, and a right answer that no answer can be compared with."""
    as_parser(request.parser)
    for example in examples:
        if example.gold is not None:
            try:
                check_gold(grader, gold_of(example.gold, request.parser))
            except BadRequest as err:
                raise CalibrationError(f"example {example.id!r}: {err.message}") from None


def _check_untuned(model: Any, examples: Sequence[Example], features: Collection[str]) -> None:
    """Refuse to measure a tuned verdict that is not there, or on the prompts it was tuned on."""
    if TUNED not in features:
        return
    verdict = tuned_in(model)
    known = [e for e in examples if is_marked(e.prompt, verdict.seen)]
    if known:
        raise CalibrationError(
            f"the verdict prompt was tuned on {len(known)} of these {len(examples)} examples, the "
            f"first of them {known[0].id!r}: what {TUNED} says of them it has been told",
            "Keep the examples apart: some to tune the verdict, others to fit and to report.",
        )


def comparable(gold: Any, grader: Any) -> bool:
    """Whether a grader can compare an answer with this one."""
    try:
        check_gold(grader, gold)
    except BadRequest:
        return False
    return True


def _schemas(model: Any, asking: Asking) -> list[Schema]:
    """What an answer is measured for: the features asked for, and those of the model's profile."""
    schemas = [asking.schema] if asking.schema else []
    if model.profile is not None and not Assessor(model.profile, model.fingerprint_parts).foreign:
        schemas.append(model.profile.task(asking.task).schema)
    return schemas


def _needed(schemas: Sequence[Schema]) -> set[str]:
    """What an answer must have for these features to be known."""
    names = {n for schema in schemas for n in schema.names if n != PROBE}
    return names | {state_needed(schema.layer) for schema in schemas if schema.hidden}


def _renewed(
    rows: Mapping[str, Labelled], model: Any, request: Request, schema: Schema | None
) -> Iterator[tuple[str, Labelled]]:
    """Kept rows with the confidence that the model's profile of today gives their signals."""
    assessor = Assessor(model.profile, model.fingerprint_parts)
    for key, row in rows.items():
        confidence = row.confidence
        # A confidence that is exact by construction, as ToyModel's, comes from no profile.
        if model.profile is not None or confidence.interval != "exact":
            confidence = judged_again(assessor, request, row)
        signals = with_probe(confidence.signals, row.hidden, schema)
        yield key, replace(row, confidence=replace(confidence, signals=signals))


def judged_again(assessor: Assessor, request: Request, row: Labelled) -> Confidence:
    """What an assessor says of an answer that was kept with its signals.

    That of an answer that settled early is of its last score, by the certificate, and stays.
    """
    confidence = row.confidence
    if confidence.reason.startswith("no_answer") or row.finish == "settled":
        return replace(confidence, task=request.task)
    task = assessor.task(request.task)
    signals = with_probe(confidence.signals, row.hidden, task.schema if task else None)
    bare = Confidence(raw=confidence.raw, signals=signals, task=request.task, reason=NO_PROFILE)
    return assessor.of_signals(request, bare)


def _waves(examples: Sequence[Example], sizes: Sequence[int]) -> Iterator[Sequence[Example]]:
    at = turn = 0
    while at < len(examples):
        size = sizes[turn % len(sizes)]
        yield examples[at : at + size]
        at, turn = at + size, turn + 1


def _ask(model: Any, wave: Sequence[Example], asking: Asking) -> Iterator[tuple[Example, Any]]:
    options = {**(asking.options or {}), "task": asking.task, "features": asking.schema}
    with closing(model.ask_each([e.prompt for e in wave], **options)) as answers:
        for index, result in answers:
            if isinstance(result, EngineClosed):
                raise result
            yield wave[index], result


def _labelled(
    example: Example, result: Record | Exception, asking: Asking, grader: Any, model: Any
) -> Labelled:
    kinds = model.report().get("weights")
    row = Labelled(
        id=example.id, group=example.group, prompt=example.prompt, gold=example.gold, text="",
        answer=None, finish="error", correct=None, confidence=Confidence(reason=str(result)),
        weights="" if kinds is None else "+".join(kinds) or "none", task=asking.task,
        by=example.by,
    )  # fmt: skip
    if isinstance(result, Exception):
        return row
    found = result.generation.answer
    answer = found.text if found else None
    correct = None
    if example.gold is not None:
        gold = gold_of(example.gold, result.request.parser)
        correct = grader(answer_of(result), gold)
    return replace(
        row, text=result.text, answer=answer, finish=result.generation.finish, correct=correct,
        confidence=result.confidence,
        tokens=result.generation.n_tokens + result.generation.probe_tokens, stop=_stop_of(result),
        hidden=written(result.generation.hidden, result.request.hidden_layer),
    )  # fmt: skip


def _stop_of(record: Record) -> dict[str, Any] | None:
    """What a report tells of the early stop that was in force; None where none was."""
    plan = plan_of(as_asked(record.request.early_stop))
    if plan is None:
        return None
    promise = plan.promise or {}
    return {
        "level": (record.generation.stopped or {}).get("level"),
        "saving": promise.get("saved"),
        "promise": {name: promise[name] for name in PROMISED if name in promise},
        "probe_tokens": record.generation.probe_tokens,
    }


def _saved(value: Any) -> Any:
    """A plan or certificate as it is saved, anything else by its name."""
    return value.to_dict() if hasattr(value, "to_dict") else name_of(value)


def gold_of(gold: Any, parser: Any) -> Any:
    """The right answer itself, where a data set keeps a whole worked solution with `####`."""
    if isinstance(gold, str) and "####" in gold and parser in ("gsm8k", "tiny"):
        parse = as_parser(parser)
        answer = parse(gold) if parse else None
        return answer.text if answer else gold
    return gold
