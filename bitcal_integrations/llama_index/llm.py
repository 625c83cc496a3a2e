"""BitCalLLM: a quantized local model as an LLM of LlamaIndex, with a confidence on every answer.

It translates in, asks the model, and translates out; messages, chunks, tools and loading live
beside it. It decides nothing about an answer: engines, agents and evaluators do that from its
confidence.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from typing import Any

from llama_index.core.base.llms.generic_utils import (
    messages_to_prompt as generic_messages_to_prompt,
)
from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    ChatResponseAsyncGen,
    ChatResponseGen,
    CompletionResponse,
    CompletionResponseAsyncGen,
    CompletionResponseGen,
    LLMMetadata,
)
from llama_index.core.bridge.pydantic import Field, PrivateAttr
from llama_index.core.constants import DEFAULT_CONTEXT_WINDOW
from llama_index.core.llms.callbacks import llm_chat_callback, llm_completion_callback
from llama_index.core.llms.llm import default_completion_to_prompt
from llama_index.core.types import PydanticProgramMode

from bitcal_integrations.errors import BadRequest, BitcalError
from bitcal_integrations.llama_index import _ask
from bitcal_integrations.llama_index._course import listed
from bitcal_integrations.llama_index._messages import turns_of
from bitcal_integrations.llama_index._model import (
    chats,
    is_model,
    knows_tools,
    open_model,
)
from bitcal_integrations.llama_index._options import DEFAULTS, as_saved, check_defaults, options_of
from bitcal_integrations.llama_index._output import Chunks, response_of
from bitcal_integrations.llama_index._tools import Toolbox
from bitcal_integrations.types import Record, make_request


class BitCalLLM(Toolbox):
    """A quantized Hugging Face model that says with every answer how likely it is right.

    `model` is a hub id, a folder, or a model that `load(...)` gave; a name is loaded with the
    further arguments of `load` (weights, dtype, device, profile, ...), and equal arguments share
    one model. max_tokens, temperature, top_p, seed, stop, task, parser, top_logprobs and early_stop
    (a preset of the profile, a StopPlan or a StopCertificate) are this LLM's defaults, and any
    option of `model.ask` may be given to a single call; what is left out is as the model has it. A
    call refuses a keyword that it does not know.

    `raw` of a response holds {"text", "usage", "finish_reason", "confidence", "bitcal"};
    `get_confidence(response)` reads it. `pydantic_program_mode` is by default the mode in which
    a grammar makes the text follow the schema, so that structured output is valid with any model.

    >>> from bitcal_integrations.testing.toy import ToyModel
    >>> llm = BitCalLLM(model=ToyModel({"Capital of France?": ("Paris", 0.9)}))
    >>> response = llm.complete("Capital of France?")
    >>> response.text, response.raw["confidence"]
    ('Paris', 0.9)
    """

    model: str = Field(description="Hub id or folder; the name of a model that was passed.")
    load_arguments: dict[str, Any] = Field(
        default_factory=dict, description="What `load` is given beside the model."
    )
    from_object: bool = Field(
        default=False, description="Whether an object was passed, which no name can load again."
    )
    max_tokens: int | None = Field(default=None, description="Tokens of an answer, at most.")
    temperature: float | None = Field(default=None, description="0 is greedy.")
    top_p: float | None = Field(default=None, description="Nucleus of a sampled answer.")
    seed: int | None = Field(default=None, description="Seed of a sampled answer.")
    stop: list[str] | None = Field(default=None, description="Texts that end an answer.")
    task: str | None = Field(default=None, description="The profile's task.")
    parser: str | None = Field(default=None, description="The answer parser's name.")
    top_logprobs: int | None = Field(default=None, description="Alternatives kept per token.")
    early_stop: str | dict[str, Any] | None = Field(
        default=None,
        repr=False,
        description="When an answer ends early: a preset, plan, certificate.",
    )
    is_function_calling_model: bool | None = Field(
        default=None, description="Whether agents give it tools; None: if its template knows them."
    )
    pydantic_program_mode: PydanticProgramMode = PydanticProgramMode.LLM

    _model: Any = PrivateAttr()

    def __init__(self, model: Any = "bitcal-tiny", **arguments: Any) -> None:
        known = type(self).model_fields
        fields: dict[str, Any] = {k: arguments.pop(k) for k in list(arguments) if k in known}
        load_arguments = {**(fields.pop("load_arguments", None) or {}), **arguments}
        if fields.pop("from_object", False) and not is_model(model):
            raise BadRequest(
                f"the model {model!r:.100} was passed as an object, which no name can load again",
                "Pass it once more: BitCalLLM.from_dict(data, model=...).",
            )
        if isinstance(fields.get("stop"), str):
            fields["stop"] = [fields["stop"]]
        fields["early_stop"] = as_saved(fields.get("early_stop"))
        check_defaults({name: fields[name] for name in DEFAULTS if name in fields})
        opened = open_model(model, load_arguments)
        by_name = opened is not model and _is_json(model, load_arguments)
        fields["model"] = os.fspath(model) if by_name else str(getattr(opened, "name", opened))
        fields["load_arguments"] = json.loads(_as_json(load_arguments)) if by_name else {}
        fields["from_object"] = not by_name
        super().__init__(**fields)
        self._model = opened

    @classmethod
    def class_name(cls) -> str:
        return "BitCalLLM"

    @property
    def calibrated(self) -> Any:
        """The model behind it, which other LLMs and chains may share."""
        return self._model

    @property
    def tokenizer(self) -> Any:
        """The model's own tokenizer, or None."""
        return getattr(self._model, "tokenizer", None)

    @property
    def metadata(self) -> LLMMetadata:
        context = getattr(self._model, "context", None) or DEFAULT_CONTEXT_WINDOW
        default = getattr(self._model, "request_of", make_request)("?").max_new_tokens
        calls = self.is_function_calling_model
        return LLMMetadata(
            context_window=context,
            # Prompts are cut so that this many tokens stay free: a default must leave them room.
            num_output=self.max_tokens or min(default, context // 4),
            is_chat_model=chats(self._model),
            is_function_calling_model=knows_tools(self._model) if calls is None else calls,
            model_name=self.model,
        )

    def to_payload(self) -> dict[str, Any]:
        """What traces show: the metadata, the weights and the profile."""
        report: dict[str, Any] = getattr(self._model, "report", dict)()
        shown = {k: v for k, v in report.items() if k in ("weights", "dtype", "device")}
        profile = getattr(self._model, "profile", None)
        fingerprint = getattr(profile, "fingerprint", None)
        return {**super().to_payload(), **shown, "profile": fingerprint}

    def set_as_default(self) -> Callable[[], None]:
        """Make it Settings.llm, and its tokenizer the one that LlamaIndex counts tokens with.

        The returned function puts both back.
        """
        import llama_index.core as core

        before = core.Settings._llm, core.global_tokenizer

        def undo() -> None:
            core.Settings._llm, core.global_tokenizer = before

        core.Settings.llm = self
        if self.tokenizer is not None:
            core.Settings.tokenizer = self.tokenizer
        return undo

    # ---- the eight endpoints -----------------------------------------------------------------

    @llm_chat_callback()
    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        return response_of(_ask.ask(self._model, self._chatted(messages, kwargs)), "chat")

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        asked = self._completed(prompt, formatted, kwargs)
        return response_of(_ask.ask(self._model, asked), "completion")

    @llm_chat_callback()
    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseGen:
        asked = self._chatted(messages, kwargs)
        return _ask.stream(self._model, asked, Chunks("chat", bool(kwargs.get("tools"))))

    @llm_completion_callback()
    def stream_complete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> CompletionResponseGen:
        asked = self._completed(prompt, formatted, kwargs)
        return _ask.stream(self._model, asked, Chunks("completion", bool(kwargs.get("tools"))))

    @llm_chat_callback()
    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        record = await _ask.aask(self._model, self._chatted(messages, kwargs))
        return response_of(record, "chat")

    @llm_completion_callback()
    async def acomplete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> CompletionResponse:
        record = await _ask.aask(self._model, self._completed(prompt, formatted, kwargs))
        return response_of(record, "completion")

    @llm_chat_callback()
    async def astream_chat(
        self, messages: Sequence[ChatMessage], **kwargs: Any
    ) -> ChatResponseAsyncGen:
        asked = self._chatted(messages, kwargs)
        return _ask.astream(self._model, asked, Chunks("chat", bool(kwargs.get("tools"))))

    @llm_completion_callback()
    async def astream_complete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> CompletionResponseAsyncGen:
        asked = self._completed(prompt, formatted, kwargs)
        return _ask.astream(self._model, asked, Chunks("completion", bool(kwargs.get("tools"))))

    # ---- many prompts at once ----------------------------------------------------------------

    def complete_batch(self, prompts: Sequence[str], **kwargs: Any) -> list[CompletionResponse]:
        """A response for each prompt; they share the model's batches.

        Events and callbacks fire once per prompt, when the whole batch has been answered. If some
        prompts fail, BatchError holds what the others gave.
        """
        asked = [self._completed(p, False, kwargs) for p in listed("prompts", prompts)]
        records = _ask.ask_all(self._model, [p for p, _ in asked], asked[0][1] if asked else {})
        return [self._done(p, r) for p, r in zip(prompts, records, strict=True)]

    async def acomplete_batch(
        self, prompts: Sequence[str], **kwargs: Any
    ) -> list[CompletionResponse]:
        """`complete_batch` for an event loop."""
        asked = [self._completed(p, False, kwargs) for p in listed("prompts", prompts)]
        options = asked[0][1] if asked else {}
        records = await _ask.aask_all(self._model, [p for p, _ in asked], options)
        return [self._done(p, r) for p, r in zip(prompts, records, strict=True)]

    @llm_completion_callback()
    def _done(self, prompt: str, record: Record) -> CompletionResponse:
        return response_of(record, "completion")

    # ---- in ----------------------------------------------------------------------------------

    def _chatted(self, messages: Sequence[ChatMessage], kwargs: dict[str, Any]) -> _ask.Asked:
        """The conversation, or the text that the user's own messages_to_prompt makes of it."""
        options = self._options(kwargs)
        turns = turns_of(messages, self.system_prompt)
        if self.messages_to_prompt in (None, generic_messages_to_prompt):
            return turns, options
        missing = len(turns) > len(messages)
        whole = self._extend_messages(list(messages)) if missing else messages
        return self.messages_to_prompt(whole), self._written(options)

    def _completed(self, prompt: Any, formatted: bool, kwargs: dict[str, Any]) -> _ask.Asked:
        """One user turn; a prompt that is formatted already goes past the chat template."""
        options = self._options(kwargs)
        if not isinstance(prompt, str):
            raise BadRequest(f"complete takes a text, not {prompt!r:.200}")
        if formatted:
            return prompt, self._written(options)
        if self.completion_to_prompt not in (None, default_completion_to_prompt):
            return self.completion_to_prompt(prompt), self._written(options)
        return turns_of([ChatMessage(prompt)], self.system_prompt), options

    def _options(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        return options_of({name: getattr(self, name) for name in DEFAULTS}, kwargs)

    def _written(self, options: dict[str, Any]) -> dict[str, Any]:
        """For a prompt that is written out; a model without a template writes none anyway."""
        return {"chat": False, **options} if self._templated() else options

    def _templated(self) -> bool:
        return bool(getattr(self.tokenizer, "chat_template", None))

    # ---- copies ------------------------------------------------------------------------------

    def __reduce__(self) -> Any:
        if self.from_object:
            raise BitcalError(
                f"an LLM round the loaded model {self.model!r} cannot be pickled",
                "Make it by the model's name: BitCalLLM(model='...').",
            )
        return type(self).from_dict, (self.to_dict(),)


def _as_json(value: Any) -> str:
    return json.dumps(value, default=os.fspath)


def _is_json(*values: Any) -> bool:
    try:
        _as_json(values)
    except TypeError:
        return False
    return True
