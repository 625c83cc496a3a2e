"""Code is run against its tests in a process that ends in time and leaves nothing behind."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

import pytest

from bitcal_integrations.grading import as_grader
from bitcal_integrations.grading._code import passes, program

DOUBLE = "def double(x):\n    return 2 * x\n"


@pytest.mark.parametrize(
    ("code", "tests", "right"),
    [
        (DOUBLE, "assert double(4) == 8", True),
        (DOUBLE, "assert double(4) == 9", False),
        (f"Here it is:\n```python\n{DOUBLE}```\nDone.", "assert double(4) == 8", True),
        (f"```sh\npip install x\n```\n```py\n{DOUBLE}```", "assert double(1) == 2", True),
        ("def double(x: return", "assert True", False),
        ("raise SystemExit(0)", "assert False", False),
        ("import os\nos._exit(0)", "assert False", False),
        (DOUBLE, "import sys\nsys.exit(0)", True),
        (DOUBLE, "import sys\nsys.exit(1)", False),
        ("input()", "pass", False),
        # Nothing that runs the code may serve it: it has to import what it uses.
        ("def f():\n    return json.dumps(1)", "assert f() == '1'", False),
        # Its own main part stays out, as when it is imported.
        (DOUBLE + "if __name__ == '__main__':\n    raise SystemExit(3)", "double(1)", True),
        (
            "from dataclasses import dataclass\n@dataclass\nclass P:\n    x: 'int' = 1",
            "assert P().x == 1",
            True,
        ),
        (
            DOUBLE,
            "import unittest\nclass T(unittest.TestCase):\n    def test(self):\n"
            "        self.assertEqual(double(2), 4)\nunittest.main()",
            True,
        ),
        (
            DOUBLE,
            "import unittest\nclass T(unittest.TestCase):\n    def test(self):\n"
            "        self.assertEqual(double(2), 5)\nunittest.main()",
            False,
        ),
        ("print('x' * 10_000_000)", "pass", True),
        ("open('big', 'wb').write(bytes(1 << 26))", "pass", False),
    ],
)
def test_passes(code: str, tests: str, right: bool) -> None:
    assert passes(code, tests) is right


def test_by_name_a_list_is_the_lines_of_one_test() -> None:
    grade = as_grader("code:5")
    assert grade(DOUBLE, ["x = double(2)", "", "assert x == 4"]) is True
    assert grade(DOUBLE, ["assert double(2) == 4", "assert double(2) == 5"]) is False
    assert grade(None, "pass") is None


def test_its_time_is_limited() -> None:
    began = time.monotonic()
    assert passes("while True:\n    pass", "pass", seconds=0.5) is False
    assert time.monotonic() - began < 5


def test_no_file_and_no_process_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The program writes into its folder and starts a child that would outlive it."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    told = tmp_path / "child"
    code = (
        "import subprocess, sys\nopen('left', 'w').write('x')\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        f"open({str(told)!r}, 'w').write(str(child.pid))"
    )
    assert passes(code, "pass") is True
    assert list(tmp_path.iterdir()) == [told]
    assert _ends(int(told.read_text()))


def _ends(pid: int) -> bool:
    """Whether a process is gone, or only waits to be collected by its new parent."""
    for _ in range(200):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return True
        if state == "Z":
            return True
        time.sleep(0.01)
    return False


def test_no_descriptor_stays() -> None:
    before = len(os.listdir("/proc/self/fd"))
    passes("pass", "pass")
    passes("raise ValueError", "pass")
    assert len(os.listdir("/proc/self/fd")) == before


def test_it_sees_no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_KEY", "secret")
    assert passes("import os", "assert 'SOME_KEY' not in os.environ") is True


def test_program_is_the_first_python_block() -> None:
    assert program("```\na = 1\n```\n```python\nb = 2\n```") == "a = 1"
    assert program("a = 1") == "a = 1"
    assert program("```python\ncut = 1") == "cut = 1"
