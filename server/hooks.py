"""What gunicorn's hooks do: checks before the start, the embedded server, signals and the counts files.

gunicorn.conf.py calls these functions. It is imported before gevent patches the standard library, so nothing here may
import a module that the app uses.
"""

import contextlib
import fcntl
import gc
import itertools
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gunicorn import util
from gunicorn.workers import base

import embedded
from embedded.supervisor import log_line, takes_a_line
from server.bad_requests import write_error
from server.capacity import Capacity
from server.clock import MAX_GAP
from server.listen import check_addresses, page_url
from settings import ROOT, BadSetting, Settings, find_misspelled, read

COUNTS_PREFIX = "seequeue-counts-"  # not that of 1.0.0, which holds no lock on its folder
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)  # for a worker: stop gracefully
CHECK_TIMEOUT = 5  # seconds that the start waits for the check of REDIS_URL


def start(server: Any, settings: Settings, capacity: Capacity) -> None:
    """Check what the server needs and start the embedded Valkey, or end the process with one line (exit code 2)."""
    _drop_logs_that_block(server)
    for name, meant in find_misspelled(os.environ).items():
        server.log.warning("%s is not a setting. Is %s meant?", name, meant)
    try:
        capacity.check(server.log)
        check_addresses(settings, server.cfg)
        _check_redis_url(settings)
        server.embedded = embedded.start(settings.data_dir) if settings.embedded else None
    except (BadSetting, embedded.CannotStart) as error:
        log_line(f"Cannot start: {error}.")
        sys.exit(2)
    server.counts_folder = None
    if sys.platform == "linux":
        base.WorkerTmp = _Heartbeat
    util.write_error = write_error
    _check_settings_before_reload(server)
    _block_stop_during_fork(server)
    _spare_workers_after_a_pause(server)
    if server.embedded:
        _check_embedded_regularly(server)


def print_url(server: Any, settings: Settings) -> None:
    """Print the address of the page and where the messages are; open the page if that is set."""
    # HOST can be a name, but a socket has its IP address, and a Host header with an IP address is always trusted.
    addresses = [listener.getsockname() for listener in server.LISTENERS] or server.address
    urls = [page_url(*address[:2]) for address in addresses if isinstance(address, tuple)]
    if not urls:
        return
    url = urls[0] + settings.url_prefix.lstrip("/")
    if takes_a_line(sys.stdout):
        lines = f"The queue is on {url}\nIts messages are in {settings.storage}\n"
        with contextlib.suppress(OSError):  # without a buffer, which each worker would try to write again
            os.write(sys.stdout.fileno(), os.fsencode(lines))
    if settings.open_browser:
        command = [sys.executable, "-m", "webbrowser", url]
        subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True)


def stop(server: Any) -> None:
    """Stop the embedded server, after the workers that need it, and remove the counts."""
    if started := getattr(server, "embedded", None):
        started.stop()
    if folder := getattr(server, "counts_folder", None):
        shutil.rmtree(folder, ignore_errors=True)


def assign_counts_file(server: Any, worker: Any) -> None:
    """Give a new worker the counts file of one that has ended, or a new file; none if there can be no folder for it.

    A cleaner of the temporary directory may have removed the folder.
    """
    used = {other.number for other in server.WORKERS.values()}
    worker.number = next(number for number in itertools.count() if number not in used)
    if not (server.counts_folder and os.path.isdir(server.counts_folder)):
        server.counts_folder = _make_counts_folder(server)
    worker.counts_file = server.counts_folder and server.counts_folder / f"{worker.number}.counts"


def handle_signals(worker: Any) -> None:
    """Stop a worker gracefully on Ctrl-C too: the master turns its SIGINT into SIGQUIT for the workers.

    gunicorn's quick shutdown would lose a popped message on its way to a client, and gevent prints a traceback for it.
    """
    worker.handle_quit = worker.handle_exit
    for number in STOP_SIGNALS:
        signal.signal(number, worker.handle_exit)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)


def connect_app(worker: Any, capacity: Capacity) -> None:
    """Connect the app with its worker: when to stop, how many clients can wait, where to count, how to share time.

    Also start the sweeper. In the first worker, log a warning if Redis can lose messages.
    """
    services = worker.wsgi.extensions["queue"]
    services.is_stopping = lambda: not worker.alive
    services.max_blocked_clients = capacity.blocked_clients
    if worker.counts_file:
        services.count_in(worker.counts_file)
    worker.scheduler = services.scheduler
    services.sweeper.start()
    # To all processes at once (a terminal that closes) it means a reload, in which the master stops the old workers.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    gc.freeze()  # spares the garbage collector scanning all that is loaded now
    if worker.age == 1:
        threading.Thread(target=services.log_warning, daemon=True, name="log-warning").start()


