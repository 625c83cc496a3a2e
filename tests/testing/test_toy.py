"""ToyModel says what its table says, with the confidence that is true by construction."""

from __future__ import annotations

import pytest

from bitcal_integrations.errors import BadRequest, EngineClosed
from bitcal_integrations.testing.toy import ToyModel
from bitcal_integrations.types import Record, Step

TABLE = {"Capital of France?": ("Paris it is", 0.9), "Unsure?": ("maybe", None)}


def test_it_answers_from_the_table_in_every_way() -> None:
    toy = ToyModel(TABLE)
    record = toy.ask("Capital of France?")
    assert (record.text, record.confidence.value, record.confidence.calibrated) == (
        "Paris it is",
        0.9,
        True,
    )
    assert record.confidence.raw == pytest.approx(0.9)
    many = toy.ask(["Unsure?", [{"role": "user", "content": "Capital of France?"}], "else"])
    assert [r.text for r in many] == ["maybe", "Paris it is", "I do not know."]
    assert [r.confidence.value for r in many] == [None, 0.9, 0.0]
    *steps, last = toy.stream("Capital of France?")
    assert [s.text for s in steps if isinstance(s, Step)] == ["Paris", " it", " is"]
    assert isinstance(last, Record)


async def test_async_and_sinks() -> None:
    seen: list[Record] = []
    toy = ToyModel(TABLE)
    remove = toy.add_sink(seen.append)
    record = await toy.aask("Capital of France?")
    events = [event async for event in toy.astream("Unsure?")]
    assert seen == [record, events[-1]]
    remove()
    toy.ask("Unsure?")
    assert len(seen) == 2


def test_the_confidence_is_the_rate_of_right_answers() -> None:
    toy = ToyModel({f"q{i}": ("right", 0.7, "wrong") for i in range(2000)}, seed=1)
    records = toy.ask([f"q{i}" for i in range(2000)])
    rate = sum(r.text == "right" for r in records) / len(records)
    assert rate == pytest.approx(0.7, abs=0.03)
    assert {r.confidence.value for r in records} == {0.7}
    again = ToyModel({"q5": ("right", 0.7, "wrong")}, seed=1).ask("q5")
    assert again.text == records[5].text


def test_options_cut_the_answer() -> None:
    toy = ToyModel({"q": ("one two three #### 4", 0.5)})
    cut = toy.ask("q", max_new_tokens=2)
    assert (cut.text, cut.generation.finish) == ("one two", "length")
    stopped = toy.ask("q", stop=" three")
    assert (stopped.text, stopped.generation.stop_string) == ("one two", " three")
    assert toy.ask("q", parser="gsm8k").generation.answer.text == "4"


@pytest.mark.parametrize("entry", ["text", ("a",), ("a", 1.5), ("a", 0.5, 3), (1, 0.5)])
def test_a_wrong_table_is_refused(entry: object) -> None:
    with pytest.raises(BadRequest, match="'q'"):
        ToyModel({"q": entry})


def test_it_closes() -> None:
    with ToyModel(TABLE) as toy:
        pass
    with pytest.raises(EngineClosed):
        toy.ask("Unsure?")
