"""The two loops that are timed, ours and `generate`, and the interleaving of their runs.

Each run checks that it gave the tokens it was asked for, so that like is compared with like. It
knows nothing about what a ratio of two times should be.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from transformers import StoppingCriteria, StoppingCriteriaList

from bitcal_integrations.decode import run
from bitcal_integrations.decode.batch import Measure
from bitcal_integrations.decode.net import Net
from bitcal_integrations.decode.row import Row
from bitcal_integrations.types import Request


class Spent(NamedTuple):
    """Seconds from the request to the last token, and from the first token to the last."""

    whole: float
    decode: float


def rounds(
    contestants: Mapping[str, Callable[[], float]], pairs: int, warm_up: bool = True
) -> dict[str, list[float]]:
    """What each contestant gives, A B C A B C ..., after one round that does not count.

    `warm_up=False` leaves that round out, for a caller that has done it with less work.
    """
    for measure in contestants.values() if warm_up else ():
        measure()
    given: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(pairs):
        for name, measure in contestants.items():
            given[name].append(measure())
    return given


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def timed(work: Callable[[], Any], device: torch.device) -> float:
    """Seconds that a call takes."""
    synchronize(device)
    start = time.perf_counter()
    work()
    synchronize(device)
    return time.perf_counter() - start


def ours(net: Net, requests: Sequence[Request], tap: Measure | None = None) -> Spent:
    """Our loop over one batch, tokenizing and writing the texts included."""
    synchronize(net.device)
    start, first = time.perf_counter(), 0.0
    rows = [Row(net, request) for request in requests]
    for _ in run.steps(net, rows, tap):
        first = first or time.perf_counter()
    synchronize(net.device)
    end = time.perf_counter()
    expect([row.new_tokens for row in rows], requests)
    return Spent(end - start, end - first)


def theirs(net: Net, requests: Sequence[Request]) -> Spent:
    """`model.generate` over the same batch, already padded; it gives ids and no text."""
    ids, mask = padded(net, requests)
    clock = _FirstToken(net.device, len(requests))
    synchronize(net.device)
    start = time.perf_counter()
    out = net.model.generate(
        ids,
        attention_mask=mask,
        max_new_tokens=max(request.max_new_tokens for request in requests),
        do_sample=False,
        pad_token_id=net.pad,
        stopping_criteria=StoppingCriteriaList([clock]),
    )
    synchronize(net.device)
    end = time.perf_counter()
    expect([out.shape[1] - ids.shape[1]] * len(requests), requests)
    return Spent(end - start, end - clock.at)


def expect(tokens: Sequence[int], requests: Sequence[Request]) -> None:
    """Refuse a run that was shorter than it was asked to be."""
    asked = [request.max_new_tokens for request in requests]
    if list(tokens) != asked:
        raise RuntimeError(f"{asked} tokens were asked for and {list(tokens)} came")


def padded(net: Net, requests: Sequence[Request]) -> tuple[torch.Tensor, torch.Tensor]:
    """The prompts of a batch, padded on the left, and their mask."""
    rows = [net.encode(request).ids for request in requests]
    width = max(map(len, rows))
    ids = [[net.pad] * (width - len(row)) + list(row) for row in rows]
    mask = [[0] * (width - len(row)) + [1] * len(row) for row in rows]
    return torch.tensor(ids, device=net.device), torch.tensor(mask, device=net.device)


class _FirstToken(StoppingCriteria):
    """Notes when `generate` has its first token; stops nothing."""

    def __init__(self, device: torch.device, rows: int) -> None:
        self.at = 0.0
        self._device = device
        self._none = torch.zeros(rows, dtype=torch.bool, device=device)

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> torch.Tensor:
        if not self.at:
            synchronize(self._device)
            self.at = time.perf_counter()
        return self._none
