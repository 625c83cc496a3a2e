"""Trains the built-in model from a seed: tokenizer, then weights, then the packaged folder.

`python -m bitcal_integrations.tiny.train --out DIR --minutes 90` fits the decline of the learning
rate to the time; `--tokens N` fits it to a number of tokens instead, which repeats exactly on a
CPU. `--device cuda` trains in one process there; `--width 640 --layers 6` makes a larger model.
A run that was cut goes on with `--resume`. Knows nothing of quantization or frameworks.
"""

import json
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any

import torch
import torch.distributed as dist
import typer
from rich.console import Console
from torch.multiprocessing.spawn import spawn
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from bitcal_integrations.quantize._dtype import pick_device
from bitcal_integrations.tiny.answers import answers
from bitcal_integrations.tiny.assets import MODEL_DIR
from bitcal_integrations.tiny.batches import Batch, batches
from bitcal_integrations.tiny.network import (
    Size,
    config,
    has_bfloat16,
    loss_of,
    optimizers,
    schedule,
)
from bitcal_integrations.tiny.tasks import TASKS, grade, questions
from bitcal_integrations.tiny.tokenizer import make_tokenizer, save_tokenizer

TOKENS = {"math": 1000, "facts": 250, "reading": 1200, "sums": 400, "recall": 900}  # per worker
LOSS_WEIGHTS = {"math": 1.0, "facts": 0.4, "reading": 0.6, "sums": 0.6, "recall": 1.0}
PROMPT_WEIGHT = 0.5  # reading only: repeated names in a passage teach copying early
LONG_EVERY, LONG_TOKENS = 40, 2200
EVALUATE_SECONDS, SAVE_SECONDS, EVALUATE_QUESTIONS = 420.0, 180.0, 64
DEFAULT_TOKENS = 26_000_000  # about an hour on two cores
LONGEST_STEP = 60.0  # seconds
console = Console(width=110)


@dataclass
class State:
    """Where a run stands; `elapsed` is in seconds of training, evaluation included."""

    seed: int
    step: int = 0
    tokens: int = 0
    answer_tokens: int = 0
    elapsed: float = 0.0
    curve: list[dict[str, float]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class Run:
    """One training run in one folder: model, optimizers, streams and their checkpoints."""

    def __init__(
        self, out: Path, seed: int, minutes: float | None, tokens: int | None,
        size: Size, device: torch.device,
    ) -> None:  # fmt: skip
        self.out, self.minutes, self.tokens, self.mixture = out, minutes, tokens, dict(TOKENS)
        self.device = device
        self.worker, self.workers = (
            (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        )
        self.state = State(seed)
        self.tokenizer = make_tokenizer(out, seed)
        torch.manual_seed(seed)
        self.model = LlamaForCausalLM(config(self.tokenizer, size)).to(device)
        # Short rows: in bfloat16 plain attention trains 1.4 times as fast as the fused CPU kernel.
        plain = device.type == "cpu" and has_bfloat16("cpu")
        self.model.set_attn_implementation("eager" if plain else "sdpa")
        self.optimizers = optimizers(self.model)
        self.rates = [o.param_groups[0]["lr"] for o in self.optimizers]

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
        evaluated, saved, before = self.state.elapsed, 0.0, time.monotonic()
        while self.progress < 1:
            losses = self._step(feed)
            now = time.monotonic()
            # A longer step was a pause of the whole process, which is no training.
            elapsed = self.state.elapsed + min(now - before, LONGEST_STEP)
            self.state.elapsed = self._together([elapsed], dist.ReduceOp.MAX)[0]
            before = now
            if self.worker:
                continue
            if self.state.step % 25 == 0:
                self._show(losses)
            if self.state.elapsed - evaluated > EVALUATE_SECONDS:
                evaluated = self.state.elapsed
                self.evaluate(losses)
            if self.state.elapsed - saved > SAVE_SECONDS:
                saved = self.state.elapsed
                self.save()
        if not self.worker:
            self.evaluate(losses)
            self.save()

    def _together(self, numbers: list[float], how: Any) -> list[float]:
        """What all workers' numbers come to: the rates and the end of a run hang on them."""
        if self.workers == 1:
            return numbers
        agreed = torch.tensor(numbers, dtype=torch.float64)
        dist.all_reduce(agreed, how)
        return list(agreed.tolist())

    def _share_gradients(self) -> None:
        """Average the gradients over the workers, in one message."""
        if self.workers == 1:
            return
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients]) / self.workers
        dist.all_reduce(flat)
        parts = flat.split([gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))

    def _feed(self) -> dict[str, Iterator[Batch]]:
        # A resumed run draws fresh questions, and each worker its own.
        seed = f"{self.state.seed}|{self.state.step}|{self.worker}"
        feed = {task: batches(self.tokenizer, task, n, seed) for task, n in self.mixture.items()}
        return {**feed, "long": batches(self.tokenizer, "long", LONG_TOKENS, seed)}

    def _step(self, feed: dict[str, Iterator[Batch]]) -> dict[str, float]:
        factor, losses = schedule(self.state.step, self.progress), {}
        answered = read = 0
        for task in self.mixture:
            long = task == "reading" and self.state.step % LONG_EVERY == LONG_EVERY - 1
            batch = next(feed["long" if long else task]).to(self.device)
            weight = PROMPT_WEIGHT if task == "reading" else 0.0
            loss = loss_of(self.model, batch, weight)
            (LOSS_WEIGHTS[task] * loss).backward()
            losses[task] = loss.item()
            answered, read = answered + int(batch.answer.sum()), read + int(batch.prompt.sum())
        self._share_gradients()
        of_all = self._together([answered + read, answered], dist.ReduceOp.SUM)
        self.state.tokens += int(of_all[0])
        self.state.answer_tokens += int(of_all[1])
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
        path = self.out / "checkpoint.pt"
        parts = torch.load(path, weights_only=True, map_location=self.device)
        self.state = State(**parts["state"])
        self.model.load_state_dict(parts["model"])
        for optimizer, saved in zip(self.optimizers, parts["optimizers"], strict=True):
            optimizer.load_state_dict(saved)

    def start_from(self, folder: Path) -> None:
        """Go on from an exported model and its record, with new optimizers."""
        self.model.load_state_dict(LlamaForCausalLM.from_pretrained(folder).state_dict())
        known = {f.name for f in fields(State)}
        record = json.loads((folder / "training.json").read_text(encoding="utf-8"))
        self.state = State(**{key: value for key, value in record.items() if key in known})

    def export(self, folder: Path) -> None:
        """The folder that `from_pretrained` loads, in bfloat16, with the training curve."""
        save_tokenizer(self.tokenizer, folder)
        self.model.generation_config.eos_token_id = self.tokenizer.eos_token_id
        self.model.set_attn_implementation("sdpa")
        self.model.to(torch.bfloat16).save_pretrained(folder)
        facts = asdict(self.state) | {"parameters": self.model.num_parameters()}
        facts |= {"tokens_per_step": self.mixture, "loss_weights": LOSS_WEIGHTS}
        (folder / "training.json").write_text(json.dumps(facts, indent=1) + "\n")


