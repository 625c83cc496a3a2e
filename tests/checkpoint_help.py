"""What the tests of checkpoints share: prompts, a parser of letters, and how a run is asked."""

from __future__ import annotations

from typing import Any

from bitcal_integrations.decide.stop import LoggedRun, StopPlan
from bitcal_integrations.decode.net import Net
from bitcal_integrations.decode.run import generate
from bitcal_integrations.types import Generation, Request, make_request

PROMPTS = ("Hello there, this is", "A", "What is the capital of France? Well", "abc abc abc")
LOG = StopPlan(closing="Answer:", spacing=5, answer_tokens=8, log=True)


def letter(text: str, ended: bool = True) -> str | None:
    """The first two characters after the closing text, printable or not."""
    said = text.partition("Answer:")[2]
    return said[:2] or None if ended or len(said) > 2 else None


def request(prompt: str, plan: StopPlan | None = None, **options: Any) -> Request:
    return make_request(
        prompt, **{"max_new_tokens": 48, "parser": letter, "early_stop": plan, **options}
    )


def decode(net: Net, requests: list[Request]) -> list[Generation]:
    return generate(net, requests)


def tokens(generation: Generation) -> list[int]:
    return [step.token_id for step in generation.steps]


def logged(generation: Generation) -> LoggedRun:
    answer = generation.answer.text if generation.answer else None
    return LoggedRun(generation.checkpoints, generation.n_tokens, answer, finish=generation.finish)
