"""P(True) behind a verdict prompt that was tuned on this model's own labelled answers, in [0, 1].

The same question as `p_true`, after soft tokens that `verdict.tune_verdict` trained and
`use_verdict` put in use; a model without them cannot be asked for it. It learns how often the model
is right sooner than which answers are: measure it beside a profile without it, which needs no
second pass.
"""

from __future__ import annotations

import dataclasses
import math

from bitcal_integrations.request import SoftRequest
from bitcal_integrations.signals import p_true
from bitcal_integrations.signals._ask import words_of
from bitcal_integrations.types import Generation, Observation, Request

NEEDS = "extra_pass"
COST = 1


def requests(request: Request, generation: Generation) -> tuple[Request, ...]:
    asked = p_true.requests(request, generation)
    return tuple(SoftRequest(**{n: getattr(one, n) for n in _FIELDS}) for one in asked)


def measure(observation: Observation) -> float:
    passes = observation.passes.get("p_true_tuned", ())
    if not passes or not passes[0].steps:
        return math.nan
    return p_true.share(words_of(passes[0].steps[0]), *_WORDS)


_FIELDS = tuple(f.name for f in dataclasses.fields(Request))
# It was trained on the first token of a word, which may be the whole word.
_WORDS = tuple(tuple(w[:n] for n in range(1, len(w) + 1)) for w in ("true", "false"))
