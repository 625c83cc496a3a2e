"""Recovery: a quantized model's norm gains learn from the unquantized model, behind a gate.

The unquantized model answers prompts, the quantized one is trained to say the same with the same
probabilities, and it keeps what it learned only if questions that neither was trained on come out
better. Knows models and labelled examples; how gains are trained is the quantize stage's.
"""

from __future__ import annotations

import gc
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bitcal_integrations.answered import Asking, Progress, answer_all
from bitcal_integrations.dataset import Example
from bitcal_integrations.decode.prompt import encode
from bitcal_integrations.errors import BadRequest, EngineClosed
from bitcal_integrations.fit import unprofiled
from bitcal_integrations.gate import SHARES, Change, held_apart, judge
from bitcal_integrations.grading import as_parser
from bitcal_integrations.model import CalibratedModel, load
from bitcal_integrations.quantize import _targets
from bitcal_integrations.quantize._build import release_memory
from bitcal_integrations.quantize._kept_layers import KeptLayers, basis_of
from bitcal_integrations.quantize._loaded import LoadedWeights
from bitcal_integrations.quantize._origin import name_of, origin_of
from bitcal_integrations.quantize._rates import learn_at_best
from bitcal_integrations.quantize._recovery import Recovery
from bitcal_integrations.quantize.recover import digest_of, gains_of, set_gains
from bitcal_integrations.types import Labelled

__all__ = ["Recovered", "Recovery", "forget", "held_apart", "kept_beside", "recover_model"]

logger = logging.getLogger(__name__)
WAVE = 8  # batches whose prompts are asked together, and kept together
_SUFFIX = ".recover"


@dataclass(frozen=True)
class Recovered:
    """What a recovery did. `kept` False: the gains are as they were, and `why` says the reason.

    `brier` is of the raw confidence where there is one before and after, `accuracy` of all judged
    answers; `auroc`, `ece` and `unknown` (answers without a confidence) are (before, after). `rate`
    is the one that was taken, None if none helped; `loss`, in nats per token, is that on prompts
    which were set aside when gains were trained, (before, after).
    """

    kept: bool
    why: str
    brier: Change
    accuracy: Change
    auroc: tuple[float | None, float | None]
    ece: tuple[float | None, float | None]
    unknown: tuple[int, int]
    prompts: int
    rate: float | None
    loss: tuple[float, float]
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    def __str__(self) -> str:
        b, a = self.brier, self.accuracy
        return (
            f"recover: {'kept' if self.kept else 'not kept'}, {self.why}; held-out Brier "
            f"{b.before:.3f} -> {b.after:.3f}, right {a.before:.3f} -> {a.after:.3f} "
            f"({a.n} questions), {self.prompts} prompts, {self.seconds:.0f} s"
        )


