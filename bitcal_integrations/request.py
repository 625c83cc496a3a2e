"""What is asked: one prompt and how to answer it, checked when it is made.

Knows which options there are and turns what a user passes into them; their rules are in options.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from bitcal_integrations.errors import BadRequest
from bitcal_integrations.options import check_options, content_of, encodable, plain

Message: TypeAlias = Mapping[str, Any]  # {"role": ..., "content": ...}
Prompt: TypeAlias = "str | tuple[Message, ...]"


@dataclass(frozen=True)
class Request:
    """One prompt and how to answer it.

    `prompt` is a string or messages; `max_new_tokens` counts tokens; temperature 0 is greedy;
    `parser` names the answer parser whose complete answer ends the generation; `loop_stop` ends
    verbatim loops; `top_logprobs` alternatives are kept per token; `chat` None means: through the
    model's chat template where it has one.

    `tools` are definitions in OpenAI's shape that the model may call; `tool_choice` is "auto" (the
    default with tools), "any" (it must call one), "none" or the name of the one to call.
    `response_schema` is a JSON schema that the text will follow. Both need the extra `tools`.

    `early_stop` ends a text where its answer is settled, or gives it up: "conservative",
    "balanced" or "fast" as the model's profile has been certified, or a StopPlan or
    StopCertificate of your own, which you vouch was made for this model. None: only where the text
    ends by itself, its answer is complete, or it loops.

    `hidden_layer` keeps the mean hidden state of the answer's tokens behind that layer, counted
    from 1, in `generation.hidden`; 0 is the usual one, two thirds of the way up. A feature that
    reads a state asks for it by itself.
    """

    prompt: Prompt
    max_new_tokens: int = 512
    temperature: float = 0.0
    top_p: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    parser: str | Callable[..., Any] | None = None
    loop_stop: bool = True
    top_logprobs: int = 0
    chat: bool | None = None
    chat_template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    task: str = "default"
    tools: tuple[Mapping[str, Any], ...] = ()
    tool_choice: str | None = None
    response_schema: Mapping[str, Any] | None = None
    early_stop: Any = None
    hidden_layer: int | None = None

    def __post_init__(self) -> None:
        check_options(self)

    @property
    def constrained(self) -> bool:
        """Whether the text is held to a grammar, from its start or from a call on."""
        return self.response_schema is not None or (bool(self.tools) and self.tool_choice != "none")

    def to_dict(self) -> dict[str, Any]:
        out = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        out["prompt"] = (
            self.prompt if isinstance(self.prompt, str) else [dict(m) for m in self.prompt]
        )
        out["stop"] = list(self.stop)
        out["chat_template_kwargs"] = dict(self.chat_template_kwargs)
        out["tools"] = [dict(tool) for tool in self.tools]
        if hasattr(self.early_stop, "to_dict"):
            out["early_stop"] = self.early_stop.to_dict()
        if callable(self.parser):
            out["parser"] = getattr(self.parser, "__name__", "callable")
        return out


@dataclass(frozen=True)
class SoftRequest(Request):
    """A prompt behind soft tokens: `soft` holds their embeddings, (tokens, width).

    A signal leaves it None: whoever asks the model puts in what was tuned for that very model.
    """

    soft: Any = field(default=None, repr=False, compare=False)


OPTIONS = tuple(f.name for f in dataclasses.fields(Request) if f.name != "prompt")


def make_request(prompt: Any, **options: Any) -> Request:
    """A checked Request from what a user passes.

    >>> make_request("Why?", stop="\\n").stop
    ('\\n',)
    """
    unknown = sorted(set(options) - set(OPTIONS))
    if unknown:
        raise BadRequest(
            f"unknown option {unknown[0]!r}; the options are {', '.join(sorted(OPTIONS))}"
        )
    options = {name: plain(value) for name, value in options.items()}
    stop = options.get("stop", ())
    if isinstance(stop, str):
        options["stop"] = (stop,)
    elif stop is None:
        options["stop"] = ()
    elif isinstance(stop, list):
        options["stop"] = tuple(stop)
    tools = options.get("tools", ())
    if tools is None or isinstance(tools, list):
        options["tools"] = tuple(tools or ())
    return Request(prompt=make_prompt(prompt), **options)


def make_prompt(prompt: Any) -> Prompt:
    """A string, or a tuple of messages that each have a role and a text as content."""
    if isinstance(prompt, str):
        return encodable(prompt)
    if isinstance(prompt, (list, tuple)) and prompt and all(isinstance(m, Mapping) for m in prompt):
        for message in prompt:
            if not {"role", "content"} <= set(message):
                raise BadRequest(
                    f"the message {dict(message)!r} needs the keys 'role' and 'content'"
                )
            if not isinstance(message["role"], str):
                raise BadRequest(f"the role {message['role']!r} must be a string")
        return tuple({**m, "content": content_of(m)} for m in prompt)
    raise BadRequest(
        f"a prompt is a string or a list of {{'role', 'content'}} messages, not {prompt!r:.200}"
    )
