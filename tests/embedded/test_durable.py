"""An answered push is on disk: the system calls of the embedded server are traced."""

import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from broker.connections.connection import connect
from tests.servers import ROOT, App, running, until

CALL = re.compile(r"^(write|writev|sendto|sendmsg|fdatasync|fsync)\(\d+<(.*?)>.* = (-?\d+)")


def can_trace() -> bool:
    """Return whether a process can be traced here: a container may forbid it even if strace is installed."""
    command = ["strace", "-qq", "-e", "trace=none", "-o", "/dev/null", "true"]
    return bool(shutil.which("strace")) and subprocess.run(command, capture_output=True).returncode == 0


class Traced(App):
    """The app under strace, with the writes and syncs of each process in a file of its own.

    In a shared file, strace splits a call in two when another process interrupts it.
    """

    def start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.log, self.trace = self.folder / "app.log", self.folder / "trace"
        calls = "trace=write,writev,sendto,sendmsg,fdatasync,fsync"
        command = ["strace", "-ff", "-y", "-qq", "-s", "8", "-e", calls, "-e", "signal=none", "-o", str(self.trace)]
        with open(self.log, "ab") as log:
            program = [sys.executable, str(ROOT / "app.py")]
            self.process = subprocess.Popen([*command, *program], env=self.env, stdout=log, stderr=log)
        until(self.answers, 60)

    def end(self, how: signal.Signals = signal.SIGTERM) -> None:
        """End the app; strace ends with it."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        os.kill(int(children[0]), how)
        self.process.wait()


@pytest.mark.slow
def test_no_push_is_answered_before_it_is_on_the_disk(folder: Path) -> None:
    """Without strace only the setting of the server is checked; `test_embedded_faults.py` also kills it."""
    kind = Traced if can_trace() else App
    with running(kind(folder / "durable", WEB_CONCURRENCY="1")) as app:
        client = connect(f"unix://{app.folder}/valkey.sock")
        assert client.config_get("appendfsync") == {"appendfsync": "always"}
        server = client.info("server")["process_id"]
        for number in range(30):
            urllib.request.urlopen(f"{app.url}/api/queue/push", f"message=m{number}".encode(), timeout=20).close()
    if kind is Traced:
        check(Path(f"{app.trace}.{server}").read_text())


def check(trace: str) -> None:
    """Check that the server sends nothing to a client between a write to its file and the sync of that write."""
    unsynced, syncs, replies = False, 0, 0
    for call, file, result in (found.groups() for line in trace.splitlines() if (found := CALL.match(line))):
        if int(result) < 0:
            continue
        if call in ("fdatasync", "fsync"):
            unsynced, syncs = unsynced and ".aof" not in file, syncs + (".aof" in file)
        elif file.endswith(".aof"):
            unsynced = True
        elif "socket:" in file or "UNIX" in file:
            replies += 1
            assert not unsynced, "a reply was sent before its write was synced"
    assert syncs >= 30 and replies >= 30, (syncs, replies)
