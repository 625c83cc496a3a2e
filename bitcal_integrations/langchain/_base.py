"""What ChatBitCal and BitCalLLM have in common: their arguments, and options of `ask` made of them.

It knows the names of both sides and the shared model; nothing about messages, texts or results.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing
from typing import Any, TypeVar, cast

from langchain_core.globals import get_llm_cache
from langchain_core.language_models.base import BaseLanguageModel, LangSmithParams
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import get_config_list
from pydantic import Field, PrivateAttr, SecretStr

from bitcal_integrations.errors import BadRequest
from bitcal_integrations.langchain import _model
from bitcal_integrations.langchain._arguments import (
    ASKED,
    LOADED,
    refuse_arguments_of_load,
    schema_of,
    translated,
)
from bitcal_integrations.langchain._batch import agather, gather
from bitcal_integrations.langchain._output import Wanted
from bitcal_integrations.shared import Holder, holder_of
from bitcal_integrations.types import make_request

# Arguments of a call that say how to call, or that hold by construction.
_NOT_ASKED = ("stream", "strict", "parallel_tool_calls", "logprobs")


Result = TypeVar("Result")


class BitCalModel(BaseLanguageModel[Any]):
    """The arguments that both classes take.

    `model` is a hub id, a local folder, or a model that `load` gave. With a name, the arguments of
    `load` are taken too and the model is loaded when it is first used; equal arguments share one.
    """

    model: Any = Field(default="bitcal-tiny", exclude=True)
    weights: Any = LOADED["weights"]
    dtype: str = LOADED["dtype"]
    device: str = LOADED["device"]
    revision: str | None = LOADED["revision"]
    tokenizer: Any = Field(default=LOADED["tokenizer"], exclude=True, repr=False)
    exclude: Any = LOADED["exclude"]
    trust_remote_code: bool = LOADED["trust_remote_code"]
    confidence_profile: Any = Field(default="auto", exclude=True, repr=False)
    """What `profile=` was: "auto", None, a path or a Profile."""
    repair: str | None = LOADED["repair"]
    strict: bool = LOADED["strict"]
    deterministic: bool = LOADED["deterministic"]
    max_batch: int | None = LOADED["max_batch"]
    max_queue: int | None = LOADED["max_queue"]
    kv_bytes: int | None = LOADED["kv_bytes"]

    max_tokens: int | None = None
    temperature: float | None = None
    """None leaves it to the model's own default, which is 0 (greedy)."""
    top_p: float | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    task: str | None = None
    parser: str | Callable[..., Any] | None = None
    loop_stop: bool | None = None
    early_stop: Any = Field(default=None, repr=False)
    """A preset of the profile (conservative, balanced, fast), a StopPlan or a StopCertificate."""
    chat: bool | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    logprobs: bool = False
    """Whether answers carry OpenAI-shaped log-probabilities under `logprobs`."""
    top_logprobs: int | None = None

    streaming: bool | None = None
    timeout: Any = None
    """Accepted and without effect, as are max_retries and api_key: no network is asked."""
    max_retries: int | None = None
    api_key: SecretStr | None = None

    _held: Holder | None = PrivateAttr(default=None)
    _seen: Any = PrivateAttr(default=None)
    _given: dict[str, Any] = PrivateAttr(default_factory=dict)

    def __init__(self, **values: Any) -> None:
        values = translated(values, type(self).model_fields)
        if not _model.is_name(values.get("model", "bitcal-tiny")):
            refuse_arguments_of_load(values)
        super().__init__(**values)
        make_request("", **self._options(None, {})[0])  # a wrong option is reported here
        if _model.is_name(self.model):  # now, so that copies made before it is loaded share it
            self._held = holder_of(*self._wanted())

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Any:
        memo = {} if memo is None else memo
        memo[id(self.model)] = self.model  # the weights exist once
        memo[id(self._seen)] = self._seen
        return super().__deepcopy__(memo)

    @property
    def calibrated_model(self) -> Any:
        """The model that answers; it is loaded now if it has not been asked yet."""
        if not _model.is_name(self.model):
            return self.model
        wanted, held = self._wanted(), self._held
        if held is None or held.wanted != wanted:
            held = self._held = holder_of(*wanted)
        model = held.get()
        if self._seen is not model:
            self._seen = model
            self._loaded_now()
        return model

    def _wanted(self) -> tuple[Any, dict[str, Any]]:
        arguments = {name: getattr(self, name) for name in LOADED}
        arguments["profile"] = arguments.pop("confidence_profile")
        return self.model, arguments

    async def _aready(self) -> Any:
        """`calibrated_model` for an event loop, which loading would hold up."""
        if _model.is_name(self.model) and self._seen is None:
            await asyncio.to_thread(lambda: self.calibrated_model)
        return self.calibrated_model

    def _loaded_now(self) -> None:
        """Called once a model that was named is there."""

    @property
    def model_name(self) -> str:
        """The name of the model in metadata and traces."""
        return str(self.model) if _model.is_name(self.model) else _model.name_of(self.model)

    def _options(self, stop: Any, given: Mapping[str, Any]) -> tuple[dict[str, Any], Wanted]:
        """Options of `ask` for one call, and what of the answer is wanted."""
        one_call = given.get("parallel_tool_calls") is False
        logprobs = given.get("logprobs", self.logprobs)
        given = {name: value for name, value in given.items() if name not in _NOT_ASKED}
        options: dict[str, Any] = {}
        for name, theirs in ASKED.items():
            own = getattr(self, name)
            if own is not None:
                options[theirs] = own
            if name in given:
                options[theirs] = given.pop(name)
        if "response_format" in given:
            given["response_schema"] = schema_of(given.pop("response_format"))
        options |= given
        if stop is not None:
            options["stop"] = stop
        return options, Wanted(bool(logprobs or options.get("top_logprobs")), one_call)

    # ---- many inputs --------------------------------------------------------------------------

    def batch(
        self,
        inputs: list[Any],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[Any]:
        """One answer per input, in order, asked as one batch of the model.

        Without `return_exceptions` a failure ends the inputs that are not asked yet and is raised.
        """
        configs = get_config_list(config, len(inputs)) if inputs else []

        def one(index: int) -> Any:
            try:
                return self.invoke(inputs[index], configs[index], **kwargs)
            except Exception as error:
                if not return_exceptions:
                    raise
                return error

        if len(inputs) < 2:
            return [one(index) for index in range(len(inputs))]
        width = configs[0].get("max_concurrency")
        return gather(one, range(len(inputs)), width)

    async def abatch(
        self,
        inputs: list[Any],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[Any]:
        """`batch` for an event loop; a failure cancels what is under way."""
        configs = get_config_list(config, len(inputs)) if inputs else []

        async def one(index: int) -> Any:
            try:
                return await self.ainvoke(inputs[index], configs[index], **kwargs)
            except Exception as error:
                if not return_exceptions:
                    raise
                return error

        width = configs[0].get("max_concurrency") if configs else None
        return await agather(one, range(len(inputs)), width)

    async def astream(
        self, input: Any, config: RunnableConfig | None = None, **kwargs: Any
    ) -> AsyncIterator[Any]:
        """The answer in chunks, the confidence in the last; leaving it stops the model."""
        await self._aready()
        stream = super().astream(input, config, **kwargs)
        async with aclosing(cast("AsyncGenerator[Any]", stream)) as chunks:
            async for chunk in chunks:
                yield chunk

    # ---- what LangChain asks about a model ----------------------------------------------------

    @property
    def _identifying_params(self) -> dict[str, Any]:
        """What decides about the answer and its confidence: the key of caches and traces."""
        own = {name: getattr(self, name) for name in (*ASKED, "logprobs")} | self._given
        own["own_stop"] = own.pop("stop")  # the base classes write a call's over "stop"
        named = {name: _model.key_of(value) for name, value in own.items()}
        return {"model_name": self.model_name, **named, **_model.identity(self.calibrated_model)}

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        params = super()._get_ls_params(stop=stop, **kwargs)
        params.setdefault("ls_model_name", self.model_name)
        if not stop and self.stop:
            params["ls_stop"] = [self.stop] if isinstance(self.stop, str) else self.stop
        return params

    def get_token_ids(self, text: str) -> list[int]:
        """The model's own token ids of a text, without the marks that begin and end a prompt."""
        if self.custom_get_token_ids is not None:
            return self.custom_get_token_ids(text)
        return list(self._tokenizer()(text, add_special_tokens=False)["input_ids"])

    def _tokenizer(self) -> Any:
        tokenizer = getattr(self.calibrated_model, "tokenizer", None)
        if tokenizer is None:
            raise BadRequest(
                f"the model {self.model_name!r} has no tokenizer, so tokens cannot be counted",
                "Pass custom_get_token_ids.",
            )
        return tokenizer


def given_out(result: Result, cache: Any) -> Result:
    """The result, apart from what a cache keeps: one in memory keeps the very objects."""
    caching = cache is not False and (cache or get_llm_cache()) is not None
    return copy.deepcopy(result) if caching else result
