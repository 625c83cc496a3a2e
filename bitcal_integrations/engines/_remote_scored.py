"""Steps from tokens with log-probabilities, in the shape that OpenAI and its likes send.

It checks and measures tokens; it knows no profile, and no vocabulary: token ids are UNKNOWN_ID.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeAlias

from bitcal_integrations.decide._check import is_number
from bitcal_integrations.engines._remote_spelling import ranges
from bitcal_integrations.errors import BadRequest
from bitcal_integrations.types import Step

Scored: TypeAlias = "tuple[str, float]"  # a token and its log-probability in nats
UNKNOWN_ID = -1


def steps_of(
    text: str, tokens: Sequence[Scored], tops: Sequence[Sequence[Scored]]
) -> tuple[Step, ...]:
    """One step per token that belongs to the text; those before it (reasoning) are left out."""
    if tops and len(tops) != len(tokens):
        raise BadRequest(f"{len(tops)} lists of alternatives for {len(tokens)} tokens")
    scored = [_scored(pair) for pair in tokens]
    named = [[_scored(pair) for pair in top or ()] for top in tops] or [[] for _ in scored]
    steps, shown = [], 0
    places = ranges(text, [token for token, _ in scored])
    for (token, logprob), top, place in zip(scored, named, places, strict=True):
        if place is not None:
            start, end, last = place
            piece, shown = (text[shown:end], end) if last else ("", shown)
            entropy, margin = spread(token, logprob, top)
            steps.append(
                Step(
                    UNKNOWN_ID, piece, start, end, logprob, entropy, margin, math.nan,
                    tuple((UNKNOWN_ID, value) for _, value in top), tuple(name for name, _ in top),
                )
            )  # fmt: skip
    return tuple(steps)


def _scored(pair: Any) -> Scored:
    try:
        token, logprob = pair
    except (TypeError, ValueError):
        raise BadRequest(f"{pair!r:.80} is no token with its log-probability") from None
    # Servers round: 1e-9 above 0 is a certain token.
    if not isinstance(token, str) or not is_number(logprob) or logprob > 1e-3:
        raise BadRequest(f"{pair!r:.80} is no token with its log-probability")
    return token, min(float(logprob), 0.0)


def spread(token: str, logprob: float, top: Sequence[Scored]) -> tuple[float, float]:
    """Entropy and margin of the best two, in nats, of a token whose alternatives are named.

    What is not named counts as one more alternative, so the entropy is a lower bound.

    >>> [round(x, 3) for x in spread("a", math.log(0.5), [("a", math.log(0.5)), ("b", -1.386294)])]
    [1.04, 0.693]
    """
    if not top:
        return math.nan, math.nan
    values = [value for _, value in top]
    if token not in [name for name, _ in top]:
        values.append(logprob)
    shares = [math.exp(value) for value in values]
    shares.append(max(0.0, 1.0 - sum(shares)))
    entropy = -sum(share * math.log(share) for share in shares if share > 0)
    best = sorted(values, reverse=True)[:2]
    return entropy, best[0] - best[1] if len(best) == 2 else math.nan
