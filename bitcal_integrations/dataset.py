"""Labelled examples from a JSONL file, a data set or a list, checked, and split by group.

Knows the keys under which people keep prompts and right answers; knows no model.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from bitcal_integrations.errors import BadRequest, CalibrationError
from bitcal_integrations.types import Prompt, make_prompt

PROMPT_KEYS = ("prompt", "question", "messages", "input")
GOLD_KEYS = ("gold", "answer", "answers", "label", "target")
ID_KEYS, GROUP_KEYS = ("id",), ("group", "group_id")
PARTS = ("fit", "certify", "report")
ANSWERS_FORMAT = "bitcal-answers"  # in the first line of a file of kept answers


@dataclass(frozen=True)
class Example:
    """A prompt and its right answer (or a tuple of right ones; None where a teacher will tell).

    Rows of one `group` share a question, so they go into one part; `by` breaks results down.
    """

    id: str
    group: str
    prompt: Prompt
    gold: Any = None
    by: Mapping[str, str] = field(default_factory=dict)


def read_examples(
    source: Any,
    *,
    group_id: str | Callable[[Mapping[str, Any]], Any] | None = None,
    group_by: str | Sequence[str] = (),
    need_gold: bool = True,
    judged: Collection[str] = (),
    any_gold: bool = False,
) -> list[Example]:
    """Checked examples from a path to JSONL, or any iterable of dicts or (prompt, gold) pairs.

    Right answers as SQuAD ({"text": [...]}) and TriviaQA ({"value", "aliases"}) keep them are
    read; another dict only with `any_gold`, for a grader that knows it. Examples whose id is in
    `judged` need none.

    >>> read_examples([("What is 1 + 1?", "2")])[0].gold
    '2'
    """
    keys = (group_by,) if isinstance(group_by, str) else tuple(group_by)
    rule = _Rule(need_gold, judged, any_gold)
    found: list[Example] = []
    given: dict[str, str] = {}
    made: dict[str, int] = {}
    for where, row in _rows(source):
        if isinstance(row, Example):
            example = row
        else:
            try:
                example = _example(_mapping(row), group_id, keys, rule)
            except BadRequest as err:
                raise CalibrationError(f"{where}: {err.message}") from None
        if _has_id(row):
            if example.id in given:
                raise CalibrationError(
                    f"{where}: the id {example.id!r} stands at {given[example.id]} too"
                )
            given[example.id] = where
        else:  # the same prompt twice: two examples of one group
            made[example.id] = made.get(example.id, 0) + 1
            if made[example.id] > 1:
                example = Example(
                    f"{example.id}-{made[example.id]}", example.group, example.prompt,
                    example.gold, example.by,
                )  # fmt: skip
        found.append(example)
    if not found:
        raise CalibrationError(f"there are no examples in {source!r:.100}")
    return found


def _rows(source: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(source, (str, os.PathLike)):
        yield from _lines(Path(source))
    elif isinstance(source, Iterable) and not isinstance(source, (Mapping, bytes)):
        yield from ((f"example {n}", row) for n, row in enumerate(source, 1))
    else:
        raise CalibrationError(
            f"examples are a path to JSONL or an iterable of dicts or pairs, not {source!r:.100}"
        )


def _lines(path: Path) -> Iterator[tuple[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as err:
        raise CalibrationError(f"the examples {str(path)!r} cannot be read: {err}") from err
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as err:
            raise CalibrationError(
                f"line {number} of {path.name} is not JSON ({err}): {line[:60]!r}"
            ) from None
        if isinstance(row, Mapping) and row.get("format") == ANSWERS_FORMAT:
            raise CalibrationError(
                f"{str(path)!r} holds kept answers, not examples",
                "Give the file of prompts as examples (--data), and this one as answers.",
            )
        yield f"line {number} of {path.name}", row


def _mapping(row: Any) -> Mapping[str, Any]:
    if isinstance(row, Mapping):
        return row
    if isinstance(row, (tuple, list)) and len(row) == 2:
        return {"prompt": row[0], "gold": row[1]}
    raise BadRequest(f"an example is a dict or a (prompt, gold) pair, not {row!r:.100}")


def _has_id(row: Any) -> bool:
    return isinstance(row, Example) or (
        isinstance(row, Mapping) and _first(row, ID_KEYS) is not None
    )


def _first(row: Mapping[str, Any], keys: Sequence[str]) -> Any:
    return next((row[k] for k in keys if row.get(k) is not None), None)


@dataclass(frozen=True)
class _Rule:
    """Which examples need a right answer, and of which kind."""

    needed: bool
    judged: Collection[str]
    any_kind: bool


def prompt_digest(prompt: Prompt) -> str:
    """Sixteen hexadecimal digits that stand for a prompt: an example's id where it has none."""
    text = json.dumps(prompt, sort_keys=True, default=str)
    return sha256(text.encode()).hexdigest()[:16]


