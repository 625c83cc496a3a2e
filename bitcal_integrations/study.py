"""Weight types of one model beside each other: what each costs, and how far to trust its answers.

Each variant is loaded, asked every question, and closed before the next one comes; its answers can
be kept, so that a cut study goes on. Its calibrator is fitted on some of the questions, by whole
groups, and everything is measured on the others (see studied.py). How it looks is for a report.
"""

from __future__ import annotations

import gc
import os
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

from bitcal_integrations.answered import Asking, Progress, answer_all
from bitcal_integrations.dataset import Example, read_examples, split
from bitcal_integrations.errors import (
    BadRequest,
    CalibrationError,
    EngineError,
    LoadError,
    SaveError,
)
from bitcal_integrations.features import make_schema
from bitcal_integrations.fitted import FitOptions
from bitcal_integrations.grading import as_grader, as_parser
from bitcal_integrations.model import CalibratedModel, load
from bitcal_integrations.quantize._dtype import check_dtype, pick_device
from bitcal_integrations.quantize._plan import check_weights
from bitcal_integrations.quantize._repair import Repair, check_repair
from bitcal_integrations.studied import Result, Study, numbers_of, on_front
from bitcal_integrations.types import Labelled

Opener: TypeAlias = Callable[[], CalibratedModel]

WEIGHTS = (None, "qint8", "qint4", "qint2")
TIMED = 16  # prompts of which the speed is measured, asked as one list
PATHS = (str, os.PathLike)
_NAME = re.compile(r"\w[\w.+-]*")  # it names a file


def study(
    model: Any,
    data: Any,
    weights: Sequence[str | None] | str | None = WEIGHTS,
    repairs: Any = (None,),
    *,
    variants: Mapping[str, Any] | None = None,
    parser: Any = None,
    grader: Any = "normalised",
    group_id: Any = None,
    method: str = "auto",
    fit_share: float = 0.5,
    folder: str | os.PathLike[str] | None = None,
    dtype: str = "auto",
    device: str = "auto",
    timed: int = TIMED,
    seed: int = 0,
    progress: Progress | None = None,
    **options: Any,
) -> Study:
    """Measure a model at each weight type, with each repair, on labelled examples.

    `model` is a hub id, a folder, or a function that takes the arguments of `load` and gives a
    fresh model; `data` as `fit_profile` takes it. `variants` adds further ones: a name and a dict
    of arguments for `load` (a plan, a saved folder as `source`), or a function without arguments.
    `folder` keeps every answer, in a file per variant, so that a cut study goes on.
    `options` are those of `ask`.
    """
    if refused := {"features", "return_errors", "early_stop"} & set(options):
        raise BadRequest(f"{min(refused)} is not an option of a study")
    if variants is not None and not isinstance(variants, Mapping):
        raise BadRequest(
            f"variants={variants!r:.100} is not allowed: it is a dict of name: variant"
        )
    if not isinstance(timed, int) or timed < 0:
        raise BadRequest(f"timed={timed!r} is not allowed: a number of prompts, 0 for no speed")
    # What is wrong for every variant is refused before a model is loaded.
    as_grader(grader), as_parser(parser), check_dtype(dtype), pick_device(device)
    how = {"dtype": dtype, "device": device, "profile": None}
    made = grid(weights, repairs)
    if twice := set(made) & set(variants or {}):
        raise BadRequest(f"{min(twice)!r} is a weight type of this study: name that variant anew")
    wanted = {**made, **(variants or {})}
    openers = {
        name: _opener(model, variant, {**how, "progress": _named(progress, name)})
        for name, variant in wanted.items()
    }
    examples = read_examples(data, group_id=group_id, any_gold=callable(grader))
    asked = options | {"early_stop": None} | ({"parser": parser} if parser is not None else {})
    asking = Asking(grader, make_schema(None), "default", asked, progress)
    return study_variants(
        openers, examples, asking, method=method, fit_share=fit_share, folder=folder,
        timed=timed, seed=seed, title=os.fspath(model) if isinstance(model, PATHS) else "a model",
    )  # fmt: skip


def grid(weights: Sequence[str | None] | str | None, repairs: Any = (None,)) -> dict[str, Any]:
    """The variants of weight types and repairs by name; unquantized weights need no repair.

    >>> list(grid([None, "qint2"], [None, "data-free"]))
    ['none', 'qint2', 'qint2+data-free']
    """
    found: dict[str, Any] = {}
    each = _several("repairs", repairs)
    for kind in _several("weights", weights):
        if isinstance(kind, Mapping):
            raise BadRequest(f"weights={kind!r:.100} has no name: give a plan one in variants=")
        check_weights(kind)
        for repair in each if kind is not None else (None,):
            steps = check_repair(repair)
            told = repair if isinstance(repair, str) else "+".join(steps.steps) if steps else ""
            name = "+".join(filter(None, (kind or "none", told)))
            one = {"weights": kind, "repair": repair}
            if found.setdefault(name, one) != one:
                raise BadRequest(f"two variants are called {name!r}: name one of them in variants=")
    return found


def _several(name: str, value: Any) -> Sequence[Any]:
    """A lone name is a list of one."""
    if value is None or isinstance(value, (str, Repair)):
        return (value,)
    if isinstance(value, Mapping) or not isinstance(value, Iterable):
        raise BadRequest(f"{name}={value!r:.100} is not allowed: it is a list of names")
    return tuple(value)


