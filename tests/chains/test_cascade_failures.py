"""Cascade: which errors are passed over, which are raised, and what is left if all failed."""

from __future__ import annotations

import pytest
from cascade_help import cascade, record, run

from bitcal_integrations.chains import ON_EXHAUSTED
from bitcal_integrations.errors import EngineClosed, LowConfidenceError, QueueFull


class TestFailures:
    def test_one_in_handle_is_passed_over(self) -> None:
        course = cascade()
        assert run(course, (EngineClosed("closed"), 0.9)).index == 1
        assert course.attempts[0].to_dict() == {
            "name": "int4", "model": "int4", "confidence": None, "calibrated": False,
            "decision": None, "finish": "error", "tokens": 0,
            "error": f"EngineClosed: closed. {EngineClosed.hint}",
        }  # fmt: skip

    def test_a_gate_inside_leaves_its_record_in_the_trace(self) -> None:
        low = LowConfidenceError("0.10 < 0.70", record(0.1, model="tiny"))
        course = cascade()
        assert run(course, (low, 0.9)).index == 1
        said = course.attempts[0].to_dict()
        assert (said["model"], said["confidence"]) == ("tiny", 0.1)
        assert said["error"].startswith("LowConfidenceError")

    def test_any_other_is_raised_and_recorded(self) -> None:
        course, error = cascade(), KeyError("x")
        with pytest.raises(KeyError) as caught:
            course.failed(error)
        assert caught.value is error
        assert course.attempts[0].error is error

    def test_kinds_are_the_users_choice(self) -> None:
        assert run(cascade(handle=[TimeoutError, KeyError]), (KeyError("x"), 0.9)).index == 1
        with pytest.raises(EngineClosed):
            run(cascade(handle=TimeoutError), (EngineClosed("closed"), 0.9))

    @pytest.mark.parametrize("exit", [KeyboardInterrupt(), SystemExit(1), GeneratorExit()])
    def test_an_exit_is_never_handled(self, exit: BaseException) -> None:
        course = cascade(handle=Exception)
        with pytest.raises(type(exit)):
            course.failed(exit)
        assert course.attempts == []

    @pytest.mark.parametrize("on_exhausted", [*ON_EXHAUSTED, "I do not know."])
    def test_if_all_fail_the_first_error_is_raised(self, on_exhausted: str) -> None:
        errors = [EngineClosed("one"), QueueFull("two"), EngineClosed("three")]
        course = cascade(on_exhausted=on_exhausted)
        with pytest.raises(EngineClosed) as caught:
            run(course, errors)
        assert caught.value is errors[0]
        made = course.provenance()
        assert made["chosen"] is None
        assert [a["error"][:9] for a in made["attempts"]] == ["EngineClo", "QueueFull", "EngineClo"]

    @pytest.mark.parametrize("on_exhausted", [*ON_EXHAUSTED, "I do not know."])
    def test_withheld_answers_can_be_abstained_from(self, on_exhausted: str) -> None:
        errors = [QueueFull("full"), LowConfidenceError("0.10 < 0.70", record(0.1))]
        course = cascade(n=2, on_exhausted=on_exhausted)
        if on_exhausted in ("abstain", "I do not know."):
            assert run(course, errors).reason == "0.10 < 0.70"
        else:
            with pytest.raises(QueueFull):
                run(course, errors)
