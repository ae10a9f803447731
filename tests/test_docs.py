"""docs/api.md is made from the rows of the operations, and each command in it prints what it shows."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.console import printed
from tests.servers import ROOT, App
from web.api import OPERATIONS
from web.errors import ERRORS
from web.operations.operation import Operation
from web.operations.shared import EXAMPLE_ID
from web.reference.markdown import curl, reference

REFERENCE = (ROOT / "docs/api.md").read_text(encoding="utf-8")
# An order in which each example answers what its row shows.
STORY = (
    *("events", "push", "count", "all", "reserve", "reserved", "consumers", "extend", "release", "delayed", "reasons"),
    *("push", "reserve", "ack", "push", "reserve", "settle"),
    *("import_queue", "reserve", "export_queue", "ack"),
    *("push", "remove", "push", "clear", "restore", "pop", "push", "move"),
    *(
        "queues",
        "pause",
        "resume",
        "set_settings",
        "get_settings",
        "store_result",
        "get_result",
        "healthz",
        "livez",
        "metrics",
        "openapi",
        "queues_events",
    ),
)
CHANGING = (
    "id",
    "undo",
    "deadline",
    "at",
    "failed",
    "oldest",
    "seconds",
    "first",
    "last",
)  # fields that differ each time


def test_the_reference_is_up_to_date() -> None:
    assert reference(OPERATIONS) == REFERENCE, "docs/api.md is stale: run make docs"


@pytest.mark.slow
def test_every_command_prints_what_the_reference_shows(serve: Callable[..., App], tmp_path: Path) -> None:
    app, by_id = serve(), {operation.id: operation for operation in OPERATIONS}
    assert set(STORY) == by_id.keys()
    actual: dict[str, Any] = {}
    for id in STORY:
        example, command = by_id[id].example, curl(by_id[id])
        assert example and f"$ {command}\n" in REFERENCE
        for name, value in actual.items():
            command = command.replace(f"-d {name}={example.sent.get(name)}", f"-d {name}={value}")
        command = command.replace(f'["{EXAMPLE_ID}"', f'["{actual.get("id")}"')
        if isinstance(example.answer, str):
            assert printed(command, app, example.answer.count("\n"), tmp_path) == example.answer, command
        else:
            answer = json.loads(printed(command, app, 1, tmp_path))
            assert masked(answer) == masked(example.answer), command
            actual |= {name: answer[name] for name in ("id", "undo") if name in answer}


def masked(value: Any) -> Any:
    """Return an answer with only the types of the fields that differ each time."""
    if isinstance(value, list):
        return [masked(one) for one in value]
    if isinstance(value, dict):
        return {name: type(one) if name in CHANGING else masked(one) for name, one in value.items()}
    return value


def texts(operation: Operation) -> Iterator[str]:
    """Yield all that the reference says of an operation."""
    yield from operation.about
    yield from (parameter.doc for parameter in operation.parameters)
    for answer in operation.answers:
        yield from (
            one["description"]
            for name, one in answer.schema.get("properties", {}).items()
            if name != "success" and answer.name != "Nothing"
        )


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.id)
def test_every_operation_parameter_and_field_is_described_by_sentences(operation: Operation) -> None:
    for text in texts(operation):
        assert text[:1].isupper() or text.startswith("`"), text
        assert text.endswith("."), text


def test_every_error_code_has_a_sentence_and_advice() -> None:
    for code, row in ERRORS.items():
        assert row.sentence and row.advice.endswith("."), code
