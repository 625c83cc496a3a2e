"""From labelled prompts to early stops with a promise: whole runs are logged, rules certified.

Every prompt is answered once, to its own end, with a trial answer at each checkpoint; the rules are
tried on these logs. Knows how to ask and grade, not how rules are found.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing as closed
from dataclasses import replace
from typing import Any, Literal, NamedTuple

from bitcal_integrations.answered import Progress, check_golds, gold_of
from bitcal_integrations.dataset import Example, read_examples
from bitcal_integrations.decide._stop_rule import plain
from bitcal_integrations.decide.stop import (
    PRESETS,
    LoggedRun,
    StopPlan,
    certify_stop,
)
from bitcal_integrations.errors import BadRequest, EngineClosed, ProfileError
from bitcal_integrations.features import parts_for
from bitcal_integrations.grading import Grader, as_grader, name_of
from bitcal_integrations.kept_runs import RunStore, header_of, kept_runs
from bitcal_integrations.profile import Profile, TaskProfile, decoding_of, differing, fingerprint_of
from bitcal_integrations.types import Record

_CLOSINGS = {
    "gsm8k": "#### ",
    "tiny": "#### ",
    "last_number": "Answer:",
    "choice": "Answer:",
    None: "Answer:",
}


def default_closing(parser: Any) -> str:
    """The text that asks for the answer where this parser will find it.

    >>> default_closing("gsm8k"), default_closing("last_number"), default_closing(None)
    ('#### ', 'Answer:', 'Answer:')
    """
    if parser is None or (isinstance(parser, str) and parser in _CLOSINGS):
        return _CLOSINGS[parser]
    name = name_of(parser) if callable(parser) else str(parser)
    raise BadRequest(
        f"no closing text is known for the parser {name}",
        "Give closing=..., the text after which the model writes its answer in your form.",
    )


def log_runs(
    model: Any,
    data: Any,
    *,
    closing: str | None = None,
    spacing: Literal["line", "sentence"] | int = "line",
    answer_tokens: int = 24,
    parser: str | Callable[..., Any] | None = None,
    grader: Any = "normalised",
    group_id: str | Callable[[Mapping[str, Any]], Any] | None = None,
    group_by: str | Sequence[str] = (),
    keep: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
    on_run: Callable[[LoggedRun], None] | None = None,
    **options: Any,
) -> list[LoggedRun]:
    """Answer every prompt to its end, with a trial answer at each checkpoint, and grade them all.

    `data` is a path to JSONL, a data set or a list of {"prompt", "gold"}; without a right answer
    `right` stays None, which certify_stop(kind="changed") can do with. `closing` is the text that
    asks for the answer: None takes the one of the parser, "#### " or "Answer:". `keep` names a file
    that gets the runs as they come; the same call goes on from it after a cut. `on_run` sees each
    run that is made, as it comes; what it raises ends the logging. A prompt that fails has no run.
    `options` are those of `ask`.
    """
    examples = read_examples(
        data, group_id=group_id, group_by=group_by, need_gold=False, any_gold=callable(grader)
    )
    how = {**options, "parser": parser} if parser is not None else dict(options)
    request = model.request_of("", **how)
    text = default_closing(request.parser) if closing is None else closing
    plan = StopPlan(closing=text, spacing=spacing, answer_tokens=answer_tokens, log=True)
    check_golds(examples, grader, request)
    model_of = fingerprint_of(parts_for(model.fingerprint_parts))
    asked = {**plan.asking, "decoding": decoding_of(request), "model": model_of}
    header = header_of(model, {**asked, "grader": grader, "options": how}) if keep else {}
    with kept_runs(keep, header) as store:
        left = [e for e in examples if not store.has(e)]
        logging = _Logging(as_grader(grader), asked, store, on_run, progress)
        failure = logging.log(model, left, {**how, "early_stop": plan}, len(examples))
        found = [
            replace(store.rows[e.id].run, group=e.group, by=dict(e.by))
            for e in examples
            if store.has(e)
        ]
    if failure is not None and not found:
        raise failure
    return found


class _Logging(NamedTuple):
    """How runs are judged and told, and where they go."""

    grade: Grader
    asked: Mapping[str, Any]
    store: RunStore
    on_run: Callable[[LoggedRun], None] | None
    progress: Progress | None

    def log(
        self, model: Any, examples: Sequence[Example], options: Mapping[str, Any], total: int
    ) -> Exception | None:
        """Log these examples, the last of `total`; the first failure, where one failed."""
        failure: Exception | None = None
        report = self.progress or (lambda done, total, label: None)
        before = total - len(examples)
        with closed(_answers(model, examples, options)) as answers:
            for done, (index, result) in enumerate(answers, before + 1):
                if isinstance(result, Exception):
                    failure = failure or result
                else:
                    run = run_of(result, examples[index], self.grade, self.asked)
                    self.store.add(examples[index], run)
                    if self.on_run is not None:
                        self.on_run(run)
                report(done, total, "logging full runs")
        return failure


def _answers(
    model: Any, examples: Sequence[Example], options: Mapping[str, Any]
) -> Generator[tuple[int, Any]]:
    with closed(model.ask_each([e.prompt for e in examples], **options)) as answers:
        for index, result in answers:
            if isinstance(result, EngineClosed):
                raise result
            yield index, result


def run_of(record: Record, example: Example, grade: Grader, asked: Mapping[str, Any]) -> LoggedRun:
    """A logged record with its verdicts; a text without an answer is not right."""
    generation, parser = record.generation, record.request.parser
    if generation.answer is not None:
        answer: str | None = generation.answer.text
    else:
        answer = (generation.text.strip() or None) if parser is None else None

    def judge(given: str | None) -> bool | None:
        if example.gold is None:
            return None
        return given is not None and bool(grade(given, gold_of(example.gold, parser)))

    places = generation.checkpoints
    return LoggedRun(
        places, generation.n_tokens, answer, judge(answer),
        tuple(judge(place.trial.answer) for place in places), generation.finish, example.id,
        example.group, dict(example.by), asked=asked,
    )  # fmt: skip


def certify_stops(
    model: Any,
    runs: Sequence[LoggedRun],
    presets: Sequence[str] = tuple(PRESETS),
    delta: float = 0.1,
    *,
    task: str = "default",
    closing: str | None = None,
    **how: Any,
) -> Profile:
    """The model's profile with certificates for these presets, which `early_stop=` then finds.

    `runs` come from `log_runs` of this very model with its task's options; runs that say that they
    were made with another parser, temperature or model are refused. `how` are further
    arguments of `certify_stop` (levels, kind, scores, label_source, simultaneous, seed); `closing`,
    `spacing` and `answer_tokens` are needed only for runs that do not say how they were logged.
    The result is saved with `profile.save(path)` and taken by `model.use_profile(profile)`.
    """
    profile = _own_profile(model)
    unknown = [name for name in presets if name not in PRESETS]
    if unknown or not presets:
        raise BadRequest(f"presets={list(presets)!r} must be some of {', '.join(PRESETS)}")
    name, one = profile.name_of(task), profile.task(task)
    measured = model.request_of("", task=task)
    if part := differing(one.decoding, decoding_of(measured)):
        raise ProfileError(
            f"the model's defaults are not what its profile was measured with: {part}"
        )
    _check_made(runs, one, profile)
    if closing is None and not any(getattr(run, "asked", None) for run in runs):
        closing = default_closing(one.parser)
    losses = [PRESETS[name] for name in presets]
    made = certify_stop(runs, losses, delta, closing=closing, **how)
    kept = [c for c in one.stops if c.max_loss not in losses]
    stops = tuple(sorted((*kept, *made), key=lambda certificate: certificate.max_loss))
    return replace(profile, tasks={**profile.tasks, name: replace(one, stops=stops)})


def _check_made(runs: Sequence[LoggedRun], task: TaskProfile, profile: Profile) -> None:
    """Refuse runs that were made by another model or decoding; those that do not say are taken."""
    own = {
        "decoding": plain(task.decoding), "model": fingerprint_of(parts_for(profile.parts)),
    }  # fmt: skip
    for run in runs:
        told = getattr(run, "asked", None) or {}
        for name, wanted in own.items():
            if (made := plain(told.get(name, wanted))) == wanted:
                continue
            if name == "decoding":
                part = differing(wanted, made)
            else:
                part = f"its model is {made}, measured was {wanted}"
            raise ProfileError(
                f"run {run.id!r} was not made as the profile's task was measured: {part}",
                "Log the runs with this model and the options of its task (task=...).",
            )


def _own_profile(model: Any) -> Profile:
    profile = model.profile
    if profile is None:
        raise ProfileError(
            "the model has no profile that could hold certificates of early stops",
            "Measure one with fit_profile, or use certify_stop and early_stop=<certificate>.",
        )
    if part := differing(profile.parts, model.fingerprint_parts):
        raise ProfileError(f"the profile is of another model: {part}")
    found: Profile = profile
    return found
