"""Tool calls and structured values: how LlamaIndex asks for them, and how it gets them back.

The grammar of the model's own loop makes them valid; here is only the translation. It knows the
framework's hooks and neither a template nor a grammar.
"""

from __future__ import annotations

import copy
import json
from collections.abc import AsyncGenerator, Generator, Sequence
from typing import Any

from llama_index.core.base.llms.types import ChatMessage, ChatResponse, ToolCallBlock
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.llms.llm import ToolSelection
from llama_index.core.prompts import BasePromptTemplate
from llama_index.core.tools import BaseTool
from llama_index.core.types import PydanticProgramMode

from bitcal_integrations.llama_index._messages import choice_of, tools_of
from bitcal_integrations.llama_index._records import as_mapping


class Toolbox(FunctionCallingLLM):
    """What an LLM needs beside its endpoints to call tools and to fill in pydantic models."""

    def _prepare_chat_with_tools(
        self,
        tools: Sequence[BaseTool],
        user_msg: str | ChatMessage | None = None,
        chat_history: list[ChatMessage] | None = None,
        verbose: bool = False,
        allow_parallel_tool_calls: bool = False,
        tool_required: bool = False,
        tool_choice: Any = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        messages = list(chat_history or [])
        if user_msg is not None:
            messages.append(ChatMessage(user_msg) if isinstance(user_msg, str) else user_msg)
        if tools:
            kwargs["tools"] = tools_of(tools)
            kwargs["tool_choice"] = choice_of(tool_choice, tool_required)
        return {"messages": messages, **kwargs}

    def _validate_chat_with_tools_response(
        self,
        response: ChatResponse,
        tools: Sequence[BaseTool],
        allow_parallel_tool_calls: bool = False,
        **kwargs: Any,
    ) -> ChatResponse:
        calls = [b for b in response.message.blocks if isinstance(b, ToolCallBlock)]
        if not allow_parallel_tool_calls:
            for call in calls[1:]:
                response.message.blocks.remove(call)
            told = as_mapping(response.raw).get("bitcal")
            if isinstance(told, dict) and told.get("tool_calls"):  # agents read the two together
                told = {**told, "tool_calls": told["tool_calls"][:1]}
                response.raw = {**as_mapping(response.raw), "bitcal": told}
        return response

    def get_tool_calls_from_response(
        self, response: ChatResponse, error_on_no_tool_call: bool = True, **kwargs: Any
    ) -> list[ToolSelection]:
        """The calls in an answer, in order."""
        calls = [b for b in response.message.blocks if isinstance(b, ToolCallBlock)]
        if not calls and error_on_no_tool_call:
            raise ValueError(f"the answer holds no tool call: {response.message.content!r:.200}")
        return [
            ToolSelection(
                tool_id=call.tool_call_id or "",
                tool_name=call.tool_name,
                tool_kwargs=_arguments(call.tool_kwargs),
            )
            for call in calls
        ]

    # ---- structured output -----------------------------------------------------------------------

    def structured_predict(
        self,
        output_cls: Any,
        prompt: BasePromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> Any:
        """An object of `output_cls`, whose JSON schema the text has to follow."""
        prompt, more = self._for_schema(output_cls, prompt, llm_kwargs)
        return super().structured_predict(output_cls, prompt, more, **prompt_args)

    async def astructured_predict(
        self,
        output_cls: Any,
        prompt: BasePromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> Any:
        """`structured_predict` for an event loop."""
        prompt, more = self._for_schema(output_cls, prompt, llm_kwargs)
        return await super().astructured_predict(output_cls, prompt, more, **prompt_args)

    def stream_structured_predict(
        self,
        output_cls: Any,
        prompt: BasePromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> Generator[Any, None, None]:
        """The object as it grows."""
        prompt, more = self._for_schema(output_cls, prompt, llm_kwargs)
        return super().stream_structured_predict(output_cls, prompt, more, **prompt_args)

    async def astream_structured_predict(
        self,
        output_cls: Any,
        prompt: BasePromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> AsyncGenerator[Any, None]:
        """`stream_structured_predict` for an event loop."""
        prompt, more = self._for_schema(output_cls, prompt, llm_kwargs)
        return await super().astream_structured_predict(output_cls, prompt, more, **prompt_args)

    def _for_schema(
        self, output_cls: Any, prompt: BasePromptTemplate, llm_kwargs: dict[str, Any] | None
    ) -> tuple[Any, dict[str, Any]]:
        """A prompt of its own, because LlamaIndex's program leaves a parser in it, and the schema.

        In the modes that go through a tool the tool's parameters are the schema.
        """
        more = dict(llm_kwargs or {})
        if self.pydantic_program_mode == PydanticProgramMode.LLM:
            more.setdefault("response_schema", output_cls.model_json_schema())
        return copy.copy(prompt), more


def _arguments(arguments: dict[str, Any] | str) -> dict[str, Any]:
    """The arguments as a dict; another llm's text that is none counts as no arguments."""
    if isinstance(arguments, dict):
        return arguments
    try:
        value = json.loads(arguments)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
