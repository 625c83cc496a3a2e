"""What soft tokens give bitcal-tiny beside a Platt fit on the same labels, on other questions.

`python tests/benchmarks/soft_prompt.py` prints a line per score: the sequence probability as it is
and after a two-parameter Platt fit, P(True) untrained and behind a tuned verdict prompt. The same
labelled answers fit and tune; no question is in both draws, though a fact may be asked in other
words. Then the other use that Zhong et al. (ACL 2025) make of soft tokens: in front of the
question, so that they act on the answer itself.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from bitcal_integrations import load, metrics
from bitcal_integrations.answered import Asking, answer_all
from bitcal_integrations.calibrators import fit_calibrator
from bitcal_integrations.decode import soft
from bitcal_integrations.decode.net import Net
from bitcal_integrations.features import DEFAULT_FEATURES, make_schema
from bitcal_integrations.fit import answered
from bitcal_integrations.kept import read_answers
from bitcal_integrations.quantize.soft_prompt import Tuning, tune
from bitcal_integrations.request import Request, SoftRequest
from bitcal_integrations.tiny import measure
from bitcal_integrations.tiny.examples import example
from bitcal_integrations.tiny.tasks import Question, grade, stream
from bitcal_integrations.types import Labelled
from bitcal_integrations.verdict import tune_verdict, use_verdict

FEATURES = (*DEFAULT_FEATURES, "p_true", "p_true_tuned")
OPTIONS: dict[str, Any] = {"parser": "tiny", "max_new_tokens": 160}
COLUMNS = ("brier", "ece", "nll", "auroc", "inside")


def drawn(split: str, n: int, seed: int) -> list[Question]:
    """Questions of the three tasks in their shares; none is in two splits."""
    return [
        q
        for task, share in measure.SHARES.items()
        for q in islice(stream(task, split, seed), round(n * share))
    ]


def tell(name: str, p: Any, y: Any, tasks: Any, seconds: float | None = None) -> None:
    """A line of scores; `inside` is the mean AUROC of a task, which the task alone cannot give."""
    found: dict[str, Any] = dict(metrics.summary(np.clip(p, 0, 1), y))
    parts = [tasks == task for task in sorted(set(tasks)) if 0 < y[tasks == task].mean() < 1]
    found["inside"] = np.mean([metrics.auroc(p[part], y[part]) for part in parts])
    took = "" if seconds is None else f"{seconds:8.0f} s"
    low, high = found["brier_low"], found["brier_high"]
    numbers = "".join(f"{found[column]:8.4f}" for column in COLUMNS)
    print(f"  {name:32}{numbers}  Brier {low:.4f}-{high:.4f}{took}", flush=True)


def judged(rows: Sequence[Labelled], names: Sequence[str]) -> tuple[np.ndarray, ...]:
    """Signals, verdicts and tasks of the answers that have all of these signals."""
    usable = [r for r in rows if answered(r) and r.correct is not None]
    usable = [r for r in usable if set(names) <= set(r.confidence.signals)]
    x = np.array([[r.confidence.signals[name] for name in names] for r in usable])
    y = np.array([bool(r.correct) for r in usable], dtype=float)
    return x, y, np.array([r.by["task"] for r in usable])


def verdicts(model: Any, train: Sequence[Any], test: Sequence[Any], how: Tuning) -> None:
    """The four scores of the same test answers."""
    with tempfile.TemporaryDirectory() as folder:
        keep = Path(folder) / "answers.jsonl"
        answer_all(model, train, Asking("tiny", make_schema(None), options=OPTIONS), keep)
        started = time.process_time()
        verdict = tune_verdict(model, train, grader="tiny", answers=keep, tuning=how, **OPTIONS)
        seconds = time.process_time() - started
        labelled = read_answers(keep)
    use_verdict(model, verdict)
    asking = Asking("tiny", make_schema(FEATURES), options=OPTIONS)
    rows = answer_all(model, test, asking)
    (x, y, tasks), (x_fit, y_fit, _) = judged(rows, FEATURES), judged(labelled, DEFAULT_FEATURES)
    held = {k: round(v, 4) if isinstance(v, float) else v for k, v in verdict.report.items()}
    print(f"  tuned on {len(labelled)} answers: {held}")
    print(f"  {'score of ' + str(len(y)) + ' answers':32}" + "".join(f"{c:>8}" for c in COLUMNS))
    tell("base rate of the labels", np.full(len(y), y_fit.mean()), y, tasks)
    for name, score in (("sequence probability", whole), ("answer's own probability", span)):
        platt = fit_calibrator(score(x_fit), y_fit, names=("score",), method="platt")
        tell(name, score(x), y, tasks)
        tell("  + Platt, two parameters", platt(score(x)), y, tasks)
    usual = fit_calibrator(x_fit, y_fit, names=DEFAULT_FEATURES)
    tell("default features, calibrated", usual(x[:, : len(DEFAULT_FEATURES)]), y, tasks)
    tell("P(True), untrained", x[:, -2], y, tasks)
    tell("P(True), tuned verdict prompt", x[:, -1], y, tasks, seconds)
    use_verdict(model, None)


def whole(x: np.ndarray) -> np.ndarray:
    """The probability of the whole text: its tokens' geometric mean to the power of its length."""
    text, length = (DEFAULT_FEATURES.index(name) for name in ("confidence_text", "length_text"))
    return np.asarray(x[:, text] ** x[:, length])


