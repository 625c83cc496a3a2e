"""Where tokens stand in a text: every token once, in order, the texts adding up."""

from __future__ import annotations

import random

import pytest

from bitcal_integrations.engines._remote_spelling import Place, ranges


def spans(places: list[Place | None]) -> list[tuple[int, int] | None]:
    return [place[:2] if place else None for place in places]


@pytest.mark.parametrize(
    ("text", "tokens", "expected"),
    [
        ("Paris.", ["Par", "is", "."], [(0, 3), (3, 5), (5, 6)]),
        ("Paris", [" Paris"], [(0, 5)]),  # white space that was stripped
        ("Paris", ["\n", " ", " Par", "is", "\n"], [None, None, (0, 3), (3, 5), (5, 5)]),
        ("e", ["e", "<|im_end|>"], [(0, 1), (1, 1)]),  # the end token holds an e as well
        ("so", ["<think>", "so", "</think>", "\n", "so", "<end>"],
         [None, None, None, None, (0, 2), (2, 2)]),
        ("ab", ["a", "b", "STOP"], [(0, 1), (1, 2), (2, 2)]),
        ("aab", ["a", "a", "b"], [(0, 1), (1, 2), (2, 3)]),
        ("ab", ["a", "", "b"], [(0, 1), (1, 1), (1, 2)]),
        ("", ["<end>"], [(0, 0)]),
        ("", [], []),
        ("é!", ["\\xc3", "\\xa9", "!"], [(0, 1), (0, 1), (1, 2)]),
        ("ok é", ["ok", " ", "\\xc3", "\\xa9", "<end>"], [(0, 2), (2, 3), (3, 4), (3, 4), (3, 4)]),
        ("xyz", ["?"], [(0, 3)]),
    ],
)  # fmt: skip
def test_places(text: str, tokens: list[str], expected: list[tuple[int, int] | None]) -> None:
    assert spans(ranges(text, tokens)) == expected


def shown(text: str, places: list[Place | None]) -> str:
    """The text as the tokens show it."""
    return "".join(text[p[0] : p[1]] for p in places if p and p[2])


def test_what_is_shown_adds_up_to_the_text() -> None:
    rng = random.Random(0)
    for _ in range(500):
        pieces = [rng.choice(["a", " b", "é", "12", "\n", "✓"]) for _ in range(rng.randint(1, 12))]
        text, tokens = "".join(pieces), [*pieces]
        for index, piece in enumerate(pieces):
            if piece in "é✓" and rng.random() < 0.5:  # a character that comes as its bytes
                tokens[index] = "".join(f"\\x{b:02x}" for b in piece.encode())
        if rng.random() < 0.5:
            tokens.append("<end>")
        places = ranges(text, tokens)
        assert shown(text, places) == text
        known = [place for place in places if place is not None]
        assert all(0 <= start <= end <= len(text) for start, end, _ in known)
        assert known == sorted(known, key=lambda place: place[:2])
