"""Both READMEs: their commands and snippets run as pasted, they have the same shape, and they stay short."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.console import at, blocks, check, need
from tests.servers import ROOT, App, running, until

ENGLISH, PORTUGUESE = [(ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "README.pt-BR.md")]
both = pytest.mark.parametrize("readme", [ENGLISH, PORTUGUESE], ids=["en", "pt-BR"])
MAX_LINES, MAX_WIDTH = 200, 100  # of every line, tables and commands too


@pytest.fixture(scope="module")
def app(folder: Path) -> Iterator[App]:
    """The app on an embedded server, as `make run` starts it."""
    with running(App(folder / "readme", WEB_CONCURRENCY="1")) as started:
        yield started


def shell_options(app: App) -> dict[str, Any]:
    """Return how to run a program in the checkout whose data folder is that of `app`."""
    return {"cwd": ROOT, "env": {**os.environ, "DATA_DIR": str(app.folder)}, "text": True}


def without_comments(kind: str, block: str) -> str:
    """Return a code block without its comments, which each README writes in its own language."""
    return re.sub(r" {2,}# .*$", "", block, flags=re.M) if kind == "sh" else block


def code(readme: str) -> list[tuple[str, str]]:
    found = re.findall(r"^```(\w*)\n(.*?)^```$", readme, re.M | re.S)
    return [(kind, without_comments(kind, block)) for kind, block in found]


@both
def test_a_readme_is_short(readme: str) -> None:
    lines = readme.splitlines()
    assert len(lines) <= MAX_LINES
    assert [line for line in lines if len(line) > MAX_WIDTH] == []


def test_both_readmes_have_the_same_sections_commands_and_tables() -> None:
    outlines = [re.findall(r"^(?:#+ |```\w*|\||\d\. |\* )", readme, re.M) for readme in (ENGLISH, PORTUGUESE)]
    assert outlines[0] == outlines[1]
    assert code(ENGLISH) == code(PORTUGUESE)
    links = [re.findall(r"\]\(((?!README)[^)]+)\)", readme) for readme in (ENGLISH, PORTUGUESE)]
    assert links[0] == links[1]
    assert "(README.pt-BR.md)" in ENGLISH.partition("##")[0]
    assert "(README.md)" in PORTUGUESE.partition("##")[0]


def test_the_first_block_names_targets_of_the_makefile() -> None:
    """`tests/server/test_start.py` runs them."""
    start, *_ = blocks(ENGLISH, "sh")
    targets = re.findall(r"^make (\w+)", start, re.M)
    assert targets == ["run", "test"]
    for target in targets:
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M), target


def test_every_block_of_commands_is_run_by_a_test() -> None:
    assert {kind for kind, _ in code(ENGLISH)} == {"sh", "console", "python"}
    assert len(blocks(ENGLISH, "sh")) == 4, "a block of commands was added: run it in a test"
    assert len(blocks(ENGLISH, "python")) == 1


@pytest.mark.slow
def test_every_command_prints_what_the_readme_says(app: App, tmp_path: Path) -> None:
    need("curl")
    need("redis-cli")
    check(ENGLISH, app, tmp_path)


@pytest.mark.slow
def test_a_message_survives_its_worker_as_the_readme_shows(app: App, tmp_path: Path) -> None:
    need("curl")
    _, start, kill, _ = blocks(ENGLISH, "sh")
    [program] = blocks(ENGLISH, "python")
    (tmp_path / "worker.py").write_text(program)
    output = tmp_path / "output"
    env = {**os.environ, "SEEQUEUE_URL": app.url, "PYTHONPATH": str(ROOT / "client/python")}

    def has_printed(text: str) -> bool:
        return text in output.read_text()

    with open(output, "wb") as file:
        options: Any = {"stdout": file, "stderr": file, "cwd": tmp_path, "env": env, "text": True}
        terminal = subprocess.Popen(["bash"], stdin=subprocess.PIPE, **options)
    assert terminal.stdin
    try:
        for block, sign in ((start, "sum-1: delivery 1"), (kill, '"result":"6"')):
            command = at(block, app).replace("python ", f"{sys.executable} ").replace('"seconds": 10', '"seconds": 1')
            terminal.stdin.write(command)
            terminal.stdin.flush()
            until(partial(has_printed, sign), 60)
    finally:
        terminal.communicate("kill $!\n", timeout=60)
    assert has_printed("sum-1: delivery 2")


@pytest.mark.slow
def test_a_terminal_follows_a_queue(app: App) -> None:
    need("curl")
    command = at(blocks(ENGLISH, "sh")[-1], app)
    options = {**shell_options(app), "start_new_session": True}
    with subprocess.Popen(
        ["bash", "-c", command], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, **options
    ) as shell:
        assert shell.stdout
        lines = [shell.stdout.readline() for _ in range(4)]
        os.killpg(shell.pid, signal.SIGKILL)
    assert lines[2] == "event: queue\n"
    assert lines[3].startswith('data: {"name":"mails",')


def test_the_settings_have_the_defaults_of_the_reference() -> None:
    row = re.compile(r"^\| `([A-Z_]+)` \| (.*?) \|", re.M)
    reference = dict(row.findall((ROOT / "docs/settings.md").read_text(encoding="utf-8")))
    english, portuguese = dict(row.findall(ENGLISH)), dict(row.findall(PORTUGUESE))
    assert list(english) == list(portuguese)
    assert len(english) == 6
    for name, default in english.items():
        assert default == ("an embedded Valkey" if name == "REDIS_URL" else reference[name]), name
        if not default.startswith(("none", "an ")):  # words are translated
            assert portuguese[name] == default, name
