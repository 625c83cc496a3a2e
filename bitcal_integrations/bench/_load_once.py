"""In a process of its own: load one folder and print the time and the peaks of memory it took.

A tiny folder is loaded the same way before, so that imports and thread pools do not count; the
peaks are above what the process held then. `resident` includes the pages of mapped files, which
the system can take back at any time; `own` does not (it is sampled), and is that of the GPU on one.
"""

from __future__ import annotations

import gc
import json
import resource
import sys
import threading
import time
from typing import Any

import torch

from bitcal_integrations.bench._child import memory
from bitcal_integrations.quantize.weights import load_weights

_EVERY_S = 0.002


class Own:
    """The peak of a process's own pages, sampled in a thread; of GPU memory on a GPU."""

    def __init__(self, device: torch.device) -> None:
        self._device, self.on_gpu = device, device.type == "cuda"
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Own:
        self.base = self.top = self._now()
        if self.on_gpu:
            torch.cuda.reset_peak_memory_stats(self._device)
        else:
            self._thread.start()
        return self

    def _now(self) -> int:
        if self.on_gpu:
            return torch.cuda.memory_allocated(self._device)
        return memory("RssAnon")

    def _watch(self) -> None:
        while not self._stop.wait(_EVERY_S):
            self.top = max(self.top, self._now())

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self.on_gpu:
            self.top = torch.cuda.max_memory_allocated(self._device)
        else:
            self._thread.join()
            self.top = max(self.top, self._now())

    @property
    def added(self) -> int:
        return self.top - self.base


def resident_peak() -> int:
    """The peak of resident memory so far, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def main(arguments: dict[str, Any]) -> dict[str, float]:
    """Seconds, and bytes above those before."""
    options = {"weights": arguments["weights"], "dtype": "auto", "device": arguments["device"]}
    load_weights(arguments["warm_up"], **options)
    gc.collect()
    before = resident_peak()
    with Own(torch.device(arguments["device"])) as own:
        start = time.perf_counter()
        loaded = load_weights(arguments["folder"], **options)
        if own.on_gpu:
            torch.cuda.synchronize()
        seconds = time.perf_counter() - start
    if not loaded.weights:
        raise RuntimeError("nothing was quantized")
    return {"seconds": seconds, "resident": resident_peak() - before, "own": own.added}


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
