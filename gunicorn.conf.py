"""How gunicorn serves app:app, by `make run`, `python3 app.py`, plain `gunicorn`, and in the container."""

import json
import os
import resource
import signal
import socket
import sys
from typing import Any

from gunicorn import util
from gunicorn.http.errors import InvalidHeader, UnsupportedTransferCoding

import embedded
from settings import from_environment

_settings = from_environment()
_host, _port = _settings.host, _settings.port

wsgi_app = "app:app"
bind = f"[{_host}]:{_port}" if ":" in _host else f"{_host}:{_port}"
workers = _settings.web_concurrency
worker_class = "gevent"  # a waiting client costs a greenlet, not a thread
worker_connections = _settings.max_waiting + 1000  # those that wait never keep the others out
control_socket_disable = True
keepalive = 5  # seconds
forwarder_headers = ""  # a client on this machine is not a proxy: SCRIPT_NAME and PATH_INFO are ordinary headers

# The order of time limits: longest wait (55) < graceful_timeout (65) < stop_grace_period in docker-compose.yaml (75).
# On SIGTERM waiting requests are answered within a second or two; the limits bound everything else.
graceful_timeout = 65  # seconds

# Thousands of clients may wait, each on a socket of its own.
_soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
_wanted = 2 * worker_connections + 1000
if _soft != resource.RLIM_INFINITY and _soft < _wanted:
    _limit = _wanted if _hard == resource.RLIM_INFINITY else min(_wanted, _hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (_limit, _hard))


def on_starting(server: Any) -> None:
    """Refuse an address that cannot be served; start the embedded server if there is no REDIS_URL."""
    try:
        _check_addresses(server.address)
        server.embedded = embedded.start(_settings.data_dir) if _settings.embedded else None
    except embedded.CannotStart as error:
        print(f"Cannot start: {error}.", file=sys.stderr, flush=True)
        sys.exit(2)


def _check_addresses(addresses: list[object]) -> None:
    """Say in one line what takes gunicorn five tries and a traceback."""
    if "GUNICORN_FD" in os.environ or "LISTEN_FDS" in os.environ:
        return  # the sockets are inherited
    for address in addresses:
        if isinstance(address, tuple):
            try:
                family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
                socket.create_server(address, family=family).close()
            except OSError as error:
                why = str(error.strerror).partition(" (")[0]
                raise embedded.CannotStart(f"{address[0]} port {address[1]}: {why}; set HOST or PORT") from None


def when_ready(server: Any) -> None:
    """Say where the page is."""
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(_host, f"[{_host}]" if ":" in _host else _host)
    print(f"The queue is on http://{shown}:{_port}/", flush=True)


def on_exit(server: Any) -> None:
    """End the embedded server last, when no worker needs it any more."""
    if started := getattr(server, "embedded", None):
        started.stop()


def write_error(sock: Any, status: int, reason: str, message: str) -> None:
    """Answer what gunicorn itself refuses as the app does: in JSON, with a code."""
    code = "internal" if status == 500 else reason.lower().replace(" ", "_")
    answer = {"success": False, "error": code, "message": message or f"{reason}."}
    body = json.dumps(answer, separators=(",", ":")) + "\n"
    head = [f"HTTP/1.1 {status} {reason}", "Connection: close", "Content-Type: application/json"]
    head += ["X-Content-Type-Options: nosniff", f"Content-Length: {len(body)}"]
    util.write_nonblock(sock, "\r\n".join([*head, "", body]).encode())


util.write_error = write_error


def post_fork(server: Any, worker: Any) -> None:
    """End a worker gracefully on Ctrl-C (SIGINT, then SIGQUIT from the master) as on SIGTERM.

    gunicorn's quick shutdown would drop a popped message on its way to a client, and gevent prints a traceback for it.
    Also answer an unknown Transfer-Encoding with 400, as any other bad header, instead of gunicorn's 501.
    """
    worker.handle_quit = worker.handle_exit
    # Until the worker has its own handlers, the master's would swallow a SIGTERM: the worker would live on, and a
    # reload or a stop would wait for it for all of graceful_timeout, while nobody replaces workers that die.
    signal.signal(signal.SIGTERM, worker.handle_exit)
    answer = worker.handle_error

    def handle_error(req: Any, client: Any, addr: Any, error: Exception) -> None:
        if isinstance(error, UnsupportedTransferCoding):
            error = InvalidHeader("TRANSFER-ENCODING", req=req)
        answer(req, client, addr, error)

    worker.handle_error = handle_error


def post_worker_init(worker: Any) -> None:
    """Tell waiting requests and streams when their worker is told to end, so that they answer and end."""
    worker.wsgi.extensions["queue"].stopping = lambda: not worker.alive
