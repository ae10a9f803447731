"""How gunicorn serves app:app, by `make run`, `python3 app.py`, plain `gunicorn`, and in the container."""

import contextlib
import gc
import itertools
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

from gunicorn import util
from gunicorn.http.errors import InvalidHeader, UnsupportedTransferCoding

import embedded
from server.listen import bind_addresses, check_addresses, page_url
from settings import ROOT, BadSetting, from_environment, read

MAX_OTHER_CLIENTS = 1000  # in each process, beside those that wait
RESERVED_FILES = 64  # for Redis, logs and what is served from disk
MIN_OPEN_FILES = 100
MAX_CHECK_SECONDS = 5  # that the start waits for a look at the server of REDIS_URL
MACOS_OPEN_FILES = 10240  # macOS says that there is no limit and refuses more than this

_settings = from_environment()


def _max_open_files(wanted: int) -> int:
    """Raise this process's limit of open files to `wanted`, as far as that is possible, and return it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return wanted
    for limit in (wanted, MACOS_OPEN_FILES):
        raised = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (raised, hard))
            return raised
    return soft


# A client that waits needs a socket, and in the worst case a connection to Redis for its queue.
_open_files = _max_open_files(RESERVED_FILES + MAX_OTHER_CLIENTS + 2 * _settings.max_blocked_clients)
_free_files = max(4, _open_files - RESERVED_FILES)
_other_clients = min(MAX_OTHER_CLIENTS, _free_files // 2)
_max_waiting = min(_settings.max_blocked_clients, (_free_files - _other_clients) // 2)

wsgi_app = "app:app"
bind = bind_addresses(_settings)
workers = _settings.web_concurrency
worker_class = "server.worker.Worker"  # gevent's: a waiting client costs a greenlet, not a thread
worker_connections = _max_waiting + _other_clients  # those that wait never keep the others out
control_socket_disable = True
keepalive = 100  # seconds for an idle connection and the next head; server/worker.py has shorter limits for each
limit_request_line = 8190  # bytes, as many as gunicorn can: the text to look for is in the address
sendfile = False  # static files go through the same limits as all other answers
# web/proxy.py reads what a proxy says, from TRUSTED_PROXIES alone; gunicorn would believe any client on this machine.
forwarder_headers = ""
secure_scheme_headers = dict[str, str]()

# The order of time limits: longest wait (55) < graceful_timeout (65) < stop_grace_period in docker-compose.yaml (75).
# On SIGTERM waiting requests are answered within a second or two, idle connections closed, and after five seconds slow
# readers and senders cut off (server/worker.py); the limits bound everything else.
graceful_timeout = 65  # seconds


def on_starting(server: Any) -> None:
    """Refuse addresses that cannot or must not be served; start the embedded server if there is no REDIS_URL."""
    try:
        _check_open_files(server.log)
        check_addresses(_settings, server.cfg)
        _check_redis_url()
        server.embedded = embedded.start(_settings.data_dir) if _settings.embedded else None
    except (BadSetting, embedded.CannotStart) as error:
        print(f"Cannot start: {error}.", file=sys.stderr, flush=True)
        sys.exit(2)
    server.counts_folder = Path(tempfile.mkdtemp(prefix="queue-counts-", dir=server.cfg.worker_tmp_dir))
    os.chown(server.counts_folder, server.cfg.uid, server.cfg.gid)  # those of the workers, which may be others
    _check_before_reload(server)
    _hold_sigterm_at_forks(server)
    if server.embedded:
        _check_regularly(server)


def _check_redis_url() -> None:
    """Refuse a REDIS_URL of the wrong form for the server that it leads to. A server that is away may come later.

    Another process asks: what a worker imports must not be imported here, before gevent has changed what it uses.
    """
    if _settings.embedded:
        return
    command = [sys.executable, "-m", "broker.connections.health"]
    with contextlib.suppress(subprocess.TimeoutExpired):
        asked = subprocess.run(
            command, cwd=ROOT, input=_settings.redis_url, text=True, capture_output=True, timeout=MAX_CHECK_SECONDS
        )
        if mistake := asked.stdout.strip():
            raise BadSetting(f"REDIS_URL {mistake}")


def _check_open_files(log: Any) -> None:
    """Refuse a limit of open files that is too low; say what a low one costs."""
    if _open_files < MIN_OPEN_FILES:
        raise BadSetting(f"this shell's limit of open files is {_open_files}; raise it with: ulimit -n 4096")
    if _max_waiting < _settings.max_blocked_clients:
        said = "With this limit of open files (ulimit -n: %d) %d clients can wait in each process, instead of %d."
        log.warning(said, _open_files, _max_waiting, _settings.max_blocked_clients)


def _check_before_reload(server: Any) -> None:
    """Let SIGHUP, which reads the settings anew, change nothing if they are bad: else it would end the server."""
    reload = server.reload

    def reload_if_good() -> None:
        try:
            read(os.environ)
        except BadSetting as error:
            print(f"Not reloaded: {error}.", file=sys.stderr, flush=True)
        else:
            reload()

    server.reload = reload_if_good


def _hold_sigterm_at_forks(server: Any) -> None:
    """Let a SIGTERM for a worker wait until `post_fork` has set its handler.

    A worker is born with the master's handler, which would swallow it: the worker would live on, and a reload or a stop
    would wait for it for all of graceful_timeout, while nobody replaces workers that die.
    """
    spawn_worker = server.spawn_worker

    def spawn() -> Any:
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        try:
            return spawn_worker()
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])

    server.spawn_worker = spawn


def _check_regularly(server: Any) -> None:
    """Let the master look after the embedded server's supervisor whenever it looks after its workers."""
    manage_workers = server.manage_workers

    def manage_all() -> None:
        server.embedded.check()
        manage_workers()

    server.manage_workers = manage_all


