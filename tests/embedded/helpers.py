"""Helpers for tests that start the app, or fail to, and look at its processes."""

import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import redis

from broker.connections.connection import connect
from tests.servers import ROOT, App, free_port, until


def call(app: App, path: str, data: bytes | None = None) -> Any:
    """Return the JSON answer of an operation on the default queue, or of another path."""
    url = app.url + (path if path.startswith("/") else f"/api/queue/{path}")
    try:
        answer = urllib.request.urlopen(urllib.request.Request(url, data), timeout=30)
    except urllib.error.HTTPError as error:
        answer = error
    return json.loads(answer.read())


def push(app: App, *messages: str) -> None:
    for message in messages:
        answer = call(app, "push", b"message=" + message.encode())
        assert answer["success"], answer


def pop(app: App) -> str | None:
    message: str | None = call(app, "pop", b"").get("message")
    return message


def failed_start(data_dir: Path | str, *arguments: str, **env: str) -> str:
    """Start the app where it must refuse to, and return the one line that it prints."""
    settings = {"PATH": os.environ["PATH"], "PORT": str(free_port()), "DATA_DIR": str(data_dir), **env}
    command = [sys.executable, *(arguments or [str(ROOT / "app.py")])]
    done = subprocess.run(command, env=settings, cwd=ROOT, capture_output=True, timeout=60, check=False)
    output = (done.stdout + done.stderr).decode()
    assert done.returncode == 2, output
    [line] = [line for line in output.splitlines() if "[INFO]" not in line]
    assert line.startswith("Cannot start: ") and line.endswith(".")
    return line


def server_of(folder: Path) -> int:
    """Return the process id of the folder's server, 0 if there is none."""
    try:
        return int(connect(f"unix://{folder}/valkey.sock").info("server")["process_id"])
    except redis.RedisError:
        return 0


def supervisor_of(folder: Path) -> int:
    """Return the process id of the folder's supervisor."""
    holders = until(lambda: (folder / "valkey.lock").read_text().split()[1:2])  # it may be just being written
    return int(holders[0])


def is_alive(process: int) -> bool:
    """Return whether a process runs: a zombie does not."""
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"
