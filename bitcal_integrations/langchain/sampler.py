"""AdaptiveSampler: ask a model several times and give the answer that most samples agree on.

It draws until the vote is clear (decide/sampling.py says when), each sample with its own seed.
How clear the vote is does not tell whether the answer is right, so it stands beside the confidence
and never replaces it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

from langchain_core.callbacks import adispatch_custom_event, dispatch_custom_event
from langchain_core.language_models import BaseLanguageModel
from langchain_core.runnables import Runnable, RunnableConfig, RunnableSerializable
from langchain_core.runnables.base import RunnableBindingBase
from pydantic import ConfigDict, PrivateAttr

from bitcal_integrations.decide.sampling import Rule, VoteTally, refuse_greedy, refuse_weights
from bitcal_integrations.errors import BadRequest
from bitcal_integrations.grading import as_parser
from bitcal_integrations.langchain import _run
from bitcal_integrations.langchain._base import BitCalModel
from bitcal_integrations.langchain._collect import Collector
from bitcal_integrations.langchain._model import is_name
from bitcal_integrations.langchain.confidence import text_of
from bitcal_integrations.types import Record
from bitcal_integrations.voting import key_of

EVENT = "bitcal.votes"


class AdaptiveSampler(RunnableSerializable[Any, Any]):
    """Samples `chat` until the leading answer is clear, at most `max_samples` times.

    It stops once the probability that the leader is the model's more likely answer reaches
    `stop_at`; with `rule="certified"`, once no answer is likelier but for a probability of
    1 - `stop_at`, whenever it stops. Votes are counted by the answer that `parser` finds (a name
    such as "last_number", or a callable), or by the whole text; case and punctuation do not count.
    With `weights="confidence"` a sample counts its calibrated confidence, and 1 where that is
    unknown. Greedy samples are all the same, so a temperature of 0 is refused: set it on the model,
    or here. Sample i is asked with the seed `seed` + i. A prompt goes in front:
    `prompt | AdaptiveSampler(chat, temperature=0.7)`.

    The output is the first message that holds the leading answer, a copy whose
    response_metadata["bitcal"]["votes"] tells the counts; "bitcal.votes" is the event.
    """

    chat: Runnable[Any, Any]
    max_samples: int = 8
    stop_at: float = 0.95
    min_samples: int | None = None
    parser: str | Callable[..., Any] | None = None
    temperature: float | None = None
    seed: int = 0
    rule: Rule = "posterior"
    weights: str = "none"
    _parse: Any = PrivateAttr()

    model_config = ConfigDict(arbitrary_types_allowed=True)

    def __init__(
        self,
        chat: Any,
        max_samples: int = 8,
        stop_at: float = 0.95,
        *,
        min_samples: int | None = None,
        parser: str | Callable[..., Any] | None = None,
        temperature: float | None = None,
        seed: int = 0,
        rule: Rule = "posterior",
        weights: str = "none",
        name: str | None = None,
    ) -> None:
        if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
            raise BadRequest(f"seed={seed!r} is not allowed: a whole number from 0 up")
        VoteTally(max_samples, stop_at, min_samples, rule)  # refuses what is not allowed
        refuse_weights(rule, weights)
        parse = as_parser(parser)
        _refuse_greedy(_temperature(chat, temperature))
        fields: dict[str, Any] = {
            "chat": chat, "max_samples": max_samples, "stop_at": stop_at,
            "min_samples": min_samples, "parser": parser, "temperature": temperature, "seed": seed,
            "rule": rule, "weights": weights,
        }  # fmt: skip
        super().__init__(name=name, **fields)
        self._parse = parse

    @property
    def InputType(self) -> Any:
        return self.chat.InputType

    @property
    def OutputType(self) -> Any:
        return self.chat.OutputType

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        return self._call_with_config(cast("Any", self._invoke), input, config, **kwargs)

    def _invoke(self, input: Any, config: RunnableConfig, **kwargs: Any) -> Any:
        votes = _Votes(self, config, kwargs)
        while not votes.tally.done:
            branch, options = votes.next()
            votes.take(self.chat.invoke(input, branch, **options))
        output, event = votes.given()
        dispatch_custom_event(EVENT, event, config=config)
        return output

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        return await self._acall_with_config(cast("Any", self._ainvoke), input, config, **kwargs)

    async def _ainvoke(self, input: Any, config: RunnableConfig, **kwargs: Any) -> Any:
        votes = _Votes(self, config, kwargs)
        while not votes.tally.done:
            branch, options = votes.next()
            votes.take(await self.chat.ainvoke(input, branch, **options))
        output, event = votes.given()
        await adispatch_custom_event(EVENT, event, config=config)
        return output


class _Votes:
    """One question's samples and their tally."""

    def __init__(
        self, sampler: AdaptiveSampler, config: RunnableConfig, options: Mapping[str, Any]
    ) -> None:
        self.tally = VoteTally(
            sampler.max_samples, sampler.stop_at, sampler.min_samples, sampler.rule
        )
        self._sampler, self._config = sampler, config
        self._options = dict(options)
        if sampler.temperature is not None:
            self._options.setdefault("temperature", sampler.temperature)
        _refuse_greedy(_temperature(sampler.chat, self._options.get("temperature")))
        self._came: list[tuple[Any, Record, str | None]] = []
        self._heard: Collector | None = None

    def next(self) -> tuple[RunnableConfig, dict[str, Any]]:
        """The config and the options of the next sample."""
        number = self.tally.n
        config, self._heard = _run.listening(
            self._config, f"bitcal:sample:{number + 1}", live=False
        )
        return config, {**self._options, "seed": self._sampler.seed + number}

    def take(self, output: Any) -> None:
        assert self._heard is not None
        record = _run.record_from(output, self._heard)
        answer = self._answer(record, text_of(output))
        self._came.append((output, record, answer))
        value = record.confidence.value if self._sampler.weights == "confidence" else None
        self.tally.add(answer, 1.0 if value is None else value)

    def _answer(self, record: Record, text: str) -> str | None:
        """What the sample votes for; None where it holds no answer."""
        if record.generation.finish == "error":
            return None
        ended = record.generation.finish != "length"
        if self._sampler._parse is None:
            return key_of(text) if ended else None
        found = self._sampler._parse(text, ended=ended)
        return key_of(found.text) if found else None

    def given(self) -> tuple[Any, Mapping[str, Any]]:
        """The leader's first message with the votes told in it, and the event about them."""
        leader = self.tally.leader
        output, record, _ = next(came for came in self._came if came[2] == leader or leader is None)
        votes = {
            "samples": self.tally.n, "counts": self.tally.counts, "leader": leader,
            "posterior": self.tally.posterior,
            "tokens": sum(r.generation.n_tokens for _, r, _ in self._came),
        }  # fmt: skip
        if self.tally.rule == "certified":
            votes["e_value"] = self.tally.e_value
        event = {
            **votes, "text": text_of(output), "model": record.model, "bitcal": record.bitcal(),
        }  # fmt: skip
        return _run.with_bitcal(output, record, {"votes": votes}), event


def _temperature(chat: Any, given: float | None) -> Any:
    """The temperature that the samples are drawn at; None where the model does not say."""
    if given is not None:
        return given
    if isinstance(chat, RunnableBindingBase):
        bound = chat.kwargs.get("temperature")
        return _temperature(chat.bound, None) if bound is None else bound
    if isinstance(chat, BitCalModel):
        return _own_temperature(chat)
    if isinstance(chat, BaseLanguageModel):
        return getattr(chat, "temperature", None)
    raise BadRequest(
        f"{chat!r:.80} is no chat model: AdaptiveSampler sets the seed of each call of one",
        "Put the prompt in front: prompt | AdaptiveSampler(chat).",
    )


def _own_temperature(chat: BitCalModel) -> float:
    """Of one of our models; where it names none, the model's default holds."""
    if chat.temperature is not None:
        return chat.temperature
    return 0.0 if is_name(chat.model) else float(chat.model.request_of("").temperature)


def _refuse_greedy(temperature: Any) -> None:
    """A hosted model that does not say its temperature has one above 0."""
    if temperature is not None:
        refuse_greedy(temperature)