# --- before the start


def _check_redis_url(settings: Settings) -> None:
    """Refuse a REDIS_URL of the wrong form for its server. An unavailable server passes: it may come up later.

    A separate process connects, because the master must not import the modules for it.
    """
    if settings.embedded:
        return
    command = [sys.executable, "-m", "broker.connections.health"]
    with contextlib.suppress(subprocess.TimeoutExpired):
        check = subprocess.run(
            command, cwd=ROOT, input=settings.redis_url, text=True, capture_output=True, timeout=CHECK_TIMEOUT
        )
        if mistake := check.stdout.strip():
            raise BadSetting(f"REDIS_URL {mistake}")


# --- of the master


class _Heartbeat(base.WorkerTmp):  # type: ignore[misc]
    """The file whose time says that a worker is alive, in memory.

    gunicorn's own is in the temporary directory, and ends the master if that is full or gone when a worker starts.
    """

    def __init__(self, cfg: Any) -> None:
        file = os.memfd_create("heartbeat")
        os.fchown(file, cfg.uid, cfg.gid)
        self._tmp = os.fdopen(file, "w+b", 0)


def _make_counts_folder(server: Any) -> Path | None:
    """Make the folder for the workers' files of counts, owned by the workers' user; None if that fails.

    The lock, which the workers share, says that it is in use: to other masters, and to systemd-tmpfiles.
    """
    try:
        parent = Path(server.cfg.worker_tmp_dir or tempfile.gettempdir())
        _remove_unused_folders(parent)
        while True:
            folder = Path(tempfile.mkdtemp(prefix=COUNTS_PREFIX, dir=parent))
            os.chown(folder, server.cfg.uid, server.cfg.gid)
            fcntl.flock(os.open(folder, os.O_RDONLY), fcntl.LOCK_SH)
            if os.path.isdir(folder):  # else another master has removed it before it was locked
                return folder
    except OSError as error:
        server.log.warning("Each process counts for itself, so /metrics and charts are incomplete: %s", error)
        return None


def _remove_unused_folders(parent: Path) -> None:
    """Remove the folders of counts whose master was killed: nobody holds their locks."""
    for folder in parent.glob(COUNTS_PREFIX + "*"):
        with contextlib.suppress(OSError):
            opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(opened)


def _drop_logs_that_block(server: Any) -> None:
    """Drop a line of the log that would block its process: a worker would stop in the middle of its requests."""

    def is_writable(handler: logging.StreamHandler[Any]) -> Callable[[logging.LogRecord], bool]:
        return lambda _: takes_a_line(handler.stream)

    logging.raiseExceptions = False
    handlers = [*server.log.error_log.handlers, *server.log.access_log.handlers, logging.lastResort]
    for handler in handlers:
        if isinstance(handler, logging.StreamHandler):
            handler.addFilter(is_writable(handler))


def _check_settings_before_reload(server: Any) -> None:
    """Ignore a SIGHUP if the new settings are invalid: a reload would then stop the server."""
    reload = server.reload

    def reload_if_good() -> None:
        try:
            read(os.environ)
        except BadSetting as error:
            log_line(f"Not reloaded: {error}.")
        else:
            reload()

    server.reload = reload_if_good


def _block_stop_during_fork(server: Any) -> None:
    """Hold back the signals that stop a new worker until `handle_signals` has set their handlers.

    Until then the worker has the master's handler, which swallows the signal. The worker would live on, and a reload or
    stop would wait for it for the whole graceful_timeout, during which the master replaces no dead worker.
    """
    spawn_worker = server.spawn_worker

    def spawn() -> Any:
        signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        try:
            return spawn_worker()
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)

    server.spawn_worker = spawn


def _spare_workers_after_a_pause(server: Any) -> None:
    """Give the workers another period after the processes have not been running for a while.

    Their last signs of life are then as old as the pause, and the master would kill all of them.
    """
    murder_workers = server.murder_workers
    looked_at = resumed_at = time.monotonic()

    def murder_unless_resumed() -> None:
        nonlocal looked_at, resumed_at
        now = time.monotonic()
        if now - looked_at > MAX_GAP:
            resumed_at = now
        looked_at = now
        if now - resumed_at > server.timeout:
            murder_workers()

    server.murder_workers = murder_unless_resumed


def _check_embedded_regularly(server: Any) -> None:
    """Check the supervisor of the embedded server whenever the master checks its workers."""
    manage_workers = server.manage_workers

    def manage_all() -> None:
        server.embedded.check()
        manage_workers()

    server.manage_workers = manage_all
