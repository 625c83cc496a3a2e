"""Ctrl-C ends a vote and leaves its model usable, with no thread behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

# A vote on a real model, which says when its second sample has come and then holds still.
INTERRUPTED = """
import sys, threading
from families import tiny_model, tiny_tokenizer
from bitcal_integrations import load
from bitcal_integrations.voting import vote

heard = []

def hear(record):
    heard.append(record.generation.finish)
    if len(heard) == 2:
        print("two", flush=True)
        sys.stdin.readline()

model = load(tiny_model("llama", layers=2), tokenizer=tiny_tokenizer())
model.add_sink(hear)
try:
    vote(model, "go", max_samples=40, batch=4, max_new_tokens=30, stop_at=1.0)
except KeyboardInterrupt:
    after = model.ask("still there", max_new_tokens=2)
    model.close()
    print(heard[:2], after.generation.n_tokens, [t.name for t in threading.enumerate()])
"""


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_ctrl_c_ends_a_vote_and_leaves_its_model_usable() -> None:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    child = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, env=env,
    )  # fmt: skip
    assert child.stdout is not None
    assert child.stdout.readline() == "two\n"
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=60)
    assert (child.returncode, err) == (0, "")
    assert out == "['length', 'length'] 2 ['MainThread']\n"
