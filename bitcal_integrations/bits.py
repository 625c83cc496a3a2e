"""Weight types per layer for a model and its prompts: what `plan_bits` is to score, and in words.

The unquantized model answers the prompts once; a plan is then scored by how far the model moves
from these answers, or by its confidence in them where labels say which are right. Knows prompts,
answers and labels; how types are chosen is in quantize.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from typing import Any

from bitcal_integrations.answered import Progress, check_golds, gold_of
from bitcal_integrations.canary import answer_of
from bitcal_integrations.dataset import Example, read_examples
from bitcal_integrations.decode.prompt import encode
from bitcal_integrations.errors import BadRequest, CalibrationError, EngineClosed
from bitcal_integrations.grading import Grader, as_grader, name_of
from bitcal_integrations.model import CalibratedModel
from bitcal_integrations.quantize._kept_scores import KeptScores
from bitcal_integrations.quantize._repair import Repair, check_repair
from bitcal_integrations.quantize.align import NotAlignable, sequences
from bitcal_integrations.quantize.clip import clip_optimizer
from bitcal_integrations.quantize.forced import Brier, Divergence, Text
from bitcal_integrations.quantize.plan_bits import (
    OPTIONS,
    SWAPS,
    BitPlan,
    Budget,
    choices,
    plan_bits,
)
from bitcal_integrations.types import Record

__all__ = ["OBJECTIVES", "BitPlan", "KindRow", "by_kind", "choose_bits"]

logger = logging.getLogger(__name__)
# At 3 bits the built-in model's answers to fresh questions had a Brier score of .158 by kl on 64
# prompts, .246 by kl on its own texts, .288 by brier on the 64 with labels, and .363 by chance:
# one bit of a label says less than a distribution. tests/benchmarks/plan_bits.py prints them.
OBJECTIVES = ("kl", "brier")
PROMPTS = {"kl": 64, "brier": 512}
WAVE = 16  # prompts that are asked together, and kept together


def choose_bits(
    model: CalibratedModel,
    data: Any = None,
    *,
    budget: Budget,
    objective: str = "kl",
    prompts: int | None = None,
    options: Sequence[str | None] = OPTIONS,
    exclude: str | Sequence[str] | None = "*lm_head",
    repair: str | Repair | None = None,
    grader: str | Grader = "normalised",
    swaps: int = SWAPS,
    seed: int = 0,
    keep: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
    **asked: Any,
) -> BitPlan:
    """The weight types under which a model keeps its answers best, within a budget of memory.

    `model` is loaded with weights=None, is left as it is, and must not be asked meanwhile. `data`
    is a JSONL file, or prompts or examples; without it the model writes its own texts. The
    objective "kl" is how far it moves from its own answers, in nats per token, and needs no label;
    "brier" is how good its confidence in them is, and needs right answers, many hundreds of them.
    Of a larger `data`, `prompts` are drawn by the seed: 64 by default, for "brier" 512. `asked` are
    options of `ask`. The texts are read once per layer and type: with 64, a minute or two for the
    built-in model; a large one wants a GPU.

        with load("bitcal-tiny", weights=None) as model:
            found = choose_bits(model, "prompts.jsonl", budget="3 bits")
        load("bitcal-tiny", weights=found.plan).save("small")

    For a repair that clips, such as "data-free", the layers are scored with clipped scales; what
    its other steps bring comes on top. `keep` names a file of all that was measured, from which a
    cut run goes on.
    """
    loaded, mended = getattr(model, "_loaded", None), check_repair(repair)
    if loaded is None:
        raise BadRequest(f"{model!r} has no weights in this process that types could be chosen for")
    if model.closed:
        raise EngineClosed("the model is closed")
    choices(loaded.model, budget, options, exclude)  # refuse it now, not when all is answered
    examples = _examples(data, objective, prompts, seed)
    request = model.without_profile().request_of("", **asked)
    if objective == "brier":
        check_golds(examples, grader, request)
    about = {
        "model": model.fingerprint_parts, "objective": objective, "seed": seed,
        "exclude": exclude, "repair": mended.parts() if mended else None,
        "data": _digest(examples), "options": request.to_dict(),
        "grader": grader if isinstance(grader, str) else name_of(grader),
    }  # fmt: skip
    kept = KeptScores(keep, about)
    made = _Texts(model, objective, as_grader(grader), asked, progress)
    texts = made.of(examples, kept) if examples else _own(loaded.model, seed)
    measure = Divergence if objective == "kl" else Brier
    clips = mended is not None and "clip" in mended.steps
    return plan_bits(
        loaded.model, measure(loaded.model, texts), budget=budget, options=options, exclude=exclude,
        swaps=swaps, optimizer=clip_optimizer if clips else None, keep=kept, progress=progress,
    )  # fmt: skip


def _examples(data: Any, objective: str, prompts: int | None, seed: int) -> list[Example]:
    """The examples to ask, drawn by the seed; none where the model writes by itself."""
    if objective not in OBJECTIVES:
        raise BadRequest(f"objective={objective!r} is not known: use {' or '.join(OBJECTIVES)}")
    prompts = PROMPTS[objective] if prompts is None else prompts
    if isinstance(prompts, bool) or not isinstance(prompts, int) or prompts < 1:
        raise BadRequest(f"prompts={prompts!r} must be a whole number above 0")
    if data is None:
        if objective == "brier":
            raise BadRequest("objective='brier' needs data: prompts with their right answers")
        return []
    if isinstance(data, Iterable) and not isinstance(data, (str, os.PathLike)):
        data = [{"prompt": row} if isinstance(row, str) else row for row in data]
    found = read_examples(data, need_gold=objective == "brier")
    found.sort(key=lambda e: sha256(f"{seed}|{e.id}".encode()).digest())
    return found[:prompts]


def _digest(examples: Sequence[Example]) -> str | None:
    if not examples:
        return None
    rows = [(e.id, e.prompt, e.gold) for e in examples]
    return sha256(json.dumps(rows, default=str).encode()).hexdigest()[:24]


def _own(model: Any, seed: int) -> list[Text]:
    """What the model writes by itself, drawn from its own distribution."""
    try:
        _, rows = sequences(model, seed)
    except NotAlignable as reason:
        raise BadRequest(f"{reason}", "Give prompts for it to answer (data, --data).") from None
    return [Text(tuple(row), 1, len(row)) for row in rows.tolist()]


@dataclass(frozen=True)
class _Texts:
    """How the answers of the unquantized model become texts that are scored."""

    model: CalibratedModel
    objective: str
    grader: Grader
    asked: Mapping[str, Any]
    progress: Progress | None

    def of(self, examples: Sequence[Example], kept: KeptScores) -> list[Text]:
        """Each example's prompt and answer; those that fail are left out, with a warning."""
        bare, found = self.model.without_profile(), []
        for at in range(0, len(examples), WAVE):
            wave = examples[at : at + WAVE]
            if self.progress is not None:
                self.progress(at, len(examples), "answering")
            rows = kept.get(f"answers {at}", partial(self._answers, bare, wave))
            found += [Text(tuple(ids), *rest) for ids, *rest in rows]
        if not found:
            raise CalibrationError("none of the prompts could be answered")
        return found

    def _answers(self, bare: CalibratedModel, wave: Sequence[Example]) -> list[list[Any]]:
        records = bare.ask([e.prompt for e in wave], return_errors=True, **self.asked)
        rows = []
        for example, record in zip(wave, records, strict=True):
            if isinstance(record, Exception):
                if not isinstance(record, BadRequest):  # not the prompt's fault: nothing to keep
                    raise record
                logger.warning("the prompt %r was not answered: %s", example.id, record)
            elif record.generation.steps:
                rows.append(self._row(example, record))
        return rows

    def _row(self, example: Example, record: Record) -> list[Any]:
        prompt = encode(self.model.tokenizer, record.request).ids
        steps = record.generation.steps
        ids = [*prompt, *(step.token_id for step in steps)]
        if self.objective == "kl":
            return [ids, len(prompt), len(ids)]
        inside = {id(step) for step in record.generation.answer_steps()}
        where = [at for at, step in enumerate(steps) if id(step) in inside] or range(len(steps))
        right = self.grader(answer_of(record), gold_of(example.gold, record.request.parser))
        return [ids, len(prompt) + where[0], len(prompt) + where[-1] + 1, bool(right)]


@dataclass(frozen=True)
class KindRow:
    """One kind of layer in a plan: which numbers have which type, and what it is expected to cost.

    `cost` is by how much these layers raise the score in their types, `lowest` by how much they
    would in the smallest types that were tried.
    """

    kind: str
    numbers: dict[str, list[str]]
    cost: float
    lowest: float


def by_kind(found: BitPlan) -> list[KindRow]:
    """The plan by kind of layer, such as `mlp.up_proj`, in the model's order."""
    rows: dict[str, KindRow] = {}
    for name, kind in found.plan.items():
        why = found.why[name]
        parts = name.split(".")
        numbers = ".".join(part for part in parts if part.isdecimal())
        last = max((at for at, part in enumerate(parts) if part.isdecimal()), default=-1)
        title = ".".join(parts[last + 1 :]) or name
        row = rows.get(title, KindRow(title, {}, 0.0, 0.0))
        row.numbers.setdefault(kind or "float", []).append(numbers or name)
        cost = row.cost + (0.0 if kind is None else why[kind])
        lowest = row.lowest + next(iter(why.values()), 0.0)
        rows[title] = KindRow(title, row.numbers, cost, lowest)
    return list(rows.values())
