"""What is asked of a recovery: how long and how hard norm gains are trained, checked.

Knows no weights.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from bitcal_integrations.errors import BadRequest
from bitcal_integrations.options import check_whole


@dataclass(frozen=True)
class Recovery:
    """How the norm gains of a quantized model are trained to say what the float model says.

    The loss of a token is `alpha` x the KL divergence from the float model's distribution to ours,
    both softened by `temperature` (which scales it by its square), plus (1 - `alpha`) x the
    cross-entropy of the token itself. `rate` is the longest step of AdamW, as a share of the size
    of a norm's gains; it rises over the first steps and falls along a cosine. A batch has `rows`
    texts, and each is seen `epochs` times.
    Of the float model's distribution the `top` likeliest tokens are kept one by one, the others as
    one sum.
    """

    temperature: float = 1.0
    alpha: float = 1.0
    rate: float = 0.03
    epochs: int = 4
    rows: int = 16
    top: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("epochs", 1), ("rows", 1), ("top", 1), ("seed", 0)):
            check_whole(name, getattr(self, name), least)
        for name in ("temperature", "rate"):
            if not (_number(getattr(self, name)) and getattr(self, name) > 0):
                raise BadRequest(f"{name}={getattr(self, name)!r} must be a number above 0")
        if not (_number(self.alpha) and 0 <= self.alpha <= 1):
            raise BadRequest(f"alpha={self.alpha!r} must be a number between 0 and 1")

    def parts(self) -> dict[str, Any]:
        """Plain JSON: with the same parts, texts and start, the same gains are learned."""
        return asdict(self)


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
