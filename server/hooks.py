"""The work of gunicorn's hooks: checks before the start, the embedded server, signals and the files of counts.

gunicorn.conf.py calls these functions. It is imported before gevent patches the standard library, so nothing here may
import a module that the app uses.
"""

import contextlib
import fcntl
import gc
import itertools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

from gunicorn import util

import embedded
from server.bad_requests import write_error
from server.capacity import Capacity
from server.listen import check_addresses, page_url
from settings import ROOT, BadSetting, Settings, read

CHECK_TIMEOUT = 5  # seconds that the start waits for the check of REDIS_URL


def start(server: Any, settings: Settings, capacity: Capacity) -> None:
    """Check what the server needs and start the embedded Valkey, or end the process with one line (exit code 2)."""
    try:
        capacity.check(server.log)
        check_addresses(settings, server.cfg)
        _check_redis_url(settings)
        server.embedded = embedded.start(settings.data_dir) if settings.embedded else None
    except (BadSetting, embedded.CannotStart) as error:
        print(f"Cannot start: {error}.", file=sys.stderr, flush=True)
        sys.exit(2)
    server.counts_folder = _make_counts_folder(server)
    util.write_error = write_error
    _check_settings_before_reload(server)
    _block_sigterm_during_fork(server)
    if server.embedded:
        _check_embedded_regularly(server)


def print_url(server: Any, settings: Settings) -> None:
    """Print the address of the page."""
    # A socket knows the IP address of a name in HOST, and a Host header with an IP address is always trusted.
    addresses = [listener.getsockname() for listener in server.LISTENERS] or server.address
    urls = [page_url(*address[:2]) for address in addresses if isinstance(address, tuple)]
    if urls:
        print(f"The queue is on {urls[0]}{settings.url_prefix.lstrip('/')}", flush=True)


def stop(server: Any) -> None:
    """Stop the embedded server, after the workers that need it, and remove the counts."""
    if started := getattr(server, "embedded", None):
        started.stop()
    if folder := getattr(server, "counts_folder", None):
        shutil.rmtree(folder, ignore_errors=True)


def assign_counts_file(server: Any, worker: Any) -> None:
    """Give a new worker the counts file of one that has ended, or a new file."""
    used = {other.number for other in server.WORKERS.values()}
    worker.number = next(number for number in itertools.count() if number not in used)
    worker.counts_file = server.counts_folder / f"{worker.number}.counts"


def handle_signals(worker: Any) -> None:
    """Stop a worker gracefully on Ctrl-C too: the master turns its SIGINT into SIGQUIT for the workers.

    gunicorn's quick shutdown would lose a popped message on its way to a client, and gevent prints a traceback for it.
    """
    worker.handle_quit = worker.handle_exit
    signal.signal(signal.SIGTERM, worker.handle_exit)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])


def connect_app(worker: Any, capacity: Capacity) -> None:
    """Connect the app with its worker: when to stop, how many clients can wait, where to count, how to share time.

    Also start the sweeper, and in the first worker log what may lose messages in Redis.
    """
    services = worker.wsgi.extensions["queue"]
    services.is_stopping = lambda: not worker.alive
    services.max_blocked_clients = capacity.blocked_clients
    services.count_in(worker.counts_file)
    worker.scheduler = services.scheduler
    services.sweeper.start()
    gc.freeze()  # the garbage collector need not scan again and again what is loaded now
    if worker.age == 1:
        threading.Thread(target=services.log_warning, daemon=True, name="log-warning").start()


# --- before the start


def _check_redis_url(settings: Settings) -> None:
    """Refuse a REDIS_URL whose form does not fit its server. A server that is unavailable may come up later.

    A separate process connects, because the master must not import the modules for that.
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


def _make_counts_folder(server: Any) -> Path:
    """Make the folder for the workers' files of counts, owned by the workers' user."""
    folder = Path(tempfile.mkdtemp(prefix="queue-counts-", dir=server.cfg.worker_tmp_dir))
    os.chown(folder, server.cfg.uid, server.cfg.gid)
    fcntl.flock(os.open(folder, os.O_RDONLY), fcntl.LOCK_SH)  # systemd-tmpfiles skips a locked folder
    return folder


# --- of the master


def _check_settings_before_reload(server: Any) -> None:
    """Let SIGHUP change nothing if the new settings are bad: they would stop the server."""
    reload = server.reload

    def reload_if_good() -> None:
        try:
            read(os.environ)
        except BadSetting as error:
            print(f"Not reloaded: {error}.", file=sys.stderr, flush=True)
        else:
            reload()

    server.reload = reload_if_good


def _block_sigterm_during_fork(server: Any) -> None:
    """Hold a SIGTERM for a new worker back until `handle_signals` has set its handler.

    Until then a worker has the master's handler, which swallows the signal: the worker would live on, and a reload or a
    stop would wait for it for all of graceful_timeout, while nobody replaces workers that die.
    """
    spawn_worker = server.spawn_worker

    def spawn() -> Any:
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        try:
            return spawn_worker()
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])

    server.spawn_worker = spawn


def _check_embedded_regularly(server: Any) -> None:
    """Check the supervisor of the embedded server whenever the master checks its workers."""
    manage_workers = server.manage_workers

    def manage_all() -> None:
        server.embedded.check()
        manage_workers()

    server.manage_workers = manage_all
