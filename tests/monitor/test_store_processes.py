"""Many processes, forks, and ends that come too soon: what was answered is in the store.

BITCAL_STORE_ROWS sets how many records each of the eight processes writes.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bitcal_integrations.monitor import Store

PROCESSES, ROWS = 8, int(os.environ.get("BITCAL_STORE_ROWS", "100"))
LIMIT = 120 + ROWS / 10  # seconds; only a test that fails waits for it

BEGIN = """
import json, sys, time
from bitcal_integrations.monitor import watch
from bitcal_integrations.testing.toy import ToyModel
toy, url = ToyModel({}, default=("yes", 0.5)), sys.argv[1]
"""


def run(code: str, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", BEGIN + code, *arguments]
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


MANY = """
print("ready", flush=True)
sys.stdin.readline()
watching = watch(toy, url, max_queue=10**9)  # eight make one store
ids = [toy.ask(str(i)).id for i in range(int(sys.argv[2]))]
watching.close(timeout=600)
print(json.dumps([ids, watching.report()]))
"""


def test_eight_processes_make_one_store_and_lose_nothing(url: str) -> None:
    writers = [run(MANY, url, str(ROWS)) for _ in range(PROCESSES)]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
    asked: set[str] = set()
    for writer in writers:  # all at once
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
    for writer in writers:
        out, errors = writer.communicate(timeout=LIMIT)
        assert writer.returncode == 0, errors
        ids, report = json.loads(out)
        assert (report["written"], report["dropped"]) == (ROWS, 0), (report, errors)
        asked |= set(ids)
    with Store(url) as store:
        kept = [row.id for row in store.records()]
    assert len(kept) == len(asked) == PROCESSES * ROWS
    assert set(kept) == asked


KILLED = """
import threading
watch(toy, url)
pace = threading.Event()
while True:
    record = toy.ask("again")
    print(record.id, time.monotonic(), flush=True)  # after its answer was given
    pace.wait(0.002)
"""


def test_kill_9_loses_at_most_the_last_second(url: str) -> None:
    victim = run(KILLED, url)
    assert victim.stdout is not None
    answered: list[tuple[str, float]] = []
    while not answered or answered[-1][1] < answered[0][1] + 1.6:
        record_id, at = victim.stdout.readline().split()
        answered.append((record_id, float(at)))
    killed = time.monotonic()
    victim.send_signal(signal.SIGKILL)
    victim.communicate(timeout=LIMIT)
    with Store(url) as store:
        kept = {row.id for row in store.records()}
    before = [record_id for record_id, at in answered if at < killed - 1.0]
    assert len(before) > 10
    assert set(before) <= kept


def test_the_end_of_a_process_writes_what_waits(url: str) -> None:
    leaving = run("watch(toy, url)\nfor i in range(5): toy.ask(str(i))", url)
    _, errors = leaving.communicate(timeout=LIMIT)
    assert (leaving.returncode, errors) == (0, "")
    with Store(url) as store:
        assert store.counts()["records"] == 5


FORKS = """
import multiprocessing, warnings
warnings.simplefilter("ignore")  # that threads and forks do not mix is what is tested
def ask(n):
    for i in range(n): toy.ask(str(i))
watching = watch(toy, url)
ask(3)  # these wait, and the parent alone writes them
child = multiprocessing.get_context("fork").Process(target=ask, args=(4,))
child.start()
child.join()
ask(2)
sys.exit(child.exitcode)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_process_writes_its_own(url: str) -> None:
    parent = run(FORKS, url)
    _, errors = parent.communicate(timeout=LIMIT)
    assert parent.returncode == 0, errors
    with Store(url) as store:
        assert store.counts()["records"] == 9


def test_feedback_comes_from_another_process(url: str) -> None:
    with Store(url, create=True):
        code = "from bitcal_integrations.monitor import feedback\nfeedback('x', True, store=url)"
        other = run(code, url)
        _, errors = other.communicate(timeout=LIMIT)
        assert other.returncode == 0, errors
    with Store(url) as store:
        assert [label.record_id for label in store.labels()] == ["x"]


def test_one_file_is_all_that_is_left(tmp_path: Path) -> None:
    leaving = run("watch(toy, url)\ntoy.ask('a')", str(tmp_path / "r.db"))
    leaving.communicate(timeout=LIMIT)
    assert [path.name for path in tmp_path.iterdir()] == ["r.db"]
