"""Whether the answer stays when the question is put another way: 1.0 or 0.0.

The other way is chosen by what the prompt holds. Lettered options ("A. ...", one a line): every
option moves to the next letter, and the answer's letter is turned back before it is compared; not
where an option speaks of others ("none of the above"). Else a context block (between dashed
lines, in <context> marks, or behind "Context:") of several passages: the last one, which a
retriever ranks lowest, is left out. Else: a line before the question. The answer is asked for
with the request's own options and compared as `agreement` compares.
"""

from __future__ import annotations

import math
from dataclasses import replace

from bitcal_integrations.grading import choice
from bitcal_integrations.signals._same import share
from bitcal_integrations.signals._variants import variant
from bitcal_integrations.types import Generation, Observation, Request

NEEDS = "extra_pass"
COST = 1


def requests(request: Request, generation: Generation) -> tuple[Request, ...]:
    return (variant(request),)


def measure(observation: Observation) -> float:
    passes = observation.passes.get("perturb", ())
    if not passes:
        return math.nan
    if observation.answer is None and passes[0].answer is not None:
        # Letters were moved and the request has no parser: the given letter is read the same way.
        given = choice(observation.text)
        observation = replace(observation, answer=given.text if given else None)
    return share(observation, passes)
