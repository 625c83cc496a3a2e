"""Every error keeps its message, its hint and its fields through pickle, as process pools need."""

from __future__ import annotations

import pickle

import pytest

from bitcal_integrations import errors

CASES = [
    errors.EngineClosed("the model is closed"),
    errors.PromptTooLong(5, 3),
    errors.BatchError(["fine", errors.QueueFull("full")]),
    errors.LowConfidenceError("0.3 < 0.7"),
    errors.EarlyAnswer("0.97 >= 0.95"),
    errors.MissingExtra("openai", "remote"),
    errors.BadRequest("no", "Do this."),
]


@pytest.mark.parametrize("error", CASES, ids=lambda e: type(e).__name__)
def test_errors_survive_pickle(error: errors.BitcalError) -> None:
    back = pickle.loads(pickle.dumps(error))
    assert type(back) is type(error)
    assert str(back) == str(error)
    assert back.hint == error.hint


def test_what_a_low_confidence_error_is() -> None:
    assert issubclass(errors.LowConfidenceError, RuntimeError)
    assert not issubclass(errors.LowConfidenceError, ValueError)
    assert errors.LowConfidenceError("low", record=None).record is None


def test_the_hint_is_the_second_sentence() -> None:
    assert str(errors.QueueFull("3 wait")).startswith("3 wait. Wait for some")
