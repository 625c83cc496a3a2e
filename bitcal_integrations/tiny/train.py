"""Trains the built-in model from a seed: tokenizer, then weights, then the packaged folder.

`python -m bitcal_integrations.tiny.train --out DIR --minutes 70` stops at the end of a cosine that
fits the time; `--tokens N` fits it to a number of tokens instead, which repeats exactly.
A run that was cut goes on with `--resume`. Knows nothing of quantization or frameworks.
"""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from itertools import islice
from math import cos, pi
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from torch.nn.functional import cross_entropy
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from bitcal_integrations.tiny.answers import answers
from bitcal_integrations.tiny.batches import Batch, batches, long_batches
from bitcal_integrations.tiny.tasks import TASKS, grade, questions, stream
from bitcal_integrations.tiny.tokenizer import save_tokenizer, train_tokenizer

TOKENS = {"math": 2300, "facts": 500, "reading": 1600}  # ids per step
LOSS_WEIGHTS = {"math": 1.0, "facts": 0.4, "reading": 0.6}
PROMPT_WEIGHT = 0.3  # reading only: repeated names in a passage teach copying early
LONG_EVERY, LONG_TOKENS = 40, 2200
EVALUATE_SECONDS, SAVE_SECONDS, EVALUATE_QUESTIONS = 240.0, 180.0, 64
LEARNING_RATE, MATRIX_LEARNING_RATE, WARMUP, FLOOR = 3e-3, 4e-3, 60, 0.02
console = Console(width=110)
Trunk = Callable[..., Any]


@dataclass
class State:
    """Where a run stands; `elapsed` is in seconds of training, evaluation included."""

    seed: int
    step: int = 0
    tokens: int = 0
    answer_tokens: int = 0
    elapsed: float = 0.0
    curve: list[dict[str, float]] = field(default_factory=list)


