"""What the signals say of a generation, and the raw score that they give without a profile.

It measures; what a number is worth is for a profile to say.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

from bitcal_integrations import registry
from bitcal_integrations.types import Confidence, Generation, Observation, Request

NO_PROFILE = "no profile: the accuracy of this model has not been measured"


@cache
def _generation_signals() -> dict[str, Callable[[Observation], float]]:
    """The signals that need nothing but the generation, by name."""
    found = {name: registry.resolve("signals", name) for name in registry.names("signals")}
    return {name: s.measure for name, s in found.items() if s.NEEDS == "generation"}


def uncalibrated(request: Request, generation: Generation) -> Confidence:
    """The raw score alone: geometric-mean probability of the answer's tokens, else of all."""
    if not generation.text.strip():
        return Confidence(task=request.task, reason="no_answer: the text is empty")
    observation = Observation.of(generation)
    signals = {name: measure(observation) for name, measure in _generation_signals().items()}
    cut = request.parser is not None and generation.answer is None
    reason = f"no_answer: nothing for parser {request.parser!r}" if cut else NO_PROFILE
    signals = {k: v for k, v in signals.items() if math.isfinite(v)}
    mean = signals.get("mean_logprob")
    raw = None if mean is None else min(1.0, math.exp(mean))
    return Confidence(raw=raw, signals=signals, task=request.task, reason=reason)