def when_ready(server: Any) -> None:
    """Say where the page is."""
    # The sockets know the address that a name in HOST stands for, and an address is always served.
    addresses = [listener.getsockname() for listener in server.LISTENERS] or server.address
    urls = [page_url(*address[:2]) for address in addresses if isinstance(address, tuple)]
    if urls:
        print(f"The queue is on {urls[0]}{_settings.url_prefix.lstrip('/')}", flush=True)


def on_exit(server: Any) -> None:
    """End the embedded server last, when no worker needs it any more, and forget what was counted."""
    if started := getattr(server, "embedded", None):
        started.stop()
    if folder := getattr(server, "counts_folder", None):
        shutil.rmtree(folder, ignore_errors=True)


def write_error(sock: Any, status: int, reason: str, message: str) -> None:
    """Answer what gunicorn itself refuses as the app does: in JSON, with a code."""
    code = "internal" if status == 500 else reason.lower().replace(" ", "_")
    answer = {"success": False, "error": code, "message": message or f"{reason}."}
    body = json.dumps(answer, separators=(",", ":")) + "\n"
    head = [f"HTTP/1.1 {status} {reason}", "Connection: close", "Content-Type: application/json"]
    head += ["X-Content-Type-Options: nosniff", f"Content-Length: {len(body)}"]
    util.write_nonblock(sock, "\r\n".join([*head, "", body]).encode())


util.write_error = write_error


def pre_fork(server: Any, worker: Any) -> None:
    """Give a worker the file of counts that belonged to one that has ended, else a new one."""
    used = {other.number for other in server.WORKERS.values()}
    worker.number = next(number for number in itertools.count() if number not in used)
    worker.counts_file = server.counts_folder / f"{worker.number}.counts"


def post_fork(server: Any, worker: Any) -> None:
    """End a worker gracefully on Ctrl-C (SIGINT, then SIGQUIT from the master) as on SIGTERM.

    gunicorn's quick shutdown would drop a popped message on its way to a client, and gevent prints a traceback for it.
    Also answer an unknown Transfer-Encoding with 400, as any other bad header, instead of gunicorn's 501.
    """
    worker.handle_quit = worker.handle_exit
    signal.signal(signal.SIGTERM, worker.handle_exit)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
    answer = worker.handle_error

    def handle_error(req: Any, client: Any, addr: Any, error: Exception) -> None:
        if isinstance(error, UnsupportedTransferCoding):
            error = InvalidHeader("TRANSFER-ENCODING", req=req)
        answer(req, client, addr, error)

    worker.handle_error = handle_error


def post_worker_init(worker: Any) -> None:
    """Tell waiting requests and streams when their worker is told to end, so that they answer and end.

    Also tell the app how many clients can wait and where it counts, let it take the same turns as its worker, start its
    timer, and let the first worker log what may lose messages in Redis.
    """
    services = worker.wsgi.extensions["queue"]
    services.stopping = lambda: not worker.alive
    services.max_blocked_clients = _max_waiting
    services.count_in(worker.counts_file)
    worker.scheduler = services.scheduler
    services.timer.start()
    gc.freeze()  # what is loaded now stays, so the garbage collector need not go through it again and again
    if worker.age == 1:
        threading.Thread(target=services.log_warning, daemon=True, name="log-warning").start()
