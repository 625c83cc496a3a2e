"""Measures the built-in model, fits its profiles, certifies early stops and writes its card.

`python -m bitcal_integrations.tiny.card --answers DIR` repeats every number in MODEL_CARD.md and
every profile; a cut run goes on from the answers and logged runs in DIR. With `--measure` it stops
when these are there, so that several processes can each take some of the settings.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.progress import Progress as Bar

from bitcal_integrations.answered import Progress, read_answers
from bitcal_integrations.kept_runs import read_runs
from bitcal_integrations.profile import Profile
from bitcal_integrations.tiny import measure, stops
from bitcal_integrations.tiny.assets import MODEL_DIR, PROFILE_DIR
from bitcal_integrations.tiny.card_text import render
from bitcal_integrations.tiny.measure import LABELS_SEED, TEST_SEED, Setting

# qfloat8 is slow on a CPU and behaves as qint8: it gets a small profile, no place in the tables and
# no early stops.
SETTINGS = tuple(
    f"{weights}-{dtype}"
    for dtype in ("float32", "bfloat16")
    for weights in ("none", "qint8", "qint4", "qint2", "qint2+data-free", "qfloat8")
)
QFLOAT8_LABELS = 1500
console = Console(width=110)


def main(
    answers: Annotated[Path, typer.Option(help="folder that keeps the answers")],
    folder: Annotated[
        Path, typer.Option(help="model folder; the card is written there")
    ] = MODEL_DIR,
    profiles: Annotated[Path, typer.Option(help="folder for the profiles")] = PROFILE_DIR,
    labels: Annotated[int, typer.Option(help="labelled questions per profile")] = 9000,
    number: Annotated[int, typer.Option("--questions", help="fresh test questions")] = 20000,
    runs: Annotated[int, typer.Option(help="word problems logged for early stops")] = 1700,
    settings: Annotated[str, typer.Option(help="comma-separated")] = ",".join(SETTINGS),
    only_answers: Annotated[bool, typer.Option("--measure", help="ask, and stop there")] = False,
    only_kept: Annotated[
        bool, typer.Option("--kept", help="ask nothing, take what is kept")
    ] = False,
    refit: Annotated[
        bool, typer.Option(help="or take the profiles that are there, and certify stops again")
    ] = True,
    threads: Annotated[int, typer.Option(help="one is best on a busy machine")] = 1,
) -> None:
    """Ask, fit, certify, evaluate, and write profiles, metrics.json and MODEL_CARD.md."""
    torch.set_num_threads(threads)
    for place in (answers, profiles):
        place.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = {"questions": number, "labels": labels, "seed": TEST_SEED}
    found |= {"results": {}, "stops": {}}
    for name in settings.split(","):
        started = time.monotonic()
        counts = {"labels": labels, "test": number, "runs": runs}
        rows = kept(name, answers) if only_kept else ask(folder, name, answers, counts)
        if only_answers:
            console.print(f"{name}: answered in {time.monotonic() - started:.0f} s")
            continue
        profile = fitted(folder, name, rows, profiles / f"{name}.json", refit)
        if rows["test"]:
            found["results"][title(name)] = measure.scores(rows["test"], profile)
            found.setdefault("samples", measure.samples(rows["test"]))
        if rows["runs"]:
            found["stops"][title(name)] = stops.told(profile, rows["runs"])
        console.print(summary(name, profile, found), highlight=False)
    if found["results"]:
        write(folder, found)


def title(name: str) -> str:
    """A setting's weights and dtype as the tables have them.

    >>> title("qint2+data-free-float32")
    'qint2+data-free float32'
    """
    return " ".join(name.rsplit("-", 1))


def ask(folder: Path, name: str, answers: Path, counts: dict[str, int]) -> dict[str, Any]:
    """The answers of one setting to the labelled and to the test questions, and its logged runs."""
    if name.startswith("qfloat8"):
        counts = {"labels": min(counts["labels"], QFLOAT8_LABELS), "test": 0, "runs": 0}
    asked = {
        "labels": measure.draw("calibration", counts["labels"], LABELS_SEED),
        "runs": stops.draw(counts["runs"], counts["labels"]),
        "test": measure.draw("test", counts["test"], TEST_SEED),
    }
    rows: dict[str, Any] = {part: [] for part in asked}
    with Setting.of(name).load(folder) as model:
        for part, examples in asked.items():
            if examples:
                made = stops.log if part == "runs" else measure.ask
                with bar(f"{name} {part}") as progress:
                    rows[part] = made(model, examples, path_of(answers, name, part), progress)
    return rows


def path_of(answers: Path, name: str, part: str) -> Path:
    """Where the answers or runs of one setting are kept."""
    return answers / f"{name}.{part}.jsonl{'.gz' if part == 'runs' else ''}"


def fitted(folder: Path, name: str, rows: dict[str, Any], path: Path, refit: bool) -> Profile:
    """The setting's profile with its early stops, written to its file."""
    if not (refit or rows["runs"]):
        return Profile.load(path)
    with Setting.of(name).load(folder) as model:
        profile = measure.fit(model, rows["labels"], seed=0) if refit else Profile.load(path)
        if rows["runs"]:
            profile = stops.certified(model, profile, rows["runs"])
    profile.save(path)
    return profile


