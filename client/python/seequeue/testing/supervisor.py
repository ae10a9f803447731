"""Run a server until standard input closes: `python supervisor.py FOLDER COMMAND...`. FOLDER is then removed.

pytest has the other end of standard input, so the server ends with it, even by kill -9. This process, which a stop of
pytest's process group does not reach, passes on what the server prints until it names its URL.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys

READY = "The queue is on "


def main(folder: str, command: list[str]) -> None:
    server = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    assert server.stdout
    for line in server.stdout:
        with contextlib.suppress(BrokenPipeError):  # pytest was killed: standard input is closed, too
            os.write(1, line)
        if line.startswith(READY.encode()):
            break
    os.close(1)
    sys.stdin.read()
    os.killpg(server.pid, signal.SIGKILL)  # nothing has to be kept, so nothing has to be waited for
    server.stdout.read()  # ends when the last process has: the embedded Valkey stops itself
    server.wait()
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
