"""The countries and what is asked about them, with how often training shows each fact.

Knows the packaged table (GeoNames, CC BY 4.0) and nothing of wordings. A fact is a pair
(country, attribute). Buckets: `head` = the most populous countries, `torso` = seen in training,
rarer the smaller the country, `tail` = never shown in training in any form.
"""

import json
from dataclasses import dataclass
from functools import cache
from hashlib import sha256

from bitcal_integrations.tiny.assets import COUNTRIES_FILE

ATTRIBUTES = ("capital", "currency", "continent", "language", "phone", "domain")
BUCKETS = ("head", "torso", "tail")
HEAD = 60  # countries, by population
UNSEEN_SHARE = 0.5  # of the facts about the other countries


@dataclass(frozen=True)
class Fact:
    """One true fact; `weight` is its relative frequency in training (0 = never shown)."""

    country: str
    attribute: str
    value: str
    bucket: str
    weight: float


@cache
def countries() -> tuple[dict[str, str], ...]:
    """The table, most populous first."""
    rows = json.loads(COUNTRIES_FILE.read_text(encoding="utf-8"))["countries"]
    return tuple(sorted(rows, key=lambda row: -row["population"]))


@cache
def facts() -> tuple[Fact, ...]:
    """Every fact with its bucket and its training weight."""
    return tuple(
        _fact(rank, row, attribute)
        for rank, row in enumerate(countries())
        for attribute in ATTRIBUTES
    )


@cache
def facts_in(bucket: str) -> tuple[Fact, ...]:
    """The facts of one bucket."""
    return tuple(fact for fact in facts() if fact.bucket == bucket)


def _fact(rank: int, row: dict[str, str], attribute: str) -> Fact:
    population = float(row["population"])
    edge = float(countries()[HEAD - 1]["population"])
    if rank < HEAD:
        bucket, weight = "head", (population / edge) ** 0.25
    elif _share(f"{row['code']}|{attribute}") < UNSEEN_SHARE:
        bucket, weight = "tail", 0.0
    else:
        bucket, weight = "torso", (population / edge) ** 0.75
    return Fact(row["name"], attribute, row[attribute], bucket, weight)


def _share(text: str) -> float:
    """A number in [0, 1) that depends on the text alone."""
    return int(sha256(text.encode()).hexdigest()[:12], 16) / 16**12
