"""Text rules on the released runs of 4-bit Qwen models: the figures that are told of them."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import pytest
from released import RELEASED, qwen_pieces, released_records

from bitcal_integrations.bench.stops import Chunk, Controller

sys.path.insert(0, str(Path(__file__).parent / "benchmarks"))

import stopping_released as study

pytestmark = pytest.mark.skipif(not RELEASED.exists(), reason="the released runs are not here")


@pytest.fixture(scope="module")
def found() -> dict[tuple[str, str], study.Line]:
    cells = (("7B", "run10", 512), ("14B", "run9", 512))
    return {(line.size, line.rule): line for line in study.lines(cells)}


@pytest.mark.parametrize(
    ("size", "rule", "n", "accuracy", "tokens", "saved"),
    [
        ("7B", "fixed", 54, 0.907, 465.6, 0.0),
        ("7B", "adaptive", 54, 0.796, 286.2, 0.385),
        ("7B", "L0 strict pattern", 54, 0.907, 298.2, 0.360),
        ("7B", "L0", 54, 0.907, 291.9, 0.373),
        ("14B", "fixed", 35, 0.886, 454.6, 0.0),
        ("14B", "bitcal_tts", 35, 0.857, 269.3, 0.408),
        ("14B", "L0 strict pattern", 35, 0.886, 245.9, 0.459),
        ("14B", "L0", 35, 0.886, 245.9, 0.459),
    ],
)
def test_the_figures(found, size, rule, n, accuracy, tokens, saved) -> None:
    line = found[size, rule]
    assert line.n == n
    assert line.accuracy.value == pytest.approx(accuracy, abs=5e-4)
    assert line.tokens.value == pytest.approx(tokens, abs=0.05)
    assert line.saved.value == pytest.approx(saved, abs=5e-4)
    assert line.saved.low <= line.saved.value <= line.saved.high


def test_the_release_is_read_as_it_reports_itself(found) -> None:
    released = {key: line.released_accuracy for key, line in found.items()}
    assert released["7B", "bitcal_tts"] == pytest.approx(0.833, abs=5e-4)
    assert released["14B", "bitcal_tts"] == pytest.approx(0.857, abs=5e-4)
    assert released["7B", "L0"] is None


def test_a_complete_answer_loses_nothing_and_beats_the_controller(found) -> None:
    for size in ("7B", "14B"):
        assert found[size, "L0"].lost.value == 0
        assert found[size, "bitcal_tts"].lost.value > 0
        assert found[size, "bitcal_tts"].against_l0.high < 0  # it takes more tokens


@pytest.mark.parametrize(("method", "bits"), [("bitcal_tts", 4), ("adaptive", 16)])
def test_our_controller_stops_where_the_released_one_did(method: str, bits: int) -> None:
    """By its mark, floor and budget alone: its confidence stopped none of these runs.

    The ten others broke off by an entropy that was not released, or have one token that text does
    not show.
    """
    late: Counter[int | None] = Counter()
    for record in released_records():
        if record["run"] in ("run6", "run9", "run10") and record["method"] == method:
            at = stop_of(record["generated_text"], Controller(bits, record["budget"]))
            late[None if at is None else at - record["tokens_used"]] += 1
    assert late == {0: 370, None: 8, -16: 2}


def stop_of(text: str, controller: Controller) -> int | None:
    """Tokens at the stop, from the text; an entropy of 2.5 neither stops nor breaks off."""
    pieces, chunks = qwen_pieces(text), []
    for end in range(16, len(pieces) + 17, 16):  # the last chunk may lack a token of no text
        marked = "####" in b"".join(pieces[:end]).decode("utf-8", "ignore")
        chunks.append(Chunk(end, 2.5, False if chunks else None, marked))
    at = controller.stop(chunks)
    return None if at is None else chunks[at].tokens
