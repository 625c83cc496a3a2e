"""Answers from an OpenAI-compatible server: vLLM, SGLang, TGI, llama.cpp, a hosted API.

Log-probabilities are the server's own; entropy and margin come from the few alternatives that it
names, so their schema is "top_k", and a profile of them holds for no local model. Every answer is
streamed, so that it can be cut where it is complete. Load balancing is the deployment's business.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import weakref
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, urlsplit

from bitcal_integrations.engines._remote_errors import Failed, Patience
from bitcal_integrations.engines._remote_job import Call, Job
from bitcal_integrations.engines._remote_meet import Served, meet
from bitcal_integrations.engines._remote_wire import CHAT, COMPLETIONS, body_of, way_of
from bitcal_integrations.engines._remote_worker import Budget, Limits, Worker
from bitcal_integrations.engines._ticket import Listener
from bitcal_integrations.errors import BadRequest, LoadError, MissingExtra
from bitcal_integrations.types import Request

__all__ = ["Budget", "RemoteEngine", "connect", "is_url", "own_options"]

APIS = ("auto", CHAT, COMPLETIONS)
CONNECT_S = 10.0
# The arguments about weights as they are when nobody gives them.
UNHELD = {"weights": "auto", "dtype": "auto", "device": "auto", "exclude": "*lm_head"}
MOST_ALTERNATIVES = 20  # what vLLM and OpenAI give at most


def is_url(source: Any) -> bool:
    """Whether `load` is asked for a server.

    >>> is_url("http://localhost:8000/v1"), is_url("HTTPS://host/v1"), is_url("org/name")
    (True, True, False)
    """
    return isinstance(source, str) and source.lower().startswith(("http://", "https://"))


def own_options(
    held: Mapping[str, Any], max_queue: int | None, options: dict[str, Any]
) -> dict[str, Any]:
    """What `connect` takes of the arguments of `load`, taken out of `options`.

    `held` are those about weights, which a server decides about itself.
    """
    for name, value in held.items():
        if value not in (None, False, UNHELD.get(name)):
            raise BadRequest(f"{name}={value!r:.60} is not allowed: a server decides that itself")
    known = set(inspect.signature(connect).parameters) - {"url", "model", "max_queue"}
    own = {name: options.pop(name) for name in list(options) if name in known}
    return own if max_queue is None else {**own, "max_queue": max_queue}


def connect(
    url: str,
    model: str | None = None,
    *,
    api: str = "auto",
    top_logprobs: int | None = 5,
    api_key_env: str = "OPENAI_API_KEY",
    max_in_flight: int = 64,
    max_queue: int = 1024,
    timeout: float = 300.0,
    max_retries: int = 5,
    budget: Budget | None = None,
    patience: Patience | None = None,
) -> RemoteEngine:
    """An engine on the server at `url`, which ends in /v1 for most; needs the extra `remote`.

    `model` is the name it serves (the only one, where there is one). `api` is "chat" (the server's
    chat template), "completions" (plain text), or "auto", which finds out with a request of one
    token. `top_logprobs` alternatives are asked for per token, None for a server that gives no
    log-probabilities. The key is read from the environment variable `api_key_env`. `timeout` is
    the longest silence in seconds; 429, 5xx and a lost connection are tried again `max_retries`
    times, unless a part of the answer has been given out.
    """
    where = _checked(url, model, api, top_logprobs, timeout)
    for name, value, least in (
        ("max_in_flight", max_in_flight, 1), ("max_queue", max_queue, 1),
        ("max_retries", max_retries, 0),
    ):  # fmt: skip
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise BadRequest(f"{name}={value!r} is not allowed: a whole number from {least} on")
    if budget is not None and not isinstance(budget, Budget):
        raise BadRequest(f"budget={budget!r:.60} is not allowed: use Budget(requests=, tokens=)")
    if not isinstance(api_key_env, str):
        raise BadRequest(f"api_key_env={api_key_env!r:.60} is not allowed: a variable's name")
    key = os.environ.get(api_key_env, "")
    make = _client(url, key, timeout)
    patience = patience or Patience(max_retries, asyncio.sleep)
    limits = Limits(max_in_flight, max_queue, patience, budget or Budget())
    worker = Worker(make, limits, where, key)
    served = _met(worker, meet(worker, where, model, api, top_logprobs))
    if isinstance(served, LoadError):
        raise served
    return RemoteEngine(worker, served, top_logprobs, where)


def _met(worker: Worker, meeting: Coroutine[Any, Any, Served]) -> Served | LoadError:
    """What the server tells, or why it cannot be used; the worker ends then."""
    try:
        return worker.do(meeting)
    except Failed as failed:
        error = failed.trouble.error
        worker.tell_to_stop()
        worker.join()
        return LoadError(error.message, error.hint)
    except BaseException:
        worker.tell_to_stop()
        worker.join()
        raise


def _checked(url: str, model: Any, api: str, top: int | None, timeout: float) -> str:
    """The server's address for messages, when all is well."""
    if not is_url(url):
        raise BadRequest(f"{url!r} is no address of a server: it begins with http:// or https://")
    parts = urlsplit(url)
    if not _reachable(parts):
        raise BadRequest(f"{url!r} is no address of a server: it is like http://HOST:PORT/v1")
    if parts.username or parts.password or parts.query:
        raise BadRequest(
            f"the address of {parts.hostname} must not hold a user, a password or a query",
            "A key is read from the environment: api_key_env='NAME' says from where.",
        )
    if model is not None and not isinstance(model, str):
        raise BadRequest(f"model={model!r:.60} is not allowed: the name that the server gives it")
    if api not in APIS:
        raise BadRequest(f"api={api!r} is not allowed: use {', '.join(APIS)}")
    whole = isinstance(top, int) and not isinstance(top, bool)
    if top is not None and not (whole and 1 <= top <= MOST_ALTERNATIVES):
        raise BadRequest(
            f"top_logprobs={top!r} is not allowed: a whole number from 1 to {MOST_ALTERNATIVES}, "
            "or None where the server gives no log-probabilities"
        )
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not timeout > 0:
        raise BadRequest(f"timeout={timeout!r} is not allowed: seconds, more than 0")
    return f"the server at {parts.netloc}"


