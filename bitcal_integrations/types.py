"""What travels between the stages, from Step and Generation to Confidence, Decision and Record.

All are frozen and know nothing about models or frameworks. `to_dict` gives plain JSON values and
drops what is per token (steps and arrays); `from_dict` reads it back.
"""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

from bitcal_integrations.request import Prompt as Prompt
from bitcal_integrations.request import Request as Request
from bitcal_integrations.request import make_prompt as make_prompt
from bitcal_integrations.request import make_request as make_request

if TYPE_CHECKING:
    import numpy as np

Finish: TypeAlias = Literal[
    "stop", "length", "answer", "loop", "settled", "hopeless", "cancelled", "error"
]
PER_TOKEN = ("steps", "checkpoints", "hidden")
Action: TypeAlias = Literal["accept", "escalate", "abstain", "raise", "review"]


@dataclass(frozen=True)
class Step:
    """One generated token and what the model thought of it, from the raw logits, in nats.

    `text` is what the stream may show now (a piece that could begin a stop string waits for a
    later step); the texts of the steps without `reasoning` add up to Generation.text. `start` and
    `end` are the token's own characters in Generation.raw; in the finished Generation the tokens
    that began a character share the range of the one that completes it. `top_text` spells the
    alternatives in `top`, each decoded by itself. `forced`: a grammar left no other text here (but
    for a space), so that the token says nothing about the answer.
    """

    token_id: int
    text: str
    start: int
    end: int
    logprob: float
    entropy: float
    margin: float
    logsumexp: float
    top: tuple[tuple[int, float], ...] = ()
    top_text: tuple[str, ...] = ()
    reasoning: bool = False
    forced: bool = False


@dataclass(frozen=True)
class Answer:
    """The part of a text that is the answer: its words and its character range in that text."""

    text: str
    start: int
    end: int


@dataclass(frozen=True)
class Generation:
    """A finished text. `raw` is all of it; `text` is `raw` without the reasoning block.

    `answer` ranges over `raw`; `stop_string` is the stop text that ended it (not part of `raw`);
    `probe_tokens` counts tokens spent beside the text. `stopped` tells by what rule it ended early
    and what was promised, or with the level None why an early stop that was asked for by name was
    not in force. `checkpoints` are the places where it could have ended early, with their scores;
    `hidden` is the mean hidden state of the answer's tokens, where request.hidden_layer asked.
    """

    raw: str
    finish: Finish
    steps: tuple[Step, ...] = ()
    prompt_tokens: int = 0
    n_tokens: int = 0
    content_start: int = 0
    reasoning: str | None = None
    answer: Answer | None = None
    stop_string: str | None = None
    probe_tokens: int = 0
    stopped: Mapping[str, Any] | None = None
    checkpoints: tuple[Any, ...] = ()
    hidden: np.ndarray | None = field(default=None, compare=False, repr=False)

    @property
    def text(self) -> str:
        return self.raw[self.content_start :]

    @property
    def finish_reason(self) -> Literal["stop", "length"]:
        """What frameworks see: 'length' if it was cut, else 'stop'."""
        return "length" if self.finish == "length" else "stop"

    def answer_steps(self) -> tuple[Step, ...]:
        """The steps whose characters lie in the answer; empty without an answer."""
        if self.answer is None:
            return ()
        first, last = self.answer.start, self.answer.end
        return tuple(
            s for s in self.steps
            if (s.start < last and s.end > first) or (s.start == s.end and first < s.start < last)
        )  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        kept = [f.name for f in dataclasses.fields(self) if f.name not in PER_TOKEN]
        out = {name: getattr(self, name) for name in kept}
        return {**out, "answer": dataclasses.asdict(self.answer) if self.answer else None}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Generation:
        answer = data.get("answer")
        return cls(**{**data, "answer": Answer(**answer) if answer else None})


@dataclass(frozen=True)
class Observation:
    """What a signal may measure: a generation as plain arrays, one entry per token.

    `span` is the token range of the answer, or None when no answer was found; `answer` is its
    text. `samples` are further answers to the same prompt, `passes` what extra passes gave under
    the name of the signal that asked for them, `hidden` a pooled hidden state, read by `probe`.
    """

    text: str
    finish: Finish
    logprob: np.ndarray
    entropy: np.ndarray
    margin: np.ndarray
    logsumexp: np.ndarray
    span: tuple[int, int] | None = None
    answer: str | None = None
    samples: tuple[Generation, ...] = ()
    passes: Mapping[str, tuple[Generation, ...]] = field(default_factory=dict)
    hidden: np.ndarray | None = None
    probe: Callable[[np.ndarray], float] | None = None

    @classmethod
    def of(
        cls, generation: Generation, samples: tuple[Generation, ...] = (),
        passes: Mapping[str, tuple[Generation, ...]] | None = None,
    ) -> Observation:  # fmt: skip
        import numpy as np

        rows = [(s.logprob, s.entropy, s.margin, s.logsumexp) for s in generation.steps]
        logprob, entropy, margin, logsumexp = np.asarray(rows, np.float64).reshape(-1, 4).T
        inside = set(map(id, generation.answer_steps()))
        where = [i for i, s in enumerate(generation.steps) if id(s) in inside]
        span, answer = (where[0], where[-1] + 1) if where else None, generation.answer
        return cls(
            generation.raw, generation.finish, logprob, entropy, margin, logsumexp, span,
            answer.text if answer else None, samples, passes or {}, generation.hidden,
        )  # fmt: skip


