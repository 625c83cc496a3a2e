"""What becomes of an error in a forward: the one that a request is told."""

from __future__ import annotations

import torch

from bitcal_integrations.decode.row import Row
from bitcal_integrations.errors import BadRequest, BitcalError, EngineError, OutOfMemory


def is_out_of_memory(err: BaseException) -> bool:
    if isinstance(err, (MemoryError, torch.OutOfMemoryError)):
        return True
    words = str(err).lower()
    return isinstance(err, RuntimeError) and (
        "can't allocate memory" in words or "out of memory" in words
    )


def failure_of(err: Exception, row: Row) -> BitcalError:
    """What to say of a row that was alone in a failed forward, or cannot go on after one."""
    if isinstance(err, BadRequest):
        return err
    failure = EngineError(f"the model failed while generating: {type(err).__name__}: {err}")
    if is_out_of_memory(err):
        failure = OutOfMemory(
            f"memory ran out with this request alone ({row.prompt_tokens} prompt tokens, "
            f"{row.new_tokens} of {row.limit} new tokens)"
        )
    failure.__cause__ = err
    return failure
