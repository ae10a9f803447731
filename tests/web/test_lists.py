"""Lists of other programs: they are shown as queues, from the end where they are taken, and never changed."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from broker import scan
from broker.attached import registry
from broker.attached.names import AttachedList, parse_lists
from broker.attached.queue import AttachedQueue
from broker.connections.connection import connect
from settings import Settings
from tests.conftest import AppOn
from tests.servers import ROOT, App, Proxy, Store, until
from tests.web.helpers import everything
from tests.web.lists import Follower, ask, monitored

READING = ["count", "all", "all?preview=5", "all?details=1", "all?contains=2", "reserved", "delayed", "consumers"]
READING += ["reasons", "settings", "all?reason=x", "all?preview=9&contains=1"]
SAFE = {"CLIENT", "EXISTS", "HELLO", "HLEN", "LLEN", "LRANGE", "MEMORY", "PING", "PSUBSCRIBE", "SCAN", "SMEMBERS"}
SAFE |= {"SCARD", "SELECT", "TIME", "ZCARD", "INFO"}


@pytest.fixture
def lists_on(app_on: AppOn) -> Callable[..., Any]:
    """Make a test client of an app with LISTS on the database of a client."""

    def on(client: Any, lists: str = "", **more: Any) -> Any:
        settings = Settings(redis_url="redis://unused", lists=parse_lists(lists), **more)
        return app_on(settings, client).test_client()

    return on


@pytest.mark.parametrize("end", ["right", "left"])
def test_position_0_is_what_its_program_takes_next(backend: Any, lists_on: Callable[..., Any], end: str) -> None:
    backend.flushdb()
    messages = [f"message {number}" for number in range(3000)]
    getattr(backend, "lpush" if end == "right" else "rpush")("theirs", *messages)
    http = lists_on(backend, "theirs" + ("@left" if end == "left" else ""))

    def shown(query: str) -> Any:
        return http.get(f"/api/queue/theirs/all?{query}").json["messages"]

    assert shown("") == messages
    assert (
        shown("offset=2&limit=2") == messages[2:4]
        and shown("limit=0") == []
        and shown("offset=2999") == ["message 2999"]
    )
    assert [one["preview"] for one in shown("preview=7&limit=2")] == ["message", "message"]
    assert [one["message"] for one in shown("details=1&offset=1&limit=2")] == messages[1:3]
    assert shown("contains=SAGE 299&offset=300")[0] == {"position": 2990, "message": "message 2990"}
    assert len(shown("contains=message")) == 3000
    exported = http.get("/api/queue/theirs/all", headers={"Accept": "application/x-ndjson"}).text.splitlines()
    assert exported == [f'"{message}"' for message in messages]
    state = http.get("/api/queue/theirs/count").json
    assert (state["count"], state["attached"]) == (
        3000,
        {"key": "theirs", "taken_from": end, "why": "LISTS", "may": []},
    )
    taken = (backend.rpop if end == "right" else backend.lpop)("theirs")
    assert taken == messages[0].encode() and shown("limit=1") == messages[1:2]


@pytest.mark.parametrize("left", [False, True])
def test_the_place_of_a_message_is_counted_from_its_end(database: Any, left: bool) -> None:
    (database.rpush if left else database.lpush)("theirs", "a", "b", "c", "d", "b")
    queue = AttachedQueue(database, AttachedList("theirs", "theirs", left))
    assert [scan._count_before(queue, message) for message in (b"a", b"b", b"d", b"x")] == [0, 1, 3, None]


def test_a_search_goes_on_while_the_program_takes_from_the_left(database: Any, lists_on: Callable[..., Any]) -> None:
    """Each message is larger than what a chunk reads at once, so the list is read in many steps."""
    database.rpush("theirs", *(f"{number:05d}" + "x" * 3000 for number in range(2000)))
    http = lists_on(database, "theirs@left")
    lines = http.get("/api/queue/theirs/all", headers={"Accept": "application/x-ndjson"}, buffered=False).response
    text, found, taken = b"", list[int](), list[bytes]()
    for block in lines:
        text += block
        *whole, text = text.split(b"\n")
        found += [int(line[1:6]) for line in whole]
        taken += database.lpop("theirs", 3)
        database.rpush("theirs", b"new")
        if len(found) >= 1900:
            break
    assert found == sorted(set(found)) and len(found) >= 1900
    missed = set(range(found[-1])) - set(found)
    assert missed <= {int(message[:5]) for message in taken}


@pytest.mark.slow
def test_looking_writes_nothing_and_runs_no_script(own_store: Callable[..., Store], serve: Callable[..., App]) -> None:
    store = own_store()
    client = store.client()
    client.lpush("celery", *range(50))
    client.rpush("resque:queue:high", *range(50))
    client.sadd("_kombu.binding.celery", "celery")
    client.hset("unacked", "tag", "message")
    before = everything(client)
    app = serve(REDIS_URL=store.url, LISTS="celery,resque:queue:high@left", QUEUE_NAME="celery", WEB_CONCURRENCY="1")
    with monitored(store) as commands:
        for name in ("celery", "resque:queue:high", "celery-priority-3"):
            for path in READING:
                assert ask(app, f"/api/queue/{name}/{path}")["status"] == 200, path
            assert "<title>" in ask(app, f"/q/{name}", "text/html")
            ask(app, f"/api/queue/{name}/all", "application/x-ndjson")
        for path in ("/", "/queues", "/metrics", "/api/docs"):
            ask(app, path, "text/html")
        for path in ("/healthz", "/api/queues", "/api/queues?match=c*"):
            assert ask(app, path)["status"] == 200
        streams = [Follower(app, path) for path in ("/api/queue/celery/events?history=1", "/api/events?history=1")]
        until(lambda: all(stream.events for stream in streams))
    unsafe = [command for command in commands if command.split()[0] not in SAFE]
    assert not unsafe and any(command.startswith("LRANGE celery ") for command in commands)
    assert everything(client) == before


def test_every_change_is_refused(database: Any, lists_on: Callable[..., Any]) -> None:
    database.lpush("celery", "task")
    http = lists_on(database, "celery")
    before = everything(database)
    sent = {
        "push": {"message": "x"},
        "remove": {"position": 0, "message": "task"},
        "restore": {"undo": "x"},
        "move": {"to": "ours"},
        "settle": {"acks": ["x"]},
        "settings": {"at_once": 1},
        "result": {"job": "j", "result": "x"},
    }
    named = ["pop", "reserve", "ack", "release", "extend", "clear", "pause", "resume", *sent]
    for operation in named:
        answer = http.post(f"/api/queue/celery/{operation}", json=sent.get(operation, {}))
        assert (answer.status_code, answer.json["error"]) == (403, "attached_list"), operation
        assert answer.json["message"] == "This list belongs to another program."
    assert http.post("/api/queue/ours,celery/pop").json["error"] == "attached_list"
    assert http.get("/api/queue/celery/result?job=j").json["error"] == "attached_list"
    assert http.post("/api/queue/ours/move", json={"to": "celery"}).json["error"] == "attached_list"
    assert everything(database) == before


def test_queues_lists_them_beside_ours_and_all_lists_if_asked(database: Any, lists_on: Callable[..., Any]) -> None:
    database.lpush("queue:ours", "x")
    database.lpush("celery\x06\x163", "x")
    database.rpush("queues:mails", "x")
    database.rpush("a b", "x")
    database.rpush("a-b", "x")
    listed = lists_on(database, "empty,celery").get("/api/queues").json["queues"]
    assert {queue["name"]: queue.get("attached", {}).get("key") for queue in listed} == {
        "celery": "celery",
        "celery-priority-3": "celery\x06\x163",
        "empty": "empty",
        "ours": None,
    }
    listed = lists_on(database, "*,first=a-b").get("/api/queues").json["queues"]
    assert {queue["name"]: queue.get("attached", {}).get("taken_from") for queue in listed} == {
        "a-b": "right",
        "celery-priority-3": "right",
        "first": "right",
        "ours": None,
        "queues:mails": "left",
    }


@pytest.mark.parametrize(
    ("key", "fill", "beside"),
    [
        ("celery", {"_kombu.binding.celery": "sadd", "unacked": "hset"}, {"unacked": 1}),
        ("celery\x06\x163", {"_kombu.binding.celery": "sadd", "unacked": "hset"}, {"unacked": 1}),
        ("logs", {"unacked": "hset"}, {}),
        (
            "app:queue:x",
            {"app:retry": "zadd", "app:processes": "sadd"},
            {"retry": 1, "processes": 1, "dead": 0, "schedule": 0},
        ),
        ("queues:mails", {"queues:mails:delayed": "zadd"}, {"delayed": 1, "reserved": 0}),
        ("resque:queue:high", {"resque:failed": "rpush"}, {"failed": 1}),
        ("queue:x", {"retry": "sadd"}, {"processes": 0, "dead": 0, "schedule": 0}),  # retry is of another type
    ],
)
def test_what_its_program_keeps_beside_the_list_is_counted(
    database: Any, lists_on: Callable[..., Any], key: str, fill: dict[str, str], beside: dict[str, int]
) -> None:
    database.lpush(key, "x")
    for other, command in fill.items():
        values: Any = {"zadd": [{"x": 1}], "hset": ["x", "y"]}.get(command, ["x"])
        getattr(database, command)(other, *values)
    http = lists_on(database, f"theirs={key}", queue_prefix="ours:")
    assert http.get("/api/queue/theirs/count").json["beside"] == beside


def test_a_queue_of_sidekiq_is_only_looked_at(
    database: Any, lists_on: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    database.sadd("queues", "default", "ours")
    database.lpush("queue:default", "job")
    http = lists_on(database, own_lists=("ours",))
    assert http.post("/api/queue/pop").json["error"] == "attached_list"
    assert http.post("/api/queue/default/push", json={"message": "x"}).json["error"] == "attached_list"
    assert http.get("/api/queue/count").json["attached"]["why"] == "sidekiq"
    assert http.post("/api/queue/ours/push", json={"message": "x"}).status_code == 200
    assert database.lrange("queue:default", 0, -1) == [b"job"]
    [line] = [record.getMessage() for record in caplog.records if "Sidekiq" in record.getMessage()]
    assert "The queue default belongs to Sidekiq" in line and "add it to OWN_LISTS" in line


def test_a_set_of_that_name_is_no_sidekiq_under_another_prefix_or_type(
    database: Any, lists_on: Callable[..., Any]
) -> None:
    database.set("queues", "default")
    assert lists_on(database).post("/api/queue/pop").json["error"] == "empty"
    database.delete("queues")
    database.sadd("queues", "default")
    assert lists_on(database, queue_prefix="ours:").post("/api/queue/pop").json["error"] == "empty"


@pytest.mark.slow
def test_changes_are_seen_at_once_and_only_these_keys_are_reported(
    own_store: Callable[..., Store], serve: Callable[..., App]
) -> None:
    store = own_store()
    client = store.client()
    app = serve(REDIS_URL=store.url, LISTS="celery", WEB_CONCURRENCY="1")
    client.sadd("_kombu.binding.celery", "x")
    queue, every = Follower(app, "/api/queue/celery/events"), Follower(app, "/api/events")
    until(lambda: client.info("stats")["tracking_total_keys"] == 6)  # the list, three priorities, and two beside it
    until(lambda: client.info("stats")["tracking_total_prefixes"] == 2)  # of our own queues
    for count in (1, 2, 3):
        client.lpush("celery", count)
        queue.until_count(count)
        until(lambda: every.last["queues"] and every.last["queues"][0]["count"] == client.llen("celery"))
    until(lambda: client.info("stats")["tracking_total_keys"] == 6, 20)  # what was reported is read again
    assert queue.last["age"] is not None
    client.hset("unacked", "tag", "x")
    until(lambda: queue.last["beside"] == {"unacked": 1})
    assert 'queue_waiting_messages{queue="celery"} 3.0' in ask(app, "/metrics", "text/plain")
    client.flushdb()
    queue.until_count(0)


def test_new_lists_are_found_later_and_what_sidekiq_no_longer_names_is_ours(
    database: Any, lists_on: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "SIDEKIQ_INTERVAL", 0)
    monkeypatch.setattr(registry, "SCAN_INTERVAL", 0)
    monkeypatch.setattr(registry, "SCAN_REST_FACTOR", 0)
    http = lists_on(database, "*")
    assert http.get("/api/queues").json["queues"] == []
    database.lpush("theirs", "x")
    database.sadd("queues", "default")
    assert http.get("/api/queue/theirs/all").json["messages"] == ["x"]
    assert http.post("/api/queue/pop").json["error"] == "attached_list"
    database.delete("queues")
    assert http.post("/api/queue/pop").json["error"] == "empty"


def test_a_wait_takes_nothing_from_a_queue_that_sidekiq_begins_to_use(
    database: Any, lists_on: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "SIDEKIQ_INTERVAL", 0)
    http = lists_on(database)
    with ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(http.post, "/api/queue/pop", json={"wait": 30})
        until(lambda: http.get("/api/queue/count").json["waiters"] == 1)
        with database.pipeline() as sidekiq:
            sidekiq.sadd("queues", "default")
            sidekiq.lpush("queue:default", "job")
            sidekiq.execute()
        assert waiting.result().json["error"] == "attached_list"
    assert database.lrange("queue:default", 0, -1) == [b"job"]


def test_while_it_is_not_known_whose_a_list_is_nothing_is_changed(proxy: Proxy, app_on: AppOn, name: str) -> None:
    client = connect(proxy.url)
    http: Any = app_on(Settings(redis_url=proxy.url), client).test_client()
    proxy.cut("SMEMBERS")
    answer = http.post(f"/api/queue/{name}/push", json={"message": "x"})
    assert (answer.status_code, answer.json["error"]) == (503, "redis_unavailable")
    assert client.llen(f"queue:{name}") == 0
    assert http.post(f"/api/queue/{name}/push", json={"message": "x"}).json["count"] == 1


@pytest.mark.parametrize("end", ["", "@left"])
def test_a_list_in_a_cluster_is_shown_too(cluster: Any, lists_on: Callable[..., Any], name: str, end: str) -> None:
    client = connect(cluster.url)
    client.rpush(f"queues:{name}", "a", "b", "c")
    http = lists_on(client, f"{name}=queues:{name}{end}", lists_writable=True)
    shown = ["a", "b", "c"] if end else ["c", "b", "a"]
    assert http.get(f"/api/queue/{name}/all").json["messages"] == shown
    assert http.get(f"/api/queue/{name}/count").json["beside"] == {"reserved": 0, "delayed": 0}
    assert name in {queue["name"] for queue in http.get("/api/queues").json["queues"]}
    sent = {"position": 1, "message": "b", "undo": True}
    undo = http.post(f"/api/queue/{name}/remove", json=sent).json["undo"]
    assert http.post(f"/api/queue/{name}/restore", json={"undo": undo}).json["restored"] == 1
    assert http.get(f"/api/queue/{name}/all?contains=B").json["messages"] == [{"position": 1, "message": "b"}]


@pytest.mark.slow
def test_a_user_who_may_only_read_these_keys_suffices(
    own_store: Callable[..., Store], serve: Callable[..., App]
) -> None:
    store = own_store("redis")
    client = store.client()
    client.lpush("celery", "first", "second")
    client.sadd("_kombu.binding.celery", "x")
    client.hset("unacked", "tag", "x")
    acl = "~celery* ~unacked ~_kombu.binding.* +@read +@connection -@dangerous"
    assert acl in (ROOT / "docs/lists.md").read_text()
    client.execute_command("ACL", "SETUSER", "seequeue", "on", ">secret", *acl.split())
    url = store.url.replace("redis://", "redis://seequeue:secret@")
    app = serve(REDIS_URL=url, LISTS="celery", QUEUE_NAME="celery", WEB_CONCURRENCY="1")
    assert ask(app, "/api/queue/all")["messages"] == ["first", "second"]
    assert ask(app, "/api/queue/count")["beside"] == {"unacked": 1}
    assert [queue["name"] for queue in ask(app, "/api/queues")["queues"]] == ["celery"]
    assert ask(app, "/healthz")["success"] and ask(app, "/api/queue/pop", max=1)["error"] == "attached_list"
    follower = Follower(app, "/api/queue/events")
    until(lambda: [one for one in client.client_list() if one["user"] == "seequeue" and "t" in one["flags"]])
    client.lpush("celery", "third")
    follower.until_count(3)
    assert connect(url).exists("celery")
