"""What went wrong with a request to a server: whether to try again, and in which words to say it.

A message never holds the key: an answer of the server may repeat it, so it is taken out, and no
error of the client is chained, since that holds the request with its headers.
"""

from __future__ import annotations

import json
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from bitcal_integrations.errors import BadRequest, BitcalError, EngineClosed, EngineError

AGAIN = frozenset({408, 409, 429})  # beside all from 500 on
REFUSED = frozenset({400, 404, 413, 415, 422})
LONGEST_WAIT_S = 60.0
SHOWN = 500  # characters of a server's own words


class BudgetSpent(EngineClosed):
    """As many requests or tokens as were allowed have been spent."""

    hint = "What was answered is kept where a file for it was named; a larger budget goes on there."


@dataclass(frozen=True)
class Trouble:
    """An error in our words, whether the same request may be sent again, and when at the earliest.

    `status` is that of HTTP, or None where no answer came.
    """

    error: BitcalError
    again: bool = False
    after_s: float | None = None
    status: int | None = None


class Failed(Exception):
    """A request failed; `trouble` says how."""

    def __init__(self, trouble: Trouble) -> None:
        self.trouble = trouble
        super().__init__(str(trouble.error))


def trouble_of(err: Exception, where: str, key: str) -> Trouble:
    """What an exception of the client means."""
    kind = type(err).__name__
    if isinstance(err, json.JSONDecodeError):
        return Trouble(EngineError(f"{where} sent what is no JSON: {err.doc!r:.120}"))
    if "Timeout" in kind:
        return Trouble(
            EngineError(f"{where} sent nothing for as long as timeout= allows", "Allow more.")
        )
    response = getattr(err, "response", None)
    if response is not None and hasattr(response, "status_code"):
        return _refusal(err, response, where, key)
    if kind == "APIConnectionError" or type(err).__module__.startswith(("httpx", "httpcore")):
        cause = err.__cause__ or err
        said = without(f"{type(cause).__name__}: {cause}", key)
        return Trouble(EngineError(f"the connection to {where} failed ({said:.200})"), again=True)
    if (body := getattr(err, "body", None)) is not None:  # an error in the middle of a stream
        status = _code(body)
        words = without(str(getattr(err, "message", err)), key)
        error = EngineError(f"{where} broke off with an error: {words:.{SHOWN}}")
        return Trouble(error, again=status is None or _again(status), status=status)
    words = without(f"{kind}: {err}", key)
    return Trouble(EngineError(f"the request to {where} failed ({words:.{SHOWN}})"))


def _refusal(err: Exception, response: Any, where: str, key: str) -> Trouble:
    status, words = int(response.status_code), without(_words(err), key)
    said = f"{where} answers {status}: {words:.{SHOWN}}"
    if _again(status):
        return Trouble(EngineError(said), True, _after(response), status)
    if status in (401, 403):  # its words are left out: they often repeat the key
        return Trouble(
            EngineError(
                f"{where} refuses the key (status {status})",
                "It is read from the environment, by default from OPENAI_API_KEY.",
            ),
            status=status,
        )
    hint = ""
    if "logprob" in words.lower():
        hint = (
            "Load it with fewer top_logprobs=, or with top_logprobs=None where the server gives "
            "none; the confidence is then unknown."
        )
    kind = BadRequest if status in REFUSED else EngineError
    return Trouble(kind(said, hint), status=status)


def _again(status: int) -> bool:
    return status in AGAIN or status >= 500


def _code(body: Any) -> int | None:
    code = body.get("code") if isinstance(body, dict) else None
    return code if isinstance(code, int) and code >= 100 else None


def _words(err: Exception) -> str:
    body = getattr(err, "body", None)
    if isinstance(body, dict):
        inner = body.get("error", body)
        message = inner.get("message") if isinstance(inner, dict) else inner
        return str(message or body)
    return str(body or getattr(err, "message", err))


def _after(response: Any) -> float | None:
    try:
        return min(max(float(response.headers.get("retry-after")), 0.0), LONGEST_WAIT_S)
    except (TypeError, ValueError):  # none, or a date
        return None


def without(text: str, key: str) -> str:
    """The text without the key.

    >>> without("Incorrect key sk-123456", "sk-123456")
    'Incorrect key ***'
    """
    return text.replace(key, "***") if key else text


@dataclass(frozen=True)
class Patience:
    """How often a request is sent again, and how long before that; `sleep` and `draw` may be
    replaced by a clock and a die of one's own."""

    retries: int
    sleep: Callable[[float], Awaitable[Any]]
    draw: Callable[[], float] = random.random

    def pause(self, attempt: int, after_s: float | None) -> float:
        """Seconds before the attempt after this one (the first is 0).

        Doubling from half a second to eight, shortened by up to a quarter, so that requests that
        failed together do not come back together; at least what the server asks for.
        """
        own = min(0.5 * 2**attempt, 8.0) * (1 - 0.25 * self.draw())
        return max(own, after_s or 0.0)
