"""Run the commands in the console blocks of the documents in a shell, against a real app."""

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers import App

TOKEN = "0123456789abcdef"
VARIABLE = re.compile(
    r'(?<="id":")[^"]+|(?<="undo":")[^"]+|(?<="deadline":)[0-9.]+|(?<="at":)[0-9.]+|(?<="died":)[0-9.]+'
    r'|(?<=Undo: seequeue restore mails )\w+|(?<="first":)[0-9.]+|(?<="last":)[0-9.]+|(?<="seconds":)[0-9]+'
)  # the values that differ between runs


def need(program: str) -> None:
    """Skip the test if a program is not installed; in CI fail."""
    if not shutil.which(program):
        assert not os.environ.get("CI"), f"{program} is not installed"
        pytest.skip(f"{program} is not installed")


def blocks(document: str, kind: str) -> list[str]:
    """Return the fenced blocks of a kind in a Markdown document."""
    return [text for found, text in re.findall(r"^```(\w*)\n(.*?)^```$", document, re.M | re.S) if found == kind]


def examples(document: str) -> Iterator[tuple[str, str]]:
    """Yield the commands of a document's console blocks, each with its output. A backslash continues a command."""
    for block in blocks(document, "console"):
        yield from re.findall(r"^\$ ((?:.*\\\n)*.*)\n((?:(?!\$ ).*\n)*)", block, re.M)


def at(command: str, app: App) -> str:
    """Return a command with the host and the data folder of `app` instead of those of `make run`."""
    return command.replace("localhost:5000", f"127.0.0.1:{app.port}").replace("instance/", f"{app.folder}/")


def printed(command: str, app: App, lines: int, folder: Path) -> str:
    """Run a command in a shell against `app` and return its output; an endless one is killed after `lines` lines."""
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


def check(document: str, app: App, folder: Path, actual: dict[str, str] | None = None) -> None:
    """Run the commands of a document's console blocks in a folder, and compare their output.

    `actual` maps each value that differs between runs, such as an id, from the document to this run; later commands
    use it.
    """
    actual = {} if actual is None else actual
    for command, expected in examples(document):
        for written, value in actual.items():
            command = command.replace(written, value)
        found = printed(command, app, expected.count("\n"), folder)
        assert VARIABLE.sub("...", found.rstrip("\n")) == VARIABLE.sub("...", expected.rstrip("\n")), command
        actual.update(zip(VARIABLE.findall(expected), VARIABLE.findall(found), strict=True))
