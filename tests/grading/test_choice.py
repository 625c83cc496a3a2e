"""The choice letter is the last one that is stated, never a word that looks like a letter."""

from __future__ import annotations

import pytest

from bitcal_integrations.grading import choice

CHOICES = [
    ("B", "B"),
    ("b", "b"),
    ("(B)", "B"),
    (" B.\n", "B"),
    ("B) Paris", "B"),
    ("B. Paris", "B"),
    ("Answer: B.", "B"),
    ("Answer: A - Paris", "A"),
    ("**C**", "C"),
    ("**C. Paris**", "C"),
    ("**Answer:** (D)", "D"),
    ("The answer is c", "c"),
    ("the answer is c.", "c"),
    ("The correct answer is option B because it is.", "B"),
    ("The answer is A because the sky is blue.", "A"),
    ("The answer is: **(C)**", "C"),
    ("The best choice is D", "D"),
    (r"So $\boxed{B}$", "B"),
    (r"The answer is \boxed{\text{C}}.", "C"),
    ("<answer>B</answer>", "B"),
    ("#### D", "D"),
    ("Answer:\nB", "B"),
    ("Option A is wrong, so it must be B.", "B"),
    ("(A) is wrong, and (C) is right", "C"),
    ("A is wrong. C is correct. D is wrong.", "C"),
    ("First I say the answer is A. No: the answer is D.", "D"),
    ("A. red\nB. blue\nC. green\nThe answer is B.", "B"),
    ("The answer is B.\nA. wrong\nB. right\nC. wrong", "B"),
    ("I choose C", "C"),
    ("A cat is on the mat", None),
    ("A cat", None),
    ("The answer is a cat", None),
    ("The answer is A cat", None),
    ("Answer A question like this", None),
    ("The answers become clear", None),
    ("I think so", None),
    ("The answer is I think", None),
    ("f(x) = C++ and vitamin B12", None),
    ("The answer is Berlin", None),
    ("Neither A nor B", None),
    ("A or B", None),
    ("(A) or (B)", None),
    ("A/B", None),
    ("The answer is C or D", None),
    ("The answer is C or D.\nC. red\nD. blue", None),
    ("The options are A, B, C and D.", None),
    ("**C** or **D**", None),
    ("A or B? B.", "B"),
    ("The answer is C and not D", "C"),
    ("The answer is B and A is wrong", "B"),
    ("It is not A, B is right", "B"),
    ("Answer: D) Neither A nor B", "D"),
    ("Because", None),
    ("", None),
]


@pytest.mark.parametrize(("text", "letter"), CHOICES)
def test_choice(text: str, letter: str | None) -> None:
    found = choice(text)
    assert (found and found.text) == letter
    if found:
        assert text[found.start : found.end] == letter


def test_a_choice_waits_for_the_end_because_the_last_one_counts() -> None:
    assert choice("Answer: B.\n", ended=False) is None
