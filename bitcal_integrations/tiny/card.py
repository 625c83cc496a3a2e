"""Measures the built-in model, fits its profiles and writes its card.

`python -m bitcal_integrations.tiny.card --answers DIR` repeats every number in MODEL_CARD.md and
every profile; a cut run goes on from the answers in DIR. With `--measure` it stops when the
answers are there, so that several processes can each take some of the settings.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.progress import Progress as Bar

from bitcal_integrations.answered import Progress, read_answers
from bitcal_integrations.profile import Profile
from bitcal_integrations.tiny import measure
from bitcal_integrations.tiny.assets import MODEL_DIR, PROFILE_DIR
from bitcal_integrations.tiny.card_text import render
from bitcal_integrations.tiny.measure import Setting

# qfloat8 is slow on a CPU and behaves as qint8: it gets a small profile and no place in the tables.
SETTINGS = tuple(
    f"{weights}-{dtype}"
    for dtype in ("float32", "bfloat16")
    for weights in ("none", "qint8", "qint4", "qint2", "qfloat8")
)
QFLOAT8_LABELS = 1500
LABELS_SEED, TEST_SEED = 1013, 2026
console = Console(width=110)


def main(
    answers: Annotated[Path, typer.Option(help="folder that keeps the answers")],
    folder: Annotated[
        Path, typer.Option(help="model folder; the card is written there")
    ] = MODEL_DIR,
    profiles: Annotated[Path, typer.Option(help="folder for the profiles")] = PROFILE_DIR,
    labels: Annotated[int, typer.Option(help="labelled questions per profile")] = 9000,
    number: Annotated[int, typer.Option("--questions", help="fresh test questions")] = 20000,
    settings: Annotated[str, typer.Option(help="comma-separated")] = ",".join(SETTINGS),
    only_answers: Annotated[bool, typer.Option("--measure", help="ask, and stop there")] = False,
    only_kept: Annotated[
        bool, typer.Option("--kept", help="ask nothing, take what is kept")
    ] = False,
    refit: Annotated[bool, typer.Option(help="or take the profiles that are there")] = True,
    threads: Annotated[int, typer.Option(help="one is best on a busy machine")] = 1,
) -> None:
    """Ask, fit, evaluate, and write profiles, metrics.json and MODEL_CARD.md."""
    torch.set_num_threads(threads)
    for place in (answers, profiles):
        place.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = {"questions": number, "labels": labels, "seed": TEST_SEED}
    found["results"] = {}
    for name in settings.split(","):
        started = time.monotonic()
        rows = kept(name, answers) if only_kept else ask(folder, name, answers, labels, number)
        if only_answers:
            console.print(f"{name}: answered in {time.monotonic() - started:.0f} s")
            continue
        profile = fitted(folder, name, rows["labels"], profiles / f"{name}.json", refit)
        if rows["test"]:
            found["results"][name.replace("-", " ")] = measure.scores(rows["test"], profile)
            found.setdefault("samples", measure.samples(rows["test"]))
        console.print(summary(name, profile, found), highlight=False)
    if found["results"]:
        write(folder, found)


def ask(folder: Path, name: str, answers: Path, labels: int, number: int) -> dict[str, Any]:
    """The answers of one setting to the labelled and to the test questions."""
    if name.startswith("qfloat8"):
        labels, number = min(labels, QFLOAT8_LABELS), 0
    asked = {
        "labels": measure.draw("calibration", labels, LABELS_SEED),
        "test": measure.draw("test", number, TEST_SEED),
    }
    rows: dict[str, Any] = {"test": []}
    with Setting.of(name).load(folder) as model:
        for part, examples in asked.items():
            if examples:
                keep = answers / f"{name}.{part}.jsonl"
                with bar(f"{name} {part}") as progress:
                    rows[part] = measure.ask(model, examples, keep, progress)
    return rows


def fitted(folder: Path, name: str, labels: Any, path: Path, refit: bool) -> Profile:
    """The setting's profile, written to its file."""
    if not refit:
        return Profile.load(path)
    with Setting.of(name).load(folder) as model:
        profile = measure.fit(model, labels, seed=0)
    profile.save(path)
    return profile


def kept(name: str, answers: Path) -> dict[str, Any]:
    """The answers of one setting that are there, as far as they go."""
    paths = {part: answers / f"{name}.{part}.jsonl" for part in ("labels", "test")}
    return {part: read_answers(path) if path.is_file() else [] for part, path in paths.items()}


@contextmanager
def bar(title: str) -> Iterator[Progress]:
    """A progress bar on the terminal."""
    with Bar(console=console, transient=True) as shown:
        task = shown.add_task(title, total=None)
        yield lambda done, total, label: shown.update(task, completed=done, total=total)


def summary(name: str, profile: Profile, found: dict[str, Any]) -> str:
    """One line on a setting."""
    method = profile.task().calibrator.method
    result = found["results"].get(name.replace("-", " "))
    if result is None:
        return f"{name}: {method}"
    raw, calibrated = result["all"]["raw"], result["all"]["calibrated"]
    return (
        f"{name}: accuracy {result['all']['accuracy']}, {method}, Brier {raw['brier']} -> "
        f"{calibrated['brier']}, ECE {raw['ece']} -> {calibrated['ece']} "
        f"(floor {calibrated['ece_floor']})"
    )


def write(folder: Path, found: dict[str, Any]) -> None:
    """The card and its numbers, beside the weights."""
    training = json.loads((folder / "training.json").read_text(encoding="utf-8"))
    (folder / "metrics.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    (folder / "MODEL_CARD.md").write_text(render(found, training), encoding="utf-8")
    console.print(f"wrote {folder / 'MODEL_CARD.md'}")


if __name__ == "__main__":
    typer.run(main)
