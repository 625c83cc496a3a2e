"""`bitcal stop-bench`: log full runs of a model, certify early stops, compare them with others.

`compute` asks and studies, `draw` shows; neither does the other's work. What is computed is in
`bench/stops`.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bitcal_integrations.cli._labelled import Data, Grader, GroupId, Parser
from bitcal_integrations.cli._options import Device, Dtype, Model, Weights, weights_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bitcal_integrations.bench.stops import Line, StopStudy
    from bitcal_integrations.bench.stops.numbers import Figure

BITS = {"qint8": 8, "qfloat8": 8, "qint4": 4, "qint2": 2}
UNQUANTIZED = 16
TITLES = ("rule", "right %", "tokens", "probes", "saved %", "lost %", "changed %")
WIDTH = 18  # of a rule's name


def stop_bench(
    model: Model,
    data: Data,
    weights: Weights = "auto",
    dtype: Dtype = "auto",
    device: Device = "auto",
    parser: Parser = None,
    grader: Grader = "normalised",
    group_id: GroupId = None,
    preset: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="conservative, balanced or fast; may be repeated.  [default: all three]",
        ),
    ] = None,
    delta: Annotated[
        float, typer.Option(metavar="D", help="Chance that a promise may be wrong.")
    ] = 0.1,
    level: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="settled, hopeless, or both by repeating.  [default: settled]"
        ),
    ] = None,
    spacing: Annotated[
        str, typer.Option(metavar="WHERE", help="Checkpoints: line, sentence, or each N tokens.")
    ] = "line",
    closing: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="What asks for the answer.  [default: suits the parser]"),
    ] = None,
    max_new_tokens: Annotated[
        int, typer.Option(metavar="N", help="At most this many tokens in a full run.")
    ] = 512,
    test_share: Annotated[
        float, typer.Option(metavar="S", help="Share of the examples that only tests.")
    ] = 0.5,
    runs: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Keep the runs here; a cut bench goes on from it."),
    ] = None,
    json_: Annotated[
        str | None,
        typer.Option("--json", metavar="FILE", help="Also write all numbers, as JSON."),
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", help="Seed of the split.")] = 0,
) -> None:
    """Measure what stopping early saves and costs, beside other rules.

    Every example is run once to its end, with a trial answer at each checkpoint. On one part of
    the runs the presets are certified; on the others every rule is replayed.
    """
    from bitcal_integrations.bench.stops import Options
    from bitcal_integrations.cli._labelled import writable, write
    from bitcal_integrations.cli._show import console, finite, progress
    from bitcal_integrations.errors import BadRequest

    if seed < 0:
        raise BadRequest(f"--seed {seed} is not allowed: a whole number from 0 up")
    places = {"spacing": spacing_of(spacing), **({"closing": closing} if closing else {})}
    options = Options(
        losses_of(preset), checked_share("delta", delta), max_new_tokens,
        test_share=checked_share("test-share", test_share), seed=seed,
        how={"levels": levels_of(level), "simultaneous": True},
    )  # fmt: skip
    for path in (runs, json_):
        if path:
            writable(path)
    asking = {"parser": parser, "grader": grader, **places}
    with progress() as shown:
        found = compute(
            model, data, options, asking, runs, group_id, shown, weights=weights_of(weights),
            dtype=dtype, device=device,
        )  # fmt: skip
    draw(console(), found)
    if json_:
        write(json_, json.dumps(finite(found.to_dict()), indent=2, allow_nan=False) + "\n")
        console().print(f"written to {json_}", soft_wrap=True)


def losses_of(names: Sequence[str] | None) -> dict[str, float]:
    """What each preset may lose."""
    from bitcal_integrations.decide.stop import PRESETS
    from bitcal_integrations.errors import UnknownName

    for name in names or ():
        if name not in PRESETS:
            raise UnknownName(f"--preset {name!r} is not one of {', '.join(PRESETS)}")
    return {name: loss for name, loss in PRESETS.items() if not names or name in names}


def levels_of(names: Sequence[str] | None) -> tuple[str, ...]:
    from bitcal_integrations.errors import UnknownName

    for name in names or ():
        if name not in ("settled", "hopeless"):
            raise UnknownName(f"--level {name!r} is not one of settled, hopeless")
    return tuple(dict.fromkeys(names or ("settled",)))


def spacing_of(text: str) -> str | int:
    """What the option says: a word, or a number of tokens.

    >>> spacing_of("line"), spacing_of("16")
    ('line', 16)
    """
    from bitcal_integrations.errors import BadRequest

    if text in ("line", "sentence"):
        return text
    if text.isascii() and text.isdigit() and int(text) > 0:
        return int(text)
    raise BadRequest(f"--spacing {text!r} is not line, sentence or a number of tokens")


def checked_share(name: str, value: float) -> float:
    from bitcal_integrations.errors import BadRequest

    if not 0 < value < 1:
        raise BadRequest(f"--{name} {value:g} is not allowed: it lies between 0 and 1")
    return value


def compute(
    model: str,
    data: str,
    options: Any,
    asking: Mapping[str, Any],
    runs: str | None,
    group_id: str | None,
    shown: Any,
    **how: Any,
) -> StopStudy:
    """Load the model, log or read its runs, and study them."""
    from dataclasses import replace

    from bitcal_integrations.bench.stops import split, study
    from bitcal_integrations.bench.stops.logs import Asking, log_cases
    from bitcal_integrations.bench.stops.study import refuse_few
    from bitcal_integrations.dataset import read_examples
    from bitcal_integrations.model import load
    from bitcal_integrations.stopping import default_closing

    examples = read_examples(data, group_id=group_id, need_gold=False)
    refuse_few(*map(len, split(examples, options.test_share, options.seed)))
    begun = time.monotonic()
    with load(model, profile=None, progress=shown, **how) as loaded:
        asked = Asking(options={"max_new_tokens": options.budget}, **asking)
        closing = asked.closing or default_closing(asked.parser_of(loaded))
        asked = replace(asked, closing=closing)
        cases = log_cases(loaded, examples, asked, runs, shown)
        kinds = loaded.report().get("weights") or {}
    places = {"closing": closing, "spacing": asked.spacing, "answer_tokens": asked.answer_tokens}
    shown(0, 1, "certifying and replaying")
    found = study(
        cases,
        replace(options, bits=bits_of(kinds), how={**options.how, **places}),
    )
    about = {
        "model": model, "weights": "+".join(kinds) or "none", "examples": len(examples),
        "without_a_run": len(examples) - len(cases), "seconds": time.monotonic() - begun, **places,
    }  # fmt: skip
    return replace(found, about=about)


def bits_of(kinds: Mapping[str, int]) -> int:
    """The fewest bits among the weights: what BitCal-TTS is told.

    >>> bits_of({"qint4": 12, "qint8": 2}), bits_of({})
    (4, 16)
    """
    return min((BITS[kind] for kind in kinds if kind in BITS), default=UNQUANTIZED)


def draw(screen: Any, found: StopStudy) -> None:
    """The table, what it says, and what is promised on what evidence."""
    from rich.table import Table

    about, counts = found.about, found.counts
    screen.print(
        f"{about['model']}, {about['weights']} weights: {about['examples']} examples, "
        f"{about['without_a_run']} without a run; {counts['chosen']} to choose and certify, "
        f"{counts['test']} to test",
        soft_wrap=True,
    )
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for title in TITLES:
        left = title == "rule"
        table.add_column(title, justify="left" if left else "right", no_wrap=True)
    for line in found.lines:
        table.add_row(*cells(line))
    screen.print(table)
    screen.print(legend(found))
    screen.print()
    for text in promises(found):
        screen.print(text, soft_wrap=True)


def cells(line: Line) -> tuple[str, ...]:
    """A line of the table as text."""
    return (
        line.rule[:WIDTH], percent(line.accuracy), spread(line.tokens, 1), spread(line.probes, 1),
        percent(line.saved), percent(line.premature), percent(line.changed),
    )  # fmt: skip


def percent(figure: Figure | None) -> str:
    """A share in percent with the longer half of its interval; a dash where nobody knows."""
    return "-" if figure is None else spread(figure, 100)


def spread(figure: Figure, unit: float) -> str:
    """A figure with the longer half of its interval.

    >>> from bitcal_integrations.bench.stops.numbers import Figure
    >>> spread(Figure(0.5, 0.48, 0.53), 100), spread(Figure(50, 50, 50), 1)
    ('50.0 ±3.0', '50.0 ±0.0')
    """
    half = max(figure.high - figure.value, figure.value - figure.low)
    return f"{unit * figure.value:.1f} ±{unit * half:.1f}"


def losses(line: Line, found: StopStudy) -> str:
    """What a certified rule lost, each level by itself, as it is promised."""
    kind = "lost" if found.kind == "wrong" else "changed"
    words = {"settled": f"{kind} by settling", "hopeless": f"{kind} by giving up"}
    levels = found.certificates[line.rule].levels
    if len(levels) == 1:
        words[levels[0]] = kind
    return ", ".join(f"{percent(line.lost[level])}% {words[level]}" for level in levels)


def legend(found: StopStudy) -> str:
    """What the columns mean."""
    lost = (
        "lost: the full run was right and the early end is not"
        if found.kind == "wrong"
        else "right and lost are unknown: no example has a right answer"
    )
    like = f"what {found.compared} does" if found.compared else "half"
    return (
        "L0 runs until its answer is complete; tokens and probes (trial answers) are a run's; "
        f"saved is against L0, probes paid; {lost}; changed: another answer than the full run's. "
        "± is the longer half of a 95% interval. Of tokens the fixed budget takes, and of runs the "
        f"random rule ends, {like}. What DeepConf gives up has no answer."
    )


def promises(found: StopStudy) -> list[str]:
    """Each certificate in words, what it rests on, and what scores that know nothing certify."""
    measured = {line.rule: line for line in found.lines}
    out = []
    for name, certificate in found.certificates.items():
        out.append(f"{name}: {certificate}")
        if certificate.plan is not None:
            line = measured[name]
            out.append(f"  on the test runs: {losses(line, found)}, {percent(line.saved)}% saved")
    many = sum(certificate.plan is not None for certificate in found.certificates.values())
    if many > 1:
        out.append(
            f"all {many} promises hold at once with probability "
            f"{1 - found.delta:.4g}, for questions drawn like these"
        )
    controls = ", ".join(
        f"{name} {'nothing' if c.plan is None else f'{100 * c.saved:.1f}% saved'}"
        for name, c in found.controls.items()
    )
    return [*out, f"scores that know nothing certify, at the largest loss: {controls}"]
