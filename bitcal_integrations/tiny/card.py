"""Measures the built-in model and writes its card: MODEL_CARD.md and metrics.json by the weights.

`python -m bitcal_integrations.tiny.card --questions 20000` repeats every number in the card.
Knows the questions, quanto and the few metrics printed; how an answer is made lies behind
`answers.answers`.
"""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any

import numpy as np
import torch
import typer
from optimum.quanto import freeze, qint2, qint4, qint8, quantize
from optimum.quanto.library.extensions import get_extension
from rich.console import Console
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from bitcal_integrations.tiny.answers import Answer, answers
from bitcal_integrations.tiny.assets import MODEL_DIR
from bitcal_integrations.tiny.card_text import render
from bitcal_integrations.tiny.tasks import TASKS, Question, grade, questions

WEIGHTS = {"qint8": qint8, "qint4": qint4, "qint2": qint2}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
SHARES = {"math": 0.4, "facts": 0.3, "reading": 0.3}
BINS = 15
FLOOR_DRAWS = 200
console = Console(width=110)


def load_variant(folder: Path, weights: str, dtype: str) -> PreTrainedModel:
    """The packaged model in one dtype, quantized except for the head (tied to the embeddings)."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=DTYPES[dtype]).eval()
    if weights != "none":
        _avoid_compiler()
        quantize(model, weights=WEIGHTS[weights], exclude="*lm_head")
        freeze(model)
    return model


def _avoid_compiler() -> None:
    """On a CPU quanto compiles C++ at the first int4 product; this torch line gives the same."""

    def unpack(packed: torch.Tensor, bits: int) -> torch.Tensor:
        return torch.cat([(packed >> (bits * i)) & (2**bits - 1) for i in range(8 // bits)])

    get_extension("quanto_cpp")._lib = SimpleNamespace(unpack=unpack)


def draw_questions(n: int, seed: int) -> list[Question]:
    """Fresh test questions of the three tasks in their shares."""
    return [q for task in TASKS for q in questions(task, "test", round(n * SHARES[task]), seed)]


def measure(asked: Sequence[Question], given: Sequence[Answer]) -> dict[str, Any]:
    """Everything the card says about one weight type and dtype."""
    right = np.array([grade(q, a.text) for q, a in zip(asked, given, strict=True)], dtype=float)
    result: dict[str, Any] = {}
    for task in TASKS:
        rows = [i for i, q in enumerate(asked) if q.task == task]
        if not rows:
            continue
        answer = np.array([given[i].confidence for i in rows])
        whole = np.array([given[i].whole for i in rows])
        groups: dict[str, dict[str, Any]] = {"bucket": {}, "steps": {}, "wording": {}}
        for name, values in groups.items():
            keys = [str(getattr(asked[i], name)) for i in rows]
            if task != "math" and name == "steps":
                continue
            for key in sorted(set(keys)):
                part = [right[i] for i, k in zip(rows, keys, strict=True) if k == key]
                values[key] = {"n": len(part), "accuracy": round(float(np.mean(part)), 4)}
        result[task] = {
            "n": len(rows),
            "accuracy": round(float(right[rows].mean()), 4),
            "answer": scores(answer, right[rows]),
            "whole": scores(whole, right[rows]),
            **groups,
        }
    return result


def scores(p: np.ndarray, y: np.ndarray) -> dict[str, float | None]:
    """ECE with its sampling floor, Brier and AUROC of confidences `p` for outcomes `y`."""
    rng = np.random.default_rng(0)
    drawn = [_ece(p, (rng.random(len(p)) < p).astype(float)) for _ in range(FLOOR_DRAWS)]
    values = {
        "ece": _ece(p, y),
        "ece_floor": float(np.mean(drawn)),
        "brier": float(np.mean((p - y) ** 2)),
        "auroc": auroc(p, y),
    }
    return {key: None if value is None else round(value, 4) for key, value in values.items()}


def _ece(p: np.ndarray, y: np.ndarray) -> float:
    bins = np.minimum((p * BINS).astype(int), BINS - 1)
    gaps = np.bincount(bins, weights=p - y, minlength=BINS)
    return float(np.abs(gaps).sum() / len(p))


def auroc(p: np.ndarray, y: np.ndarray) -> float | None:
    """P(a right answer scores higher than a wrong one), ties counted half.

    >>> auroc(np.array([0.9, 0.8, 0.8, 0.1]), np.array([1, 1, 0, 0]))
    0.875
    """
    good, bad = int(y.sum()), int(len(y) - y.sum())
    if not good or not bad:
        return None
    _, inverse, counts = np.unique(p, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    return float((ranks[y == 1].sum() - good * (good + 1) / 2) / (good * bad))


def samples(
    asked: Sequence[Question], given: Sequence[Answer], each: int = 4
) -> list[dict[str, Any]]:
    """A few questions of each task with what was said, right or wrong."""
    shown = []
    for task in TASKS:
        rows = [i for i, q in enumerate(asked) if q.task == task][: 40 * each : 40]
        for i in rows:
            q, a = asked[i], given[i]
            fact = {"task": task, "prompt": q.prompt, "gold": q.gold, "text": a.text}
            shown.append(fact | {"confidence": round(a.confidence, 3), "right": grade(q, a.text)})
    return shown


def main(
    folder: Annotated[Path, typer.Option(help="model folder, read and written")] = MODEL_DIR,
    number: Annotated[int, typer.Option("--questions", help="fresh test questions")] = 20000,
    weights: Annotated[str, typer.Option(help="comma-separated")] = "none,qint8,qint4,qint2",
    dtypes: Annotated[str, typer.Option(help="comma-separated")] = "float32,bfloat16",
    seed: int = 2026,
    threads: Annotated[int, typer.Option(help="one is best on a busy machine")] = 1,
) -> None:
    """Evaluate and write MODEL_CARD.md and metrics.json."""
    torch.set_num_threads(threads)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    asked = draw_questions(number, seed)
    metrics: dict[str, Any] = {"questions": len(asked), "seed": seed, "results": {}}
    for dtype in dtypes.split(","):
        for kind in weights.split(","):
            started = time.monotonic()
            given = answers(load_variant(folder, kind, dtype), tokenizer, asked)
            seconds = time.monotonic() - started
            result = measure(asked, given)
            metrics["results"][f"{kind} {dtype}"] = result
            metrics.setdefault("samples", samples(asked, given))
            shown = {task: part["accuracy"] for task, part in result.items()}
            console.print(f"{kind} {dtype}: {shown} in {seconds:.0f} s", highlight=False)
    training = json.loads((folder / "training.json").read_text(encoding="utf-8"))
    (folder / "metrics.json").write_text(json.dumps(metrics, indent=1) + "\n", encoding="utf-8")
    (folder / "MODEL_CARD.md").write_text(render(metrics, training), encoding="utf-8")
    console.print(f"wrote {folder / 'MODEL_CARD.md'}")


if __name__ == "__main__":
    typer.run(main)
