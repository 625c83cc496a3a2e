"""BitCalLLM: a quantized model of this process as LangChain's text-completion model.

Strings in, strings out; the confidence stands in `generation_info["bitcal"]`, which `generate`,
callbacks and the chain parts see. Where an answer is to be used with its confidence, ChatBitCal is
the better choice, since `invoke` of a text model gives the bare text.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import aclosing, closing
from functools import reduce
from operator import add
from typing import Any, cast

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models.llms import BaseLLM
from langchain_core.outputs import Generation, GenerationChunk, LLMResult
from langchain_core.runnables import RunnableConfig

from bitcal_integrations.langchain._base import BitCalModel, given_out
from bitcal_integrations.langchain._batch import ask
from bitcal_integrations.langchain._bound import BoundLLM, WithFallback
from bitcal_integrations.langchain._output import Wanted, last_llm_chunk, llm_chunk, llm_generation
from bitcal_integrations.types import Record


class BitCalLLM(WithFallback, BitCalModel, BaseLLM):
    """A local quantized model that completes texts, with a confidence on each.

    It takes the arguments of ChatBitCal. A model with a chat template is asked through it, as
    `model.ask` does; `chat=False` gives it the bare text. Several prompts are one batch.

    >>> from bitcal_integrations.testing.toy import ToyModel
    >>> llm = BitCalLLM(model=ToyModel({"Capital of France?": ("Paris", 0.9)}))
    >>> llm.invoke("Capital of France?")
    'Paris'
    >>> generation = llm.generate(["Capital of France?"]).generations[0][0]
    >>> generation.generation_info["bitcal"]["confidence"]
    0.9
    """

    @property
    def _llm_type(self) -> str:
        return "bitcal-llm"

    def __str__(self) -> str:
        return repr(self)  # the base class would load the model to print itself

    def _generate(
        self,
        prompts: list[str],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> LLMResult:
        if self.streaming and len(prompts) == 1:
            chunks = self._stream(prompts[0], stop, run_manager, **kwargs)
            return _result([reduce(add, chunks)])
        options, wanted = self._options(stop, kwargs)
        model = self.calibrated_model
        if len(prompts) == 1:
            records = [ask(model, prompts[0], options)]
        else:
            records = model.ask(prompts, **options)
        return _result([llm_generation(record, wanted) for record in records])

    async def _agenerate(
        self,
        prompts: list[str],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> LLMResult:
        if self.streaming and len(prompts) == 1:
            chunks = self._astream(prompts[0], stop, run_manager, **kwargs)
            return _result([reduce(add, [chunk async for chunk in chunks])])
        options, wanted = self._options(stop, kwargs)
        model = await self._aready()
        if len(prompts) == 1:
            records = [await model.aask(prompts[0], **options)]
        else:
            records = await model.aask(prompts, **options)
        return _result([llm_generation(record, wanted) for record in records])

    def _stream(
        self,
        prompt: str,
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[GenerationChunk]:
        options, wanted = self._options(stop, kwargs)
        with closing(self.calibrated_model.stream(prompt, **options)) as events:
            for event in events:
                chunk = _chunk(event, wanted)
                if chunk is not None:
                    if run_manager:
                        run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                    yield chunk

    async def _astream(
        self,
        prompt: str,
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[GenerationChunk]:
        options, wanted = self._options(stop, kwargs)
        model = await self._aready()
        async with aclosing(model.astream(prompt, **options)) as events:
            async for event in events:
                chunk = _chunk(event, wanted)
                if chunk is not None:
                    if run_manager:
                        await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                    yield chunk

    def bind(self, **kwargs: Any) -> BoundLLM:
        return BoundLLM(bound=self, kwargs=kwargs, config={})

    def with_config(self, config: RunnableConfig | None = None, **kwargs: Any) -> BoundLLM:
        own = cast("RunnableConfig", {**(config or {}), **kwargs})
        return BoundLLM(bound=self, kwargs={}, config=own)

    # ---- caches: their key must hold what a call asked for, which the base class leaves out ----

    def generate(
        self, prompts: list[str], stop: list[str] | None = None, *args: Any, **kwargs: Any
    ) -> LLMResult:
        """An answer to each prompt, asked as one batch; see BaseLLM.generate."""
        result = BaseLLM.generate(self._asked(kwargs), prompts, stop, *args, **kwargs)
        return given_out(result, self.cache)

    async def agenerate(
        self, prompts: list[str], stop: list[str] | None = None, *args: Any, **kwargs: Any
    ) -> LLMResult:
        await self._aready()
        result = await BaseLLM.agenerate(self._asked(kwargs), prompts, stop, *args, **kwargs)
        return given_out(result, self.cache)

    def _asked(self, kwargs: dict[str, Any]) -> BitCalLLM:
        given = {name: value for name, value in kwargs.items() if name not in _NOT_OPTIONS}
        if not given:
            return self
        asked = self.model_copy()
        asked._given = given
        return asked


_NOT_OPTIONS = ("callbacks", "tags", "metadata", "run_name", "run_id")


def _chunk(event: Any, wanted: Wanted) -> GenerationChunk | None:
    if isinstance(event, Record):
        return last_llm_chunk(event, wanted)
    return llm_chunk(event, wanted)


def _result(generations: Sequence[Generation]) -> LLMResult:
    infos = [generation.generation_info or {} for generation in generations]
    counts = {
        name: sum(info["usage_metadata"][name] for info in infos)
        for name in ("input_tokens", "output_tokens", "total_tokens")
    }
    output = {"token_usage": counts, "model_name": infos[0]["model_name"] if infos else ""}
    return LLMResult(generations=[[g] for g in generations], llm_output=output)
