"""Questions with a passage: the answer stands in it, or the right answer is `unknown`.

Most names and values are invented, and some real countries get invented values, so that the
model must read. Real values appear only for facts that closed-book training shows too, so that
no fact of the tail leaks through a passage. Knows nothing of splits.
"""

from functools import cache
from random import Random

from bitcal_integrations.tiny.countries import countries, facts
from bitcal_integrations.tiny.facts import LABELS, phrase
from bitcal_integrations.tiny.splits import split_of
from bitcal_integrations.tiny.wordings import OPEN, Draft, choose, opened

Entity = tuple[str, dict[str, str]]  # name, values by attribute
UNKNOWN = "unknown"
READING_LABELS = {
    **LABELS,
    "river": "longest river",
    "president": "president",
    "year": "founding year",
}
# The value always comes last: in "V is the capital of E" it stands before anything says what it is,
# and a model this small learned neither form while both were mixed.
SENTENCES: dict[str, tuple[str, ...]] = {
    "capital": ("The capital of {e} is {v}.", "{e} has the capital {v}."),
    "currency": ("The currency of {e} is the {v}.", "People in {e} pay with the {v}."),
    "continent": ("{e} lies in {v}.", "{e} is a country in {v}."),
    "language": ("The main language of {e} is {v}.", "Most people in {e} speak {v}."),
    "phone": ("The phone code of {e} is {v}.", "To call {e}, dial {v} first."),
    "domain": ("The internet domain of {e} is {v}.", "Web sites in {e} end in {v}."),
    "river": ("The longest river of {e} is the {v}.", "In {e} the longest river is the {v}."),
    "president": ("The president of {e} is {v}.", "In {e} the president is {v}."),
    "year": ("The founding year of {e} is {v}.", "{e} was founded in {v}."),
}
FILLERS = (
    "Many visitors come in summer.", "The winters are long and cold.",
    "Trade grew fast last year.",
    "The coast is known for its beaches.", "Most farms are small.",
    "The trains are slow but cheap.",
    "The old town has a large market.", "Fishing is important in the north.",
    "There are many mountains and lakes.", "Football is the most popular sport.",
    "The museum is closed on Monday.", "The new bridge opened last spring.",
)  # fmt: skip
SYLLABLES = tuple(
    a + b
    for a in "b d f g k l m n p r s t v z br dr gr kr st tr".split()
    for b in "a e i o u".split()
)
SUFFIXES = ("", "", "ia", "land", "stan")  # of a country's name
ENDS = "n r l s m th nd rk x".split()
CURRENCIES = "franc dollar pound peso dinar crown rupee shilling mark".split()
LANGUAGES = "English French Spanish Arabic Russian German Portuguese Dutch Turkish".split()
CONTINENTS = ("Asia", "Europe", "Africa", "North America", "South America", "Oceania")


def invent(rng: Random, suffix: str = "") -> str:
    """A name that nobody has used, such as Drovaken."""
    middle = "".join(rng.choices(SYLLABLES, k=rng.choice((1, 1, 2))))
    end = suffix or (rng.choice(ENDS) if rng.random() < 0.6 else "")
    return (rng.choice(SYLLABLES) + middle + end).capitalize()


def draft(rng: Random, extra: int | None = None) -> Draft:
    """One question; `extra` is how many other countries the passage also describes."""
    extra = rng.choices((0, 1, 2, 3), (60, 30, 8, 2))[0] if extra is None else extra
    name, known = _entity(rng)
    attribute = rng.choice(list(known))
    described = [(name, known)] + [_entity(rng) for _ in range(extra)]
    described = [pair for i, pair in enumerate(described) if i == 0 or pair[0] != name]
    gold = known[attribute]
    if rng.random() < 0.2:
        gold = UNKNOWN
        described = described[1:] or [_other(rng, name)]
    rng.shuffle(described)
    context = _join(rng, [_passage(rng, entity, values) for entity, values in described])
    wording = choose(rng, OPEN)
    existing = ""
    if wording.startswith("refine"):
        existing = rng.choice((UNKNOWN, _value(rng, attribute)))
        gold = existing if gold == UNKNOWN else gold
    question = phrase(rng, attribute, READING_LABELS[attribute], name)
    return Draft(
        key=f"reading|{name}|{attribute}|{wording}",
        messages=opened(wording, question, context, existing),
        answer=gold,
        gold=gold,
        wording=wording,
        bucket="unknown" if gold == UNKNOWN else "answerable",
    )


