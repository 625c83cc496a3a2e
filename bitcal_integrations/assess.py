"""From a generation to its Confidence: what must be measured for it, and what the profile says.

Knows profiles, features and requests. It runs no model: it names the further requests that an
answer needs (samples, extra passes) and takes what came of them.
"""

from __future__ import annotations

import math
import os
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from bitcal_integrations.decide._stop_asked import as_asked, settled_confidence
from bitcal_integrations.decide.stop import PRESETS, StopCertificate
from bitcal_integrations.errors import BadRequest, ProfileError
from bitcal_integrations.features import (
    NO_PROFILE,
    Schema,
    extra_requests,
    measure_all,
    nothing_for,
    sample_requests,
    uncalibrated,
    with_agreement,
)
from bitcal_integrations.grading import Absent
from bitcal_integrations.profile import (
    FILE_NAME,
    Profile,
    TaskProfile,
    decoding_of,
    differing,
)
from bitcal_integrations.tiny.assets import MODEL_NAME, shipped_profile
from bitcal_integrations.toolcalls import tool_calls_of
from bitcal_integrations.types import Confidence, Generation, Observation, Request

# Scores are compared with the calibration set in windows of this many answers.
WINDOW, EVERY = 256, 32
NO_LOGPROBS = "the answer came without log-probabilities"
_UNFINISHED = {"cancelled": "was cancelled", "error": "failed"}


def find_profile(
    profile: Any, model: Any, weights: Mapping[str, str], dtype: str, repair: Any = None
) -> Profile | None:
    """The profile asked for; "auto" looks beside the weights, or into the package.

    A repaired model has a profile of its own; repaired in another way it has none.
    """
    if profile is None or isinstance(profile, Profile):
        return profile
    if not isinstance(profile, (str, os.PathLike)):
        raise BadRequest(
            f"profile={profile!r:.100} is not allowed: use 'auto', None, a path or a Profile"
        )
    if profile != "auto":
        return Profile.load(Path(profile))
    if not isinstance(model, (str, os.PathLike)):
        return None
    if os.fspath(model) != MODEL_NAME or Path(MODEL_NAME).is_dir():
        path: Path | None = Path(model) / FILE_NAME
    else:
        path = shipped_profile(set(weights.values()), dtype, (repair or {}).get("name", ""))
    found = Profile.load(path) if path and path.is_file() else None
    return None if found and repair and found.parts.get("repair") != repair else found


@dataclass(frozen=True)
class Extras:
    """Requests beside the answer: under "" further samples, else under an extra pass's name."""

    keys: tuple[str, ...]
    requests: tuple[Request, ...]

    def gather(
        self, results: Sequence[Any]
    ) -> tuple[tuple[Generation, ...], dict[str, tuple[Generation, ...]], int]:
        """(samples, passes, tokens spent) of what came; a pass of which a part failed is left out,
        so that its signal is missing and the confidence unknown."""
        found: dict[str, list[Generation]] = {}
        failed = {k for k, r in zip(self.keys, results, strict=True) if isinstance(r, Exception)}
        tokens = 0
        for key, result in zip(self.keys, results, strict=True):
            if not isinstance(result, Exception):
                tokens += result.generation.n_tokens
                found.setdefault(key, []).append(result.generation)
        whole = {key: tuple(got) for key, got in found.items() if key not in failed}
        samples = whole.pop("", ())
        return samples, whole, tokens


def extras_of(schemas: Sequence[Schema | None], request: Request, generation: Generation) -> Extras:
    """What must be asked beside an answer before the features of these schemas can be measured."""
    pairs: dict[tuple[str, int], Request] = {}
    request = replace(request, early_stop=None, hidden_layer=None)  # each goes to its own end
    for schema in schemas if not unanswered(request, generation) else ():
        if schema is None:
            continue
        for index, further in enumerate(sample_requests(schema, request)):
            pairs.setdefault(("", index), further)
        for name, needed in extra_requests(schema, request, generation).items():
            for index, further in enumerate(needed):
                pairs.setdefault((name, index), further)
    return Extras(tuple(key for key, _ in pairs), tuple(pairs.values()))


