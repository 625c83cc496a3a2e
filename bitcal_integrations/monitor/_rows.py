"""What a store keeps of a Record, and what it gives back.

A row has the numbers that reports ask for as columns, and the whole record as JSON beside them.
Without texts every text in that JSON is a salted hash: equal texts have equal hashes, and who
has the store can still try whether a text that he guesses is in it. Knows no database.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeAlias

from bitcal_integrations.types import Record

Hash: TypeAlias = Callable[[Any], str]
DIGITS = 32
ROLES = ("system", "user", "assistant", "tool", "developer")
# Keys whose strings are words of ours, or names that the user gave to models and tasks.
NAMES = {"model", "task", "profile", "finish", "action", "interval", "id", "parser"}
NAMES |= {"level", "rule", "score", "kind", "unit"}  # of what ended an answer early
# How a reason of ours may begin; what follows a colon can quote.
REASONS = (
    "no_answer",
    "shifted",
    "not measured",
    "expired",
    "malformed bitcal",
    "malformed log-probabilities",
)


@dataclass(frozen=True)
class Label:
    """Whether an answer was right: 1.0 right, 0.0 wrong, or how likely it was right.

    `source` says who says so, `at` when (seconds since 1970), `gold` what the right answer is.
    """

    record_id: str
    correct: float
    source: str
    at: float
    gold: Any = None


@dataclass(frozen=True)
class Pick:
    """An answer that was chosen to be labelled, with the probability that it was chosen."""

    record_id: str
    probability: float
    why: str
    at: float


@dataclass(frozen=True)
class StoredRecord:
    """One answer as a store keeps it; times are seconds since 1970, `seconds` until the end.

    `label` is the last one given to it, `pick` the last choice of it for labelling. `prompt_hash`
    and `answer_hash` are equal where the texts are. `record` has everything, read when asked for.
    """

    seq: int
    id: str
    at: float
    model: str
    task: str
    profile: str | None
    finish: str
    action: str | None
    action_reason: str | None
    confidence: float | None
    raw: float | None
    prompt_tokens: int
    n_tokens: int
    probe_tokens: int
    seconds: float
    prompt_hash: str
    answer_hash: str | None
    data: str = field(repr=False)
    label: Label | None = None
    pick: Pick | None = None

    @cached_property
    def record(self) -> Record:
        data = json.loads(self.data)
        signals = data["confidence"]["signals"]
        data["confidence"]["signals"] = {
            k: math.nan if v is None else v for k, v in signals.items()
        }
        if self.action is not None:  # it may have come later than the rest
            data["decision"] = {"action": self.action, "reason": self.action_reason or ""}
        return Record.from_dict(data)

    @property
    def signals(self) -> Mapping[str, float]:
        """What was measured of the answer; NaN where a signal has no value."""
        return self.record.confidence.signals

    @property
    def correct(self) -> float | None:
        """What its last label says; None while it has none."""
        return None if self.label is None else self.label.correct


def hasher(salt: str) -> Hash:
    """The hash of one store: of a text, or of anything that JSON can say."""
    key = salt.encode()

    def digest(value: Any) -> str:
        text = value if isinstance(value, str) else json.dumps(value, default=str, sort_keys=True)
        mac = hmac.new(key, text.encode("utf-8", "surrogatepass"), hashlib.sha256)
        return mac.hexdigest()[:DIGITS]

    return digest


def row_of(record: Record, at: float, digest: Hash, text: bool) -> dict[str, Any]:
    """The columns of a record that was answered at `at`; texts as hashes unless `text`."""
    generation, confidence, decision = record.generation, record.confidence, record.decision
    full = record.to_dict()
    full["request"]["early_stop"] = _plan(full["request"].get("early_stop"))
    answer = generation.answer.text if generation.answer else None
    return {
        "id": record.id,
        "at": at,
        "model": _storable(record.model),
        "task": _storable(confidence.task),
        "profile": confidence.profile,
        "finish": generation.finish,
        "action": decision.action if decision else None,
        "action_reason": decision.reason if decision and text else None,
        "confidence": _number(confidence.value),
        "raw": _number(confidence.raw),
        "prompt_tokens": generation.prompt_tokens,
        "n_tokens": generation.n_tokens,
        "probe_tokens": generation.probe_tokens,
        "seconds": record.timing.total,
        "prompt_hash": digest(full["request"]["prompt"]),
        "answer_hash": None if answer is None else digest(answer),
        "data": as_json(full if text else without_text(full, digest)),
    }


def _plan(early_stop: Any) -> Any:
    """A certificate's plan: what it was certified on is not kept once more with every answer."""
    return early_stop.get("plan", early_stop) if isinstance(early_stop, Mapping) else early_stop