@dataclass(frozen=True)
class Plan:
    """What one call of the command asks for; every worker gets it."""

    out: Path
    minutes: float | None
    tokens: int | None
    seed: int
    resume: bool
    start: Path | None
    note: str
    mixture: str
    size: Size
    device: torch.device


def main(
    out: Annotated[Path, typer.Option(help="folder for checkpoints and the trained model")],
    minutes: Annotated[float | None, typer.Option(help="end of the schedule by time")] = None,
    tokens: Annotated[int | None, typer.Option(help="end of the schedule by tokens")] = None,
    seed: int = 0,
    resume: Annotated[bool, typer.Option(help="go on from the checkpoint in OUT")] = False,
    start: Annotated[
        Path | None, typer.Option(help="go on from an exported model, counting on from its record")
    ] = None,
    note: Annotated[str, typer.Option(help="what a resumed run changes; the card prints it")] = "",
    mixture: Annotated[str, typer.Option(help="such as math=900,recall=2000")] = "",
    install: Annotated[bool, typer.Option(help="also write it into this package")] = False,
    workers: Annotated[int, typer.Option(help="processes of one thread each, on a CPU")] = 2,
    device: Annotated[str, typer.Option(help="cpu, cuda, or auto: a GPU if there is one")] = "cpu",
    width: int = 256,
    layers: int = 4,
) -> None:
    """Train bitcal-tiny and write it to OUT/model."""
    size, place = Size(width, layers), pick_device(device)
    workers = workers if place.type == "cpu" else 1
    out.mkdir(parents=True, exist_ok=True)
    if start:
        save_tokenizer(PreTrainedTokenizerFast.from_pretrained(start), out / "tokenizer")
    make_tokenizer(out, seed)
    limit = tokens if tokens or minutes else DEFAULT_TOKENS
    plan = Plan(out, minutes, limit, seed, resume, start, note, mixture, size, place)
    meeting = out / f"meeting-{os.getpid()}"
    spawn(work, (workers, meeting, plan), nprocs=workers)
    meeting.unlink(missing_ok=True)
    if install:
        shutil.copytree(out / "model", MODEL_DIR, dirs_exist_ok=True)
    console.print(f"wrote {MODEL_DIR if install else out / 'model'}")


def work(worker: int, workers: int, meeting: Path, plan: Plan) -> None:
    """One worker. Processes of one thread lose far less on a busy machine than shared threads."""
    torch.set_num_threads(1)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    method = meeting.resolve().as_uri()
    dist.init_process_group("gloo", init_method=method, rank=worker, world_size=workers)
    run = Run(plan.out, plan.seed, plan.minutes, plan.tokens, plan.size, plan.device)
    if plan.resume:
        run.load()
    elif plan.start:
        run.start_from(plan.start)
    if plan.mixture:
        run.mixture = {name: int(n) for name, n in (p.split("=") for p in plan.mixture.split(","))}
    if plan.note:
        run.state.notes.append(f"From step {run.state.step}: {plan.note}")
    run.train()
    if not worker:
        run.export(plan.out / "model")
    dist.destroy_process_group()


if __name__ == "__main__":
    typer.run(main)
