"""Each cause of failure has one code. When Redis fails, nothing is changed, or the answer says that this is unknown."""

import re
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import redis

from broker.connections import connection
from broker.connections.errors import FAULTS, is_transient
from tests.conftest import Api
from tests.servers import ROOT, Proxy, Scripted, Store, free_port, until
from web.errors import ERRORS, ApiError, from_exception, from_redis

ApiOn = Callable[[str], Api]
Stores = Callable[..., Store]
CALLS: list[Callable[[Api], Any]] = [
    lambda api: api.post("push", json={"message": "a"}),
    lambda api: api.post("push", json={"messages": ["a", "b"]}, query_string={"front": 1}),
    lambda api: api.post("pop"),
    lambda api: api.post("pop", query_string={"max": 5}),
    lambda api: api.get("count"),
    lambda api: api.get("all"),
]


def check(answer: Any, status: int, error: str) -> None:
    assert (answer.status_code, answer.json["success"], answer.json["error"]) == (status, False, error), answer.json
    assert re.fullmatch(r"[A-Z][^\n]*\.", answer.json["message"])  # a sentence, on one line
    assert ("Retry-After" in answer.headers) == (status == 503)


def check_all(api: Api, error: str) -> None:
    for call in CALLS:
        check(call(api), 503, error)


def test_a_redis_that_cannot_be_reached_is_unavailable(api_on: ApiOn) -> None:
    check_all(api_on(f"redis://127.0.0.1:{free_port()}"), "redis_unavailable")
    check_all(api_on("unix:///nowhere/at/all.sock"), "redis_unavailable")
    api = api_on("redis://nowhere.invalid")
    check_all(api, "redis_unavailable")
    check(api.http.get("/healthz"), 503, "redis_unavailable")  # JSON, for a probe


@pytest.mark.slow
def test_a_redis_that_died_is_unavailable_until_it_is_back(api_on: ApiOn, own_store: Stores) -> None:
    store = own_store("valkey", "--appendonly", "yes")
    api = api_on(store.url)
    assert api.post("push", json={"message": "a"}).json["success"]
    store.end(signal.SIGKILL)
    check_all(api, "redis_unavailable")
    store.start()
    assert api.get("all").json["messages"] == ["a"]
    assert api.post("pop").json == {"success": True, "message": "a"}


@pytest.mark.parametrize("kind", ["valkey", "redis"])
def test_a_wrong_type_is_409_and_stays_as_it_is(api_on: ApiOn, request: pytest.FixtureRequest, kind: str) -> None:
    store: Store = request.getfixturevalue({"valkey": "valkey", "redis": "redis7"}[kind])
    api, client = api_on(store.url), store.client()
    client.set(api.key, "text")
    for call in CALLS:
        check(call(api), 409, "wrong_type")
    assert client.get(api.key) == b"text"


@pytest.mark.parametrize("kind", ["valkey", "redis"])
def test_a_missing_or_wrong_password_is_misconfigured(api_on: ApiOn, own_store: Stores, kind: str) -> None:
    store = own_store(kind)
    store.client().config_set("requirepass", "secret")
    api = api_on(store.url)
    check_all(api, "redis_misconfigured")
    assert "password" in api.post("pop").json["message"]
    wrong = store.url.replace("redis://", "redis://:wrong@")
    check_all(api_on(wrong), "redis_misconfigured")
    right = store.url.replace("redis://", "redis://:secret@")
    assert api_on(right).post("push", json={"message": "a"}).json["success"]
    store.end()


@pytest.mark.parametrize("kind", ["valkey", "redis"])
def test_a_redis_user_without_permission_is_misconfigured(api_on: ApiOn, own_store: Stores, kind: str) -> None:
    store = own_store(kind)
    store.client().execute_command("ACL", "SETUSER", "weak", "on", ">secret", "~*", "+ping")
    check_all(api_on(store.url.replace("redis://", "redis://weak:secret@")), "redis_misconfigured")


@pytest.mark.parametrize("kind", ["valkey", "redis"])
def test_a_full_redis_refuses_pushes_and_can_be_emptied(api_on: ApiOn, own_store: Stores, kind: str) -> None:
    store = own_store(kind)
    api, client = api_on(store.url), store.client()
    api.post("push", json={"messages": ["a", "b"]})
    client.config_set("maxmemory", 1)
    check(api.post("push", json={"message": "c"}), 507, "redis_full")
    check(api.post("push", json={"messages": ["c", "d"]}), 507, "redis_full")
    check(api.post("push", json={"message": "c"}, headers={"Idempotency-Key": "k"}), 507, "redis_full")
    assert api.get("all").json["messages"] == ["a", "b"]
    assert [api.post("pop").json["message"] for _ in range(2)] == ["a", "b"]


@pytest.mark.parametrize("kind", ["valkey", "redis"])
def test_a_replica_is_read_only(api_on: ApiOn, own_store: Stores, kind: str) -> None:
    store = own_store(kind)
    api = api_on(store.url)
    api.post("push", json={"message": "a"})
    store.client().replicaof("127.0.0.1", str(free_port()))
    check_all(api, "redis_readonly")  # counting returns the messages of expired leases, which is a write
    assert store.client().lrange(api.key, 0, -1) == [b"a"]