@dataclass(frozen=True)
class Confidence:
    """The probability that an answer is right, or None with the reason why it is unknown.

    `low` and `high` bound it by the interval named in `interval`; `raw` is the uncalibrated
    score in [0, 1], kept whenever there is one.
    """

    value: float | None = None
    calibrated: bool = False
    low: float | None = None
    high: float | None = None
    interval: str | None = None
    raw: float | None = None
    signals: Mapping[str, float] = field(default_factory=dict)
    profile: str | None = None
    task: str = "default"
    reason: str = ""

    def to_dict(self) -> dict[str, Any]:
        out = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {**out, "signals": dict(self.signals)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Confidence:
        return cls(**data)


@dataclass(frozen=True)
class Decision:
    """What to do with an answer, and why."""

    action: Action
    reason: str

    def to_dict(self) -> dict[str, Any]:
        return {"action": self.action, "reason": self.reason}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Decision:
        return cls(**data)


@dataclass(frozen=True)
class Labelled:
    """One example with its answer and verdict: what calibration is fitted on and reports show.

    `correct` None is not judged; `part` is fit, certify or report; `by` holds the user's own labels
    to break results down by. `stop` tells of an early stop that was in force: the `level` that
    ended the answer or None, the `saving` expected of the plan, and the `probe_tokens` spent.
    `hidden` is the answer's pooled hidden state as text, with its `layer`, where one was read.
    """

    id: str
    group: str
    prompt: Prompt
    gold: Any
    text: str
    answer: str | None
    finish: Finish
    correct: bool | None
    confidence: Confidence
    tokens: int = 0
    weights: str = ""
    task: str = "default"
    part: str = ""
    by: Mapping[str, str] = field(default_factory=dict)
    stop: Mapping[str, Any] | None = None
    hidden: Mapping[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        out = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {**out, "confidence": self.confidence.to_dict(), "by": dict(self.by)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Labelled:
        confidence = Confidence.from_dict(data["confidence"])
        return cls(**{**data, "prompt": make_prompt(data["prompt"]), "confidence": confidence})


@dataclass(frozen=True)
class Timing:
    """Seconds from submission: until decoding began, until the first token, until the end."""

    queued: float = 0.0
    first_token: float = 0.0
    total: float = 0.0


@dataclass(frozen=True)
class Record:
    """One answered request: generation, confidence, decision and timing. What monitor reads."""

    request: Request
    generation: Generation
    confidence: Confidence
    decision: Decision | None = None
    timing: Timing = field(default_factory=Timing)
    model: str = ""
    id: str = field(default_factory=lambda: uuid.uuid4().hex)

    @property
    def text(self) -> str:
        return self.generation.text

    def bitcal(self) -> dict[str, Any]:
        """The JSON dict that travels under the key `bitcal` in every framework object."""
        c = self.confidence
        return {
            "confidence": c.value,
            **{name: getattr(c, name) for name in ("calibrated", "low", "high", "raw")},
            "signals": {k: float(v) for k, v in c.signals.items()},
            "profile": c.profile,
            "task": c.task,
            "finish": self.generation.finish,
            "stopped": dict(stopped) if (stopped := self.generation.stopped) else None,
            "decision": self.decision.to_dict() if self.decision else None,
            "reason": c.reason,
        }

    def to_dict(self) -> dict[str, Any]:
        parts = ("request", "generation", "confidence")
        return {
            "id": self.id,
            "model": self.model,
            **{name: getattr(self, name).to_dict() for name in parts},
            "decision": self.decision.to_dict() if self.decision else None,
            "timing": dataclasses.asdict(self.timing),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Record:
        request = dict(data["request"])
        return cls(
            request=make_request(request.pop("prompt"), **request),
            generation=Generation.from_dict(data["generation"]),
            confidence=Confidence.from_dict(data["confidence"]),
            decision=Decision.from_dict(data["decision"]) if data["decision"] else None,
            timing=Timing(**cast("dict[str, float]", data["timing"])),
            model=data["model"], id=data["id"],
        )  # fmt: skip