def as_json(value: Any) -> str:
    """JSON that every reader takes: what is not finite is null, what is not JSON its text."""
    try:
        return json.dumps(value, default=_plain, allow_nan=False)
    except ValueError:
        return json.dumps(_finite(json.loads(json.dumps(value, default=_plain))), allow_nan=False)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, (tuple, set, frozenset)):
        return list(value)
    return value.item() if hasattr(value, "item") else str(value)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _number(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)


def _storable(text: str) -> str:
    """PostgreSQL takes no NUL in a text."""
    return text.replace("\0", "�")


def without_text(full: Mapping[str, Any], digest: Hash) -> dict[str, Any]:
    """A record's dict with every text hashed, which Record.from_dict still reads."""
    out: dict[str, Any] = _hashed(full, digest)
    out["request"] = _request(full["request"], digest)
    generation = full["generation"]
    out["generation"] |= {
        "raw": digest(generation["raw"][generation["content_start"] :]),
        "content_start": 0,
    }
    out["confidence"]["reason"] = reason_word(full["confidence"]["reason"])
    if out["decision"]:
        out["decision"]["reason"] = ""
    return out


def _hashed(value: Any, digest: Hash, key: str = "") -> Any:
    """Numbers stay, and so do names; every other text becomes its hash."""
    if isinstance(value, Mapping):
        return {name: _hashed(inner, digest, name) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_hashed(inner, digest, key) for inner in value]
    if value is None or isinstance(value, (bool, int, float)) or key in NAMES:
        return value
    return digest(value)


def _request(request: Mapping[str, Any], digest: Hash) -> dict[str, Any]:
    """A request that can be made again, of hashes; whole structures of the user's are one hash."""
    prompt, choice = request["prompt"], request["tool_choice"]
    names = [tool["function"]["name"] for tool in request["tools"]]
    wholes = ("chat_template_kwargs", "response_schema")
    early_stop = request["early_stop"] if isinstance(request["early_stop"], str) else None
    return {
        **_hashed({k: v for k, v in request.items() if k not in wholes}, digest),
        "prompt": digest(prompt) if isinstance(prompt, str) else [_turn(m, digest) for m in prompt],
        "tools": [
            {"type": "function", "function": {"name": digest(name), "description": digest(tool)}}
            for name, tool in zip(names, request["tools"], strict=True)
        ],
        "tool_choice": digest(choice) if choice in names else choice,
        "early_stop": early_stop,  # a plan has a text; what it did is told by `stopped`
        **{key: {"hash": digest(request[key])} if request[key] else request[key] for key in wholes},
    }


def _turn(message: Mapping[str, Any], digest: Hash) -> dict[str, str]:
    role = message["role"] if message["role"] in ROLES else digest(message["role"])
    rest = {key: value for key, value in message.items() if key not in ("role", "content")}
    turn = {"role": role, "content": digest(message["content"])}
    return {**turn, "rest": digest(rest)} if rest else turn


def reason_word(reason: str) -> str:
    """How a reason begins, where that is a word of ours; the rest of it may quote a text."""
    return next((word for word in REASONS if reason.startswith(word)), "")