def test_too_few_replicas_are_read_only(api_on: ApiOn, own_store: Stores) -> None:
    store = own_store("valkey", "--min-replicas-to-write", "1")
    check(api_on(store.url).post("push", json={"message": "a"}), 503, "redis_readonly")


def test_a_redis_that_cannot_save_is_misconfigured(api_on: ApiOn, own_store: Stores) -> None:
    store = own_store("redis", "--dir", ".", "--dbfilename", "dump.rdb")
    client = store.client()
    client.config_set("save", "3600 1000000")
    api = api_on(store.url)
    (store.folder / "dump.rdb").mkdir()  # cannot be replaced by a file
    client.bgsave()
    until(lambda: client.info("persistence")["rdb_last_bgsave_status"] == "err")
    check_all(api, "redis_misconfigured")
    assert client.dbsize() == 0
    store.end(signal.SIGKILL)  # it would not end without saving


def test_a_redis_that_runs_a_script_is_busy(api_on: ApiOn, own_store: Stores) -> None:
    store = own_store("valkey", "--busy-reply-threshold", "1")
    api, client = api_on(store.url), store.client()
    with ThreadPoolExecutor(1) as pool:
        script = pool.submit(client.eval, "while true do end", 0)
        try:
            until(lambda: api.get("count").status_code == 503)
            check_all(api, "redis_busy")
        finally:
            until(lambda: script.done() or store.client().script_kill())
    with pytest.raises(redis.ResponseError):
        script.result()
    assert api.get("count").json["count"] == 0


def test_a_redis_without_room_for_clients_is_busy(api_on: ApiOn, own_store: Stores) -> None:
    store = own_store("valkey")
    store.client().config_set("maxclients", 1)
    held = store.client()
    until(lambda: held.ping())
    check_all(api_on(store.url), "redis_busy")


