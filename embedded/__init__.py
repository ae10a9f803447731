"""The embedded Valkey: a real server on a unix socket in the data folder, for when no REDIS_URL is set.

gunicorn's master calls `start`, which runs a keeper process (`keeper.py`). The keeper runs the server, restarts it if
it dies, and ends it once the master and all its workers are gone, however they went.
"""

import contextlib
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from embedded.keeper import INSTEAD, LOCK_FILE, SOCKET_FILE, send_command
from embedded.keeper import CannotStart as CannotStart

ROOT = Path(__file__).parent.parent
MAX_SOCKET_PATH_BYTES = 103  # sun_path has 104 bytes on macOS and 108 on Linux, with a closing zero


@dataclass
class Embedded:
    """A running embedded server. It lives until `stop`, or until this process and its children end."""

    data_dir: Path
    keeper: "subprocess.Popen[bytes]"  # the server ends when the pipe to its keeper is closed

    def stop(self) -> None:
        """End the server and wait until it has written everything."""
        assert self.keeper.stdin
        self.keeper.stdin.close()
        self.keeper.wait()
        with contextlib.suppress(OSError):
            if (self.data_dir / LOCK_FILE).read_text() == f"{os.getpid()} {self.keeper.pid}":  # nobody took over
                send_command(self.data_dir / SOCKET_FILE, b"SHUTDOWN\r\n")  # in case the keeper was killed


def start(data_dir: Path) -> Embedded:
    """Start the server for `data_dir` and return once it answers.

    Raises:
        CannotStart: unsupported platform, unusable folder, or the folder's server belongs to another process.
    """
    path = data_dir / SOCKET_FILE
    if len(os.fsencode(path)) > MAX_SOCKET_PATH_BYTES:
        raise CannotStart(
            f"{path} is too long for a unix socket ({MAX_SOCKET_PATH_BYTES} bytes); "
            f"set DATA_DIR to a shorter path, or {INSTEAD}"
        )
    try:
        data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        with open(data_dir / LOCK_FILE, "ab"):
            pass
    except OSError as error:
        raise CannotStart(f"the data folder cannot be written ({error}); set DATA_DIR, or {INSTEAD}") from None
    keeper = subprocess.Popen(
        # The package has imported its keeper by then, of which runpy would warn.
        [
            sys.executable,
            "-u",
            "-W",
            "ignore::RuntimeWarning:runpy",
            "-m",
            "embedded.keeper",
            str(data_dir),
            str(os.getpid()),
        ],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C is for the master, which ends the server last
    )
    assert keeper.stdout
    report = keeper.stdout.readline().decode().strip()
    keeper.stdout.close()
    if report != "ready":
        keeper.wait()
        raise CannotStart(report or f"the embedded server did not start; {INSTEAD}")
    return Embedded(data_dir, keeper)
