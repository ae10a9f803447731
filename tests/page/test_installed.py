"""The two wheels, installed with all that they require outside the checkout: a conversation, the page, uvx and pipx."""

import ast
import os
import re
import subprocess
import sys
import urllib.request
import venv
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.page.conftest import Tab
from tests.servers import ROOT, until
from tests.test_install import build

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """The wheel of the server, and the folder of that of the client, which is on no index before a release."""
    client = build(ROOT / "client/python", tmp_path_factory.mktemp("client"), "wheel")
    return str(build(ROOT, tmp_path_factory.mktemp("server"), "wheel")), str(client.parent)


@pytest.fixture(scope="module")
def seequeue(wheels: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command in an environment with what the wheels require, and modules of others that are named as ours."""
    place = tmp_path_factory.mktemp("installed")
    venv.create(place, symlinks=True)
    wheel, links = wheels
    pip = [sys.executable, "-m", "pip", "--python", str(place / "bin/python"), "--disable-pip-version-check"]
    subprocess.run([*pip, "install", "--quiet", "--pre", "--find-links", links, wheel], cwd=place, check=True)
    [packages] = place.glob("lib/python3*/site-packages")
    for name in ("app", "settings", "web"):
        (packages / f"{name}.py").write_text("raise SystemExit('this is another program')")
    return place / "bin/seequeue"


@contextmanager
def serving(seequeue: list[str], folder: Path, *options: str, **env: str) -> Iterator[list[str]]:
    """Run `seequeue serve` in a folder, and yield its address and the second line that it prints."""
    command = [*seequeue, "serve", "--port", "0", "--workers", "1", *options]
    env = {"PATH": os.environ["PATH"], "HOME": str(folder), **env}
    with open(folder / "log", "ab") as log:
        process = subprocess.Popen(command, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=log, text=True)
    try:
        assert process.stdout
        lines = [process.stdout.readline(), process.stdout.readline()]
        assert lines[1], (folder / "log").read_text()
        yield [lines[0].split()[-1], lines[1]]
    finally:
        process.terminate()
        process.wait()


def test_the_installed_server_keeps_its_messages_in_the_folder_of_the_user(seequeue: Path, folder: Path) -> None:
    """It is named as others are, but takes no module of theirs, from site-packages or from the working directory."""
    home = folder / "home"
    home.mkdir()
    (home / "settings.py").write_text("raise SystemExit('this is another program')")
    (home / "browser").write_text(f"#!/bin/sh\necho $1 >{home}/opened")
    (home / "browser").chmod(0o755)

    def say(url: str, *words: str) -> str:
        env = {"PATH": os.environ["PATH"], "HOME": str(home), "SEEQUEUE_URL": url}
        done = subprocess.run([seequeue, *words], cwd=home, env=env, check=True, stdout=subprocess.PIPE, text=True)
        return done.stdout

    options = ("--pid-file", "master.pid", "--open")
    with serving([str(seequeue)], home, *options, BROWSER=f"{home}/browser %s") as (url, where):
        assert where == f"Its messages are in {home}/.local/share/seequeue (the embedded Valkey)\n"
        assert say(url, "push", "jobs", "worked on") == "Pushed. 1 waiting.\n"
        assert say(url, "work", "jobs", "--until-empty", "--", "tr", "a-z", "A-Z") == "WORKED ON"
        say(url, "push", "jobs", "kept")
        title = Path(f"/proc/{(home / 'master.pid').read_text().strip()}/cmdline").read_text()
        assert title.rstrip("\0") == "gunicorn: master [seequeue]"
        until(lambda: (home / "opened").exists() and (home / "opened").read_text() == url + "\n")
    assert not (home / "master.pid").exists()
    with serving([str(seequeue)], home) as (url, _):
        assert say(url, "list", "jobs") == "kept\n"
    assert [path.name for path in home.glob(".local/share/seequeue/*") if path.name == "appendonlydir"]
    assert not list(seequeue.parent.parent.glob("lib/python3*/site-packages/seequeue_server/instance"))


def test_the_installed_page_shows_a_push(seequeue: Path, tabs: Callable[..., Tab], tmp_path: Path) -> None:
    with serving([str(seequeue)], tmp_path) as (url, _):
        tab = tabs(url.rstrip("/")).open()
        tab.by_id("push-text").fill("hello")
        tab.by_id("push-go").click()
        tab.shows("hello")
        tab.page.context.close()  # a server that stops waits for its clients


def uv_settings() -> dict[str, str]:
    """Return the indexes that pip is set up with on this machine, as uv reads them, which ignores pip's settings."""
    config = [sys.executable, "-m", "pip", "config", "list"]
    printed = subprocess.run(config, check=True, stdout=subprocess.PIPE, text=True).stdout
    found = dict(re.findall(r"^\S+\.([a-z-]+)=('.*')$", printed, re.M)[::-1])  # the variables come first, and win
    names = {"UV_DEFAULT_INDEX": "index-url", "UV_INDEX": "extra-index-url"}
    urls = {name: " ".join(ast.literal_eval(found[key]).split()) for name, key in names.items() if key in found}
    return {**urls, "UV_INDEX_STRATEGY": "unsafe-best-match"}  # as pip: of all indexes, the newest version


@pytest.mark.parametrize("tool", ["uvx", "pipx"])
def test_it_serves_without_being_installed(tool: str, wheels: tuple[str, str], tmp_path: Path) -> None:
    wheel, links = wheels
    run = {
        "uvx": ["uv", "tool", "run", "--prerelease", "allow", "--find-links", links, "--from", wheel],
        "pipx": ["pipx", "run", f"--pip-args=--pre --find-links {links}", "--spec", wheel],
    }[tool]
    folders = {name: str(tmp_path / name) for name in ("UV_CACHE_DIR", "UV_TOOL_DIR", "PIPX_HOME", "XDG_DATA_HOME")}
    env = {**os.environ, **uv_settings(), **folders, "UV_PYTHON": sys.executable}
    with serving([sys.executable, "-m", *run, "seequeue"], tmp_path, **env) as (url, where):
        assert f"{folders['XDG_DATA_HOME']}/seequeue" in where
        with urllib.request.urlopen(f"{url}livez", timeout=30) as answer:
            assert answer.status == 200
