"""Certificate: a threshold with its promise, or no threshold and what would be needed for one.

It holds the numbers and puts them into words; how they are found is in accept.py.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from bitcal_integrations.calibrators._check import refuse_part
from bitcal_integrations.errors import CalibrationError

Risk: TypeAlias = Literal["selective", "joint", "system"]
VERSION = 1

# risk -> what happens in at least a share 1 - max_error of the cases
_CLAIMS = {
    "selective": "an accepted answer {holds}",
    "joint": "an answer is left unaccepted or {holds}",
    "system": "the final answer, the fallback's included, {holds}",
}


@dataclass(frozen=True)
class Certificate:
    """Accept at p >= threshold: the risk is at most max_error with probability 1 - delta.

    The probability is over the draw of the labels. `threshold` None accepts nothing. `coverage`
    is the share of rows accepted, `errors` counts the wrong ones under this risk, `n` the
    independent rows (one per group), `unknown` those without a p. `simultaneous` certificates
    hold together at `delta`. Without a threshold, `nearest` is the smallest max_error that labels
    like these could certify (ask for it on fresh labels: it was chosen after seeing these) and
    `labels_needed` about how many labels certify a threshold at this one with a chance of 80%; None
    where no number would do.
    """

    threshold: float | None
    coverage: float
    max_error: float
    delta: float
    n: int
    errors: int
    accepted: int
    label_source: str = "labels"
    risk: Risk = "selective"
    unknown: int = 0
    simultaneous: int = 1
    nearest: float | None = None
    labels_needed: int | None = None
    reason: str = ""

    @property
    def promise(self) -> str:
        """What is promised, in one sentence.

        >>> Certificate(0.7, 0.5, 0.1, 0.1, 1000, 31, 500).promise
        'with probability 90% or more, an accepted answer is right at least 90% of the time'
        """
        if self.threshold is None:
            return f"nothing is promised: {self.reason}"
        teacher = self.label_source.replace(": ", " ", 1)
        holds = "is right" if self.label_source == "labels" else f"agrees with the {teacher}"
        claim = _CLAIMS[self.risk].format(holds=holds)
        return (
            f"with probability {_percent(1 - self.delta)} or more, {claim} "
            f"at least {_percent(1 - self.max_error)} of the time"
        )

    def __str__(self) -> str:
        if self.threshold is None:
            return f"{self.promise}{self._instead()}"
        return (
            f"accept at p >= {self.threshold:.4g}: {self.promise} "
            f"({_percent(self.coverage)} accepted, n={self.n})"
        )

    def _instead(self) -> str:
        """What could be promised on such labels, and how many this promise would take.

        >>> Certificate(None, 0, 0.05, 0.1, 300, 0, 0, nearest=0.08, labels_needed=700)._instead()
        '; labels like these could promise 8%, and 700 of them this'
        """
        found = []
        if self.nearest is not None:
            found.append(f"labels like these could promise {_percent(self.nearest)}")
        if self.labels_needed is not None:
            found.append(
                f"{self.labels_needed:,} of them this"
                if found
                else f"{self.labels_needed:,} labels like these could promise it"
            )
        return f"; {', and '.join(found)}" if found else ""

    def to_dict(self) -> dict[str, Any]:
        return {"version": VERSION, **dataclasses.asdict(self)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Certificate:
        values = dict(data)
        version = values.pop("version", None)
        if version != VERSION:
            raise CalibrationError(f"version {version!r} of a certificate; known is {VERSION}")
        needed = (f.name for f in dataclasses.fields(cls) if f.default is dataclasses.MISSING)
        refuse_part(values, needed, "certificate")
        return cls(**values)


def _percent(share: float) -> str:
    return f"{100 * share:.4g}%"