def _reachable(parts: SplitResult) -> bool:
    try:
        return bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, or too high
        return False


def _client(url: str, key: str, timeout: float) -> Callable[[], Any]:
    """What makes the client, inside the loop that will use it."""
    try:
        import openai
    except ImportError:
        raise MissingExtra("openai", "remote") from None

    def make() -> Any:
        limit = openai.Timeout(timeout, connect=min(timeout, CONNECT_S), pool=None)
        # Servers that need no key must get one from this client all the same.
        return openai.AsyncOpenAI(base_url=url, api_key=key or "none", max_retries=0, timeout=limit)

    return make


@dataclass(frozen=True)
class _About:
    """Plain values for reports."""

    address: str
    served: Served
    top_logprobs: int | None


class RemoteEngine:
    """Answers requests through a server. `close()` ends its thread and its connections."""

    scores = "top_k"

    def __init__(
        self, worker: Worker, served: Served, top_logprobs: int | None, where: str
    ) -> None:
        self._worker = worker
        self._about = _About(where.removeprefix("the server at "), served, top_logprobs)
        weakref.finalize(self, worker.tell_to_stop)

    @property
    def name(self) -> str:
        """The name that the server serves the model under."""
        return self._about.served.name

    @property
    def parts(self) -> Mapping[str, Any]:
        """What a profile is bound to: never the address, since copies of a server are one model."""
        served = self._about.served
        return {
            "engine": "remote",
            "model": served.name,
            "root": served.root,
            "context": served.context,
            "server": served.kind,
            "api": served.way,
            "top_logprobs": self._about.top_logprobs,
        }

    @property
    def context(self) -> int | None:
        """The tokens that a prompt and its answer may have together, where the server says so."""
        return self._about.served.context

    def submit(self, request: Request, listener: Listener, steps: bool = True) -> Job:
        """Send a request; an error in the request itself is raised here."""
        served, k = self._about.served, self._about.top_logprobs
        way = way_of(request, served.way)
        body = body_of(request, way, served.name, k, served.context)
        if served.kind == "vllm":  # it tells the counts with every token, and so when it is cut off
            body["stream_options"]["continuous_usage_stats"] = True
        return self._worker.submit(
            Job(Call(request, way, body, k), listener, steps, self._worker.wake)
        )

    def close(self) -> None:
        """End the worker; requests under way get EngineClosed."""
        self._worker.tell_to_stop()
        self._worker.join()

    @property
    def closed(self) -> bool:
        """Whether it takes no more requests: closed, or its worker failed."""
        return self._worker.ended

    def report(self) -> dict[str, Any]:
        """The server, what it tells of its model, limits and what has happened so far."""
        return {
            "batching": "the server's own",
            "address": self._about.address,
            **self.parts,
            "logprobs": self._about.served.logprobs,
            **self._worker.report(),
        }

    def __repr__(self) -> str:
        return f"RemoteEngine({self.name!r} at {self._about.address})"