def config(tokenizer: PreTrainedTokenizerFast) -> LlamaConfig:
    """Width 256 (two groups of 128 for int4), four layers, tied embeddings."""
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=256,
        intermediate_size=768,
        num_hidden_layers=4,
        num_attention_heads=8,
        num_key_value_heads=4,
        head_dim=32,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def optimizers(model: LlamaForCausalLM) -> list[torch.optim.Optimizer]:
    """Muon for the matrices (it needs far fewer tokens here), AdamW for embeddings and norms."""
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
    others = [p for n, p in model.named_parameters() if p.ndim != 2 or "embed" in n]
    return [
        torch.optim.Muon(
            matrices, lr=MATRIX_LEARNING_RATE, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"
        ),
        torch.optim.AdamW(others, lr=LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def schedule(step: int, progress: float) -> float:
    """Warm-up, then a cosine over `progress` from 0 to 1 that ends near zero."""
    return min(1.0, (step + 1) / WARMUP) * (FLOOR + (1 - FLOOR) * (1 + cos(pi * progress)) / 2)


def loss_of(
    model: LlamaForCausalLM, trunk: Trunk, batch: Batch, prompt_weight: float
) -> torch.Tensor:
    """Mean loss over answer tokens, plus a little of the prompt's; only those reach the head."""
    targets = batch.ids[:, 1:]
    with torch.autocast("cpu", torch.bfloat16):
        hidden = trunk(input_ids=batch.ids[:, :-1], use_cache=False).last_hidden_state
        loss = _loss(model, hidden[batch.answer], targets[batch.answer])
        if prompt_weight:
            prompt = _loss(model, hidden[batch.prompt], targets[batch.prompt])
            return loss + prompt_weight * prompt
    return loss


def _loss(model: LlamaForCausalLM, hidden: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return cross_entropy(model.lm_head(hidden).float(), targets)


class Run:
    """One training run in one folder: model, optimizers, streams and their checkpoints."""

    def __init__(self, out: Path, seed: int, minutes: float | None, tokens: int | None) -> None:
        self.out, self.minutes, self.tokens = out, minutes, tokens
        self.state = State(seed)
        self.tokenizer = self._tokenizer(seed)
        torch.manual_seed(seed)
        self.model = LlamaForCausalLM(config(self.tokenizer))
        # Short rows: plain attention trains 1.4 times as fast as the fused CPU kernel.
        self.model.set_attn_implementation("eager")
        self.trunk: Trunk = self.model.model
        self.optimizers = optimizers(self.model)
        self.rates = [o.param_groups[0]["lr"] for o in self.optimizers]

    def _tokenizer(self, seed: int) -> PreTrainedTokenizerFast:
        folder = self.out / "tokenizer"
        if not (folder / "tokenizer.json").is_file():
            save_tokenizer(train_tokenizer(corpus(seed)), folder)
        return PreTrainedTokenizerFast.from_pretrained(folder)

    @property
    def progress(self) -> float:
        """0 at the start, 1 at the end, by time or by tokens, whichever is nearer its end."""
        by_time = self.state.elapsed / (60 * self.minutes) if self.minutes else 0.0
        by_tokens = self.state.tokens / self.tokens if self.tokens else 0.0
        return min(1.0, max(by_time, by_tokens))

    def train(self) -> None:
        """Train to the end of the schedule, with checkpoints and evaluations on the way."""
        feed = self._feed()
        self.model.train()
        started, evaluated, saved = time.monotonic() - self.state.elapsed, self.state.elapsed, 0.0
        while self.progress < 1:
            losses = self._step(feed)
            self.state.elapsed = time.monotonic() - started
            if self.state.step % 25 == 0:
                self._show(losses)
            if self.state.elapsed - evaluated > EVALUATE_SECONDS:
                evaluated = self.state.elapsed
                self.evaluate(losses)
            if self.state.elapsed - saved > SAVE_SECONDS:
                saved = self.state.elapsed
                self.save()
        self.evaluate(losses)
        self.save()

    def _feed(self) -> dict[str, Iterator[Batch]]:
        seed = self.state.seed + 1000 * self.state.step  # a resumed run draws fresh questions
        feed = {task: batches(self.tokenizer, task, TOKENS[task], seed) for task in TASKS}
        return {**feed, "long": long_batches(self.tokenizer, LONG_TOKENS, seed)}

    def _step(self, feed: dict[str, Iterator[Batch]]) -> dict[str, float]:
        factor, losses = schedule(self.state.step, self.progress), {}
        for task in TASKS:
            long = task == "reading" and self.state.step % LONG_EVERY == LONG_EVERY - 1
            batch = next(feed["long" if long else task])
            # A compiled trunk would be compiled again for such lengths: minutes for nothing.
            trunk = self.model.model if long else self.trunk
            weight = PROMPT_WEIGHT if task == "reading" else 0.0
            loss = loss_of(self.model, trunk, batch, weight)
            (LOSS_WEIGHTS[task] * loss).backward()
            losses[task] = loss.item()
            self.state.tokens += int(batch.answer.sum() + batch.prompt.sum())
            self.state.answer_tokens += int(batch.answer.sum())
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer, rate in zip(self.optimizers, self.rates, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = rate * factor
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.state.step += 1
        return losses

    def _show(self, losses: dict[str, float]) -> None:
        state = self.state
        console.print(
            f"{self.progress:6.1%} step {state.step} tokens {state.tokens / 1e6:.2f}M "
            f"{state.tokens / state.elapsed:.0f}/s "
            + " ".join(f"{task} {loss:.4f}" for task, loss in losses.items()),
            highlight=False,
        )

    def evaluate(self, losses: dict[str, float]) -> None:
        """Accuracy on fresh calibration questions, appended to the curve."""
        self.model.eval()
        point: dict[str, float] = {"step": self.state.step, "tokens": self.state.tokens}
        point |= {"minutes": self.state.elapsed / 60}
        point |= {f"loss_{task}": loss for task, loss in losses.items()}
        for task in TASKS:
            asked = questions(task, "calibration", EVALUATE_QUESTIONS, seed=7)
            given = answers(self.model, self.tokenizer, asked)
            right = [grade(q, a.text) for q, a in zip(asked, given, strict=True)]
            for bucket in sorted({q.bucket for q in asked}):
                part = [r for r, q in zip(right, asked, strict=True) if q.bucket == bucket]
                point[f"{task}_{bucket}"] = sum(part) / len(part)
            point[task] = sum(right) / len(right)
        self.model.train()
        self.state.curve.append({key: round(value, 4) for key, value in point.items()})
        console.print({k: round(v, 3) for k, v in point.items() if "loss" not in k})

    def save(self) -> None:
        """Write the checkpoint beside the old one, then replace it."""
        parts = {"model": self.model.state_dict(), "state": asdict(self.state)}
        parts["optimizers"] = [optimizer.state_dict() for optimizer in self.optimizers]
        torch.save(parts, self.out / "checkpoint.tmp")
        (self.out / "checkpoint.tmp").replace(self.out / "checkpoint.pt")

    def load(self) -> None:
        """Go on from the checkpoint in the folder."""
        parts = torch.load(self.out / "checkpoint.pt", weights_only=True)
        self.state = State(**parts["state"])
        self.model.load_state_dict(parts["model"])
        for optimizer, saved in zip(self.optimizers, parts["optimizers"], strict=True):
            optimizer.load_state_dict(saved)

    def export(self, folder: Path) -> None:
        """The folder that `from_pretrained` loads, in bfloat16, with the training curve."""
        save_tokenizer(self.tokenizer, folder)
        self.model.generation_config.eos_token_id = self.tokenizer.eos_token_id
        self.model.set_attn_implementation("sdpa")
        self.model.to(torch.bfloat16).save_pretrained(folder)
        facts = asdict(self.state) | {"parameters": self.model.num_parameters()}
        facts |= {"tokens_per_step": TOKENS, "loss_weights": LOSS_WEIGHTS}
        (folder / "training.json").write_text(json.dumps(facts, indent=1) + "\n")


def corpus(seed: int, per_task: int = 12000) -> list[str]:
    """Texts for the tokenizer, from training questions of every task."""
    drawn = [q for task in TASKS for q in islice(stream(task, "train", seed + 1), per_task)]
    return [text for q in drawn for text in (*(m["content"] for m in q.messages), q.answer)]


def main(
    out: Annotated[Path, typer.Option(help="folder for checkpoints and the trained model")],
    minutes: Annotated[float | None, typer.Option(help="end of the schedule by time")] = None,
    tokens: Annotated[int | None, typer.Option(help="end of the schedule by tokens")] = None,
    seed: int = 0,
    resume: bool = False,
    threads: int = 2,
    compiled: Annotated[bool, typer.Option(help="torch.compile: 15% faster, needs g++")] = False,
) -> None:
    """Train bitcal-tiny and write it to OUT/model."""
    torch.set_num_threads(threads)
    out.mkdir(parents=True, exist_ok=True)
    run = Run(out, seed, minutes, tokens if tokens or minutes else 24_000_000)
    if resume:
        run.load()
    if compiled:
        run.trunk = torch.compile(run.model.model, dynamic=True)
    console.print(f"{run.model.num_parameters()} parameters, {len(run.tokenizer)} tokens")
    run.train()
    run.export(out / "model")
    console.print(f"wrote {out / 'model'}")


if __name__ == "__main__":
    typer.run(main)
