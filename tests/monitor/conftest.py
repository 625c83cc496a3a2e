"""A store of each kind: an SQLite file, and a database of a PostgreSQL server of our own."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

UNPRIVILEGED = "postgres"  # the server refuses to be run by root; Debian's package brings this user


def binaries() -> Path | None:
    """Where PostgreSQL's programs are; None where it is not installed."""
    found = shutil.which("initdb")
    places = [Path(found).parent] if found else []
    places += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((place for place in places if (place / "initdb").exists()), None)


class Server:
    """A PostgreSQL server in a folder of its own, on a free port of this machine only."""

    def __init__(self, programs: Path, folder: Path) -> None:
        self._programs, self._folder = programs, folder
        self._as: dict[str, Any] = {"cwd": folder}
        if os.geteuid() == 0:
            self._as["user"] = UNPRIVILEGED
            shutil.chown(folder, UNPRIVILEGED)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._run("initdb", "-D", "data", "-U", "bitcal", "-A", "trust", "-E", "UTF8", "--no-sync")

    def _run(self, program: str, *arguments: str) -> None:
        command = [self._programs / program, *arguments]
        log = self._folder / "commands.log"
        with log.open("ab") as out:  # not a pipe: a server that goes on would keep it open
            done = subprocess.run(command, stdout=out, stderr=out, timeout=120, **self._as)
        assert done.returncode == 0, log.read_text()

    def start(self) -> None:
        options = f"-p {self.port} -h 127.0.0.1 -k {self._folder} -c fsync=off"
        self._run("pg_ctl", "-D", "data", "-w", "-l", "server.log", "-o", options, "start")

    def stop(self) -> None:
        self._run("pg_ctl", "-D", "data", "-w", "-m", "immediate", "stop")

    def new_url(self) -> str:
        """The URL of a database made for the caller."""
        import psycopg

        name = f"b{uuid.uuid4().hex[:12]}"
        root = f"postgresql://bitcal@127.0.0.1:{self.port}/"
        with psycopg.connect(f"{root}postgres", autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return root + name


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """A running server; skipped where PostgreSQL or its driver is missing."""
    pytest.importorskip("psycopg")
    programs = binaries()
    if programs is None:
        pytest.skip("PostgreSQL is not installed")
    folder = Path(tempfile.mkdtemp(prefix="bitcal-pg-"))
    folder.chmod(0o711)
    try:
        server = Server(programs, folder)
        server.start()
        yield server
        server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a store can be made."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'records.db'}"
    return request.getfixturevalue("postgres").new_url()


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """What the monitor has said through logging so far."""
    caplog.set_level("INFO", logger="bitcal_integrations.monitor")
    return lambda: [
        record.getMessage()
        for record in caplog.records
        if record.name == "bitcal_integrations.monitor"
    ]
