"""One call of a model in LlamaIndex's four ways: at once, async, as a stream, as an async stream.

Each tells the collector of the context it was called in, and each shapes what comes. Closing a
stream, or cancelling its task, stops the model. It knows no framework beyond the shapes it fills,
and that a synthesizer of LlamaIndex takes a ValueError for an answer that is no JSON.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator, Iterator, Sequence
from contextlib import aclosing, closing, contextmanager
from typing import Any

from bitcal_integrations.errors import BatchError, EngineError, PromptTooLong
from bitcal_integrations.llama_index._output import Chunks
from bitcal_integrations.llama_index.collector import Call, start_call
from bitcal_integrations.types import Record

Asked = tuple[Any, dict[str, Any]]  # a prompt and the options of `ask`


@contextmanager
def told(call: Call) -> Iterator[None]:
    """Tell the collector how a call failed, with an error that no synthesizer swallows.

    A prompt that is too long would come out as "Empty Response" if it stayed a ValueError.
    """
    try:
        yield
    except PromptTooLong as err:
        call.end(None, err)
        raise EngineError(err.message, err.hint) from err
    except BaseException as err:
        call.end(None, err)
        raise


def ask(model: Any, asked: Asked) -> Record:
    """The model's record."""
    call = start_call()
    with told(call):
        record: Record = model.ask(asked[0], **asked[1])
    call.end(record)
    return record


async def aask(model: Any, asked: Asked) -> Record:
    """`ask`, without holding up the event loop."""
    call = start_call()
    with told(call):
        record: Record = await model.aask(asked[0], **asked[1])
    call.end(record)
    return record


def ask_all(model: Any, prompts: Sequence[Any], options: dict[str, Any]) -> list[Record]:
    """The records of many prompts, which share the model's batches."""
    with _told_all():
        records: list[Record] = model.ask(list(prompts), **options) if prompts else []
    _note(records)
    return records


async def aask_all(model: Any, prompts: Sequence[Any], options: dict[str, Any]) -> list[Record]:
    with _told_all():
        records: list[Record] = await model.aask(list(prompts), **options) if prompts else []
    _note(records)
    return records


@contextmanager
def _told_all() -> Iterator[None]:
    """`told` for many prompts: what became of each, where some failed."""
    try:
        yield
    except BatchError as err:
        _note(err.results)
        raise
    except BaseException:
        with told(start_call()):
            raise


def _note(results: Sequence[Any]) -> None:
    for result in results:
        answered = isinstance(result, Record)
        start_call().end(result if answered else None, None if answered else result)


def stream(model: Any, asked: Asked, chunks: Chunks) -> Generator[Any, None, None]:
    """The chunks as they come. Whom to tell is settled now: it is read in some other context."""
    events, call = model.stream(asked[0], **asked[1]), start_call()
    reading = _stream(events, chunks, call)
    call.reading(reading)
    return reading


def _stream(events: Any, chunks: Chunks, call: Call) -> Generator[Any, None, None]:
    with told(call), closing(events):
        for event in events:
            yield from _shaped(event, chunks, call.end)


def astream(model: Any, asked: Asked, chunks: Chunks) -> AsyncGenerator[Any, None]:
    """`stream` for an event loop."""
    events, call = model.astream(asked[0], **asked[1]), start_call()
    reading = _astream(events, chunks, call)
    call.reading(reading)
    return reading


async def _astream(events: Any, chunks: Chunks, call: Call) -> AsyncGenerator[Any, None]:
    with told(call):
        async with aclosing(events):
            async for event in events:
                for chunk in _shaped(event, chunks, call.end):
                    yield chunk


def _shaped(event: Any, chunks: Chunks, end: Callable[[Record], None]) -> Any:
    """A step's chunks, or the record's, of which the collector hears before they are seen."""
    if isinstance(event, Record):
        end(event)
        return chunks.of_record(event)
    return chunks.of_step(event)