def span(x: np.ndarray) -> np.ndarray:
    """The geometric mean over the tokens of the answer alone, which is the default raw score."""
    return np.asarray(x[:, DEFAULT_FEATURES.index("confidence")])


class Answers:
    """Right answers behind soft tokens: the mean cross-entropy of their tokens."""

    def __init__(self, net: Net, asked: Sequence[Question], tokens: int) -> None:
        self._net, self._tokens = net, tokens
        self._texts = [example(net.tokenizer, [question], False) for question in asked]

    def loss(self, start: torch.Tensor, rows: Sequence[int]) -> torch.Tensor:
        net, some = self._net, [self._texts[row] for row in rows]
        width = self._tokens + max(len(text.ids) for text in some)
        ids = torch.full((len(some), width), net.pad)
        mask, learn = torch.zeros_like(ids), torch.zeros_like(ids)
        for row, text in enumerate(some):
            n = len(text.ids)
            ids[row, -n:], learn[row, -n:] = torch.tensor(text.ids), torch.tensor(text.learn)
            mask[row, -n - self._tokens :] = 1
        more = soft.embedded(net, ids, mask, [start] * len(some))
        positions = (mask.cumsum(-1) - 1).clamp_(min=0)
        with soft.fresh_outputs(net.model):
            logits = net.model(attention_mask=mask, position_ids=positions, **more).logits
        wanted = learn[:, 1:].bool()
        return nn.functional.cross_entropy(logits[:, :-1][wanted].float(), ids[:, 1:][wanted])


def on_answers(model: Any, train: list[Question], test: list[Question], how: Tuning) -> None:
    """Accuracy and raw confidence with soft tokens in front of the question, and without."""
    net = Net(model._loaded.model, model.tokenizer)
    answers = Answers(net, train, how.tokens)
    begin = soft.begin_as(net, "Answer the question. Think step by step and be exact. ", how.tokens)
    spread = float(net.model.get_input_embeddings().weight.std())
    order = np.random.default_rng(how.seed).permutation(len(train)).tolist()
    cut = len(order) // 5
    started = time.process_time()
    found = tune(answers.loss, begin, order[cut:], order[:cut], how, spread)
    seconds = time.process_time() - started
    print(
        f"  soft tokens on the answer: held-out loss {found.losses[0]:.4f} -> {found.losses[1]:.4f}"
    )
    names = [field.name for field in dataclasses.fields(Request)]
    for name, tokens in (("without", None), ("behind soft tokens", found.best)):
        requests = [model.request_of(q.messages, **OPTIONS) for q in test]
        if tokens is not None:
            requests = [
                SoftRequest(**{n: getattr(r, n) for n in names}, soft=tokens) for r in requests
            ]
        said = dict(model.ask_requests(requests))
        right = np.array([grade(q, said[i].text) for i, q in enumerate(test)], dtype=float)
        raw = np.array([said[i].confidence.raw for i in range(len(test))], dtype=float)
        known = np.isfinite(raw)
        label = f"{name}: accuracy {right.mean():.3f}"
        tasks = np.array([q.task for q in test])[known]
        tell(label, raw[known], right[known], tasks, None if tokens is None else seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", default="qint2,qint4")
    parser.add_argument("--train", type=int, default=500)
    parser.add_argument("--test", type=int, default=600)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--batch", type=int, default=Tuning.batch)
    parser.add_argument("--tokens", type=int, default=Tuning.tokens)
    parser.add_argument("--answer-steps", type=int, default=40, help="0 leaves that part out")
    parser.add_argument("--seed", type=int, default=77)
    options = parser.parse_args()
    torch.set_num_threads(1)
    train, test = (drawn(*of) for of in (
        ("calibration", options.train, options.seed), ("test", options.test, options.seed)
    ))  # fmt: skip
    how = Tuning(options.tokens, options.steps, options.batch, seed=options.seed)
    for weights in options.weights.split(","):
        started = time.process_time()
        with load(
            "bitcal-tiny", weights=weights, dtype="float32", profile=None, max_batch=64
        ) as model:
            print(f"{weights}, float32", flush=True)
            verdicts(model, measure.examples_of(train), measure.examples_of(test), how)
            if options.answer_steps:
                less = dataclasses.replace(how, steps=options.answer_steps)
                on_answers(model, train, test, less)
        print(f"  {time.process_time() - started:.0f} seconds of processor time", flush=True)


if __name__ == "__main__":
    main()
