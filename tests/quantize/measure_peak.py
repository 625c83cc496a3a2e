"""Run in a fresh process: load a folder one way and print the peak of memory that it adds.

A tiny folder is loaded before, so that imports and kernels do not count.
`ours` quantizes shard by shard, `whole` loads everything in float and quantizes then, `read` loads
a saved folder. Prints one JSON line of bytes. RssAnon is sampled because mapped file pages, which
the system can drop at any time, count in the plain peak.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
from pathlib import Path
from typing import Any

import torch


def memory(field: str) -> int:
    """One field of the process's status, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


class Peak:
    """Samples anonymous memory in a thread."""

    def __enter__(self) -> Peak:
        self.base, self.all_base = memory("RssAnon"), memory("VmHWM")
        self.top, self.running = self.base, True
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.thread.start()
        return self

    def _watch(self) -> None:
        while self.running:
            self.top = max(self.top, memory("RssAnon"))
            time.sleep(0.002)

    def __exit__(self, *_: object) -> None:
        self.running = False
        self.thread.join()
        self.after = memory("RssAnon")


def load(mode: str, folder: str, weights: str, dtype: str) -> Any:
    from bitcal_integrations.quantize.weights import load_weights

    if mode != "whole":
        return load_weights(
            folder, weights="auto" if mode == "read" else weights, dtype=dtype
        ).model
    from optimum.quanto import freeze, qtypes, quantize
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype))
    quantize(model, weights=qtypes[weights], exclude="*lm_head")
    freeze(model)
    return model


def main(mode: str, folder: str, warm_up: str, weights: str, dtype: str) -> None:
    logging.disable(logging.CRITICAL)
    torch.set_num_threads(1)
    load("ours", warm_up, weights, dtype)  # imports, kernels and thread pools
    with Peak() as peak:
        model = load(mode, folder, weights, dtype)
    result = {
        "anonymous": peak.top - peak.base,
        "after": peak.after - peak.base,
        "resident": memory("VmHWM") - peak.all_base,
        "layers": len(list(model.modules())),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main(*sys.argv[1:])
