"""What one model has been measured to do: one JSON file per model, weight types and dtype.

A profile holds one or more named tasks, each with its parser, grader, features, calibrator and
certificates, the fingerprint of the model it was measured on, and canary prompts that tell later
whether a model still behaves like that one. It knows numbers and names; it runs no model but the
one handed to `check`.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from bitcal_integrations import calibrators
from bitcal_integrations.canary import CANARIES, Canary, Check, answer_of, by_options, judge
from bitcal_integrations.decide import Certificate, StopCertificate
from bitcal_integrations.errors import ProfileError
from bitcal_integrations.features import Schema, parts_for
from bitcal_integrations.grading import Absent, name_of
from bitcal_integrations.seen import is_marked, part_of, probed
from bitcal_integrations.types import Prompt, Record, Request

FORMAT, VERSION = "bitcal-profile", 1
FILE_NAME = "bitcal_profile.json"  # beside the weights, where profile="auto" finds it


def decoding_of(request: Request) -> dict[str, Any]:
    """What of a request decides which text comes: the rule of choice and the stops.

    Never max_new_tokens, seed or the prompt; top_p means nothing where decoding is greedy.
    """
    greedy = request.temperature == 0
    parser, schema = request.parser, request.response_schema
    return {
        **({} if schema is None else {"response_schema": fingerprint_of(schema)}),
        "temperature": float(request.temperature),
        "top_p": None if greedy else request.top_p,
        "stop": list(request.stop),
        "parser": name_of(parser) if callable(parser) else parser,
        "loop_stop": request.loop_stop,
        "chat": request.chat is not False,
        "chat_template_kwargs": dict(request.chat_template_kwargs),
    }


def fingerprint_of(parts: Mapping[str, Any]) -> str:
    """Sixteen hexadecimal digits for the parts of a model.

    >>> fingerprint_of({"dtype": "float32"}) == fingerprint_of({"dtype": "bfloat16"})
    False
    """
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def differing(mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> str:
    """The first part that differs, in words; a verdict prompt does only if `mine` has one."""
    for key in [*mine, *(k for k in theirs if k not in mine and k != "verdict")]:
        a, b = mine.get(key), theirs.get(key)
        if a != b:
            return f"{key} is {_short(b)}, measured was {_short(a)}"
    return ""


def _short(value: Any) -> str:
    if isinstance(value, Mapping):  # weight types per module: how many of each
        kinds = [str(v) for v in value.values()]
        return ", ".join(f"{k} x {kinds.count(k)}" for k in sorted(set(kinds))) or "none"
    return f"{value!r:.80}"


@dataclass(frozen=True)
class TaskProfile:
    """What was measured for one task.

    `scores` holds the metrics of the report part (base rate, raw, calibrated), `counts` the
    labels per part and what could not be used, `flips` how many decisions at `threshold` changed
    between batch 1 and batch 16, of `n`. `label_source` is "labels", or "teacher: NAME" where a
    stronger model's answers stood in: the confidence then means "agrees with", not "is right".
    `transferred_from` is the fingerprint of the profile that the calibrator was carried over from.
    `stops` are for ending texts early. A `parser` or `grader` of your own is kept while the profile
    is in memory; a file holds its name alone. `seen` marks the prompts of fit and certify.
    """

    parser: str | Callable[..., Any] | None
    grader: str | Callable[..., Any]
    decoding: Mapping[str, Any]
    schema: Schema
    calibrator: Any
    certificates: tuple[Certificate, ...] = ()
    stops: tuple[StopCertificate, ...] = ()
    label_source: str = "labels"
    counts: Mapping[str, int] = field(default_factory=dict)
    scores: Mapping[str, Any] = field(default_factory=dict)
    flips: Mapping[str, Any] = field(default_factory=dict)
    transferred_from: str | None = None
    seen: Mapping[str, str] = field(default_factory=dict)

    def part_of(self, prompt: Prompt) -> str:
        """The part that a prompt was in: fit or certify, else report, as all that is new."""
        return part_of(prompt, self.seen)

    def told(self, prompt: Prompt) -> bool:
        """Whether the probe of this task, if it has one, was fitted on the answer to a prompt."""
        return self.schema.probe is not None and is_marked(prompt, probed(self.seen))

    @property
    def claim(self) -> str:
        """What a confidence of this task is the probability of."""
        teacher = self.label_source.partition("teacher: ")[2]
        return f"agrees with {teacher}" if teacher else "is right"

    def certificate(self, max_error: float) -> Certificate | None:
        """The certificate for an error rate, or None where none was made for it."""
        return next((c for c in self.certificates if math.isclose(c.max_error, max_error)), None)

    def to_dict(self) -> dict[str, Any]:
        return {
            "parser": Absent.mark(self.parser),
            "grader": Absent.mark(self.grader),
            "decoding": dict(self.decoding),
            "schema": self.schema.to_dict(),
            "calibrator": self.calibrator.to_dict(),
            "certificates": [c.to_dict() for c in self.certificates],
            "stops": [c.to_dict() for c in self.stops],
            "label_source": self.label_source,
            "counts": dict(self.counts),
            "scores": dict(self.scores),
            "flips": dict(self.flips),
            "transferred_from": self.transferred_from,
            "seen": dict(self.seen),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> TaskProfile:
        read = {
            "parser": Absent.of("parser", data["parser"]),
            "grader": Absent.of("grader", data["grader"]),
            "schema": Schema.from_dict(data["schema"]),
            "calibrator": calibrators.from_dict(data["calibrator"]),
            "certificates": tuple(Certificate.from_dict(c) for c in data["certificates"]),
            "stops": tuple(StopCertificate.from_dict(c) for c in data.get("stops", ())),
        }
        return cls(**{**data, **read})


@dataclass(frozen=True)
class Profile:
    """The measured tasks of one model, with its fingerprint and canaries."""

    parts: Mapping[str, Any]
    tasks: Mapping[str, TaskProfile]
    default: str
    canaries: tuple[Canary, ...] = ()
    made_with: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def fingerprint(self) -> str:
        """Of the model that was measured, and of the probes, since each gives scores of its own."""
        fitted = {n: t.schema.probe.to_dict() for n, t in self.tasks.items() if t.schema.probe}
        return fingerprint_of({**self.parts, "probes": fitted} if fitted else self.parts)

    def task(self, name: str = "default") -> TaskProfile:
        """A task by its name; "default" is the default one, unless one has that very name."""
        return self.tasks[self.name_of(name)]

    def name_of(self, task: str = "default") -> str:
        """The very name of a task."""
        name = self.default if task == "default" and task not in self.tasks else task
        if name not in self.tasks:
            known = ", ".join(map(repr, self.tasks))
            raise ProfileError(f"the profile has no task {name!r}: it was measured on {known}")
        return name

    def options(self, task: str = "default") -> dict[str, Any]:
        """The options of `ask` that a task was measured with, the longest of its answers too."""
        one, name = self.task(task), self.name_of(task)
        chat = None if one.decoding["chat"] else False
        longest = [c.max_new_tokens for c in self.canaries if c.task == name]
        length = {"max_new_tokens": max(longest)} if longest else {}
        return {**one.decoding, "parser": one.parser, "chat": chat, **length}

    def using(self, task: str = "default", *, parser: Any = None, grader: Any = None) -> Profile:
        """The profile with your functions where its file holds only their names."""
        name = self.name_of(task)
        one = self.tasks[name]
        for role, given in (("parser", parser), ("grader", grader)):
            if given is None:
                continue
            mine = getattr(one, role)
            if (name_of(mine) if callable(mine) else mine) != name_of(given):
                raise ProfileError(f"{role}={name_of(given)} is not what was measured: {mine!r}")
            one = replace(one, **{role: given})
        return replace(self, tasks={**self.tasks, name: one})

    def with_tasks(self, other: Profile) -> Profile:
        """Both profiles' tasks, of the same model; the other's win where names are equal."""
        if difference := differing(other.parts, self.parts) and differing(self.parts, other.parts):
            raise ProfileError(f"profiles of two models cannot be joined: {difference}")
        kept = [c for c in self.canaries if c.task not in other.tasks]
        each = CANARIES // (len({c.task for c in kept}) + len(other.tasks)) or 1
        names = list(dict.fromkeys(c.task for c in kept))
        canaries = [c for name in names for c in [k for k in kept if k.task == name][:each]]
        canaries += list(other.canaries)[: CANARIES - len(canaries)]
        tasks = {**self.tasks, **other.tasks}
        parts = parts_for({**other.parts, **self.parts}, *(t.schema for t in tasks.values()))
        joined = replace(self, tasks=tasks, parts=parts, canaries=tuple(canaries))
        return replace(joined, made_with=other.made_with)

    def check(self, model: Any) -> Check:
        """Replay the canaries on a model: same, shifted, or void (nothing measured holds)."""
        if not self.canaries:
            raise ProfileError("the profile has no canaries, so nothing can be replayed")
        records: dict[int, Record] = {}
        for group in by_options(self.canaries):
            options = self._options(self.canaries[group[0]])
            answered = model.ask([self.canaries[i].prompt for i in group], **options)
            records.update(zip(group, answered, strict=True))
        pairs = [(canary, records[i]) for i, canary in enumerate(self.canaries)]
        agreement = sum(c.answer == answer_of(r) for c, r in pairs) / len(pairs)
        gaps = [abs(c.raw - r.confidence.raw) for c, r in pairs if r.confidence.raw is not None]
        return judge(
            agreement, sum(gaps) / len(gaps) if gaps else math.nan, len(pairs),
            differing(self.parts, model.fingerprint_parts), len(pairs) - len(gaps),
        )  # fmt: skip

    def _options(self, canary: Canary) -> dict[str, Any]:
        own = {"task": canary.task, "max_new_tokens": canary.max_new_tokens}
        options = {**self.options(canary.task), **own}
        if isinstance(options["parser"], Absent):
            options["parser"]()  # says what is missing
        return options

    def to_dict(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "version": VERSION,
            "fingerprint": self.fingerprint,
            "parts": dict(self.parts),
            "default": self.default,
            "tasks": {name: task.to_dict() for name, task in self.tasks.items()},
            "canaries": [c.to_dict() for c in self.canaries],
            "made_with": dict(self.made_with),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Profile:
        if data.get("format") != FORMAT or data.get("version") != VERSION:
            found = f"format {data.get('format')!r}, version {data.get('version')!r}"
            raise ProfileError(f"{found} is not a profile of this release: {FORMAT!r}, {VERSION}")
        _check_whole(data)
        return cls(
            parts=data["parts"],
            tasks={name: TaskProfile.from_dict(t) for name, t in data["tasks"].items()},
            default=data["default"],
            canaries=tuple(Canary.from_dict(c) for c in data["canaries"]),
            made_with=data["made_with"],
        )

    def save(self, path: str | Path) -> None:
        """Write the file beside itself first, so that a cut leaves the old one whole."""
        path = Path(path)
        text = json.dumps(
            self.to_dict(), ensure_ascii=False, allow_nan=False, separators=(",", ":")
        )
        temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
        try:
            temporary.write_text(text + "\n", encoding="utf-8")
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: str | Path) -> Profile:
        """Read a profile that `save` wrote."""
        try:
            data = json.loads(Path(path).read_text(encoding="utf-8"))
            if not isinstance(data, Mapping):
                raise ProfileError(f"{str(path)!r} is JSON, but not a profile")
            return cls.from_dict(data)
        except OSError as err:
            raise ProfileError(f"the profile {str(path)!r} cannot be read: {err.strerror}") from err
        except (ValueError, KeyError, TypeError, AttributeError) as err:
            raise ProfileError(f"{str(path)!r} is not a whole profile: {err!r:.200}") from err


def _check_whole(data: Mapping[str, Any]) -> None:
    for key in ("parts", "tasks", "made_with"):
        if not isinstance(data.get(key), Mapping) or (key != "made_with" and not data[key]):
            raise ProfileError(f"{key} {data.get(key)!r:.60} is not what a whole profile has")
    if data.get("default") not in data["tasks"]:
        known = ", ".join(map(repr, data["tasks"]))
        raise ProfileError(f"the default task {data.get('default')!r:.60} is none of {known}")
