"""The README says what is true: its commands are run, its tables and links are compared with the code."""

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import settings
from tests.servers import ROOT, App

README = (ROOT / "README.md").read_text()
VARIES = re.compile(r'(?<="id":")[^"]+|(?<="undo":")[^"]+|(?<="deadline":)[0-9.]+')
TOKEN = "0123456789abcdef"


def blocks(kind: str) -> list[str]:
    """Return the fenced blocks of a kind."""
    return [text for found, text in re.findall(r"^```(\w*)\n(.*?)^```$", README, re.M | re.S) if found == kind]


def examples(block: str) -> list[tuple[str, str]]:
    """Return the commands of a console block, each with what it prints."""
    return re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", block, re.M)


def printed(command: str, app: App, lines: int, folder: Path) -> str:
    """Run a command in a shell against `app` and return what it prints; an endless one is ended after `lines`."""
    command = command.replace("localhost:5000", f"127.0.0.1:{app.port}")
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


def test_every_command_prints_what_the_readme_says(serve: Callable[..., App], tmp_path: Path) -> None:
    if not shutil.which("curl"):
        assert not os.environ.get("CI"), "curl is not installed"
        pytest.skip("curl is not installed")
    plain, guarded = serve(), serve(API_TOKEN=TOKEN)
    seen: dict[str, str] = {}
    for block in blocks("console"):
        app = guarded if "API_TOKEN" in block else plain
        for command, expected in examples(block):
            for told, true in seen.items():
                command = command.replace(told, true)
            found = printed(command, app, expected.count("\n"), tmp_path)
            assert VARIES.sub("...", found.rstrip("\n")) == VARIES.sub("...", expected.rstrip("\n")), command
            seen.update(zip(VARIES.findall(expected), VARIES.findall(found), strict=True))
    assert len(seen) >= 3, "the README shows no reservation and no undo"


def test_the_table_of_settings_names_each_with_its_default() -> None:
    asked: set[str] = set()

    class Asked(dict[str, str]):
        def get(self, name: str, default: str | None = None) -> str | None:  # type: ignore[override]
            asked.add(name)
            return default

    config = settings.read(Asked())
    told = dict(re.findall(r"^\| `([A-Z_]+)` \| (.*?) \|", README, re.M))
    assert set(told) == asked
    for name, default in told.items():
        if isinstance(value := config.get(name), int):
            number, _, unit = default.partition(" ")
            assert value == int(number) << {"": 0, "MiB": 20}[unit], name


def test_every_file_that_the_readme_shows_or_links_to_is_there() -> None:
    paths = re.findall(r'\]\(([^)#:]+)\)|src="([^"]+)"', README)
    assert len(paths) > 3
    for path in paths:
        assert (ROOT / "".join(path)).is_file(), path


def test_the_tree_shows_every_file_of_the_house() -> None:
    (tree,) = (block for block in blocks("") if "app.py" in block)
    told = {line.split()[0] for line in tree.splitlines()}
    modules = {path.name for path in ROOT.glob("*.py")}
    folders = {f"{path.parent.name}/" for path in ROOT.glob("[!._]*/[!._]*") if path.is_file()} - {"instance/"}
    assert modules | folders <= told
    for path in told:
        assert (ROOT / path).exists(), path
