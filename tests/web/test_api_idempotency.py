"""The Idempotency-Key of push and pop: the work is done once, and every try gets the same answer."""

import pytest

from tests.conftest import Api
from tests.web.helpers import EMPTY, check_error, push


def test_one_key_pushes_once_and_answers_the_same(api: Api) -> None:
    for body in ({"message": "a"}, {"messages": ["b", "c"]}):
        key = {"Idempotency-Key": f"key-{len(str(body))}"}
        answers = [api.post("push", json=body, headers=key) for _ in range(3)]
        assert len({(answer.status_code, answer.data) for answer in answers}) == 1
        assert answers[0].json["success"] is True
    assert api.messages() == [b"a", b"b", b"c"]


def test_one_key_with_another_body_is_409(api: Api) -> None:
    key = {"Idempotency-Key": "key"}
    api.post("push", json={"message": "a"}, headers=key)
    check_error(api.post("push", json={"message": "b"}, headers=key), 409, "conflict")
    check_error(api.post("push", json={"message": "a"}, query_string={"front": 1}, headers=key), 409, "conflict")
    check_error(api.post("pop", headers=key), 409, "conflict")
    assert api.messages() == [b"a"]


def test_one_key_pops_once_and_answers_the_same(api: Api) -> None:
    push(api, "a", "b", "c")
    answers = [api.post("pop", json={"max": 2}, headers={"Idempotency-Key": "key"}) for _ in range(3)]
    assert [answer.json for answer in answers] == [{"success": True, "messages": ["a", "b"]}] * 3
    check_error(api.post("pop", headers={"Idempotency-Key": "key"}), 409, "conflict")
    assert api.messages() == [b"c"]


def test_an_empty_pop_is_not_kept_for_its_key(api: Api) -> None:
    key = {"Idempotency-Key": "key"}
    assert api.post("pop", headers=key).json == EMPTY
    assert api.post("pop", json={"wait": 0.05}, headers=key).json == EMPTY
    push(api, "a")
    assert [api.post("pop", headers=key).json["message"] for _ in range(2)] == ["a", "a"]


def test_the_same_key_on_two_queues_is_two_keys(api: Api) -> None:
    for path in (api.path, f"/api/queue/{api.name}x"):
        answer = api.http.post(f"{path}/push", json={"message": "a"}, headers={"Idempotency-Key": "key"})
        assert answer.json["count"] == 1


@pytest.mark.parametrize("key", ["", " ", "a b", "é", "x" * 256, "\x7f"])
@pytest.mark.parametrize("operation", ["push", "pop"])
def test_an_invalid_key_is_refused(api: Api, operation: str, key: str) -> None:
    push(api, "a")
    answer = api.post(operation, {"message": "b"}, headers={"Idempotency-Key": key})
    check_error(answer, 400, "bad_idempotency_key")
    assert api.messages() == [b"a"]
