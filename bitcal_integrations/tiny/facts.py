"""Closed-book questions about real countries: no passage, the model knows it or guesses.

Knows how a fact is asked, not which split a question belongs to.
"""

from functools import cache
from itertools import accumulate
from random import Random

from bitcal_integrations.tiny.countries import BUCKETS, Fact, facts, facts_in
from bitcal_integrations.tiny.wordings import CLOSED, Draft, choose, closed

LABELS = {
    "capital": "capital",
    "currency": "currency",
    "continent": "continent",
    "language": "main language",
    "phone": "phone code",
    "domain": "internet domain",
}
PHRASINGS = (
    "What is the {label} of {name}?",
    "Name the {label} of {name}.",
    "Tell me the {label} of {name}.",
    "Give the {label} of {name}.",
    "What {label} does {name} have?",
)
SPECIFIC = {
    "capital": "Which city is the capital of {name}?",
    "currency": "Which currency is used in {name}?",
    "continent": "On which continent is {name}?",
    "language": "Which language do people speak in {name}?",
    "phone": "Which phone code do you dial for {name}?",
    "domain": "Which internet domain does {name} use?",
}
BUCKET_WEIGHTS = {"head": 2, "torso": 1, "tail": 1}


def phrase(rng: Random, attribute: str, label: str, name: str) -> str:
    """One of the ways to ask for an attribute."""
    options = (*PHRASINGS, SPECIFIC[attribute]) if attribute in SPECIFIC else PHRASINGS
    return rng.choice(options).format(label=label, name=name)


def draft(rng: Random, fact: Fact | None = None) -> Draft:
    """One question; without a fact, a bucket is drawn first and then a fact of it, evenly."""
    if fact is None:
        bucket = rng.choices(BUCKETS, [BUCKET_WEIGHTS[name] for name in BUCKETS])[0]
        fact = rng.choice(facts_in(bucket))
    wording = choose(rng, CLOSED)
    messages = closed(wording, phrase(rng, fact.attribute, LABELS[fact.attribute], fact.country))
    return Draft(
        key="facts|" + "|".join(message["content"] for message in messages),
        messages=messages,
        answer=fact.value,
        gold=fact.value,
        wording=wording,
        bucket=fact.bucket,
    )


def training_draft(rng: Random) -> Draft:
    """One question as training meets them: by population, never a fact of the tail."""
    shown, cumulative = _shown()
    return draft(rng, rng.choices(shown, cum_weights=cumulative)[0])


@cache
def _shown() -> tuple[tuple[Fact, ...], tuple[float, ...]]:
    shown = tuple(fact for fact in facts() if fact.weight)
    return shown, tuple(accumulate(fact.weight for fact in shown))
