"""The embedded Valkey: a real server on a unix socket in the data folder, for when no REDIS_URL is set.

gunicorn's master calls `start`, which runs a supervisor process (`supervisor.py`). The supervisor runs the server,
restarts it if it dies, and ends it once the master and all its workers are gone, however they went.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

from embedded import supervisor
from embedded.supervisor import INSTEAD, LOCK_FILE, RESTART_DELAY
from embedded.supervisor import CannotStart as CannotStart


class Embedded:
    """A running embedded server. It lives until `stop`, or until this process and its children end."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        # The server ends when the writing end of this pipe is closed in this process and in all its children.
        self._pipe, self._life = os.pipe()
        self._start_supervisor()

    def _start_supervisor(self, *again: str) -> None:
        self._started_at = time.monotonic()
        self._supervisor = subprocess.Popen(
            # UTF-8 mode: whatever the locale, it writes the names of files as it was given them.
            [sys.executable, "-X", "utf8", "-u", supervisor.__file__, str(self.data_dir), str(os.getpid()), *again],
            stdin=self._pipe,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for the master, which ends the server last
        )

    def report(self) -> str:
        """Return the supervisor's next line: "ready", or why it ended; "" if it was killed."""
        assert self._supervisor.stdout
        return os.fsdecode(self._supervisor.stdout.readline()).strip()

    def check(self) -> None:
        """Start another supervisor if this one was killed; the server runs on meanwhile. This never waits."""
        if self._supervisor.poll() is None or time.monotonic() - self._started_at < RESTART_DELAY:
            return
        reason = self.report()
        print(
            f"The supervisor of the embedded server ended{reason and f' ({reason})'}; starting another.",
            file=sys.stderr,
        )
        self._start_supervisor("again")

    def stop(self) -> None:
        """End the server and wait until it has written everything."""
        if self._supervisor.poll() is not None:
            self._start_supervisor("again")  # it ends the server that the killed one left
        self.close()

    def close(self) -> None:
        """Let the supervisor end, and wait for it."""
        os.close(self._life)
        os.close(self._pipe)
        self._supervisor.wait()


def start(data_dir: Path) -> Embedded:
    """Start the server for `data_dir` and return once it answers.

    Raises:
        CannotStart: unsupported platform, unusable folder, or the folder's server belongs to another process.
    """
    try:
        data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        with open(data_dir / LOCK_FILE, "ab"):
            pass
    except OSError as error:
        raise supervisor.cannot_write(data_dir, error) from None
    embedded = Embedded(data_dir)
    report = embedded.report()
    if report != "ready":
        embedded.close()
        raise CannotStart(report or f"the embedded server did not start; {INSTEAD}")
    return embedded
