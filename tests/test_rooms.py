"""The modules at the top import only what they may. They are in no package, so import-linter cannot check them."""

import ast
from collections.abc import Iterator

import pytest

from tests.servers import ROOT

ROOMS = {"app", "broker", "embedded", "server", "settings", "web", "RedisQueue", "benchmarks", "examples", "tests"}
ALLOWED = {
    "app.py": {"settings", "web"},
    "gunicorn.conf.py": {"embedded", "server", "settings"},  # gevent has not patched what the others would import
    "settings.py": {"broker"},
    "RedisQueue.py": {"broker"},
}


def imported(file: str) -> Iterator[str]:
    """Yield the package of each import statement of a file."""
    for node in ast.walk(ast.parse((ROOT / file).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.partition(".")[0]


@pytest.mark.parametrize("file", sorted(path.name for path in ROOT.glob("*.py")))
def test_a_module_at_the_top_imports_only_the_layers_below_it(file: str) -> None:
    assert ROOMS & set(imported(file)) <= ALLOWED[file]
