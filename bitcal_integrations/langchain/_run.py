"""Small parts of LangChain that the chain runnables share: configs, control exceptions, chunks.

It knows LangChain's calling conventions and where a Record is found in an output; it decides
nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import copy
from typing import Any, cast

from langchain_core.callbacks.base import BaseCallbackManager
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.base import coerce_to_runnable
from langchain_core.runnables.config import patch_config
from langchain_core.runnables.utils import AddableDict

from bitcal_integrations.chains.records import unknown_record
from bitcal_integrations.decide import Policy, as_policy
from bitcal_integrations.errors import BadRequest
from bitcal_integrations.langchain._calls import find_step
from bitcal_integrations.langchain._collect import Collector, Watch
from bitcal_integrations.langchain.confidence import message_in, text_of
from bitcal_integrations.profile import Profile
from bitcal_integrations.types import Record

# The key in config["configurable"] that replaces the threshold for one call.
THRESHOLD = "min_confidence"
# LangGraph's tag for a model whose tokens are not to be shown.
NOSTREAM = "nostream"


def runnable_of(thing: Any, where: str) -> Runnable[Any, Any]:
    """A runnable from a runnable, a callable or a dict of them."""
    try:
        return coerce_to_runnable(thing)
    except TypeError:
        raise BadRequest(
            f"{where} is {thing!r:.80}: it must be a runnable (a chat model, a chain) or a callable"
        ) from None


def several(fallbacks: Any) -> list[Any]:
    """One fallback, or an iterable of them, as a list."""
    if isinstance(fallbacks, (Runnable, Mapping)) or callable(fallbacks):
        return [fallbacks]
    if isinstance(fallbacks, (str, bytes)) or not isinstance(fallbacks, Iterable):
        raise BadRequest(
            f"fallbacks={fallbacks!r:.80} is not allowed: a runnable or a list of runnables"
        )
    return list(fallbacks)


def name_of(runnable: Runnable[Any, Any]) -> str:
    """What a runnable is called where it is told who answered."""
    for key in ("model", "model_name"):
        name = getattr(runnable, key, None)
        if isinstance(name, str) and name:
            return name
    return runnable.get_name()


def distinct(names: Sequence[str]) -> tuple[str, ...]:
    """The names, told apart where two are the same.

    >>> distinct(["tiny", "tiny", "big"])
    ('tiny', 'tiny#2', 'big')
    """
    return tuple(
        name if names[:i].count(name) == 0 else f"{name}#{names[:i].count(name) + 1}"
        for i, name in enumerate(names)
    )


def policy_from(policy: Any, min_confidence: Any, on_unknown: Any) -> Policy:
    """The one policy from `policy=` or its short form `min_confidence=`."""
    if (policy is None) == (min_confidence is None):
        given = "neither" if policy is None else "both"
        raise BadRequest(f"give either policy= or min_confidence=, not {given}")
    return as_policy(min_confidence if policy is None else policy, on_unknown)


def policy_for(config: RunnableConfig, policy: Policy, on_unknown: Any) -> Policy:
    """The policy of this call: config["configurable"]["min_confidence"] replaces the usual one."""
    threshold = (config.get("configurable") or {}).get(THRESHOLD)
    return policy if threshold is None else as_policy(threshold, on_unknown)


def is_control(error: BaseException) -> bool:
    """Whether it is an exception by which LangGraph steers a run, such as an interrupt."""
    errors = sys.modules.get("langgraph.errors")  # not loaded: then none can have been raised
    return errors is not None and isinstance(error, errors.GraphBubbleUp)


def raise_control(results: Sequence[Any]) -> None:
    """Raise the first control exception among the results of a batch."""
    for result in results:
        if isinstance(result, BaseException) and is_control(result):
            raise result


def listening(
    config: RunnableConfig, tag: str, *, profile: Profile | None = None, task: str = "default",
    live: bool = True,
) -> tuple[RunnableConfig, Collector]:  # fmt: skip
    """The config for one branch, and the collector that hears every answer given in it.

    A branch that is not `live` is a draft: LangGraph shows none of its tokens in
    stream_mode="messages", since it may be thrown away.
    """
    collector = Collector(Watch(profile, task))
    manager = cast("BaseCallbackManager", config["callbacks"]).copy()
    manager.add_handler(collector, inherit=True)
    manager.add_tags([tag], inherit=False)
    if not live:
        manager.add_tags([NOSTREAM], inherit=True)
    return patch_config(config, callbacks=manager), collector


def record_from(
    output: Any, heard: Collector, *, profile: Profile | None = None, task: str = "default",
    aggregate: str = "last",
) -> Record:  # fmt: skip
    """The Record of a branch's output: what it carries itself, else what was heard in the branch.

    With another aggregate than "last", what was heard comes first: it holds every step.
    """
    own = find_step(output, profile=profile, task=task)
    tells = own is not None and (own.confidence.value, own.confidence.raw) != (None, None)
    if own is not None and tells and aggregate == "last":
        return own
    reason = "no model was heard answering in it"
    return heard.record(aggregate) or own or unknown_record(text_of(output), reason=reason)


# ---- writing into an output ----------------------------------------------------------------------


def with_bitcal(output: Any, record: Record, extra: Mapping[str, Any]) -> Any:
    """A copy of the output whose `bitcal` also says this; one that has no place for it as it is."""
    if isinstance(output, BaseMessage):
        metadata = output.response_metadata
        bitcal = {**(metadata.get("bitcal") or record.bitcal()), **extra}
        return output.model_copy(update={"response_metadata": {**metadata, "bitcal": bitcal}})
    if isinstance(output, dict) and (message := message_in(output)) is not None:
        told, changed = (
            with_bitcal(message, record, extra),
            copy(output),
        )  # parts of a stream add up
        if output.get("raw") is message:
            changed["raw"] = told
        else:
            changed["messages"] = [told if m is message else m for m in output["messages"]]
        return changed
    return output


def chunks_with_bitcal(
    chunks: Sequence[Any], record: Record, extra: Mapping[str, Any]
) -> list[Any]:
    """The chunks of an answer; the last that may tell it, or one more, says this too."""
    out = list(chunks)
    for at in reversed(range(len(out))):
        if may_tell(out[at]):
            out[at] = with_bitcal(out[at], record, extra)
            return out
    last = next((chunk for chunk in reversed(out) if _message_of(chunk) is not None), None)
    if last is None:
        return out
    more = AIMessageChunk(content="", id=getattr(_message_of(last), "id", None))
    told = with_bitcal(more, record, extra)
    return [*out, AddableDict(raw=told) if isinstance(last, dict) else told]


def may_tell(chunk: Any) -> bool:
    """Whether this part of a stream has the place for what is told of the whole answer: with its
    `bitcal`, or as a message that is whole."""
    message = _message_of(chunk)
    if message is None:
        return False
    in_parts = isinstance(message, AIMessageChunk) and (
        message is chunk or chunk.get("raw") is message
    )
    return not in_parts or "bitcal" in message.response_metadata


def _message_of(chunk: Any) -> BaseMessage | None:
    if isinstance(chunk, BaseMessage):
        return chunk
    return message_in(chunk) if isinstance(chunk, dict) else None


def worded(text: str, record: Record, extra: Mapping[str, Any], like: Sequence[Any]) -> Any:
    """A text in the place of an answer: a message where the answers were messages, else the text.

    `like` holds the outputs that came, or the type of those that would have come.
    """
    if any(isinstance(x, str) or x is str for x in like):
        return text
    message = AIMessage(content=text, response_metadata={"bitcal": {**record.bitcal(), **extra}})
    return message


def added(chunks: Sequence[Any]) -> Any:
    """The whole output of a stream; the last chunk where chunks cannot be added."""
    whole: Any = None
    for chunk in chunks:
        try:
            whole = chunk if whole is None else whole + chunk
        except TypeError:
            whole = chunk
    return whole


def output_type(runnable: Runnable[Any, Any]) -> Any:
    """The type of what a runnable gives, as far as it says."""
    try:
        return runnable.OutputType
    except (TypeError, AttributeError):
        return Any


def checked_profiles(
    scored_by: Mapping[Any, Any], names: Sequence[str]
) -> Callable[[int], Profile | None]:
    """Which profile scores the answers of the runnable at an index."""
    for key, profile in scored_by.items():
        known = key in names or (isinstance(key, int) and 0 <= key < len(names))
        if not known or not isinstance(profile, Profile):
            raise BadRequest(
                f"scored_by has {key!r}: {profile!r:.60}; it maps an index or a name of "
                f"{', '.join(names)} to a Profile"
            )
    return lambda index: scored_by.get(index, scored_by.get(names[index]))
