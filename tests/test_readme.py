"""The READMEs: their commands are run, and their settings, figures and layout are compared with the code."""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

import settings
from tests.console import TOKEN, at, blocks, check, need, printed
from tests.servers import ROOT, App, running, until

ENGLISH, PORTUGUESE = [(ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "README.pt-BR.md")]
both = pytest.mark.parametrize("readme", [ENGLISH, PORTUGUESE], ids=["en", "pt-BR"])


@pytest.fixture(scope="module")
def app(folder: Path) -> Iterator[App]:
    """The app on an embedded server, as `make run` starts it."""
    with running(App(folder / "readme", WEB_CONCURRENCY="1")) as started:
        yield started


def code(readme: str) -> list[tuple[str, str]]:
    """Return kind and text of each code block, without what each README says in its language: the comments."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", readme, re.M | re.S)
    return [(kind, re.sub(r" {2,}\S.*$" if kind in ("", "sh") else "$^", "", text, flags=re.M)) for kind, text in found]


def section(readme: str, number: int) -> str:
    """Return the text of a section of the second level, counted from 0."""
    return re.split(r"^## ", readme, flags=re.M)[number + 1]


@pytest.mark.slow
def test_every_command_prints_what_the_readme_says(serve: Callable[..., App], tmp_path: Path) -> None:
    """Those of the other README are the same."""
    need("curl")
    need("redis-cli")
    plain, guarded = serve(), serve(API_TOKEN=TOKEN, WEB_CONCURRENCY="1")
    actual: dict[str, str] = {}  # what differs each time: the README's value -> this run's
    for block in blocks(ENGLISH, "console"):
        app = guarded if "API_TOKEN" in block else plain
        check(f"```console\n{block}```\n", app, tmp_path, actual)
    assert len(actual) >= 3, "the README shows no reservation and no undo"


def test_both_readmes_have_the_same_sections_and_commands() -> None:
    outlines = [re.findall(r"^(?:#+ |```\w*|\|)", readme, re.M) for readme in (ENGLISH, PORTUGUESE)]
    assert outlines[0] == outlines[1]
    assert code(ENGLISH) == code(PORTUGUESE)
    assert "(README.pt-BR.md)" in ENGLISH.partition("##")[0]
    assert "(README.md)" in PORTUGUESE.partition("##")[0]


@pytest.mark.slow
def test_a_consumer_survives_kill_9_in_five_minutes(app: App, tmp_path: Path) -> None:
    """What the second terminal does; the first one is `make run`."""
    need("curl")
    _, start, kill = blocks(section(ENGLISH, 0), "sh")
    output = tmp_path / "output"

    def printed_so_far(text: str) -> bool:
        return text in output.read_text()

    with open(output, "wb") as file:
        options = {"stdout": file, "stderr": file, "cwd": ROOT, "env": {**os.environ, "DATA_DIR": str(app.folder)}}
        terminal = subprocess.Popen(["bash"], stdin=subprocess.PIPE, text=True, **options)  # type: ignore[call-overload]
    try:
        for block, sign in ((start, "sum-1: delivery 1"), (kill, '"result":"6"')):
            block = at(block, app).replace(".venv/bin/python", sys.executable).replace('"seconds": 10', '"seconds": 1')
            terminal.stdin.write(block)
            terminal.stdin.flush()
            until(partial(printed_so_far, sign), 60)
    finally:
        terminal.communicate("kill $!\n", timeout=60)
    assert printed_so_far("sum-1: delivery 2")


@pytest.mark.slow
def test_the_python_consumer_prints_a_message(app: App) -> None:
    (program,) = blocks(ENGLISH, "python")
    program = program.replace("redis://localhost:6379/0", f"unix://{app.folder}/valkey.sock")
    printed("curl -s localhost:5000/api/queue/jobs/push -d message=hello", app, 1, app.folder)
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, cwd=ROOT) as consumer:
        assert consumer.stdout
        assert consumer.stdout.readline() == "hello\n"
        consumer.terminate()
        assert consumer.wait(20) == 0


@both
def test_the_table_of_settings_has_each_setting_with_its_default(readme: str) -> None:
    names: set[str] = set()

    class Environment(dict[str, str]):
        """An empty environment that notes which variables are read."""

        def get(self, name: str, default: str | None = None) -> str | None:  # type: ignore[override]
            names.add(name)
            return default

    read = settings.read(Environment())
    documented = dict(re.findall(r"^\| `([A-Z_]+)` \| (.*?) \|", readme, re.M))
    assert set(documented) == names
    for name, default in documented.items():
        value = getattr(read, name.lower(), None)
        if isinstance(value, int):
            number, _, unit = default.partition(" ")
            assert value == int(number) << {"": 0, "MiB": 20}[unit], name
        elif isinstance(value, str) and value:
            assert default == f"`{value}`", name


def test_the_figures_are_those_of_the_benchmark() -> None:
    results = dict(re.findall(r"^\| (.*?) \| ([0-9.]+) \|", (ROOT / "benchmarks/results.md").read_text(), re.M))
    figures = re.findall(r"^\| (.*?) \| ([0-9.]+) \|$", ENGLISH, re.M)
    assert len(figures) == 7
    for what, figure in figures:
        assert results[what] == figure, what
    assert [row.replace(",", ".") for row in re.findall(r"\| ([0-9,]+) \|$", PORTUGUESE, re.M)] == [
        figure for _, figure in figures
    ]


def test_every_guarantee_has_a_test() -> None:
    rows = re.findall(r"^\| (.*?) \| (.*) \|$", section(ENGLISH, 6), re.M)[1:]
    assert len(rows) >= 15
    for guarantee, tests in rows[1:]:
        assert "[`test_" in tests, guarantee


@both
def test_the_project_layout_shows_every_module_and_folder(readme: str) -> None:
    (layout,) = (block for block in blocks(readme, "") if "app.py" in block)
    shown = {line.split()[0] for line in layout.splitlines()}
    modules = {path.name for path in ROOT.glob("*.py")}
    folders = {f"{path.parent.name}/" for path in ROOT.glob("[!._]*/[!._]*") if path.is_file()} - {"instance/"}
    assert modules | folders <= shown
    for path in shown:
        assert (ROOT / path).exists(), path
