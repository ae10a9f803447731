"""The commands that the documents show: found in their console blocks, run in a shell against a real app."""

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.servers import App

TOKEN = "0123456789abcdef"


def blocks(document: str, kind: str) -> list[str]:
    """Return the fenced blocks of a kind in a Markdown document."""
    return [text for found, text in re.findall(r"^```(\w*)\n(.*?)^```$", document, re.M | re.S) if found == kind]


def examples(document: str) -> Iterator[tuple[str, str]]:
    """Yield the commands of a document's console blocks, each with what it prints."""
    for block in blocks(document, "console"):
        yield from re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", block, re.M)


def at(command: str, app: App) -> str:
    """Return a command with the address and the data folder of `app`, instead of those of `make run`."""
    return command.replace("localhost:5000", f"127.0.0.1:{app.port}").replace("instance/", f"{app.folder}/")


def printed(command: str, app: App, lines: int, folder: Path) -> str:
    """Run a command in a shell against `app` and return what it prints; an endless one is ended after `lines`."""
    command = at(command, app)
    env = {**os.environ, "API_TOKEN": TOKEN}
    endless = command.startswith(("while ", "curl -N "))
    with subprocess.Popen(
        ["bash", "-c", command], stdout=subprocess.PIPE, text=True, cwd=folder, env=env, start_new_session=True
    ) as shell:
        assert shell.stdout
        if not endless:
            return shell.stdout.read()
        found = "".join(shell.stdout.readline() for _ in range(lines))
        os.killpg(shell.pid, signal.SIGKILL)
        return found