def _example(row: Mapping[str, Any], group_id: Any, by: Sequence[str], rule: _Rule) -> Example:
    asked = _first(row, PROMPT_KEYS)
    if asked is None:
        raise BadRequest(f"no prompt in {sorted(row)!r}: it stands under {_list(PROMPT_KEYS)}")
    prompt = make_prompt(asked)
    digest = prompt_digest(prompt)
    own = _first(row, ID_KEYS)
    name = digest if own is None else str(own)
    gold = _gold(row, rule.needed and name not in rule.judged, rule.any_kind)
    group = _group(row, group_id)
    missing = [key for key in by if key not in row]
    if missing:
        raise BadRequest(f"no {missing[0]!r} to group by; the keys are {_list(sorted(row))}")
    return Example(
        id=name,
        group=digest if group is None else str(group),
        prompt=prompt,
        gold=gold,
        by={key: str(row[key]) for key in by},
    )


def _gold(row: Mapping[str, Any], needed: bool, any_kind: bool) -> Any:
    gold = _plain(_first(row, GOLD_KEYS))
    if gold is None and needed:
        raise BadRequest(f"no right answer in {sorted(row)!r}: it stands under {_list(GOLD_KEYS)}")
    if isinstance(gold, Mapping):
        gold = gold if any_kind else _listed(gold)
    if isinstance(gold, (list, tuple)):
        if not gold and needed:
            raise BadRequest("the list of right answers is empty")
        return tuple(map(_text, gold))
    return gold if gold is None or isinstance(gold, Mapping) else _text(gold)


def _listed(gold: Mapping[str, Any]) -> Any:
    """The right answers of a dict as the data sets SQuAD and TriviaQA keep them."""
    if "text" in gold:
        texts = _plain(gold["text"])
        return texts if isinstance(texts, list) else [texts]
    if "value" in gold:
        return list(dict.fromkeys([gold["value"], *(_plain(gold.get("aliases")) or ())]))
    raise BadRequest(
        f"a right answer cannot be {dict(gold)!r:.100}: it is a text, a number, a list of them, "
        "{'text': [...]} or {'value': ..., 'aliases': [...]}; any other needs a callable grader"
    )


def _plain(values: Any) -> Any:
    return values.tolist() if hasattr(values, "tolist") else values


def _text(gold: Any) -> str:
    value = _plain(gold)
    if isinstance(value, str):
        return value
    if isinstance(value, (int, float)):
        return str(value)
    raise BadRequest(f"a right answer is a text or a number, not {gold!r:.100}")


def _group(row: Mapping[str, Any], group_id: Any) -> Any:
    if callable(group_id):
        return group_id(row)
    if group_id is None:
        return _first(row, GROUP_KEYS)
    if group_id not in row:
        raise BadRequest(f"no {group_id!r} as group; the keys are {_list(sorted(row))}")
    return row[group_id]


def _list(keys: Sequence[str]) -> str:
    return ", ".join(map(repr, keys))


def split(
    examples: Sequence[Example], shares: Sequence[float] = (0.5, 0.25, 0.25), seed: int = 0
) -> dict[str, str]:
    """Example id -> fit, certify or report. Whole groups, in an order that only the seed decides.

    >>> parts = split(read_examples([(f"Is {n} even?", "no") for n in range(8)]))
    >>> sorted(parts.values())
    ['certify', 'certify', 'fit', 'fit', 'fit', 'fit', 'report', 'report']
    """
    if len(shares) != 3 or any(not 0 <= s <= 1 for s in shares) or abs(sum(shares) - 1) > 1e-9:
        raise CalibrationError(
            f"split={tuple(shares)!r} is not allowed: three shares of fit, certify and report "
            "that add up to 1"
        )
    groups: dict[str, list[str]] = {}
    for example in examples:
        groups.setdefault(example.group, []).append(example.id)
    order = sorted(groups, key=lambda g: sha256(f"{seed}|{g}".encode()).digest())
    ends = [shares[0] * len(examples), (shares[0] + shares[1]) * len(examples)]
    parts, placed = {}, 0
    for group in order:
        middle = placed + len(groups[group]) / 2
        part = PARTS[sum(middle > end for end in ends)]
        parts.update(dict.fromkeys(groups[group], part))
        placed += len(groups[group])
    return parts
