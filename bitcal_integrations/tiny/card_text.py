"""The words and tables of the model card, from measured numbers. Computes nothing itself."""

from typing import Any

from bitcal_integrations.tiny.word_problems import SIZES

INTRODUCTION = """# bitcal-tiny

The language model that ships with bitcal-integrations, for its demo, tests, examples and
benchmarks. It is a real model with real mistakes: it reckons, recalls and reads, and each goes
wrong in its own way. Results on it show that the machinery is right; they say nothing about a
model of seven billion weights. Do not use it to answer questions that matter.

Everything below is written by `python -m bitcal_integrations.tiny.card`; the weights are made by
`python -m bitcal_integrations.tiny.train`.
"""

DATA = """## Data

All questions are generated (tasks.py), without end, from a seed. No text was collected.

- `math`: word problems of 1 to 6 steps with distractors; the answer shows every step and ends in
  `#### <number>`. A third of the questions ask for a check of the steps, which the model writes
  before that line. {sizes}.
- `facts`: capital, currency, continent, main language, phone code and internet domain of the 193
  member states of the United Nations, without a passage. `head`: the 60 most populous countries;
  `torso`: facts about the others that training showed, rarer the smaller the country; `tail`:
  facts that training never showed in any form, so that the model can only guess.
  Source: GeoNames (https://www.geonames.org), CC BY 4.0; the notice is in countries.json.
- `reading`: the same kind of question with a passage, mostly about invented countries and
  sometimes with invented values for a real one. For a fifth of them the passage is about something
  else, and the right answer is `unknown` (with a refine prompt: the existing answer).

A hash of a question's content puts it into train (70%), calibration (15%) or test (15%). For
`math` the content is the numbers and sentence templates, for `reading` the country, the attribute
and the wording. Facts are finite: there the split is by the whole prompt, so test asks a known
fact in words that training never used for it.

Wordings: plain, labelled and chat forms, LlamaIndex's default text_qa and refine prompts (text
and chat), and LangChain's usual RAG prompt. An eighth of the training questions were raw
completions without the chat template or had two turns.
"""


def render(metrics: dict[str, Any], training: dict[str, Any]) -> str:
    """The whole card as Markdown."""
    parts = [INTRODUCTION, _model(training), _data(), _curve(training["curve"]), _scores(metrics)]
    first = next(iter(metrics["results"]))
    parts += [_groups(first, metrics["results"]), _stops(metrics.get("stops", {}))]
    parts += [_low_bits(metrics.get("low_bits"))]
    parts += [_samples(metrics["samples"])]
    return "\n".join(filter(None, parts))


def _model(training: dict[str, Any]) -> str:
    return f"""## Model

Llama architecture: {training["parameters"]:,} weights, hidden size 256, 4 layers, 8 heads of 32
(4 for keys and values), tied embeddings, stored in bfloat16; context of 2,048 tokens, trained on
prompts of up to about 500 tokens. Tokenizer: byte-level BPE that splits digits.

Trained from seed {training["seed"]} on {training["tokens"] / 1e6:.1f} million tokens \
({training["answer_tokens"] / 1e6:.1f} million of them answers, which carry the loss) in \
{training["step"]:,} steps, {training["elapsed"] / 60:.0f} minutes on two CPU cores. Muon for the
matrices, AdamW for embeddings and norms, a constant rate with a decline at the end. Every step
joins one batch of each task and
of each drill (drills.py: bare sums, name lists to recall, several questions on one passage).
{"".join(f"{chr(10)}{note}{chr(10)}" for note in training.get("notes", []))}"""


def _data() -> str:
    """The section on data, with the number ranges as the generator has them."""
    sizes = ", ".join(f"`{name}` up to {size.top}" for name, size in SIZES.items())
    return DATA.replace("{sizes}", f"The running count stays in a range: {sizes}")


def _curve(curve: list[dict[str, float]]) -> str:
    columns = ["minutes", "tokens", "loss_math", "loss_facts", "loss_reading"]
    columns += ["math", "facts_head", "facts_tail", "reading"]
    rows = [
        [f"{p['tokens'] / 1e6:.1f}M" if c == "tokens" else f"{p.get(c, 0):.3g}" for c in columns]
        for p in curve
    ]
    note = (
        "## Training curve\n\nLoss of the last batch (reading: with a tenth of the prompt's), and "
        "the share right of 64 calibration questions per task.\n\n"
    )
    return note + _table([c.replace("_", " ") for c in columns], rows)