@pytest.mark.parametrize(
    ("reply", "status", "error"),
    [
        (b"-LOADING Redis is loading the dataset in memory", 503, "redis_loading"),
        (b"-MISCONF Errors writing to the AOF file: No space left on device", 503, "disk_full"),
        (b"-MISCONF Redis is configured to save RDB snapshots", 503, "redis_misconfigured"),
        (b"-CLUSTERDOWN The cluster is down", 503, "redis_unavailable"),
        (b"-MASTERDOWN Link with MASTER is down", 503, "redis_unavailable"),
        (b"-OOM command not allowed when used memory > 'maxmemory'.", 507, "redis_full"),
        (b"-ERR unknown command 'LPUSH', with args beginning with: ", 503, "redis_too_old"),
        (b"-ERR wrong number of arguments for 'rpop' command", 503, "redis_too_old"),
        (b"-ERR something else", 503, "redis_error"),
        (b"-SOMETHING new \xff", 503, "redis_error"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_refusal_has_the_code_of_its_cause(
    api_on: ApiOn, scripted: Callable[..., Scripted], reply: bytes, status: int, error: str
) -> None:
    store = scripted(reply + b"\r\n")
    api = api_on(store.url)
    for call in CALLS:
        check(call(api), status, error)


def test_a_refusal_that_passes_is_a_503_or_a_full_redis_and_any_other_needs_repair() -> None:
    for refusal in FAULTS:
        error = redis.ResponseError(refusal.start + " text")
        answer = from_redis(error)
        assert answer.error == refusal.code and answer.message.startswith(refusal.message)
        if is_transient(error):
            assert answer.status in (503, 507)
        elif answer.status == 503:
            assert answer.error in ("redis_misconfigured", "redis_too_old")


@pytest.mark.parametrize(
    ("hello", "error"),
    [
        (b"-LOADING Redis is loading the dataset in memory\r\n", "redis_loading"),
        (b"-ERR unknown command 'HELLO'\r\n", "redis_too_old"),
        (b"-NOAUTH HELLO must be called with the client already authenticated\r\n", "redis_misconfigured"),
        (b"-DENIED Redis is running in protected mode\r\n", "redis_misconfigured"),
        (b"-ERR max number of clients reached\r\n", "redis_busy"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "redis_unavailable"),
        (b"", "redis_unavailable"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_refused_connection_has_the_code_of_its_cause(
    api_on: ApiOn, scripted: Callable[..., Scripted], hello: bytes, error: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not hello:  # the timeout is what ends this connection
        monkeypatch.setattr(connection, "REPLY_TIMEOUT", 0.05)
    store = scripted(b"+OK\r\n", hello=hello)
    api = api_on(store.url)
    for operation in CALLS if hello else CALLS[:1]:  # each timeout lasts a second
        check(operation(api), 503, error)
    assert "LPUSH" not in store.commands


# --- lost replies


def test_after_a_lost_reply_the_outcome_is_unknown_and_nothing_is_sent_again(
    api_on: ApiOn, proxy: Proxy, valkey: Store
) -> None:
    api = api_on(proxy.url)
    api.post("push", json={"message": "x"}, query_string={"front": 1})
    api.post("pop")  # the store knows the scripts now
    del proxy.commands[:]
    proxy.cut("LPUSH")
    check(api.post("push", json={"message": "a"}), 503, "outcome_unknown")
    proxy.cut("EVALSHA")
    check(api.post("push", json={"message": "b"}, query_string={"front": 1}), 503, "outcome_unknown")
    assert valkey.client().lrange(api.key, 0, -1) == [b"a", b"b"]
    proxy.cut()
    answer = api.post("pop")
    check(answer, 503, "outcome_unknown")
    assert "unknown" in answer.json["message"]
    assert valkey.client().lrange(api.key, 0, -1) == [b"a"]
    assert proxy.commands == ["LPUSH", "EVALSHA", "EVALSHA"]


def test_after_a_lost_reply_to_a_read_nothing_is_unknown(api_on: ApiOn, proxy: Proxy) -> None:
    api = api_on(proxy.url)
    for operation in ("count", "all"):
        proxy.cut()
        check(api.get(operation), 503, "redis_unavailable")
        assert api.get(operation).json["success"]


def test_a_refused_connection_says_that_nothing_was_changed(api_on: ApiOn, proxy: Proxy, valkey: Store) -> None:
    api = api_on(proxy.url)
    api.post("push", json={"message": "a"})
    proxy.refuse()
    answer = api.post("push", json={"message": "b"})
    check(answer, 503, "redis_unavailable")
    assert answer.json["message"] == (
        f"Cannot reach Redis at 127.0.0.1:{proxy.port} (connection refused). Nothing was changed."
    )
    proxy.accept()
    assert api.get("all").json["messages"] == ["a"]


@pytest.mark.slow
def test_the_outcome_of_a_push_to_a_redis_that_hangs_is_unknown(
    api_on: ApiOn, own_store: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "REPLY_TIMEOUT", 0.2)
    store = own_store("valkey")
    api = api_on(store.url)
    api.post("push", json={"message": "a"})
    assert store.process
    store.process.send_signal(signal.SIGSTOP)
    try:
        check(api.post("push", json={"message": "b"}), 503, "outcome_unknown")  # it was sent
        check(api.post("push", json={"message": "c"}), 503, "redis_unavailable")  # a new connection is not even greeted
    finally:
        store.process.send_signal(signal.SIGCONT)
    until(lambda: api.get("all").json.get("messages") == ["a", "b"])


def test_after_garbage_for_a_reply_the_outcome_is_unknown(api_on: ApiOn, scripted: Callable[..., Scripted]) -> None:
    check(api_on(scripted(b"garbage\r\n").url).post("push", json={"message": "a"}), 503, "outcome_unknown")


def test_a_redis_error_without_text_has_an_answer() -> None:
    for kind in (redis.RedisError, redis.ConnectionError, redis.ResponseError, redis.DataError, redis.TimeoutError):
        assert from_redis(kind()).status == 503


# --- other failures


def test_an_unexpected_error_is_logged_without_details_for_the_client(
    named_api: Api, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise ValueError("secret")

    monkeypatch.setattr(named_api.client, "lpush", fail)
    answer = named_api.post("push", json={"message": "a"})
    check(answer, 500, "internal")
    assert "secret" not in answer.text
    assert "secret" in caplog.text


def test_details_that_an_error_already_has_are_kept() -> None:
    error = ApiError("bad_json", "It is not JSON.", line=3)
    more = error.with_details(line=5, pushed=2)
    assert more.answer() == {
        "success": False,
        "error": "bad_json",
        "message": "It is not JSON.",
        "line": 3,
        "pushed": 2,
    }
    assert error.details == {"line": 3}
    assert from_exception(more, reading=True) is more


# --- the table of codes

FROM_GUNICORN = {"uri_too_long", "expectation_failed", "request_header_fields_too_large"}  # tests/server/test_http.py
SOURCES = "".join(
    path.read_text(encoding="utf-8") for path in [*(ROOT / "web").rglob("*.py"), ROOT / "broker/connections/errors.py"]
)


def test_every_code_that_is_raised_has_a_row_and_every_row_is_raised() -> None:
    raised = set(re.findall(r'ApiError\(\s*"(\w+)"', SOURCES)) | {fault.code for fault in FAULTS}
    assert raised <= ERRORS.keys()
    for code in ERRORS.keys() - raised - FROM_GUNICORN:
        assert SOURCES.count(f'"{code}"') > 1, code  # beside its row


def test_the_sentence_of_a_code_is_filled_from_the_details() -> None:
    error = ApiError("message_too_large", limit=5)
    assert (error.status, error.message) == (413, "A message is larger than 5 bytes.")
    assert ApiError("bad_base64", "{x}").message == "{x}"


@pytest.mark.parametrize("code", ERRORS)
def test_an_error_says_when_to_try_again_or_how_to_authenticate(code: str) -> None:
    headers = ApiError(code, "A sentence.").headers
    assert ("Retry-After" in headers) == (ERRORS[code].status in (429, 503))
    assert ("WWW-Authenticate" in headers) == (ERRORS[code].status == 401)
