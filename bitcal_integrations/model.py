"""load(...) and CalibratedModel: the one place where weights, engine and confidence meet.

The adapters of a framework translate to and from this class; it knows no framework. The model
itself lives behind the engine, where no copy or pickle of a CalibratedModel reaches it.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, NoReturn, overload

from bitcal_integrations.engines import _ticket as tickets
from bitcal_integrations.errors import BadRequest, BatchError, BitcalError, SaveError
from bitcal_integrations.features import NO_PROFILE, uncalibrated
from bitcal_integrations.types import (
    Confidence,
    Generation,
    Record,
    Request,
    Step,
    make_prompt,
    make_request,
)

if TYPE_CHECKING:
    from bitcal_integrations.quantize.weights import LoadedWeights

logger = logging.getLogger(__name__)
Sink = Callable[[Record], None]


def load(
    model: Any = "bitcal-tiny",
    *,
    weights: Any = "auto",
    dtype: str = "auto",
    device: str = "auto",
    revision: str | None = None,
    tokenizer: Any = None,
    exclude: str | Sequence[str] = "*lm_head",
    trust_remote_code: bool = False,
    profile: str | None = "auto",
    repair: str | None = None,
    strict: bool = False,
    deterministic: bool = False,
    max_batch: int | None = None,
    max_queue: int | None = None,
    kv_bytes: int | None = None,
    progress: Callable[[int, int, str], None] | None = None,
    **defaults: Any,
) -> CalibratedModel:
    """A model ready to answer: a hub id, a local folder, a folder saved by us, or an object.

    `weights` is qint8, qint4, qint2, qfloat8, None, "auto" (as stored), or a {pattern: type} plan,
    in which later patterns win, so the general one comes first.
    `deterministic` answers one request at a time in float32, bit-equal from run to run. `system`
    and every option of `ask` (temperature, parser, ...) may be given here as this model's default.
    """
    _check_load(profile, repair, strict, max_batch, max_queue, kv_bytes)
    if deterministic and max_batch not in (None, 1):
        raise BadRequest(f"deterministic=True answers one by one, not max_batch={max_batch}")
    system, defaults = _check_defaults(defaults)
    from bitcal_integrations.decode.net import Net
    from bitcal_integrations.engines import local
    from bitcal_integrations.quantize.weights import load_weights

    loaded = load_weights(
        model,
        weights=weights,
        dtype="float32" if deterministic and dtype == "auto" else dtype,
        device=device,
        revision=revision,
        tokenizer=tokenizer,
        exclude=exclude,
        trust_remote_code=trust_remote_code,
        progress=progress,
    )
    if deterministic and loaded.dtype != "float32":
        raise BadRequest(f"deterministic=True needs dtype float32, not {loaded.dtype!r}")
    engine = local.LocalEngine(
        Net(loaded.model, loaded.tokenizer),
        max_batch=1 if deterministic else (max_batch or local.MAX_BATCH),
        max_queue=max_queue or local.MAX_QUEUE,
        kv_bytes=kv_bytes,
    )
    return CalibratedModel(engine, loaded.source, loaded=loaded, system=system, defaults=defaults)


def _check_load(profile: Any, repair: Any, strict: bool, *positive: int | None) -> None:
    if profile not in ("auto", None):
        raise BadRequest(f"profile={profile!r} is not allowed: this version knows 'auto' and None")
    if repair is not None:
        raise BadRequest(f"repair={repair!r} is not allowed: this version knows only None")
    if strict:
        raise BitcalError(
            f"strict=True refuses a model without a profile ({NO_PROFILE})",
            "Load it with strict=False; its confidence is then None.",
        )
    for name, value in zip(("max_batch", "max_queue", "kv_bytes"), positive, strict=True):
        if value is not None and (
            isinstance(value, bool) or not isinstance(value, int) or value < 1
        ):
            raise BadRequest(f"{name}={value!r} is not allowed: it must be a whole number above 0")


def _check_defaults(defaults: dict[str, Any]) -> tuple[str | None, dict[str, Any]]:
    if "prompt" in defaults:
        raise BadRequest("a prompt is not an argument of load: pass it to ask")
    system = defaults.pop("system", None)
    if system is not None and not isinstance(system, str):
        raise BadRequest(f"system={system!r} is not allowed: it must be a string")
    make_request("", **defaults)
    return system, defaults


class CalibratedModel:
    """A model that answers with a confidence. Use it in a `with` block, or call `close()`."""

    def __init__(
        self,
        engine: tickets.Engine,
        name: str,
        *,
        loaded: LoadedWeights | None = None,
        system: str | None = None,
        defaults: dict[str, Any] | None = None,
    ) -> None:
        self.name = name
        self._engine = engine
        self._loaded = loaded
        self._system = system
        self._defaults = defaults or {}
        self._sinks: list[Sink] = []

    # ---- answering ---------------------------------------------------------------------------

    @overload
    def ask(self, prompt: str, **options: Any) -> Record: ...
    @overload
    def ask(self, prompt: Sequence[Any], **options: Any) -> Any: ...
    def ask(self, prompt: Any, **options: Any) -> Any:
        """A Record for one prompt (a string or messages), a list of Records for a list of them.

        Options: max_new_tokens, temperature, top_p, seed, stop, parser, loop_stop, top_logprobs,
        chat, chat_template_kwargs. If some of a list fail, BatchError holds what the others gave;
        with `return_errors=True` each error stands in its place instead.
        """
        many, requests, return_errors = self._requests(prompt, options)
        return self._fold(many, requests, tickets.collect(self._engine, requests), return_errors)

    async def aask(self, prompt: Any, **options: Any) -> Any:
        """`ask` for an event loop; cancelling the task stops the model."""
        many, requests, return_errors = self._requests(prompt, options)
        results = await tickets.acollect(self._engine, requests)
        return self._fold(many, requests, results, return_errors)

    def stream(self, prompt: Any, **options: Any) -> Iterator[Step | Record]:
        """Every Step as it comes, then the Record; closing it stops the model."""
        request = self._request(prompt, options)
        return self._stream(request)

    def _stream(self, request: Request) -> Iterator[Step | Record]:
        for event in tickets.stream(self._engine, request):
            yield self._record(request, event) if isinstance(event, tickets.Outcome) else event

    def astream(self, prompt: Any, **options: Any) -> AsyncIterator[Step | Record]:
        """`stream` for an event loop."""
        return self._astream(self._request(prompt, options))

    async def _astream(self, request: Request) -> AsyncIterator[Step | Record]:
        async with aclosing(tickets.astream(self._engine, request)) as events:
            async for event in events:
                yield self._record(request, event) if isinstance(event, tickets.Outcome) else event

    def _requests(self, prompt: Any, options: dict[str, Any]) -> tuple[bool, list[Request], bool]:
        return_errors = bool(options.pop("return_errors", False))
        many = isinstance(prompt, (list, tuple)) and not _is_messages(prompt)
        prompts = prompt if many else [prompt]
        return many, [self._request(p, options) for p in prompts], return_errors

    def _request(self, prompt: Any, options: dict[str, Any]) -> Request:
        return make_request(self._with_system(prompt), **{**self._defaults, **options})

    def _with_system(self, prompt: Any) -> Any:
        if self._system is None:
            return prompt
        checked = make_prompt(prompt)
        turns = ({"role": "user", "content": checked},) if isinstance(checked, str) else checked
        if turns[0]["role"] == "system":
            return turns
        return ({"role": "system", "content": self._system}, *turns)

    def _fold(
        self, many: bool, requests: list[Request], results: list[Any], return_errors: bool
    ) -> Any:
        records = [
            result if isinstance(result, Exception) else self._record(request, result)
            for request, result in zip(requests, results, strict=True)
        ]
        failed = [r for r in records if isinstance(r, Exception)]
        if failed and not return_errors:
            if not many:
                raise failed[0]
            raise BatchError(records) from failed[0]
        return records if many else records[0]

    # ---- confidence --------------------------------------------------------------------------

    def _record(self, request: Request, outcome: tickets.Outcome) -> Record:
        generation = outcome.generation
        record = Record(
            request, generation, self._confidence(request, generation),
            timing=outcome.timing, model=self.name,
        )  # fmt: skip
        for sink in tuple(self._sinks):
            try:
                sink(record)
            except Exception:  # an answer must not be lost because a log cannot be written
                logger.exception("the sink %r failed", sink)
        return record

    def _confidence(self, request: Request, generation: Generation) -> Confidence:
        return uncalibrated(request, generation)

    # ---- the model around it -----------------------------------------------------------------

    def add_sink(self, sink: Sink) -> Callable[[], None]:
        """Call `sink(record)` after every answer; the returned function takes it out again."""
        if not callable(sink):
            raise BadRequest(f"a sink is a callable that takes a Record, not {sink!r}")
        self._sinks.append(sink)
        return lambda: self._sinks.remove(sink) if sink in self._sinks else None

    def save(self, folder: Any) -> None:
        """Write weights, tokenizer and config to a folder that `load` reads bit-exactly."""
        from bitcal_integrations.quantize.weights import save_weights

        save_weights(self._weights("saved"), folder)

    def memory_report(self) -> dict[str, Any]:
        """Bytes of linears, embeddings and head per weight type, and KV bytes per token."""
        from bitcal_integrations.quantize.weights import memory_report

        return memory_report(self._weights("measured"))

    def _weights(self, verb: str) -> LoadedWeights:
        if self._loaded is None:
            raise SaveError(f"the model {self.name!r} has no weights that could be {verb}")
        return self._loaded

    @property
    def fingerprint_parts(self) -> dict[str, Any]:
        """What identifies this model's behaviour: checkpoint, weight types, dtype, repair."""
        return dict(self._loaded.parts) if self._loaded else {"model": self.name}

    def report(self) -> dict[str, Any]:
        """Where it came from, its weights and dtype with the reason, and how it batches."""
        out: dict[str, Any] = {"model": self.name}
        if self._loaded is not None:
            kinds = sorted(set(self._loaded.weights.values()))
            out |= {
                "weights": {k: list(self._loaded.weights.values()).count(k) for k in kinds},
                "dtype": self._loaded.dtype,
                "dtype_reason": self._loaded.dtype_reason,
                "device": self._loaded.device,
            }
        return {**out, **self._engine.report()}

    def close(self) -> None:
        """End the worker; requests under way get EngineClosed."""
        self._engine.close()

    def __enter__(self) -> CalibratedModel:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __copy__(self) -> CalibratedModel:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> CalibratedModel:
        return self  # frameworks copy their configs; the weights exist once

    def __reduce__(self) -> NoReturn:
        raise BitcalError(
            "a loaded model cannot be pickled", "Write it with model.save(folder) and load that."
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"


def _is_messages(prompt: Sequence[Any]) -> bool:
    return bool(prompt) and all(isinstance(m, dict) for m in prompt)


__all__ = ["CalibratedModel", "load"]
