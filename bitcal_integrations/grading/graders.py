"""Graders: an answer and the gold answer -> right, wrong, or None where that cannot be told.

A grader compares; it does not look for the answer in a text, which is what parsers do. Where
several golds are given, one that agrees is enough.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from bitcal_integrations.errors import BadRequest, UnknownName
from bitcal_integrations.grading import _code, _numbers
from bitcal_integrations.grading._names import Absent
from bitcal_integrations.grading._numbers import as_number
from bitcal_integrations.grading._words import normalise
from bitcal_integrations.grading.parsers import choice

__all__ = [
    "GRADERS",
    "Grader",
    "as_grader",
    "check_gold",
    "contains",
    "exact",
    "normalise",
    "normalised",
    "numeric",
]

Grader: TypeAlias = Callable[[Any, Any], "bool | None"]  # (answer, gold) -> right, or None


def exact(answer: str, gold: str) -> bool:
    """Equal but for space around."""
    return answer.strip() == gold.strip()


def normalised(answer: str, gold: str) -> bool:
    """Equal after `normalise`; where that leaves nothing ("A", "+"), equal but for case.

    >>> normalised("the Nile.", "Nile"), normalised("-7", "7"), normalised("A", "the")
    (True, False, False)
    """
    a, b = as_number(answer), as_number(gold)
    if a is not None and b is not None:  # without its sign and point a number is another one
        return a == b
    words = normalise(answer), normalise(gold)
    if not all(words):
        words = _plain(answer), _plain(gold)
    return words[0] == words[1]


def numeric(answer: str, gold: str, tolerance: float = 1e-6) -> bool:
    """Equal as numbers, within `tolerance` of the gold's size (of 1 where that is smaller).

    >>> numeric("1,200", "1200.0"), numeric("-7", "7"), numeric("3.5", "3")
    (True, False, False)
    """
    a, b = as_number(answer), as_number(gold)
    if a is None or b is None:
        return False
    return abs(a - b) <= tolerance * max(1.0, abs(b))


def same_choice(answer: str, gold: str) -> bool:
    """The same lettered option, written in any way.

    >>> same_choice("(b)", "B"), same_choice("A", "B")
    (True, False)
    """
    found, wanted = choice(answer), choice(gold)
    if found is None or wanted is None:
        return False
    return found.text.upper() == wanted.text.upper()


def contains(answer: str, gold: str) -> bool:
    """The gold's words stand in the answer, whole and in a row; a number stands there as one.

    >>> contains("It is the Eiffel Tower.", "Eiffel tower"), contains("at -7 degrees", "7")
    (True, False)
    """
    number = as_number(gold)
    if number is not None:
        return number in _numbers.inside(answer)
    words = normalise(gold)
    return f" {words} " in f" {normalise(answer)} " if words else gold.strip() in answer


def tiny(answer: str, gold: str) -> bool:
    """Equal but for case, space and a last dot: how the built-in model's questions are graded."""
    return _plain(answer) == _plain(gold)


def _plain(text: str) -> str:
    return " ".join(text.casefold().rstrip(". ").split())


GRADERS: dict[str, Callable[..., bool | None]] = {
    "choice": same_choice,
    "code": _code.passes,
    "contains": contains,
    "exact": exact,
    "normalised": normalised,
    "numeric": numeric,
    "tiny": tiny,
}
_OPTION = {"code": "SECONDS", "numeric": "TOLERANCE"}


def as_grader(what: str | Callable[..., Any]) -> Grader:
    """The grader for a name, `numeric:TOLERANCE`, `code:SECONDS` or a callable such as a judge.

    With a list of golds one that agrees is enough (for `code` a list is the lines of one test; a
    callable gets the list as it is). An answer of None is not judged.

    >>> grade = as_grader("numeric:0.01")
    >>> grade("99.5", ["7", 100]), grade("98", "100"), grade(None, "100")
    (True, False, None)
    """
    if isinstance(what, Absent):
        what()
    if callable(what):
        return _from_callable(what)
    name, colon, option = what.partition(":") if isinstance(what, str) else ("", "", "")
    if name not in GRADERS or (colon and (name not in _OPTION or not option)):
        made = [f"{n}:{o}" for n, o in _OPTION.items()]
        allowed = ", ".join([*GRADERS, *made])
        raise UnknownName(f"{what!r} is not a grader: {allowed}, judge(model) or a callable")
    extra = (_positive(what, option),) if option else ()
    return _named(what, GRADERS[name], extra, name)


def check_gold(grader: Any, gold: Any) -> None:
    """Refuse a right answer that a grader of that name can compare with nothing.

    >>> check_gold("numeric", ("five", "5"))
    >>> check_gold("numeric", "five")
    Traceback (most recent call last):
    bitcal_integrations.errors.BadRequest: the gold 'five' is no number, as 'numeric' compares
    """
    if callable(grader):
        return
    name = str(grader).partition(":")[0]
    texts = _golds(_whole(name, gold))
    if name == "numeric" and all(as_number(text) is None for text in texts):
        raise BadRequest(f"the gold {_one(gold)!r:.100} is no number, as 'numeric' compares")
    if name == "choice" and all(choice(text) is None for text in texts):
        raise BadRequest(
            f"the gold {_one(gold)!r:.100} is no letter from A to J, as 'choice' compares"
        )


def _one(gold: Any) -> Any:
    return gold[0] if isinstance(gold, (list, tuple)) and len(gold) == 1 else gold


def _whole(name: str, gold: Any) -> Any:
    """The gold as the grader takes it: a list is the lines of one test for `code`."""
    lines = name == "code" and isinstance(gold, (list, tuple))
    return "\n".join(map(str, gold)) if lines else gold


def _positive(what: str, option: str) -> float:
    value = as_number(option)
    if value is None or value <= 0:
        raise BadRequest(f"the grader {what!r} needs a number above 0 after the colon")
    return value


def _named(
    what: str, function: Callable[..., bool | None], extra: tuple[float, ...], name: str
) -> Grader:
    def grade(answer: Any, gold: Any) -> bool | None:
        if answer is None:
            return None
        check_gold(name, gold)
        verdicts = [function(str(answer), one, *extra) for one in _golds(_whole(name, gold))]
        return True if True in verdicts else (None if None in verdicts else False)

    grade.__name__ = what
    return grade


def _golds(gold: Any) -> list[str]:
    golds = list(gold) if isinstance(gold, (list, tuple)) else [gold]
    texts = [str(one) for one in golds if one is not None and str(one).strip()]
    if len(texts) < max(len(golds), 1):
        raise BadRequest(f"the gold {gold!r:.100} has nothing to compare with: it is empty")
    return texts


def _from_callable(function: Callable[..., Any]) -> Grader:
    def grade(answer: Any, gold: Any) -> bool | None:
        verdict = function(answer, gold)
        if verdict is None or isinstance(verdict, bool):
            return verdict
        if type(verdict).__name__ in ("bool", "bool_"):  # numpy's
            return bool(verdict)
        raise BadRequest(f"a grader returns True, False or None, not {verdict!r:.100}")

    grade.__name__ = getattr(function, "__name__", "callable")
    return grade
