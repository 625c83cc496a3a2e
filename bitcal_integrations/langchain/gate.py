"""ConfidenceGate: lets a sure answer pass and raises LowConfidenceError for the others.

It stands between a model and an output parser, so that LangChain's own `with_fallbacks` acts on
confidence. It changes nothing in what passes. ConfidenceRouter does both in one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

from langchain_core.runnables import RunnableConfig, RunnableSerializable
from pydantic import ConfigDict, PrivateAttr

from bitcal_integrations.decide import Policy
from bitcal_integrations.errors import BadRequest, LowConfidenceError
from bitcal_integrations.langchain._calls import find_step
from bitcal_integrations.langchain._run import added, policy_for, policy_from
from bitcal_integrations.langchain.confidence import KNOWN
from bitcal_integrations.profile import Profile


class ConfidenceGate(RunnableSerializable[Any, Any]):
    """Passes on what `policy` (or `min_confidence`) accepts; raises LowConfidenceError otherwise.

    `chain = prompt | chat | ConfidenceGate(min_confidence=0.7) | StrOutputParser()`, then
    `chain.with_fallbacks([other], exceptions_to_handle=(LowConfidenceError,))`. The refused answer
    is in the error's `.record`. A stream is held back until its answer is accepted. For one call,
    config={"configurable": {"min_confidence": 0.9}} replaces the threshold. Unknown confidence
    follows `on_unknown`: escalate and raise refuse it, accept passes it; `profile` scores other
    models' answers by their log-probabilities.

    >>> from langchain_core.messages import AIMessage
    >>> answer = AIMessage("Paris", response_metadata={"bitcal": {"confidence": 0.6}})
    >>> ConfidenceGate(min_confidence=0.5).invoke(answer).content
    'Paris'
    >>> ConfidenceGate(min_confidence=0.7).invoke(answer)
    Traceback (most recent call last):
    bitcal_integrations.errors.LowConfidenceError: the gate refuses the answer: 0.60 < 0.70. The answer and its confidence are in .record of this error.
    """  # noqa: E501

    policy: Any = None
    min_confidence: float | None = None
    on_unknown: str = "escalate"
    profile: Any = None
    task: str = "default"
    _policy: Policy = PrivateAttr()

    model_config = ConfigDict(arbitrary_types_allowed=True)

    def __init__(
        self,
        policy: Any = None,
        *,
        min_confidence: Any = None,
        on_unknown: str = "escalate",
        profile: Profile | None = None,
        task: str = "default",
        name: str | None = None,
    ) -> None:
        chosen = policy_from(policy, min_confidence, on_unknown)
        fields: dict[str, Any] = {
            "policy": policy, "min_confidence": min_confidence, "on_unknown": on_unknown,
            "profile": profile, "task": task,
        }  # fmt: skip
        super().__init__(name=name, **fields)
        self._policy = chosen

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        return self._call_with_config(self._pass, input, config)

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        async def passed(answer: Any, run_manager: Any, config: RunnableConfig) -> Any:
            return self._pass(answer, run_manager, config)

        return await self._acall_with_config(passed, input, config)

    def _pass(self, answer: Any, run_manager: Any, config: RunnableConfig) -> Any:
        record = find_step(answer, profile=self.profile, task=self.task)
        if record is None:
            raise BadRequest(
                f"the gate cannot read a confidence from {answer!r:.80}; it takes {KNOWN}",
                "Put it right behind the model, before any output parser.",
            )
        decision = policy_for(config, self._policy, self.on_unknown).decide(record)
        if decision.action != "accept":
            raise LowConfidenceError(f"the gate refuses the answer: {decision.reason}", record)
        return answer

    def transform(
        self, input: Iterator[Any], config: RunnableConfig | None = None, **kwargs: Any
    ) -> Iterator[Any]:
        yield from self._transform_stream_with_config(input, self._held, config)

    def _held(
        self, input: Iterator[Any], run_manager: Any, config: RunnableConfig
    ) -> Iterator[Any]:
        chunks = list(input)
        self._pass(added(chunks), run_manager, config)
        yield from chunks

    async def atransform(
        self, input: AsyncIterator[Any], config: RunnableConfig | None = None, **kwargs: Any
    ) -> AsyncIterator[Any]:
        async for chunk in self._atransform_stream_with_config(input, self._aheld, config):
            yield chunk

    async def _aheld(
        self, input: AsyncIterator[Any], run_manager: Any, config: RunnableConfig
    ) -> AsyncIterator[Any]:
        chunks = [chunk async for chunk in input]
        self._pass(added(chunks), run_manager, config)
        for chunk in chunks:
            yield chunk
