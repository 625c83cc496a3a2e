"""A verdict prompt tuned on a model's own labelled answers, for the signal `p_true_tuned`.

`tune_verdict` asks the model examples, grades what it says, and trains soft tokens in front of the
question of `p_true` until True and False say how often such answers are right; `use_verdict` puts
them in use. Answers are the same with and without them, and no confidence changes until a profile
is fitted with the feature. Try `fit_profile` with its default features first: they need no second
pass, and on the built-in model even two parameters on the text's own probability were better than
a tuned verdict, at qint4 and at qint2 (tests/benchmarks/soft_prompt.py). Joins models, labels and
quantize/soft_prompt.py; fits no profile.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bitcal_integrations.answered import Asking, Progress, answer_all
from bitcal_integrations.asker import SWAPPING
from bitcal_integrations.assess import Assessor
from bitcal_integrations.dataset import Example, read_examples, split
from bitcal_integrations.errors import BadRequest, CalibrationError, PromptTooLong
from bitcal_integrations.fit import answered, schema_of, unprofiled
from bitcal_integrations.kept import judged_ids
from bitcal_integrations.model import fingerprint_parts, with_verdict
from bitcal_integrations.profile import differing
from bitcal_integrations.request import SoftRequest
from bitcal_integrations.seen import marks_of
from bitcal_integrations.signals import p_true_tuned
from bitcal_integrations.types import Answer, Generation, Labelled

if TYPE_CHECKING:
    from bitcal_integrations.decode.net import Net
    from bitcal_integrations.quantize.soft_prompt import SoftPrompt, Tuning

__all__ = ["tune_verdict", "use_verdict"]

BEGINNING = (
    "Read the question and the proposed answer carefully. Work the answer out again, compare it "
    "with the proposed one, and say how it turned out: is it right or is it wrong? "
)
WORDS = ("False", "True")
HELD_OUT = 0.2
LEAST = 20  # labelled answers; what so few teach is little, and less is nothing


def tune_verdict(
    model: Any,
    examples: Any,
    *,
    parser: str | Callable[..., Any] | None = None,
    grader: Any = "normalised",
    group_id: Any = None,
    tuning: Tuning | None = None,
    answers: str | os.PathLike[str] | None = None,
    out: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> SoftPrompt:
    """Ask, grade and train: soft tokens by which this model judges its own answers.

    `examples` is a path to JSONL, a data set or a list of {"prompt", "gold"}, hundreds of them and
    none that a profile will be fitted on; `answers` a file that keeps every answer as it comes.
    The result is written to `out`; while it is trained OUT.part keeps where it stands, so that the
    same call goes on after a cut. `tuning` is a `quantize.soft_prompt.Tuning` (how many soft
    tokens, steps, the seed); other options are those of `ask`.
    """
    from bitcal_integrations.quantize import soft_prompt

    how = soft_prompt.Tuning() if tuning is None else tuning
    if not isinstance(how, soft_prompt.Tuning):
        raise BadRequest(f"tuning={how!r:.100} must be a quantize.soft_prompt.Tuning")
    if refused := {"features", "return_errors", "early_stop"} & set(options):
        raise BadRequest(f"{min(refused)} is not an option of tune_verdict")
    _check_out(out)
    loaded = _weights(model)
    net = _net(loaded)
    asked = read_examples(
        examples, group_id=group_id, judged=judged_ids(answers), any_gold=callable(grader)
    )
    options |= {"early_stop": None, **({"parser": parser} if parser is not None else {})}
    asking = Asking(grader, schema_of(None, model), "default", options, progress)
    rows = _judged(answer_all(unprofiled(model), asked, asking, answers))
    job = _Job(net, model, rows, how, asking.plain_options)
    parts = fingerprint_parts(loaded)
    keep = soft_prompt.Kept(_part(out), job.made(parts)) if out is not None else None
    found = job.run(keep, progress)
    prompt = soft_prompt.SoftPrompt(
        found.best.cpu(), parts, job.report(found), marks_of(r.prompt for r in rows)
    )
    if out is not None:
        prompt.save(out)
        _part(out).unlink(missing_ok=True)
    return prompt


def use_verdict(model: Any, verdict: str | os.PathLike[str] | SoftPrompt | None) -> None:
    """Put a tuned verdict prompt of this very model in use, from a path or as it is; None ends it.

    It is asked only where `p_true_tuned` is a feature: of `ask`, or of the model's profile, which
    holds for this verdict prompt and no other. `model.save` writes it beside the weights, where
    `load` finds it.
    """
    from bitcal_integrations.quantize.soft_prompt import as_soft_prompt

    found, parts = as_soft_prompt(verdict), dict(model.fingerprint_parts)
    parts.pop("verdict", None)
    if found is not None and (part := differing(found.parts, parts)):
        raise BadRequest(f"the verdict prompt was tuned on another model: {part}")
    with SWAPPING:
        strict = model._assessor.strict
        model._assessor = Assessor(model.profile, with_verdict(parts, found), strict)
        model._verdict = found


class _Job:
    """One training: which prompts, which rows are held out, and the settings."""

    def __init__(
        self,
        net: Net,
        model: Any,
        rows: Sequence[Labelled],
        how: Tuning,
        options: Mapping[str, Any],
    ) -> None:
        from bitcal_integrations.decode import soft

        self._how = how
        words = soft.told_apart(net, WORDS)
        self._start = soft.begin_as(net, BEGINNING, how.tokens)
        self._spread = float(net.model.get_input_embeddings().weight.float().std())
        asked = [(row, _ids(net, model, row, options, self._start)) for row in rows]
        self._rows = [row for row, ids in asked if ids]
        self._too_long = len(rows) - len(self._rows)
        _check_rows(self._rows, self._too_long)
        self._ids = [ids for _, ids in asked if ids]
        after = [words[bool(row.correct)] for row in self._rows]
        self._loss = soft.Prompts(net, self._ids, after).loss
        self._fit, self._held = _apart(self._rows, how.seed)

    def made(self, parts: Mapping[str, Any]) -> dict[str, Any]:
        """What a kept training must have been made of to be gone on with."""
        data = [(ids, bool(row.correct)) for ids, row in zip(self._ids, self._rows, strict=True)]
        digest = sha256(repr(data).encode()).hexdigest()[:16]
        return {"model": dict(parts), "tuning": asdict(self._how), "answers": digest}

    def run(self, keep: Any, progress: Progress | None) -> Any:
        from bitcal_integrations.quantize.soft_prompt import tune

        return tune(
            self._loss, self._start, self._fit, self._held, self._how, self._spread, keep, progress
        )

    def report(self, found: Any) -> dict[str, Any]:
        """What it was trained on and came to: the loss of the held-out answers, in nats."""
        before, after = found.losses
        right = sum(bool(row.correct) for row in self._rows) / len(self._rows)
        return {
            "tuning": asdict(self._how), "fit": len(self._fit), "held_out": len(self._held),
            "too_long": self._too_long, "right": right, "loss_before": before, "loss": after,
        }  # fmt: skip


def _weights(model: Any) -> Any:
    loaded = getattr(model, "_loaded", None)
    if loaded is None:
        raise BadRequest(
            f"{getattr(model, 'name', model)!r:.100} has no weights in this process: soft tokens "
            "are trained and served on a model that `load` has loaded from weights"
        )
    return loaded


def _net(loaded: Any) -> Net:
    from bitcal_integrations.decode.net import Net
    from bitcal_integrations.decode.soft import check_soft

    net = Net(loaded.model, loaded.tokenizer)
    check_soft(net)
    return net


def _judged(rows: Sequence[Labelled]) -> list[Labelled]:
    return [row for row in rows if answered(row) and row.correct is not None]


def _apart(rows: Sequence[Labelled], seed: int) -> tuple[list[int], list[int]]:
    """Which rows to train on and which to hold out, whole groups."""
    one_each = [Example(row.id, row.group, row.prompt) for row in rows]
    place = split(one_each, (1 - HELD_OUT, HELD_OUT, 0.0), seed)
    fit = [i for i, row in enumerate(rows) if place[row.id] == "fit"]
    held = [i for i, row in enumerate(rows) if place[row.id] != "fit"]
    if not (fit and held):
        raise CalibrationError(
            f"the {len(rows)} judged answers are of one group, {rows[0].group!r}: some groups are "
            "trained on and others held out"
        )
    return fit, held


def _check_rows(rows: Sequence[Labelled], too_long: int) -> None:
    right = sum(bool(row.correct) for row in rows)
    if len(rows) < LEAST or right in (0, len(rows)):
        left = f" ({too_long} are too long for the model's context)" if too_long else ""
        raise CalibrationError(
            f"{right} of {len(rows)} judged answers are right{left}: a verdict is tuned on "
            f"{LEAST} or more, some of them right and some wrong"
        )


def _ids(
    net: Net, model: Any, row: Labelled, options: Mapping[str, Any], start: Any
) -> tuple[int, ...]:
    """The prompt that asks about a labelled answer, as it is served; empty where it is too long."""
    answer = None if row.answer is None else Answer(row.answer, 0, len(row.text))
    said = Generation(row.text, row.finish, answer=answer)
    (asked,) = p_true_tuned.requests(model.request_of(row.prompt, **options), said)
    assert isinstance(asked, SoftRequest)
    try:
        return net.encode(replace(asked, soft=start)).ids
    except PromptTooLong:
        return ()


def _check_out(out: str | os.PathLike[str] | None) -> None:
    """Refuse now what else could not be written when everything is done."""
    if out is None:
        return
    if not Path(out).parent.is_dir():
        raise BadRequest(f"out={os.fspath(out)!r} lies in no folder that exists")
    if Path(out).is_dir():
        raise BadRequest(f"out={os.fspath(out)!r} is a folder: name a file in it")


def _part(out: str | os.PathLike[str]) -> Path:
    path = Path(out)
    return path.with_name(path.name + ".part")
