"""docs/moving.md: the programs on Seequeue's side are run."""

import re
import sys
from pathlib import Path

import pytest

from tests.console import blocks
from tests.npm import NODES, Project
from tests.recipes import Recipe, sections
from tests.servers import App

SECTIONS = sections("docs/moving.md")
pytestmark = pytest.mark.slow


def programs(section: str, kind: str) -> dict[str, str]:
    """Return the programs on Seequeue's side of a section, by the names in their first lines."""
    found = blocks(section.partition("</td><td>")[2], kind)
    return {re.findall(r"\w+\.\w+", text)[0]: text for text in found}


def run(recipe: Recipe, folder: Path, kind: str, command: str, printed: set[str]) -> str:
    """Run the worker and the producer; return what the producer prints once the worker has printed some lines."""
    files = programs(recipe.section, kind)
    worker, producer = (next(name for name in files if name.startswith(role)) for role in ("worker", "producer"))
    for name, text in files.items():
        (folder / name).write_text(text)
    with recipe.running([command, str(folder / worker)]) as process:
        output = recipe.output([command, str(folder / producer)])
        assert process.stdout
        assert {process.stdout.readline().strip() for _ in printed} == printed
    return output


@pytest.mark.parametrize(
    ("name", "printed", "output"),
    [
        ("rq", set(), "5\n"),
        ("celery", {"resizing cat.png 200", "rotating dog.png"}, ""),
        ("sqs", {"order 17"}, ""),
    ],
)
def test_a_program_in_python_does_what_it_did(
    site: App, tmp_path: Path, name: str, printed: set[str], output: str
) -> None:
    recipe = Recipe(site, tmp_path, SECTIONS[name])
    assert run(recipe, tmp_path, "python", sys.executable, printed) == output


def test_a_program_in_javascript_does_what_it_did(site: App, tmp_path: Path, project: Project) -> None:
    recipe = Recipe(site, tmp_path, SECTIONS["bullmq"])
    assert run(recipe, project.folder, "js", NODES["node"], {"sending to ana@example.com"}) == ""
