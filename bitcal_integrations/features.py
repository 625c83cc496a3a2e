"""Which numbers describe an answer: signal names -> a vector in fixed order, with its schema.

A signal that needs only the generation gives two features: `name` over the answer span (the whole
text where none was found) and `name_text` over the whole text. It says what must be asked beside
an answer and measures what came; it runs no model, and what a number is worth is for a profile.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np

from bitcal_integrations import registry
from bitcal_integrations.errors import BadRequest, UnknownName
from bitcal_integrations.grading import name_of
from bitcal_integrations.signals._probe import Probe, read
from bitcal_integrations.signals._span import probability
from bitcal_integrations.types import Confidence, Generation, Observation, Request

NO_PROFILE = "no profile: the accuracy of this model has not been measured"

# All free. The span's probability first (the strongest single score), then the signals that the
# published rankings put next, then the same over the whole text, which a wrong derivation shows in.
DEFAULT_FEATURES: tuple[str, ...] = (
    "confidence",
    "sum_logprob",
    "min_logprob",
    "mean_entropy",
    "mean_margin",
    "confidence_text",
    "min_logprob_text",
    "length_text",
)
DEFAULT_SAMPLES = 5  # where a signal needs samples and nobody said how many
SCORES = ("full", "top_k")
PROBE = "hidden_probe"  # the feature that is fitted with a profile
_WHOLE = "_text"
TUNED = "p_true_tuned"  # needs what `verdict.use_verdict` puts in use


@cache
def _signals() -> dict[str, ModuleType]:
    return {name: registry.resolve("signals", name) for name in registry.names("signals")}


def _probability(observation: Observation) -> float:
    """Geometric-mean probability of a token."""
    return probability(float(_signals()["mean_logprob"].measure(observation)))


def _span_found(observation: Observation) -> float:
    return 0.0 if observation.span is None else 1.0


@dataclass(frozen=True)
class _Feature:
    """How one feature is measured, and the signal behind it (empty for those made here)."""

    measure: Callable[[Observation], float]
    needs: str = "generation"
    signal: str = ""


@cache
def _features() -> dict[str, _Feature]:
    """Every feature by name, the primary score first."""
    found = {"confidence": _Feature(_probability)}
    for name, signal in _signals().items():
        found[name] = _Feature(signal.measure, signal.NEEDS, name)
    spanned = {n: f for n, f in found.items() if f.needs == "generation"}
    whole = {n + _WHOLE: replace(f, measure=_over_all(f.measure)) for n, f in spanned.items()}
    return {**found, **whole, "span_found": _Feature(_span_found)}


def _over_all(measure: Callable[[Observation], float]) -> Callable[[Observation], float]:
    return lambda observation: measure(replace(observation, span=None))


def feature_names() -> tuple[str, ...]:
    """Every name a schema may hold.

    >>> {"confidence", "confidence_text", "span_found", "agreement"} <= set(feature_names())
    True
    """
    return tuple(_features())


@dataclass(frozen=True)
class Schema:
    """The features of a task in their order, and how the samples among them are drawn.

    `samples` counts further answers, drawn at `sample_temperature`; `scores` is "full" where
    entropies are over the whole vocabulary, "top_k" where an engine shows only the first few.
    `layer` is where hidden states are read (None: two thirds of the way up), `probe` what a fit
    made of them.
    """

    names: tuple[str, ...]
    samples: int = 0
    sample_temperature: float = 0.7
    scores: str = "full"
    layer: int | None = None
    probe: Probe | None = None

    def __post_init__(self) -> None:
        _check_names(self.names)
        if self.layer is not None and not self.hidden:
            raise BadRequest(f"layer={self.layer!r}, but no feature reads a hidden state")
        _check_samples(self)
        if self.scores not in SCORES:
            raise BadRequest(f"scores={self.scores!r} is not allowed: use {' or '.join(SCORES)}")

    @property
    def needs(self) -> frozenset[str]:
        """What must exist to measure it: generation, samples, extra_pass, hidden."""
        return frozenset(_features()[name].needs for name in self.names)

    @property
    def hidden(self) -> bool:
        """Whether a hidden state must be read."""
        return "hidden" in self.needs

    def behind(self, layer: int | None) -> Schema:
        """Itself for a state of its own layer, and for any other without its probe."""
        return self if self.probe is None or layer == self.layer else replace(self, probe=None)

    @property
    def passes(self) -> tuple[str, ...]:
        """The signals among the names that ask the model something more."""
        return tuple(n for n in self.names if _features()[n].needs == "extra_pass")

    @property
    def cost(self) -> int:
        """Forward passes over a prompt beyond the answer's own: samples and extra passes."""
        return self.samples + sum(_signals()[name].COST for name in self.passes)

    def vector(self, signals: Mapping[str, float]) -> np.ndarray:
        """The measured numbers in the order of the names; NaN where one is missing.

        >>> Schema(("confidence", "length")).vector({"length": 3.0})
        array([nan,  3.])
        """
        return np.array([signals.get(name, math.nan) for name in self.names], dtype=np.float64)

    def to_dict(self) -> dict[str, Any]:
        probe = {} if self.probe is None else {"probe": self.probe.to_dict()}
        layer = {} if self.layer is None else {"layer": self.layer}
        plain = {k: v for k, v in self.__dict__.items() if k not in ("layer", "probe")}
        return {**plain, "names": list(self.names), **layer, **probe}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Schema:
        probe = {"probe": Probe.from_dict(data["probe"])} if "probe" in data else {}
        return cls(**{**data, "names": tuple(data["names"]), **probe})


