"""The embedded Valkey: a real server on a unix socket in the data folder, used if REDIS_URL is not set.

gunicorn's master calls `start`, which runs a supervisor process (`supervisor.py`). The supervisor runs the server,
restarts it if it dies, and stops it once the master and all its workers are gone, even by kill -9.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from embedded import supervisor
from embedded.permissions import UMASK, close_folder
from embedded.supervisor import ALTERNATIVES, RESTART_DELAY, log_line
from embedded.supervisor import CannotStart as CannotStart

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP)


class Embedded:
    """The embedded server. It runs until `stop`, or until this process and all its children have ended."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        # The server stops when the write end of this pipe is closed in this process and in all its children.
        self._read_end, self._write_end = os.pipe()
        self._start_supervisor()

    def _start_supervisor(self, *options: str) -> None:
        self._started_at = time.monotonic()
        # UTF-8 mode: file names pass unchanged in every locale.
        command = [sys.executable, "-X", "utf8", "-u", supervisor.__file__, str(self.data_dir), str(os.getpid())]
        # The supervisor and the server inherit this: a stop of all processes at once is for the master and its workers,
        # which still need the server to answer.
        unblocked = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        try:
            self._supervisor = subprocess.Popen(
                [*command, *options],
                stdin=self._read_end,
                stdout=subprocess.PIPE,
                start_new_session=True,
                umask=UMASK,
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)

    def report(self) -> str:
        """Return the next line that the supervisor prints: "ready", or why it ended; "" if it was killed."""
        assert self._supervisor.stdout
        return os.fsdecode(self._supervisor.stdout.readline()).strip()

    def check(self) -> None:
        """Start another supervisor if this one was killed; the server keeps running. This never blocks."""
        if self._supervisor.poll() is None or time.monotonic() - self._started_at < RESTART_DELAY:
            return
        assert self._supervisor.stdout
        lines = os.fsdecode(self._supervisor.stdout.read()).split("\n")
        reason = " ".join(line for line in lines if line not in ("", "ready"))
        log_line(f"The supervisor of the embedded server ended{reason and f' ({reason})'}; starting another.")
        self._start_supervisor("adopt")

    def stop(self) -> None:
        """Stop the server and wait until it has written everything."""
        if self._supervisor.poll() is not None:
            self._start_supervisor("adopt")  # to stop the server that a killed supervisor left running
        self.close()

    def close(self) -> None:
        """Stop the supervisor and wait for it."""
        os.close(self._write_end)
        os.close(self._read_end)
        self._supervisor.wait()


def start(data_dir: Path) -> Embedded:
    """Start the server for `data_dir` and return once it replies.

    Raises:
        CannotStart: unsupported platform, unusable folder, or another process uses the folder.
    """
    try:
        warning = close_folder(data_dir)
    except OSError as error:
        raise supervisor.cannot_write(data_dir, error) from None
    embedded = Embedded(data_dir)
    report = embedded.report()
    if report != "ready":
        embedded.close()
        raise CannotStart(report or f"the embedded server did not start; {ALTERNATIVES}")
    if warning:
        log_line(warning)
    return embedded
