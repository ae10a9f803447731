"""Every operation refuses what it does not take, wherever it is sent, and changes nothing."""

import io
from typing import Any

import pytest

from tests.conftest import Api
from tests.web.helpers import BYTES, FORM, JSON, NDJSON, TEXT, check_error, everything
from web.api import OPERATIONS
from web.operations.operation import Operation

every_operation = pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.id)
every_post = pytest.mark.parametrize(
    "operation",
    [one for one in OPERATIONS if one.method == "POST" and not one.lines],
    ids=lambda operation: operation.id,
)
every_get = pytest.mark.parametrize(
    "operation", [one for one in OPERATIONS if one.method == "GET"], ids=lambda operation: operation.id
)


def ask(api: Api, operation: Operation, query: str = "", **request: Any) -> Any:
    """Call an operation on the queue of `api`, or on none."""
    path = operation.path or f"{api.path}/{operation.name}"
    return api.http.open(path + query, method=operation.method, **request)


@every_operation
def test_an_unknown_parameter_in_the_query_is_refused(named_api: Api, operation: Operation) -> None:
    named_api.queue.push(b"here")
    before = everything(named_api.client)
    for query, unknown in [("?ttl=1", "ttl"), ("?ttl", "ttl"), ("?=1", ""), ("?Wait=1", "Wait")]:
        assert check_error(ask(named_api, operation, query), 400, "unknown_parameter")["parameter"] == unknown
    assert everything(named_api.client) == before


@every_post
def test_an_unknown_field_in_the_body_is_refused(named_api: Api, operation: Operation) -> None:
    named_api.queue.push(b"here")
    before = everything(named_api.client)
    for body, kind, unknown in [
        (b"ttl=1", FORM, "ttl"),
        (b"=1", FORM, ""),
        (b'{"ttl":1}', JSON, "ttl"),
        (b'{"ttl":null}', JSON, "ttl"),
        (b'{"ttl":1}', FORM, "ttl"),
    ]:
        answer = ask(named_api, operation, data=body, content_type=kind)
        assert check_error(answer, 400, "unknown_parameter")["parameter"] == unknown
    assert everything(named_api.client) == before


@every_get
@pytest.mark.parametrize("kind", [FORM, JSON])
def test_a_get_refuses_a_body(named_api: Api, operation: Operation, kind: str) -> None:
    check_error(ask(named_api, operation, data=b"limit=1", content_type=kind), 400, "unexpected_body")
    chunked: dict[str, Any] = {"input_stream": io.BytesIO(b"limit=1"), "headers": {"Transfer-Encoding": "chunked"}}
    check_error(ask(named_api, operation, content_type=kind, **chunked), 400, "unexpected_body")


def test_a_get_with_an_empty_body_is_answered(named_api: Api) -> None:
    assert named_api.get("count", data=b"", content_type=FORM).status_code == 200


@pytest.mark.parametrize(
    "operation", [one for one in OPERATIONS if not one.idempotent], ids=lambda operation: operation.id
)
def test_an_idempotency_key_that_would_be_ignored_is_refused(named_api: Api, operation: Operation) -> None:
    named_api.queue.push(b"here")
    before = everything(named_api.client)
    for key in ("a", "", "x" * 300):
        check_error(ask(named_api, operation, headers={"Idempotency-Key": key}), 400, "bad_idempotency_key")
    assert everything(named_api.client) == before


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (FORM, b"message=a&message=b"),
        (FORM, b"message=a&front=1&front=0"),
        (FORM, b'{"message":"a","message":"b"}'),
        (JSON, b'{"message":"a","message":"b"}'),
        (JSON, b'{"message":"a","front":1,"front":0}'),
    ],
)
def test_a_field_that_is_given_twice_is_refused(named_api: Api, kind: str, body: bytes) -> None:
    check_error(named_api.post("push", body, kind), 400, "duplicate_key")
    assert named_api.messages() == []


@pytest.mark.parametrize(
    "body",
    [b"message=Tom & Jerry", b"message=Tom &=Jerry", b"message=Tom &", b"message=Tom && Jerry", b"&message=Tom"],
)
def test_a_message_that_an_ampersand_cuts_is_not_stored(named_api: Api, body: bytes) -> None:
    answer = named_api.post("push", body, FORM)
    assert answer.status_code == 400
    assert "--data-urlencode" in answer.json["message"]
    assert named_api.messages() == []


def test_a_name_with_a_lone_surrogate_is_refused(named_api: Api) -> None:
    check_error(named_api.post("push", '{"message": "a", "\\ud800": 1}', JSON), 400, "bad_utf8")
    assert named_api.messages() == []


@pytest.mark.parametrize("kind", [TEXT, BYTES, NDJSON])
@pytest.mark.parametrize(
    ("query", "error"), [("ttl=1", "unknown_parameter"), ("message=b", "bad_parameter"), ("=", "unknown_parameter")]
)
def test_a_body_without_fields_has_parameters_beside_it_that_are_checked(
    named_api: Api, kind: str, query: str, error: str
) -> None:
    check_error(named_api.post(f"push?{query}", b'"a"\n', kind), 400, error)
    assert named_api.messages() == []


@pytest.mark.parametrize(("path", "kind"), [("push?each=line", TEXT), ("push?", NDJSON)])
def test_a_stream_refuses_what_does_not_work_with_it(named_api: Api, path: str, kind: str) -> None:
    for query in ("&front=1", "&delay=9"):
        check_error(named_api.post(path + query, b"1", kind), 400, "bad_parameter")
    key = {"Idempotency-Key": "a"}
    check_error(named_api.post(path, b"1", kind, headers=key), 400, "bad_idempotency_key")
    assert named_api.messages() == []


@pytest.mark.parametrize("kind", [None, FORM, JSON, NDJSON, BYTES])
def test_each_line_is_for_plain_text_only(named_api: Api, kind: str | None) -> None:
    check_error(named_api.post("push?each=line", b"message=1", kind), 415, "unsupported_type")
    assert named_api.messages() == []
