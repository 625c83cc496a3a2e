"""What importing costs, in a fresh process, and which names the package promises."""

from __future__ import annotations

import subprocess
import sys

import pytest

import bitcal_integrations

HEAVY = (
    "torch",
    "transformers",
    "langchain_core",
    "langchain",
    "llama_index",
    "optimum",
    "sklearn",
)

PUBLIC = [
    "BitcalError",
    "CalibratedModel",
    "Confidence",
    "Generation",
    "LowConfidenceError",
    "Profile",
    "Record",
    "Step",
    "load",
]


def loaded_after(code: str) -> list[str]:
    """The heavy packages in a fresh process after this code has run."""
    probe = f"{code}\nimport sys\nprint([name for name in {HEAVY!r} if name in sys.modules])"
    run = subprocess.run(
        [sys.executable, "-c", probe], capture_output=True, text=True, check=True, timeout=60
    )
    return list(eval(run.stdout.splitlines()[-1]))


HELP = "\n".join(
    (
        "import sys",
        "from bitcal_integrations.cli import main",
        "try: main({arguments!r})",
        "except SystemExit as end: assert not end.code, end.code",
    )
)


@pytest.mark.parametrize(
    "code",
    [
        "import bitcal_integrations",
        "import bitcal_integrations; dir(bitcal_integrations); bitcal_integrations.__version__",
        "from bitcal_integrations import BitcalError, LowConfidenceError, Record, Confidence, Step",
        "import bitcal_integrations.cli",
        HELP.format(arguments=["--help"]),
        HELP.format(arguments=["--version"]),
        HELP.format(arguments=["ask", "--help"]),
        HELP.format(arguments=["demo", "--help"]),
        HELP.format(arguments=["doctor", "--help"]),
        HELP.format(arguments=["quantize", "--help"]),
    ],
)
def test_light_imports_load_nothing_heavy(code: str) -> None:
    assert loaded_after(code) == []


def test_the_probe_sees_what_is_loaded() -> None:
    assert loaded_after("import torch") == ["torch"]


def test_public_names_are_pinned() -> None:
    assert bitcal_integrations.__all__ == PUBLIC
    assert set(PUBLIC) <= set(dir(bitcal_integrations))


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_resolves(name: str) -> None:
    assert getattr(bitcal_integrations, name).__name__ == name


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Nonsense'"):
        bitcal_integrations.Nonsense