def _scores(metrics: dict[str, Any]) -> str:
    header = [
        "weights",
        "dtype",
        "task",
        "n",
        "accuracy",
        "score",
        "Brier",
        "ECE",
        "floor",
        "AUROC",
    ]
    rows = []
    for name, tasks in metrics["results"].items():
        for task, part in tasks.items():
            for score in ("raw", "calibrated"):
                values = [part[score][key] for key in ("brier", "ece", "ece_floor", "auroc")]
                shown = ["-" if value is None else f"{value:.4f}" for value in values]
                n, right = f"{part['n']:,}", f"{part['accuracy']:.3f}"
                rows.append([*name.split(), task, n, right, score, *shown])
    note = (
        f"## Scores\n\nUp to {metrics['questions']:,} fresh test questions "
        f"(seed {metrics['seed']}), greedy, asked as chats. Raw is the geometric mean of the "
        "token probabilities of the answer; calibrated comes from the profile in the package, "
        f"fitted on 70% of {metrics['labels']:,} other questions. `all` is the profile's default "
        "task, the others are tasks of their own. ECE over 15 bins of equal mass; the floor is the "
        "ECE that a perfectly calibrated score would show on as many questions.\n\n"
    )
    return note + _table(header, rows)


def _groups(name: str, results: dict[str, Any]) -> str:
    text = ["## Accuracy by group\n"]
    for task, part in results[name].items():
        if task == "all":
            continue
        for group in ("steps", "bucket", "wording"):
            if not part.get(group):
                continue
            header = [f"{task} by {group}", "n", *results]
            rows = [
                [key, str(value["n"]), *(_cell(r, task, group, key) for r in results.values())]
                for key, value in part[group].items()
            ]
            text.append(_table(header, rows))
    return "\n".join(text)


def _cell(result: dict[str, Any], task: str, group: str, key: str) -> str:
    return f"{result[task][group][key]['accuracy']:.3f}"


STOPS = """## Early stops

What `early_stop="conservative"`, `"balanced"` and `"fast"` mean for the task `math`: rules in the
packaged profiles, each certified by itself at delta .1 on logged runs of calibration questions that
no profile was fitted or reported on. Lost: of the tested runs, those that were right at full length
and are not at the early end. Right: of all logged runs, at full length. Where a model is seldom
right there is little to lose, so the promise is easy to keep and says little. Saved: share of the
tokens up to the complete answer, trial answers paid, with its 95% interval.

"""


def _stops(stops: dict[str, Any]) -> str:
    """The certificates; nothing where none was made."""
    header = ["weights", "dtype", "right", "preset", "may lose", "ends where"]
    header += ["lost", "ended", "saved"]
    rows = []
    for name, found in stops.items():
        for preset, one in found["presets"].items():
            saved, low, high = (f"{100 * share:.1f}%" for share in one["saved"])
            figures = [f"{one['ended']:.1%}", f"{saved} ({low} to {high})"]
            ends = one["rule"] or f"nowhere: {one['reason']}"
            losses = [f"{one['max_loss']:.0%}", ends, f"{one['lost']} of {one['tested']:,}"]
            shown = figures if one["rule"] else ["-", "-"]
            rows.append([*name.split(), f"{found['right']:.3f}", preset, *losses, *shown])
    return STOPS + _table(header, rows) if rows else ""


def _low_bits(measured: dict[str, Any] | None) -> str:
    """What better weights take back; nothing where that was not measured on these weights."""
    if measured is None:
        return ""
    return "\n".join(["## Low-bit weights\n", measured["note"], "", *measured["tables"]])


def _samples(samples: list[dict[str, Any]]) -> str:
    text = ["## Samples\n"]
    for one in samples:
        verdict = "right" if one["right"] else f"wrong, the answer is {one['gold']}"
        shown = f"{one['prompt']}\n>>> {one['text']}"
        text.append(f"{one['task']}, raw score {one['confidence']:.3f}, {verdict}:\n")
        text.append(f"```text\n{shown}\n```\n")
    return "\n".join(text)


def _table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"