def interview(rng: Random) -> tuple[str, list[tuple[str, str]]]:
    """A passage on one or two invented countries, with a question and answer on each thing told.

    Some questions ask about a country that is not in it: `unknown`. For training only, so no part
    of it hashes into another split.
    """
    passages, asked = [], []
    for _ in range(rng.randint(1, 2)):
        name = invent(rng, rng.choice(SUFFIXES))
        known = {a: _value(rng, a) for a in rng.sample(list(READING_LABELS), rng.randint(2, 4))}
        passages.append(_passage(rng, name, known))
        for attribute, value in known.items():
            about, answer = name, value
            if rng.random() < 0.35:
                about, answer = _other(rng, name)[0], UNKNOWN
            if split_of(f"reading|{about}|{attribute}|plain") == "train":
                question = phrase(rng, attribute, READING_LABELS[attribute], about)
                asked.append((question, answer))
    rng.shuffle(asked)
    return " ".join(passages), asked or [("Who?", UNKNOWN)]


def _entity(rng: Random) -> Entity:
    """A country with two to four attributes: invented, real, or real with invented values."""
    kind = rng.random()
    attributes = rng.sample(list(READING_LABELS), rng.randint(2, 4))
    if kind < 0.7:
        name = invent(rng, rng.choice(SUFFIXES))
        return name, {attribute: _value(rng, attribute) for attribute in attributes}
    row = rng.choice(countries())
    if kind < 0.85:
        return row["name"], {a: _value(rng, a, but=row.get(a)) for a in attributes}
    return row["name"], _shown(row["name"]) or {"river": invent(rng)}


@cache
def _shown(name: str) -> dict[str, str]:
    """The facts about a country that closed-book training shows too."""
    return {f.attribute: f.value for f in facts() if f.country == name and f.bucket != "tail"}


def _value(rng: Random, attribute: str, but: str | None = None) -> str:
    """An invented value, and not `but`."""
    while (value := _draw(rng, attribute)) == but:
        pass
    return value


def _draw(rng: Random, attribute: str) -> str:
    if attribute == "continent":
        return rng.choice(CONTINENTS)
    if attribute == "phone":
        return str(rng.randint(20, 999))
    if attribute == "domain":
        return "." + "".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=2))
    if attribute == "year":
        return str(rng.randint(1100, 1990))
    if attribute == "currency":
        return rng.choice(CURRENCIES) if rng.random() < 0.4 else invent(rng).lower()
    if attribute == "language":
        return rng.choice(LANGUAGES) if rng.random() < 0.4 else invent(rng, "ish")
    return invent(rng)


def _other(rng: Random, name: str) -> Entity:
    while True:
        entity = _entity(rng)
        if entity[0] != name:
            return entity


def _passage(rng: Random, name: str, values: dict[str, str]) -> str:
    attributes = list(values)
    rng.shuffle(attributes)
    sentences = [rng.choice(SENTENCES[a]).format(e=name, v=values[a]) for a in attributes]
    for _ in range(rng.choices((0, 1, 2), (5, 3, 2))[0]):
        sentences.insert(rng.randint(0, len(sentences)), rng.choice(FILLERS))
    return " ".join(sentences)


def _join(rng: Random, passages: list[str]) -> str:
    """Passages one after the other, sometimes under a line of metadata as retrievers add it."""
    if rng.random() < 0.1:
        passages = [f"file_path: notes/{i}.txt\n\n{text}" for i, text in enumerate(passages)]
    return rng.choice(("\n\n", " ")).join(passages)
