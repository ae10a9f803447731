"""The README: its commands are run, its table of settings, links and project layout are compared with the code."""

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import settings
from tests.console import TOKEN, blocks, examples, printed
from tests.servers import ROOT, App

README = (ROOT / "README.md").read_text(encoding="utf-8")
VARIABLE = re.compile(
    r'(?<="id":")[^"]+|(?<="undo":")[^"]+|(?<="deadline":)[0-9.]+|(?<="at":)[0-9.]+|(?<="died":)[0-9.]+'
)  # differs each time


@pytest.mark.slow
def test_every_command_prints_what_the_readme_says(serve: Callable[..., App], tmp_path: Path) -> None:
    if not shutil.which("curl"):
        assert not os.environ.get("CI"), "curl is not installed"
        pytest.skip("curl is not installed")
    plain, guarded = serve(), serve(API_TOKEN=TOKEN)
    actual: dict[str, str] = {}  # what differs each time: the README's value -> this run's
    for block in blocks(README, "console"):
        app = guarded if "API_TOKEN" in block else plain
        for command, expected in examples(f"```console\n{block}```\n"):
            for written, value in actual.items():
                command = command.replace(written, value)
            found = printed(command, app, expected.count("\n"), tmp_path)
            assert VARIABLE.sub("...", found.rstrip("\n")) == VARIABLE.sub("...", expected.rstrip("\n")), command
            actual.update(zip(VARIABLE.findall(expected), VARIABLE.findall(found), strict=True))
    assert len(actual) >= 3, "the README shows no reservation and no undo"


def test_the_table_of_settings_has_each_setting_with_its_default() -> None:
    names: set[str] = set()

    class Environment(dict[str, str]):
        """An empty environment that notes which variables are read."""

        def get(self, name: str, default: str | None = None) -> str | None:  # type: ignore[override]
            names.add(name)
            return default

    read = settings.read(Environment())
    documented = dict(re.findall(r"^\| `([A-Z_]+)` \| (.*?) \|", README, re.M))
    assert set(documented) == names
    for name, default in documented.items():
        value = getattr(read, name.lower(), None)
        if isinstance(value, int):
            number, _, unit = default.partition(" ")
            assert value == int(number) << {"": 0, "MiB": 20}[unit], name
        elif isinstance(value, str) and value:
            assert default == f"`{value}`", name


def test_every_file_that_the_readme_shows_or_links_to_exists() -> None:
    paths = re.findall(r'\]\(([^)#:]+)(?:#[^)]*)?\)|src="([^"]+)"', README)
    assert len(paths) > 3
    for path in paths:
        assert (ROOT / "".join(path)).is_file(), path


def test_the_project_layout_shows_every_module_and_folder() -> None:
    (layout,) = (block for block in blocks(README, "") if "app.py" in block)
    shown = {line.split()[0] for line in layout.splitlines()}
    modules = {path.name for path in ROOT.glob("*.py")}
    folders = {f"{path.parent.name}/" for path in ROOT.glob("[!._]*/[!._]*") if path.is_file()} - {"instance/"}
    assert modules | folders <= shown
    for path in shown:
        assert (ROOT / path).exists(), path