def _opener(model: Any, variant: Any, how: Mapping[str, Any]) -> Opener:
    """A function that loads one variant."""
    if callable(variant):
        return variant
    if not isinstance(variant, Mapping):
        raise BadRequest(
            f"a variant is a dict of arguments for load, or a function, not {variant!r}"
        )
    arguments = {**how, **variant}
    source = arguments.pop("source", model)
    if isinstance(source, PATHS):
        return partial(load, source, **arguments)
    if not callable(source) or hasattr(source, "parameters"):
        raise BadRequest(
            f"a study loads a model once for each variant, and {source!r:.60} is one model only: "
            "give a hub id, a folder, or a function that takes the arguments of load"
        )
    return partial(source, **arguments)


def study_variants(
    openers: Mapping[str, Opener],
    examples: Sequence[Example],
    asking: Asking,
    *,
    title: str = "",
    method: str = "auto",
    fit_share: float = 0.5,
    folder: str | os.PathLike[str] | None = None,
    timed: int = TIMED,
    seed: int = 0,
) -> Study:
    """`study` for functions that load, checked examples, and a way of asking."""
    place = _places(openers, examples, fit_share, method, seed)
    schema = asking.schema or make_schema(None)
    if folder is not None:
        Path(folder).mkdir(parents=True, exist_ok=True)
    results = []
    for name, opener in openers.items():
        keep = None if folder is None else Path(folder) / f"{name}.jsonl"
        how = replace(asking, schema=schema, progress=_named(asking.progress, name))
        result, rows = _asked(name, opener, examples, how, keep, timed)
        gc.collect()  # the next one is loaded when this one is gone
        rows = [replace(r, part=place[r.id]) for r in rows]
        results.append(numbers_of(result, rows, schema, method))
    whole = [result.name for result in results if not result.error]
    if not whole:
        raise LoadError(f"no variant could be measured; {results[0].name}: {results[0].error}", "")
    reference = "none" if "none" in whole else whole[0]
    measured = [e for e in examples if place[e.id] == "report"]
    found = Study(
        title, tuple(on_front(results)), reference, len(examples), len(examples) - len(measured),
        len(measured), len({e.group for e in measured}), seed,
    )  # fmt: skip
    return found.compared()


def _places(
    openers: Mapping[str, Opener],
    examples: Sequence[Example],
    fit_share: float,
    method: str,
    seed: int,
) -> dict[str, str]:
    """The part of each question; what would else be noticed late is refused now."""
    if not openers:
        raise BadRequest("a study needs a variant: name weights or variants")
    for name in openers:
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise BadRequest(f"{name!r} names no variant: letters, digits, '.', '+', '-' and '_'")
    if not isinstance(fit_share, (int, float)) or not 0 < fit_share < 1:
        raise BadRequest(f"fit_share={fit_share!r} is not allowed: it lies between 0 and 1")
    FitOptions(method)
    place = split(examples, (fit_share, 0, 1 - fit_share), seed)
    if set(place.values()) < {"fit", "report"}:
        raise CalibrationError(
            f"{len(examples)} examples in {len({e.group for e in examples})} groups are too few: "
            "some groups are for the calibrator, and others are measured"
        )
    return place


def _named(report: Progress | None, name: str) -> Progress | None:
    return report and (lambda done, total, label: report(done, total, f"{name}: {label}"))


def _asked(
    name: str, opener: Opener, examples: Sequence[Example], asking: Asking, keep: Any, timed: int
) -> tuple[Result, list[Labelled]]:
    """Cost and answers of one variant; it is closed when they are there."""
    begun = time.perf_counter()
    try:
        model = opener()
    except (LoadError, BadRequest) as error:  # such a variant is none; the others go on
        return Result(name, str(error)), []
    with model:
        loading = time.perf_counter() - begun
        try:
            speed = _speed(model, examples, asking, timed)
        except EngineError as error:
            return Result(name, str(error)), []
        rows = answer_all(model, examples, asking, keep)
        return Result(name, bytes=_bytes(model), speed=speed, loading=loading), rows


def _speed(model: CalibratedModel, examples: Sequence[Example], asking: Asking, n: int) -> Any:
    """Tokens per second on the first n prompts, asked as one list, after one to warm up.

    The engine's error where it answers none of them; None where n is 0 or no token came.
    """
    options = {**asking.plain_options, "return_errors": True}
    model.ask([examples[0].prompt], **options)
    begun = time.perf_counter()
    records = model.ask([e.prompt for e in examples[: max(n, 1)]], **options)
    seconds = time.perf_counter() - begun
    failed = [r for r in records if isinstance(r, Exception)]
    if len(failed) == len(records) and isinstance(failed[0], EngineError):
        raise failed[0]  # it would answer no other one; a prompt that is too long is one of many
    tokens = sum(r.generation.n_tokens for r in records if not isinstance(r, Exception))
    return tokens / seconds if n and tokens else None


def _bytes(model: CalibratedModel) -> int | None:
    """Bytes of all weights; None for a model without weights in this process."""
    try:
        return int(model.memory_report()["total"])
    except SaveError:
        return None


__all__ = ["Result", "Study", "grid", "study", "study_variants"]