def recover_model(
    model: CalibratedModel,
    examples: Any,
    *,
    teacher: Any = None,
    how: Recovery | None = None,
    parser: str | Callable[..., Any] | None = None,
    grader: Any = "normalised",
    group_id: str | Callable[[Mapping[str, Any]], Any] | None = None,
    parts: Sequence[float] = SHARES,
    keep: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> Recovered:
    """Train the norm gains of a quantized model in place, and keep them if answers get better.

    `teacher` is the unquantized model, loaded or as `load` takes it; by default it is what `model`
    was quantized from. It answers the prompts of the first of two `parts` of the examples and is
    let go before training begins; labels are not used there. Where the rate of `how` does not help
    on an eighth of these prompts, which is set aside, lower ones are tried. The second part, of
    other groups, needs labels: it is asked before and after. The new gains stay only if its Brier
    score (of the raw confidence) falls by more than two paired standard errors, clustered by group,
    the share of right answers does not fall, and that of unknown ones rises by no more than a
    hundredth. Settings that are tried until one passes make that a weaker proof.

    Both models are in memory while the teacher answers; then the quantized one alone, with the
    logits of one batch and what the teacher said. Nobody else may ask `model` meanwhile. `keep` is
    a folder from which a cut run goes on. What is kept changes the fingerprint, so that a profile
    of before does not apply. `options` are those of `ask`.
    """
    started = time.perf_counter()
    how, _ = how or Recovery(), as_parser(parser)
    loaded = _recoverable(model)
    learning, held_out = held_apart(
        examples, grader=grader, group_id=group_id, parts=parts, seed=how.seed
    )
    origin = origin_of(loaded) if teacher is None else teacher
    options |= {"early_stop": None, **({"parser": parser} if parser is not None else {})}
    bare, folder = unprofiled(model), None if keep is None else Path(keep).expanduser()
    asking = Asking(grader, None, "default", options, progress)

    def ask(name: str) -> list[Labelled]:
        of = basis_of(asking.header(bare))[:8]  # answers of other weights are left alone
        return answer_all(bare, held_out, asking, folder and folder / f"{name}-{of}.jsonl")

    lessons = _lessons(model, origin, learning, how, folder, asking)
    before = ask("before")
    best = learn_at_best(loaded.model, lessons, how, keep=folder, progress=progress)
    found = judge(before, before) | {"why": best.why_not}
    if best.learned is not None:
        with _put_in(model, best.learned.gains, best.how) as settle:
            found = judge(before, ask("after"))
            settle(found["kept"])
    return Recovered(
        **found, prompts=sum(len(batch.ids) for batch, _ in lessons),
        rate=best.how.rate if best.learned else None, loss=(best.before, best.after),
        seconds=time.perf_counter() - started,
    )  # fmt: skip


def _recoverable(model: CalibratedModel) -> LoadedWeights:
    """The weights of a model that can be trained and then be asked; else one clear error."""
    loaded = model._weights("recovered")
    gains_of(loaded.model)
    if not loaded.weights:
        raise BadRequest(f"{model.name!r} is not quantized: there is nothing to recover")
    if model.closed:
        raise EngineClosed("the model is closed")
    if model._assessor.strict:
        raise BadRequest(
            f"{model.name!r} was loaded with strict=True, and with new gains it has no profile of "
            "its own: load it with strict=False, and measure one afterwards"
        )
    return loaded


def _lessons(
    model: CalibratedModel,
    teacher: Any,
    examples: Sequence[Example],
    how: Recovery,
    folder: Path | None,
    asking: Asking,
) -> list[_targets.Lesson]:
    """What the teacher says to the prompts and how sure it is of each word, batch by batch."""
    kept, lessons, wave = KeptLayers(folder), list[_targets.Lesson](), WAVE * how.rows
    requests = [model.request_of(e.prompt, **asking.plain_options) for e in examples]
    prompts = [encode(model.tokenizer, request).ids for request in requests]
    own, given = model.fingerprint_parts, isinstance(teacher, CalibratedModel)
    basis = (
        {name: own[name] for name in ("model", "revision", "dtype")},
        teacher.fingerprint_parts if given else name_of(teacher),
        asking.header(model)["options"],
        (how.rows, how.top, how.temperature),
    )
    with _teacher(model, teacher, asking.progress) as loaded:
        for begin in range(0, len(requests), wave):
            some = slice(begin, begin + wave)

            def make(some: slice = some) -> dict[str, Any]:
                return _asked(loaded(), requests[some], prompts[some], how)

            name = f"prompts-{begin:06d}"
            found = kept.get("lessons", name, (*basis, prompts[some]), make)
            lessons += _targets.from_tensors(found)
            if asking.progress is not None:
                asking.progress(min(begin + wave, len(requests)), len(requests), "teacher")
    return lessons


def _asked(
    teacher: CalibratedModel, requests: Sequence[Any], prompts: Sequence[Any], how: Recovery
) -> dict[str, Any]:
    """The teacher's answers to some prompts, as lessons."""
    answers, texts = dict(teacher.ask_requests(requests)), []
    for index, prompt in enumerate(prompts):
        answer = answers[index]
        if isinstance(answer, BadRequest):  # a prompt that is too long, for one
            logger.warning("a prompt is left out: %s", answer)
        elif isinstance(answer, Exception):
            raise answer
        elif said := [step.token_id for step in answer.generation.steps]:
            texts.append((prompt, said))
    weights = teacher._weights("asked").model
    return _targets.tensors_of(_targets.lessons_of(weights, texts, how))


@contextmanager
def _teacher(
    model: CalibratedModel, given: Any, progress: Progress | None
) -> Iterator[Callable[[], CalibratedModel]]:
    """The teacher, loaded when it is first needed, and let go at the end if it was loaded here."""
    own: list[CalibratedModel] = []

    def get() -> CalibratedModel:
        if isinstance(given, CalibratedModel):
            return _checked(given, model)
        if not own:
            mine = model._weights("recovered")
            own.append(load(
                given, weights=None, dtype=mine.dtype, device=mine.device, profile=None,
                revision=mine.revision if given == mine.source else None, progress=progress,
            ))  # fmt: skip
        return _checked(own[0], model)

    try:
        yield get
    finally:
        for loaded in own:
            loaded.close()
        own.clear()
        gc.collect()
        release_memory()


def _checked(teacher: CalibratedModel, model: CalibratedModel) -> CalibratedModel:
    if teacher.tokenizer is None or teacher.tokenizer.get_vocab() != model.tokenizer.get_vocab():
        raise BadRequest(
            f"the teacher {teacher.name!r} has other tokens than {model.name!r}: only a model with "
            "the same tokens can teach it"
        )
    return teacher


@contextmanager
def _put_in(
    model: CalibratedModel, gains: Mapping[str, Any], how: Recovery
) -> Iterator[Callable[[bool], None]]:
    """Within this the model has these gains and says so; `settle(True)` makes it keep them."""
    loaded = model._weights("recovered")
    settled: list[bool] = []
    parts = loaded.parts.get("recover")
    before = {name: gain.detach().clone() for name, gain in gains_of(loaded.model).items()}
    try:
        set_gains(loaded.model, gains)
        loaded.parts["recover"] = {**how.parts(), "gains": digest_of(dict(gains))}
        yield settled.append
    finally:
        if True not in settled:
            set_gains(loaded.model, before)
            loaded.parts.pop("recover", None)
            loaded.parts.update({} if parts is None else {"recover": parts})
        else:
            model.use_profile(model.profile)  # judged anew: it is of the gains before


def kept_beside(out: str | os.PathLike[str]) -> Path:
    """The folder beside `out` that keeps what is done; give it as `keep`.

    >>> kept_beside("small").name
    'small.recover'
    """
    path = Path(out).expanduser().absolute()
    return path.with_name(path.name + _SUFFIX)


def forget(out: str | os.PathLike[str]) -> None:
    """Remove what `kept_beside(out)` kept; nothing happens where nothing is."""
    shutil.rmtree(kept_beside(out), ignore_errors=True)
