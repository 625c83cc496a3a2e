"""In a process of its own: how many bytes one more step of our loop adds to the peak of memory.

For each (vocabulary, rows): the peak of a long run minus the peak of a short one, per extra step,
with the tap and, as the control, with a tap that keeps every score tensor as `generate` does with
`output_scores=True`. The parent makes the allocator give large blocks back at once (see tap.py), so
that the peak of resident memory is the peak of what is held. The model is small on purpose: what is
measured is the size of the logits, which its width does not change.
"""

from __future__ import annotations

import ctypes
import gc
import json
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch

from bitcal_integrations.bench._bed import llama, tokenizer
from bitcal_integrations.bench._child import memory
from bitcal_integrations.bench._loops import ours
from bitcal_integrations.bench._scale import Shape
from bitcal_integrations.decode.net import Net
from bitcal_integrations.decode.tap import Tap, Tapped
from bitcal_integrations.types import Request

SMALL = Shape(hidden=64, intermediate=64, layers=1, heads=2, kv_heads=1)


class Keeper(Tap):
    """The tap, and every score tensor it saw."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[torch.Tensor] = []

    def __call__(
        self, logits: torch.Tensor, chosen: torch.Tensor, best: torch.Tensor, top_k: int = 0
    ) -> Tapped:
        self.kept.append(logits.clone())
        return super().__call__(logits, chosen, best, top_k)


def peak(work: Callable[[], Any], device: torch.device) -> int:
    """The peak of memory, in bytes, while a call runs."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        work()
        return torch.cuda.max_memory_allocated(device)
    with suppress(OSError, AttributeError):  # not glibc: its heap may keep what is free
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # forget the peak so far
    work()
    return memory("VmHWM")


def growth(net: Net, rows: int, steps: tuple[int, int], tap: type[Tap]) -> float:
    """Bytes per extra step."""

    def answer(tokens: int) -> None:
        request = Request("w5 w6 w7", max_new_tokens=tokens, loop_stop=False)
        ours(net, [request] * rows, tap())

    short, long = (peak(partial(answer, n), net.device) for n in steps)
    return (long - short) / (steps[1] - steps[0])


def main(arguments: dict[str, Any]) -> list[dict[str, Any]]:
    """One entry per setting: the bytes of each pair, with the tap and with the control."""
    torch.set_num_threads(arguments["threads"])
    device, steps = torch.device(arguments["device"]), tuple(arguments["steps"])
    found = []
    for vocabulary in arguments["vocabularies"]:
        net = Net(llama(SMALL, vocabulary, device), tokenizer(vocabulary))
        for rows in arguments["batches"]:
            growth(net, rows, steps, Keeper)  # the first run also fills thread pools and caches
            pairs = [
                (growth(net, rows, steps, Tap), growth(net, rows, steps, Keeper))
                for _ in range(arguments["pairs"])
            ]
            tap, control = map(list, zip(*pairs, strict=True))
            found.append({"vocabulary": vocabulary, "rows": rows, "tap": tap, "control": control})
    return found


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
