"""Every error this package raises on purpose, each with a hint that says what to do.

One root, so that a caller can catch ours and nothing else. The message quotes the offender and
names what is allowed; the hint is appended as a second sentence, and the command line prints
both on one line.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bitcal_integrations.types import Record


class BitcalError(Exception):
    """Root of all errors of this package."""

    hint = ""

    def __init__(self, message: str, hint: str | None = None) -> None:
        self.message = message
        self.hint = type(self).hint if hint is None else hint
        super().__init__(f"{message}. {self.hint}" if self.hint else message)

    def __reduce__(self) -> Any:
        return _rebuild, (type(self), self.args, self.__dict__)


class BadRequest(BitcalError, ValueError):
    """A prompt or an option that cannot be served."""


class PromptTooLong(BadRequest):
    """The prompt does not fit into the model's context."""

    hint = "Shorten the prompt or use a model with a longer context."

    def __init__(self, prompt_tokens: int, context: int) -> None:
        self.prompt_tokens, self.context = prompt_tokens, context
        super().__init__(
            f"the prompt has {prompt_tokens} tokens and the model's context holds {context}, "
            "of which one must be left for the answer"
        )


class UnknownName(BitcalError, LookupError):
    """A name that no file of its kind carries."""


class LoadError(BitcalError):
    """A model that cannot be loaded, or must not be served as it came."""


class SaveError(BitcalError):
    """A model that cannot be written to the folder asked for."""


class NotQuantized(LoadError):
    """Quantization was asked for and no layer of the model took part."""

    hint = "Only torch.nn.Linear layers are quantized; load it with weights=None instead."


class EngineError(BitcalError, RuntimeError):
    """The engine cannot take or finish a request."""


class EngineClosed(EngineError):
    """The model was closed."""

    hint = "Load it again, or keep it open while requests are under way."


class QueueFull(EngineError):
    """More requests wait than the queue holds."""

    hint = "Wait for some to finish, or load with a larger max_queue."


class ForkedProcess(EngineError):
    """The model was loaded before this process was forked from its parent."""

    hint = "Load the model inside the child process, or start it with the 'spawn' method."


class OutOfMemory(EngineError):
    """One single request does not fit into memory."""

    hint = "Shorten the prompt, lower max_new_tokens, or use smaller weights."


class BatchError(EngineError):
    """Some requests of a list failed; `.results` holds each one's Record or error, in order."""

    hint = "The finished ones are in .results of this error."

    def __init__(self, results: list[Any]) -> None:
        self.results = results
        failed = [r for r in results if isinstance(r, BaseException)]
        super().__init__(
            f"{len(failed)} of {len(results)} requests failed, the first with: {failed[0]}".rstrip(
                "."
            )
        )


class CalibrationError(BitcalError, ValueError):
    """Labels, scores or examples that nothing can be fitted on, or a fit used where it is void."""


class ProfileError(BitcalError):
    """A profile that cannot be read, or that belongs to another model."""


class LowConfidenceError(BitcalError, RuntimeError):
    """An answer fell below the threshold and the policy says to raise; `.record` holds it."""

    hint = "The answer and its confidence are in .record of this error."

    def __init__(self, message: str, record: Record | None = None, hint: str | None = None) -> None:
        self.record = record
        super().__init__(message, hint)


class EarlyAnswer(BitcalError, RuntimeError):
    """An answer was certain enough to end its chain early; `.record` holds it."""

    hint = "The answer is in .record of this error; early_stop_chain and ConfidenceRouter catch it."

    def __init__(self, message: str, record: Record | None = None, hint: str | None = None) -> None:
        self.record = record
        super().__init__(message, hint)


class MissingExtra(BitcalError, ImportError):
    """A feature needs a package that is not installed."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(
            f"this needs the package {package!r}, which is not installed",
            f"Install it with: pip install 'bitcal-integrations[{extra}]'",
        )


def _rebuild(kind: type[BitcalError], args: tuple[Any, ...], state: dict[str, Any]) -> BitcalError:
    """The error as it was, without its constructor, which would build the message again."""
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(state)
    return error