def kept(name: str, answers: Path) -> dict[str, Any]:
    """The answers and runs of one setting that are there, as far as they go."""
    read = {"labels": read_answers, "test": read_answers, "runs": read_runs}
    paths = {part: path_of(answers, name, part) for part in read}
    return {part: read[part](path) if path.is_file() else [] for part, path in paths.items()}


@contextmanager
def bar(title: str) -> Iterator[Progress]:
    """A progress bar on the terminal."""
    with Bar(console=console, transient=True) as shown:
        task = shown.add_task(title, total=None)
        yield lambda done, total, label: shown.update(task, completed=done, total=total)


def summary(name: str, profile: Profile, found: dict[str, Any]) -> str:
    """One line on a setting."""
    method = profile.task().calibrator.method
    result = found["results"].get(title(name))
    if result is None:
        return f"{name}: {method}"
    raw, calibrated = result["all"]["raw"], result["all"]["calibrated"]
    return (
        f"{name}: accuracy {result['all']['accuracy']}, {method}, Brier {raw['brier']} -> "
        f"{calibrated['brier']}, ECE {raw['ece']} -> {calibrated['ece']} "
        f"(floor {calibrated['ece_floor']})"
    )


def write(folder: Path, found: dict[str, Any]) -> None:
    """The card and its numbers, beside the weights; what low_bits.py measured on these stays."""
    training = json.loads((folder / "training.json").read_text(encoding="utf-8"))
    low_bits = read_metrics(folder).get("low_bits", {})
    if low_bits.get("weights") == digest_of(folder):
        found = {"low_bits": low_bits, **found}
    (folder / "metrics.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    (folder / "MODEL_CARD.md").write_text(render(found, training), encoding="utf-8")
    console.print(f"wrote {folder / 'MODEL_CARD.md'}")


def read_metrics(folder: Path) -> dict[str, Any]:
    """The numbers that `write` wrote; empty where there are none."""
    path = folder / "metrics.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def digest_of(folder: Path) -> str:
    """Tells the weights of one training from those of another."""
    path = folder / "model.safetensors"
    return sha256(path.read_bytes()).hexdigest()[:16] if path.exists() else ""


def add_low_bits(folder: Path, note: str, tables: Sequence[str]) -> None:
    """Put tables on low-bit weights into a card that was written before."""
    measured = {"weights": digest_of(folder), "note": note, "tables": [f"{t}\n" for t in tables]}
    write(folder, {**read_metrics(folder), "low_bits": measured})


if __name__ == "__main__":
    typer.run(main)
