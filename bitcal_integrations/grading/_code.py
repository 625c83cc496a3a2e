"""Whether a program passes its tests: both run in a process of their own, with a time limit.

This is no sandbox. The program runs as the user who asks, and can read, write and send what that
user can; grade code of unknown origin inside a container or a virtual machine. What is done: an
interpreter in isolated mode, without a shell, without the environment's variables, in an empty
folder that is deleted afterwards, with no output kept and files and memory limited; at the end
its whole process group is killed.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import select
import signal
import subprocess
import sys
import tempfile
import time

from bitcal_integrations.errors import BadRequest

SECONDS = 10.0

# The program runs in a module of its own, under another name, so that nothing imported here serves
# it and its `if __name__ == "__main__"` part stays out. An exit inside it never counts as passed;
# the exit of a test runner does if it reports success.
_DRIVER = """
import json, os, sys, types

def limit(name, value):
    try:
        import resource
        resource.setrlimit(getattr(resource, name), (value, value))
    except (ImportError, AttributeError, ValueError, OSError):
        pass

def run(code, tests, seconds, pipe, token, write=os.write, leave=os._exit):
    limit("RLIMIT_CORE", 0)
    limit("RLIMIT_FSIZE", 1 << 24)
    limit("RLIMIT_AS", 1 << 32)
    limit("RLIMIT_CPU", int(seconds) + 1)
    module = types.ModuleType("answer")
    sys.modules["answer"] = sys.modules["__main__"] = module
    exec(compile(code, "<answer>", "exec"), module.__dict__)
    module.__name__ = "__main__"
    try:
        exec(compile(tests, "<tests>", "exec"), module.__dict__)
    except SystemExit as end:
        if end.code not in (None, 0, False):
            leave(1)
    write(pipe, token.encode())
    leave(0)

keep = sys.modules["__main__"]
run(**json.loads(sys.stdin.buffer.read()))
"""


def passes(answer: str, tests: str, seconds: float = SECONDS) -> bool:
    """Whether the Python in an answer (its first fenced block, or all of it) passes `tests`.

    >>> passes("def double(x):\\n    return 2 * x", "assert double(4) == 8")
    True
    """
    if os.name != "posix":
        raise BadRequest("the grader 'code' needs process groups, which this system does not have")
    token = secrets.token_hex(16)
    reader, writer = os.pipe()
    with tempfile.TemporaryDirectory(prefix="bitcal-code-", ignore_cleanup_errors=True) as folder:
        try:
            process = _start(folder, writer)
        finally:
            os.close(writer)
        try:
            job = {"code": program(answer), "tests": tests, "seconds": seconds}
            _send(process, {**job, "pipe": writer, "token": token})
            return _said(reader, len(token), seconds) == token
        finally:
            os.close(reader)
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def program(answer: str) -> str:
    """The first fenced block of Python, or the whole answer where there is none.

    >>> program("Run this:\\n```python\\nx = 1\\n```\\nand that is all.")
    'x = 1'
    """
    lines = answer.split("\n")
    fences = [i for i, line in enumerate(lines) if line.lstrip().startswith("```")]
    for start, end in zip(fences[::2], [*fences[1::2], len(lines)], strict=False):
        words = lines[start].strip().strip("`").split()
        if not words or words[0].lower() in _PYTHON:
            return "\n".join(lines[start + 1 : end])
    return answer


_PYTHON = ("python", "py", "python3")


def _start(folder: str, writer: int) -> subprocess.Popen[bytes]:
    quiet = subprocess.DEVNULL
    env = {"PATH": os.defpath, "HOME": folder, "TMPDIR": folder, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-I", "-B", "-c", _DRIVER], stdin=subprocess.PIPE, stdout=quiet,
        stderr=quiet, cwd=folder, env=env, pass_fds=(writer,), start_new_session=True,
    )  # fmt: skip


def _send(process: subprocess.Popen[bytes], job: dict[str, object]) -> None:
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write(json.dumps(job).encode())
    with contextlib.suppress(BrokenPipeError):
        process.stdin.close()


def _said(reader: int, size: int, seconds: float) -> str:
    """What the process writes before it ends or its time is over."""
    deadline = time.monotonic() + seconds
    got, waiting = b"", select.poll()  # select.select knows no descriptor above 1,023
    waiting.register(reader, select.POLLIN)
    while len(got) < size:
        left = deadline - time.monotonic()
        if left <= 0 or not waiting.poll(left * 1000):
            break
        piece = os.read(reader, size - len(got))
        if not piece:
            break
        got += piece
    return got.decode(errors="replace")