def make_schema(
    names: Sequence[str] | str | None = None,
    *,
    samples: int | None = None,
    sample_temperature: float = 0.7,
    scores: str = "full",
    layer: int | None = None,
) -> Schema:
    """A checked schema; without names the free default ones.

    >>> make_schema(["confidence", "agreement"]).samples
    5
    """
    chosen = (
        (names,) if isinstance(names, str) else tuple(DEFAULT_FEATURES if names is None else names)
    )
    _check_names(chosen)
    if samples is None:
        samples = DEFAULT_SAMPLES if _sampled(chosen) else 0
    return Schema(chosen, samples, sample_temperature, scores, layer)


def _check_names(names: tuple[str, ...]) -> None:
    known = _features()
    for name in names:
        if name not in known:
            raise UnknownName(f"{name!r} is not a feature: {', '.join(known)}")
    twice = [name for i, name in enumerate(names) if name in names[:i]]
    if twice or not names:
        what = f"the feature {twice[0]!r} is named twice" if twice else "no feature is named"
        raise BadRequest(f"{what}: a schema has at least one, and each once")


def _sampled(names: Sequence[str]) -> list[str]:
    return [name for name in names if _features()[name].needs == "samples"]


def _check_samples(schema: Schema) -> None:
    n, wanted = schema.samples, _sampled(schema.names)
    if isinstance(n, bool) or not isinstance(n, int) or n < 0:
        raise BadRequest(f"samples={n!r} is not allowed: it must be a whole number, 0 or more")
    if wanted and n == 0:
        raise BadRequest(f"the feature {wanted[0]!r} needs samples: samples=0 is not allowed")
    if n and not wanted:
        using = ", ".join(_sampled(feature_names()))
        raise BadRequest(f"samples={n!r}, but no feature is measured on samples; those are {using}")
    if n and not schema.sample_temperature > 0:
        raise BadRequest(
            f"sample_temperature={schema.sample_temperature!r} is not allowed: at 0 every sample "
            "is the same answer, so their agreement says nothing; use a number above 0"
        )


def parts_for(parts: Mapping[str, Any], *schemas: Schema | None) -> dict[str, Any]:
    """What of a model's fingerprint these features depend on: the tuned verdict only for its own.

    Without a schema it is what its texts depend on.

    >>> parts_for({"dtype": "float32", "verdict": "ab12"}, Schema(("confidence",)))
    {'dtype': 'float32'}
    """
    tuned = any(schema is not None and TUNED in schema.names for schema in schemas)
    return {name: part for name, part in parts.items() if tuned or name != "verdict"}


def measure_all(observation: Observation, schema: Schema) -> dict[str, float]:
    """The features of a schema that have a finite value, by name."""
    if schema.probe is not None:
        observation = replace(observation, probe=schema.probe)
    values = {name: float(_features()[name].measure(observation)) for name in schema.names}
    return {name: value for name, value in values.items() if math.isfinite(value)}


def with_probe(
    signals: Mapping[str, float], kept: Mapping[str, Any] | None, schema: Schema | None
) -> Mapping[str, float]:
    """Signals that were kept, with what the schema's probe says of the state kept with them."""
    if schema is None or schema.probe is None:
        return signals
    state = read(kept, schema.layer)
    score = math.nan if state is None else schema.probe(state)
    others = {name: value for name, value in signals.items() if name != PROBE}
    return {**others, PROBE: score} if math.isfinite(score) else others


def sample_requests(schema: Schema, request: Request) -> tuple[Request, ...]:
    """The requests for the sampled further answers, each with its own seed.

    Seeds follow from the request's, so that the same question has the same confidence again.
    """
    first = 0 if request.seed is None else request.seed + 1
    top_p = request.top_p if request.temperature > 0 else None
    return tuple(
        replace(
            request, temperature=schema.sample_temperature, top_p=top_p,
            seed=(first + i) % 2**63, top_logprobs=0,
        )
        for i in range(schema.samples)
    )  # fmt: skip


def extra_requests(
    schema: Schema, request: Request, generation: Generation
) -> dict[str, tuple[Request, ...]]:
    """What each extra-pass signal of the schema asks about this answer, by signal."""
    return {name: _signals()[name].requests(request, generation) for name in schema.passes}


def uncalibrated(
    request: Request, generation: Generation, observation: Observation | None = None
) -> Confidence:
    """The raw score alone: geometric-mean probability of the answer's tokens, else of all."""
    if not generation.text.strip():
        return Confidence(task=request.task, reason="no_answer: the text is empty")
    observation = observation or Observation.of(generation)
    free = [name for name, signal in _signals().items() if signal.NEEDS == "generation"]
    signals = measure_all(observation, Schema(tuple(free)))
    cut = request.parser is not None and generation.answer is None
    reason = nothing_for(request.parser) if cut else NO_PROFILE
    mean = signals.get("mean_logprob")
    raw = None if mean is None else probability(mean)
    return Confidence(raw=raw, signals=signals, task=request.task, reason=reason)


def with_agreement(confidence: Confidence) -> Confidence:
    """With the agreement of samples as raw score, where no log-probabilities give one."""
    share = confidence.signals.get("agreement")
    known = share is None or confidence.raw is not None
    return confidence if known else replace(confidence, raw=share)


def nothing_for(parser: Any) -> str:
    """The reason why a text without an answer for its parser has no confidence."""
    return f"no_answer: nothing for parser {name_of(parser) if callable(parser) else parser!r}"
