"""docs/api.md says what the code does: its routes, parameters, codes and commands are compared with it."""

import ast
import re
from collections.abc import Callable
from pathlib import Path

from app import create_app
from settings import Settings
from tests.console import examples, printed
from tests.servers import ROOT, App
from web.errors import REDIS_ERRORS
from web.input.parameters import Message, MessageList, Parameter
from web.operations import ALL_EVENTS_PARAMETERS, LIST_PARAMETERS, VERBS

REFERENCE = (ROOT / "docs/api.md").read_text(encoding="utf-8")
CODE = re.compile(r"`([a-z0-9_]+)`")


def sections() -> dict[str, str]:
    """Return the text of each route's section, by "METHOD /path"."""
    parts = re.split(r"^##+ (.*)\n", REFERENCE, flags=re.M)
    return {
        title.strip("`"): text for title, text in zip(parts[1::2], parts[2::2], strict=True) if title.startswith("`")
    }


def parameters_of(section: str) -> dict[str, tuple[str, str, str]]:
    """Return type, default and description of each parameter in a section's table."""
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \| ?(.*?) \| (.*?) \|$", section, re.M)
    return {name: (kind, default.strip("`"), about) for name, kind, default, about in rows}


def described(parameter: Parameter) -> tuple[str, str]:
    """Return type and default of a parameter, as the reference writes them."""
    default = parameter.default
    if parameter.required:
        default = "required"
    elif isinstance(default, bool):
        default = int(default)
    return parameter.describe(), "" if default is None else str(default)


def codes_in_code() -> set[str]:
    """Return every code that the source gives to an error."""
    found = {name for _, _, name, _ in REDIS_ERRORS} | {"bad_request", "bad_parameter", "empty", "paused"}
    found |= {"uri_too_long", "expectation_failed", "request_header_fields_too_large"}  # gunicorn's, see test_http.py
    positions = {"ApiError": 1, "bad_request": 1, "unavailable": 0, "error": 1}
    for path in (ROOT / "web").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
            at = positions.get(name)
            arguments = node.args if at is not None else []
            if at is not None and len(arguments) > at and isinstance(code := arguments[at], ast.Constant):
                found.add(str(code.value))
            if name == "nothing" and isinstance(why := node.args[0], ast.Tuple):
                found.add(str(why.elts[0].value))  # type: ignore[attr-defined]
            if name == "one_or_many" and len(node.args) > 3 and isinstance(code := node.args[3], ast.Constant):
                found.add(str(code.value))
    return found


def test_every_route_is_in_the_reference_and_no_other() -> None:
    app = create_app(Settings())
    routes = {
        f"{method} {rule.rule}"
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
        if rule.endpoint.startswith("api.") and "<" not in rule.rule
    }
    assert set(sections()) == routes
    named = {
        rule.rule for rule in app.url_map.iter_rules() if "<any:name>" in rule.rule and rule.rule.startswith("/api/")
    }
    assert named == {f"/api/queue/<any:name>/{verb.name}" for verb in VERBS}


def test_every_parameter_is_in_the_reference_with_its_type_and_default_and_no_other() -> None:
    tables = {f"{verb.method} /api/queue/{verb.name}": verb.parameters for verb in VERBS}
    tables |= {"GET /api/queues": LIST_PARAMETERS, "GET /api/events": ALL_EVENTS_PARAMETERS}
    tables |= {"GET /healthz": (), "GET /metrics": ()}
    for route, parameters in tables.items():
        rows = parameters_of(sections()[route])
        assert {name: row[:2] for name, row in rows.items()} == {one.name: described(one) for one in parameters}, route
        for parameter in parameters:
            assert ("in the body only" in rows[parameter.name][2]) == (not parameter.in_query), (route, parameter.name)


def test_a_verb_that_takes_an_idempotency_key_says_so() -> None:
    for verb in VERBS:
        assert ("`Idempotency-Key` header" in sections()[f"{verb.method} /api/queue/{verb.name}"]) == verb.idempotent


def test_every_error_code_is_in_the_reference_and_no_other() -> None:
    rows = set(re.findall(r"^\| `([a-z0-9_]+)` \| \d{3} \|", REFERENCE, re.M))
    assert rows == codes_in_code()
    everywhere = set(CODE.findall(REFERENCE.partition("These codes can come")[2].partition("Below,")[0]))
    listed = everywhere.union(
        *(CODE.findall(text.partition("Errors:")[2].partition("```")[0]) for text in sections().values())
    )
    assert listed - {"redis_full"} == rows - {"redis_full"}
    assert all("Errors:" in text for text in sections().values())


def test_the_codes_of_redis_have_their_status_in_the_reference() -> None:
    statuses = dict(re.findall(r"^\| `([a-z0-9_]+)` \| (\d{3}) \|", REFERENCE, re.M))
    for _, status, code, _ in REDIS_ERRORS:
        assert statuses[code] == str(status), code


def test_verbs_that_take_messages_say_so_once() -> None:
    kinds = {one.name for verb in VERBS for one in verb.parameters if isinstance(one, (Message, MessageList))}
    assert kinds == {"message", "messages", "result"}


def test_every_command_prints_what_the_reference_says(serve: Callable[..., App], tmp_path: Path) -> None:
    app = serve()
    commands = list(examples(REFERENCE))
    assert len(commands) == len(sections())
    for command, expected in commands:
        assert printed(command, app, expected.count("\n"), tmp_path).rstrip("\n") == expected.rstrip("\n"), command
