"""One contract per kind of file, run for every file of that kind on the day it lands."""

from __future__ import annotations

import inspect
from types import ModuleType

import numpy as np
import pytest

from bitcal_integrations.errors import UnknownName
from bitcal_integrations.registry import names, resolve
from bitcal_integrations.types import Generation, Observation, Request, make_request

NEEDS = {"generation", "samples", "extra_pass", "hidden"}


def modules(kind: str) -> list[tuple[str, ModuleType]]:
    """Every file of one kind; a kind whose folder does not exist yet has none."""
    try:
        return [(name, resolve(kind, name)) for name in names(kind)]
    except UnknownName:
        return []


def free_signals() -> list[tuple[str, ModuleType]]:
    """Those that need only the generation; the others' own tests make what they need."""
    return [(name, s) for name, s in modules("signals") if s.NEEDS == "generation"]


def observation(n: int, span: tuple[int, int] | None = None) -> Observation:
    """`n` tokens of plausible, different numbers."""
    rng = np.random.default_rng(7)
    logprob, entropy, margin = -rng.random(n), rng.random(n), rng.random(n)
    return Observation("x" * n, "stop", logprob, entropy, margin, 10 + rng.random(n), span=span)


def test_signals_were_found() -> None:
    assert modules("signals")


@pytest.mark.parametrize(("name", "signal"), modules("signals"))
class TestSignal:
    """NEEDS and measure(observation) -> float, pure, with a docstring."""

    def test_says_what_it_is_and_needs(self, name: str, signal: ModuleType) -> None:
        assert signal.__doc__, f"signals/{name}.py has no docstring"
        assert signal.NEEDS in NEEDS, f"signals/{name}.py: NEEDS = {signal.NEEDS!r}"
        assert list(inspect.signature(signal.measure).parameters) == ["observation"]

    def test_without_what_it_needs_it_has_no_value(self, name: str, signal: ModuleType) -> None:
        if signal.NEEDS != "generation":
            assert np.isnan(signal.measure(observation(3)))

    def test_an_extra_pass_declares_what_it_asks(self, name: str, signal: ModuleType) -> None:
        if signal.NEEDS != "extra_pass":
            assert not hasattr(signal, "COST")
            assert not hasattr(signal, "requests")
            return
        assert list(inspect.signature(signal.requests).parameters) == ["request", "generation"]
        for prompt in ("Why?", [{"role": "user", "content": "Why?"}]):
            asked = signal.requests(make_request(prompt), Generation("so", "stop"))
            assert type(asked) is tuple
            assert len(asked) == signal.COST
            assert all(isinstance(request, Request) for request in asked)


@pytest.mark.parametrize(("name", "signal"), free_signals())
class TestFreeSignal:
    """One that needs only the generation: a number of any text that has tokens."""

    def test_gives_a_finite_float(self, name: str, signal: ModuleType) -> None:
        for seen in (observation(1), observation(9), observation(9, span=(3, 5))):
            value = _measure(name, signal, seen)
            assert np.isfinite(value)

    def test_an_empty_text_has_no_value(self, name: str, signal: ModuleType) -> None:
        assert np.isnan(_measure(name, signal, observation(0)))

    def test_reads_the_answer_span(self, name: str, signal: ModuleType) -> None:
        whole, part = observation(9), observation(9, span=(3, 5))
        assert _measure(name, signal, whole) != _measure(name, signal, part)

    def test_is_pure(self, name: str, signal: ModuleType) -> None:
        seen = observation(9)
        before = seen.logprob.copy()
        assert _measure(name, signal, seen) == _measure(name, signal, seen)
        assert (seen.logprob == before).all()


def _measure(name: str, signal: ModuleType, seen: Observation) -> float:
    value = signal.measure(seen)
    assert type(value) is float, f"signals/{name}.py gives {type(value).__name__}, not float"
    return value