def unanswered(request: Request, generation: Generation) -> str:
    """Why a generation holds no answer that could be right or wrong; empty when it does."""
    if generation.finish == "hopeless":
        rule = (generation.stopped or {}).get("rule", "no rule is known")
        return f"no_answer: given up early ({rule})"
    if generation.finish in _UNFINISHED:
        return f"no_answer: the generation {_UNFINISHED[generation.finish]}"
    if not generation.text.strip():
        return "no_answer: the text is empty"
    if request.tools and tool_calls_of(generation, request):
        return "no_answer: the text calls a tool"
    if generation.answer is not None:
        return ""
    if request.parser is not None:
        return nothing_for(request.parser)
    if generation.finish == "length":
        return "no_answer: the text was cut at max_new_tokens"
    return "no_answer: the text repeats itself" if generation.finish == "loop" else ""


class Assessor:
    """A profile at work for one model: fills in a task's parser, and judges what comes."""

    def __init__(
        self, profile: Profile | None, parts: Mapping[str, Any], strict: bool = False
    ) -> None:
        self.profile = profile
        self.foreign = ""
        if profile is None:
            mended = parts.get("repair")
            self.foreign = f"{NO_PROFILE} with the repair {mended}" if mended else NO_PROFILE
        elif part := differing(profile.parts, parts):
            self.foreign = f"the profile is of another model: {part}"
        self.strict = strict
        if strict and self.foreign:
            raise ProfileError(
                f"strict=True refuses a model without its own profile ({self.foreign})",
                "Measure one with fit_profile, or load it with strict=False.",
            )
        self._watches: dict[str, _Watch] = {}
        self._lock = threading.Lock()

    def task(self, name: str) -> TaskProfile | None:
        """The task's profile, or None where nothing that was measured holds for this model."""
        if self.profile is None or self.foreign:
            return None
        try:
            return self.profile.task(name)
        except ProfileError as err:
            raise BadRequest(err.message) from None

    def resolve(self, request: Request) -> Request:
        """The request with its task's parser where it names none, and its early stop as an object.

        A name that nothing was certified for stays as it is: then the text ends as without it.
        """
        request = self._with_parser(request)
        if request.early_stop is None:
            return request
        found = as_asked(request.early_stop)
        if isinstance(found, str):
            certificate, why = self._certified(found, request)
            if certificate is None and self.strict:
                raise ProfileError(f"strict=True refuses early_stop={found!r}: {why}")
            found = found if certificate is None else certificate
        return replace(request, early_stop=found)

    def _certified(self, name: str, request: Request) -> tuple[StopCertificate | None, str]:
        """The certificate that a name stands for here, or why there is none."""
        task = self.task(request.task)
        if task is None:
            return None, self.foreign
        if reason := self._other_decoding(task, request):
            return None, reason
        if request.constrained:
            return None, "tools and response_schema hold the text to a form"
        made = next((c for c in task.stops if math.isclose(c.max_loss, PRESETS[name])), None)
        if made is None:
            return None, "the profile has no certificate for it (see stopping.certify_stops)"
        return (made, "") if made.plan is not None else (None, f"{made}")

    def noted(self, request: Request, generation: Generation) -> Generation:
        """The generation with the reason why an early stop that was asked for was not in force."""
        asked = request.early_stop
        if isinstance(asked, str):
            why = f"early_stop={asked!r}: {self._certified(asked, request)[1]}"
        elif isinstance(asked, StopCertificate) and asked.plan is None:
            why = str(asked)
        else:
            return generation
        return replace(generation, stopped={"level": None, "reason": why})

    def _with_parser(self, request: Request) -> Request:
        task = self.task(request.task)
        if task is None or request.parser is not None or task.parser is None:
            return request
        if isinstance(task.parser, Absent):
            task.parser()  # says what is missing
        return replace(request, parser=task.parser)

    def schema(self, request: Request, generation: Generation | None = None) -> Schema | None:
        """What to measure for this request's confidence; None where the bare signals do."""
        if generation is not None and generation.finish == "settled":
            return None
        task = self.task(request.task)
        return None if task is None or self._other_decoding(task, request) else task.schema

    def _other_decoding(self, task: TaskProfile, request: Request) -> str:
        part = differing(task.decoding, decoding_of(request))
        return f"the profile was measured with another decoding: {part}" if part else ""

    def confidence(
        self, request: Request, generation: Generation, observation: Observation | None = None
    ) -> Confidence:
        """The calibrated probability that the answer is right, or why it is unknown."""
        seen = observation or Observation.of(generation)
        bare = uncalibrated(request, generation, seen)
        if reason := unanswered(request, generation):
            return replace(bare, reason=reason)
        if generation.finish == "settled":
            if self.profile is not None and not self.foreign:
                bare = replace(bare, profile=self.profile.fingerprint)
            return settled_confidence(request.early_stop, generation.checkpoints, bare)
        if (schema := self.schema(request)) is not None:
            more = measure_all(seen, schema.behind(request.hidden_layer))
            bare = replace(bare, signals={**bare.signals, **more})
        found = self.of_signals(request, with_agreement(bare))
        ours = not self.foreign or self.profile is None
        if found.value is None and not generation.steps and ours:
            return replace(found, reason=NO_LOGPROBS)
        return found

    def of_signals(self, request: Request, bare: Confidence) -> Confidence:
        """The confidence of an answer whose signals are known, as those of kept answers are."""
        task = self.task(request.task)
        if task is None or self.profile is None:
            return replace(bare, reason=self.foreign)
        if reason := self._other_decoding(task, request):
            return replace(bare, reason=reason, profile=self.profile.fingerprint)
        return self._calibrated(task, bare, request.task)

    def _calibrated(self, task: TaskProfile, bare: Confidence, name: str) -> Confidence:
        assert self.profile is not None
        bare = replace(bare, profile=self.profile.fingerprint)
        row = task.schema.vector(bare.signals)[None, :]
        if not np.isfinite(row).all():
            missing = [n for n, v in zip(task.schema.names, row[0], strict=True) if v != v]
            return replace(bare, reason=f"not measured: {', '.join(missing)}")
        low, high = (float(v) for v in task.calibrator.interval(row)[0])
        kind, value = task.calibrator.interval_kind, float(task.calibrator(row)[0])
        reason = "" if task.claim == "is right" else f"the probability that it {task.claim}"
        if shifted := self._shifted(task, name, row):
            # What was measured may not hold here, so no bound can be claimed.
            low, high, kind, reason = 0.0, 1.0, "none: shifted", shifted
        return replace(
            bare, value=value, calibrated=True, low=low, high=high, interval=kind, reason=reason
        )

    def _shifted(self, task: TaskProfile, name: str, row: np.ndarray) -> str:
        with self._lock:
            watch = self._watches.setdefault(name, _Watch())
            return watch.see(task.calibrator, row[0])


class _Watch:
    """The last feature rows of one task, compared with the calibration set now and then."""

    def __init__(self) -> None:
        self._rows: deque[np.ndarray] = deque(maxlen=WINDOW)
        self._seen = 0
        self._verdict = ""

    def see(self, calibrator: Any, row: np.ndarray) -> str:
        """Why these scores are unlike the calibration set; empty while they are like it."""
        self._rows.append(row)
        self._seen += 1
        if self._seen >= 2 * EVERY and self._seen % EVERY == 0:
            report = calibrator.shift(np.stack(self._rows))
            self._verdict = (
                ""
                if report.in_domain
                else f"shifted: the last {len(self._rows)} scores are unlike the calibration set "
                f"(distance {report.distance:.2f}, p = {report.p_value:.1g})"
            )
        return self._verdict
