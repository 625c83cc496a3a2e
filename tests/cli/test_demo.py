"""`bitcal demo`: what it computes and what it draws, at 80 columns and in a plain pipe."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from bitcal_integrations.cli.demo import (
    KINDS,
    Answered,
    Demo,
    asked_text,
    calibrated,
    chosen,
    draw,
    sent_on,
    sums,
)
from bitcal_integrations.decide import Certificate
from bitcal_integrations.features import Schema
from bitcal_integrations.profile import TaskProfile
from bitcal_integrations.tiny.tasks import TASKS, grade
from bitcal_integrations.types import Confidence, Generation, Record, Request

from .conftest import Bitcal

MEMORY = {
    "linears": {"qint4": {"bytes": 5600, "weights": 10000, "bits_per_weight": 4.5}},
    "head": {},
    "embeddings": 1000,
    "other": 10,
    "total": 6610,
    "kv_bytes_per_token": 2048,
}


def made(raws: list[float | None]) -> Demo:
    """A demo in which every second answer is right."""
    answers = []
    for i, (question, raw) in enumerate(zip(chosen(), raws, strict=True)):
        text = question.answer if i % 2 == 0 else "#### something very wrong and rather long"
        record = Record(
            Request(question.prompt),
            Generation(text, "stop", n_tokens=10),
            Confidence(raw=raw, reason="no profile"),
        )
        answers.append(Answered(question, record, grade(question, text), *sent_on(record)))
    return Demo(tuple(answers), 2.0, MEMORY, "bfloat16")


RAWS = [0.0, 0.3, 0.69, 0.7, 0.71, 1.0, None, 0.5, 0.9, 0.95, 0.2, 0.8]


def drawn(width: int, terminal: bool) -> str:
    out = io.StringIO()
    draw(Console(file=out, width=width, force_terminal=terminal, highlight=False), made(RAWS))
    return out.getvalue()


def test_a_dozen_of_three_kinds_always_the_same() -> None:
    asked = chosen()
    assert [q.task for q in asked] == [task for task in TASKS for _ in KINDS[task]]
    assert len({q.id for q in asked}) == 12
    assert asked == chosen()
    assert {q.split for q in asked} == {"test"}


def test_the_question_is_shown_without_its_frame() -> None:
    for question in chosen():
        shown = asked_text(question)
        assert shown
        assert shown.strip("?. ") in question.prompt
        assert "\n" not in shown
        assert not shown.startswith(("Context", "Question", "Answer"))


def test_below_the_threshold_or_unknown_is_sent_on() -> None:
    fate = [(a.send_on, a.why) for a in made(RAWS).answers]
    assert fate[2] == (True, "0.69 < 0.70")
    assert fate[3] == (False, "0.70 >= 0.70")
    assert fate[6] == (True, "no score")


def test_a_score_just_below_the_threshold_does_not_read_as_above_it() -> None:
    record = made([0.699] * 12).answers[0].record
    assert sent_on(record) == (True, "0.69 < 0.70")


def test_a_certificate_decides_where_there_is_one() -> None:
    """0.6 is below the usual threshold and above the certified one."""
    certificate = Certificate(0.5253, 0.8, 0.1, 0.1, n=843, errors=40, accepted=680)
    record = made([0.6] * 12).answers[0].record
    record = replace(record, confidence=Confidence(value=0.6, calibrated=True, raw=0.6))
    assert sent_on(record, certificate)[0] is False
    assert sent_on(record)[0] is True
    counts = {"fit": 4000, "certify": 901, "report": 1098}
    task = TaskProfile(
        "tiny", "tiny", {}, Schema(("confidence",)), None, (certificate,), counts=counts
    )
    shown = " ".join(calibrated(task))
    assert "on 5,999 answers to other questions" in shown
    assert "901 of these answers, to 843 different questions: accept at p >= 0.5253" in shown
    bare = " ".join(calibrated(replace(task, certificates=())))
    assert "reaches 0.70; nothing is promised" in bare
    assert max(map(len, calibrated(task))) <= 79


def test_drawing_fits_80_columns_and_a_plain_pipe() -> None:
    plain = drawn(80, terminal=False)
    assert "\x1b" not in plain
    assert max(map(len, plain.splitlines())) <= 80
    assert "\x1b" in drawn(80, terminal=True)
    assert plain.count("━") + plain.count("─") == 12 * 20
    assert plain.count("  right  ") == 6
    assert plain.count("  wrong  ") == 6


def test_sums_by_hand() -> None:
    """Kept are the raw scores 0.7 0.71 1.0 0.9 0.95 0.8, at the places 3 4 5 8 9 11."""
    lines = sums(made(RAWS))
    assert lines[0] == "right    6 of 12"
    assert lines[1] == "keep     6, 2 of them right"
    assert lines[2] == "send on  6, 2 of them wrong"
    assert "60 tokens/s: 120 tokens in 2.0 s" in lines[3]
    assert "6.5 KiB of weights (20.5 KiB in bfloat16), 2.0 KiB of cache per token" in lines[4]
    assert any("uncalibrated" in line for line in lines)


@pytest.mark.slow
def test_demo_runs(bitcal: Bitcal) -> None:
    result = bitcal("demo")
    assert result.exit_code == 0, result.output
    assert "The bars are calibrated" in result.stdout
    assert "an accepted answer is right at least" in " ".join(result.stdout.split())
    assert max(map(len, result.stdout.splitlines())) <= 80
