"""Faults of clusters and of servers behind Sentinels, seen by clients of the app: kills, hangs, loading, moved slots.

Acknowledged writes are never lost here, with one exception that no setting of the app can remove: a primary can die
before its replica has a write (docs/operating.md). So these tests let the replica catch up first.
"""

import contextlib
import json
import signal
import threading
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from tests.embedded.helpers import failed_start
from tests.engines import Cluster, SentinelSet
from tests.ledger import Api
from tests.servers import App, Store, free_port, running, until

pytestmark = pytest.mark.slow

Serve = Callable[..., App]
ALWAYS = ("--appendonly", "yes", "--appendfsync", "always")
_folders = count()


@pytest.fixture(scope="module")
def own_cluster(folder: Path) -> Iterator[Cluster]:
    """A cluster whose nodes are killed and whose slots move; each test leaves it complete."""
    with running(Cluster("valkey", folder / f"c{next(_folders)}", options=ALWAYS)) as made:
        yield made


@pytest.fixture
def own_sentinels(folder: Path) -> Iterator[SentinelSet]:
    with running(SentinelSet("valkey", folder / f"s{next(_folders)}")) as made:
        yield made


def ask(app: App, path: str, data: str | None = None) -> tuple[int, Any]:
    """Return the status and the answer of a path, or of an operation on a queue: "a/push"."""
    url = app.url + (path if path.startswith("/") else f"/api/queue/{path}")
    try:
        answer = urllib.request.urlopen(
            urllib.request.Request(url, None if data is None else data.encode()), timeout=30
        )
    except urllib.error.HTTPError as error:
        answer = error
    return answer.status, json.loads(answer.read())


def is_healthy(app: App) -> bool:
    return ask(app, "/healthz")[0] == 200


def names_of(cluster: Cluster, store: Store, name: str) -> tuple[str, str]:
    """Return the names of a queue on this primary and of one on another."""
    names = [f"{name}-{number}" for number in range(50)]
    on = [cluster.owner(f"queue:{one}") is store for one in names]
    return names[on.index(True)], names[on.index(False)]


# --- one server


def test_a_hung_server_gets_no_more_commands_and_is_used_again_as_soon_as_it_responds(
    own_store: Callable[..., Store], serve: Serve, name: str
) -> None:
    store = own_store("valkey", *ALWAYS)
    app = serve(REDIS_URL=store.url + "?socket_timeout=3", WEB_CONCURRENCY="1")

    def push(message: str) -> tuple[str, str]:
        answer = ask(app, f"{name}/push", f"message={message}")[1]
        return message, answer.get("error", "success")

    assert push("before") == ("before", "success")
    with store.stopped(), ThreadPoolExecutor(40) as pool:
        answers = dict(pool.map(push, map(str, range(40))))
        status, answer = ask(app, f"{name}/push", "message=late")
        assert (status, answer["error"]) == (503, "redis_unavailable") and "Nothing was changed" in answer["message"]
        status, answer = ask(app, "/healthz")
        assert (status, answer["error"]) == (503, "redis_unavailable")
    assert push("after") == ("after", "success")
    assert is_healthy(app)
    unknown = {message for message, error in answers.items() if error == "outcome_unknown"}
    assert set(answers.values()) == {"outcome_unknown", "redis_unavailable"} and len(unknown) < 20
    messages = ask(app, f"{name}/all")[1]["messages"]
    assert len(messages) == len(set(messages))
    assert {"before", "after"} <= set(messages) <= {"before", "after", *unknown}


# --- Sentinels


def test_a_killed_primary_is_replaced_without_a_restart_of_the_app(
    own_sentinels: SentinelSet, serve: Serve, name: str
) -> None:
    app = serve(REDIS_URL=own_sentinels.url)
    assert ask(app, f"{name}/push", "message=a")[0] == 200
    assert ask(app, f"{name}/reserve?lease=1000", "")[1]["message"] == "a"
    assert ask(app, f"{name}/push", "message=b")[0] == 200
    primary = own_sentinels.primary()
    assert primary.client().wait(1, 10_000) == 1
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(Api(app.url, name + "-other").call, "pop", wait=50)
        until(lambda: ask(app, f"{name}-other/count")[1]["waiters"] == 1)
        primary.end(signal.SIGKILL)
        assert ask(app, f"{name}/push", "message=lost")[1]["error"] in ("outcome_unknown", "redis_unavailable")
        assert ask(app, "/healthz")[1]["error"] == "redis_unavailable"
        status, answer = ask(app, f"{name}/push", "message=not sent")
        assert (status, answer["error"]) == (503, "redis_unavailable")
        until(lambda: ask(app, f"{name}/push", "message=c")[0] == 200)
        assert ask(app, f"{name}-other/push", "message=d")[0] == 200
        with contextlib.suppress(AssertionError):  # the wait may have failed with the primary
            assert waiting.result()[0] == 503
    assert is_healthy(app)
    assert ask(app, f"{name}/all")[1]["messages"] == ["b", "c"]
    assert ask(app, f"{name}/count")[1]["reserved"] == 1


def test_a_hung_primary_is_replaced_too(own_sentinels: SentinelSet, serve: Serve, name: str) -> None:
    app = serve(REDIS_URL=own_sentinels.url + "?socket_timeout=0.5", WEB_CONCURRENCY="1")
    assert ask(app, f"{name}/push", "message=a")[0] == 200
    primary = own_sentinels.primary()
    assert primary.client().wait(1, 10_000) == 1
    assert primary.process
    primary.process.send_signal(signal.SIGSTOP)
    assert ask(app, f"{name}/push", "message=late")[1]["error"] == "outcome_unknown"
    until(lambda: ask(app, f"{name}/push", "message=b")[0] == 200)
    primary.process.send_signal(signal.SIGCONT)  # it still acts as the primary until the Sentinels notice
    assert {ask(app, f"{name}/push", "message=c")[0] for _ in range(20)} == {200}
    assert ask(app, f"{name}/all")[1]["messages"] == ["a", "b", *["c"] * 20]


# --- a cluster


def test_a_hung_primary_blocks_only_its_own_queues(own_cluster: Cluster, serve: Serve, name: str) -> None:
    app = serve(REDIS_URL=own_cluster.url + "?socket_timeout=2", WEB_CONCURRENCY="1")
    node = own_cluster.nodes[1]
    hung, there = names_of(own_cluster, node, name)
    until(lambda: ask(app, f"{hung}/push", "message=a")[0] == 200)
    with node.stopped():
        assert ask(app, f"{hung}/push", "message=b")[1]["error"] in ("outcome_unknown", "redis_unavailable")
        until(lambda: ask(app, f"{there}/push", "message=a")[0] == 200)
        assert ask(app, f"{hung}/push", "message=c")[1]["error"] == "redis_unavailable"
        until(lambda: ask(app, f"{there}/push", "message=a")[0] == 200)
    until(lambda: ask(app, f"{hung}/push", "message=d")[0] == 200)
    assert "c" not in ask(app, f"{hung}/all")[1]["messages"]
    until(lambda: is_healthy(app))


def test_a_killed_primary_makes_only_its_own_queues_unavailable(own_cluster: Cluster, serve: Serve, name: str) -> None:
    app = serve(REDIS_URL=own_cluster.url, WEB_CONCURRENCY="1")
    node = own_cluster.nodes[1]
    away, there = names_of(own_cluster, node, name)
    for one in (away, there):
        assert ask(app, f"{one}/push", "message=a")[0] == 200
    assert is_healthy(app)
    node.end(signal.SIGKILL)
    errors = [ask(app, f"{away}/push", "message=b")[1]["error"] for _ in range(2)]
    assert errors[0] in ("outcome_unknown", "redis_unavailable") and errors[1] == "redis_unavailable"
    assert ask(app, f"{there}/push", "message=b") == (200, {"success": True, "message": "b", "count": 2})
    assert ask(app, "/healthz")[0] == 503
    listing = ask(app, f"/api/queues?match={name}-*")[1]
    assert ([queue["name"] for queue in listing["queues"]], listing["complete"]) == ([there], False)
    node.start()
    until(lambda: ask(app, f"{away}/push", "message=c")[0] == 200)
    until(lambda: is_healthy(app))
    assert ask(app, f"{away}/all")[1]["messages"] == ["a", "c"]
    assert ask(app, f"{there}/all")[1]["messages"] == ["a", "b"]


def test_slots_move_to_a_new_node_while_a_thousand_messages_pass(own_cluster: Cluster, serve: Serve, name: str) -> None:
    app = serve(REDIS_URL=own_cluster.url)
    total, acked, unexpected = 1000, list[str](), list[Any]()
    pushed = threading.Semaphore(0)

    def call(api: Api, operation: str, **fields: Any) -> Any:
        """Retry a call until it succeeds; an error must say that nothing was done."""
        while True:
            status, answer = api.call(operation, **fields)
            if status == 200:
                return answer
            if status != 503 or answer["error"] not in ("redis_busy", "redis_unavailable"):
                unexpected.append((operation, status, answer))
                return {}

    def produce(start: int) -> None:
        api = Api(app.url, name)
        for number in range(start, total, 2):
            call(api, "push", message=str(number))
            pushed.release()

    def consume() -> None:
        api = Api(app.url, name)
        while len(acked) < total and not unexpected:
            answer = call(api, "reserve", lease=1000, wait=1)
            if answer.get("success") and call(api, "ack", id=answer["id"]):
                acked.append(answer["message"])

    with ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(produce, 0), pool.submit(produce, 1), pool.submit(consume), pool.submit(consume)]
        new = own_cluster.add()
        for target in (new, own_cluster.nodes[0], own_cluster.nodes[1], own_cluster.nodes[2], new):
            for _ in range(total // 6):
                pushed.acquire(timeout=60)
            if own_cluster.owner(f"queue:{name}") is not target:
                own_cluster.move_slot(f"queue:{name}", target)
        for future in futures:
            future.result()
    assert unexpected == []
    assert Counter(acked) == Counter(str(number) for number in range(total))
    assert own_cluster.owner(f"queue:{name}") is new
    counts = ask(app, f"{name}/count")[1]
    assert (counts["count"], counts["reserved"], counts["dead"]) == (0, 0, 0)


def test_a_stream_follows_a_queue_to_every_node_and_to_a_new_one(own_cluster: Cluster, serve: Serve, name: str) -> None:
    app = serve(REDIS_URL=own_cluster.url, WEB_CONCURRENCY="1")
    stream = urllib.request.urlopen(f"{app.url}/api/queue/{name}/events", timeout=60)

    def next_count() -> int:
        while not (line := stream.readline()).startswith(b"data:"):
            assert line
        return int(json.loads(line[5:])["count"])

    assert next_count() == 0
    new = own_cluster.add()
    for number, node in enumerate([own_cluster.nodes[0], new, own_cluster.nodes[1]], 1):
        if own_cluster.owner(f"queue:{name}") is not node:
            own_cluster.move_slot(f"queue:{name}", node)
        node.client().lpush(f"queue:{name}", "a")  # another client of Redis
        while next_count() != number:
            pass
    stream.close()


def test_a_replica_takes_over_from_a_killed_primary_of_a_cluster(own_cluster: Cluster, serve: Serve, name: str) -> None:
    app = serve(REDIS_URL=own_cluster.url, WEB_CONCURRENCY="1")
    primary = own_cluster.owner(f"queue:{name}")
    assert ask(app, f"{name}/push", "message=a")[0] == 200
    replica = own_cluster.replicate(primary)
    assert ask(app, f"{name}/push", "message=b")[0] == 200
    assert primary.client().wait(1, 10_000) == 1
    primary.end(signal.SIGKILL)
    assert ask(app, f"{name}/push", "message=lost")[0] == 503
    until(lambda: ask(app, f"{name}/push", "message=c")[0] == 200)
    assert replica.client().info("replication")["role"] == "master"
    assert ask(app, f"{name}/all")[1]["messages"] == ["a", "b", "c"]
    until(lambda: is_healthy(app))
    primary.start()


def test_the_app_serves_all_of_a_cluster(cluster: Cluster, serve: Serve, name: str) -> None:
    app = serve(REDIS_URL=cluster.url, WEB_CONCURRENCY="1")
    one, other = names_of(cluster, cluster.nodes[0], name)
    ask(app, f"{one}/push", "message=a")
    status, answer = ask(app, f"{one}/move", f"to={other}&max=1")
    assert (status, answer["error"]) == (409, "cross_slot") and "slots" in answer["message"]
    assert ask(app, f"{one}/all")[1]["messages"] == ["a"]
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(Api(app.url, other).call, "pop", wait=30)
        until(lambda: ask(app, f"{other}/count")[1]["waiters"] == 1)
        ask(app, f"{other}/push", "message=b")
        assert waiting.result() == (200, {"success": True, "message": "b"})


# --- /healthz and the start


def test_a_primary_that_evicts_messages_causes_a_warning(own_cluster: Cluster, serve: Serve) -> None:
    clients = [node.client() for node in own_cluster.nodes]
    server = next(client for client in clients if client.info("replication")["role"] == "master")
    server.config_set("maxmemory-policy", "allkeys-lru")
    app = serve(REDIS_URL=own_cluster.url)
    until(lambda: "allkeys-lru" in ask(app, "/healthz")[1].get("warning", ""))
    until(lambda: app.log.read_text().count("allkeys-lru") == 1)
    server.config_set("maxmemory-policy", "noeviction")


def test_a_redis_that_loads_is_not_healthy_until_it_has_loaded(
    own_store: Callable[..., Store], serve: Serve, name: str
) -> None:
    slow = ("--key-load-delay", "2000", "--loading-process-events-interval-bytes", "1024")  # 2 ms a key
    store = own_store("valkey", "--appendonly", "yes", *slow)
    app = serve(REDIS_URL=store.url, WEB_CONCURRENCY="1")
    pipeline = store.client().pipeline(transaction=False)
    for number in range(500):
        pipeline.lpush(f"queue:{name}-{number}", "a")
    pipeline.execute()
    store.client().bgrewriteaof()
    until(lambda: not store.client().info("persistence")["aof_rewrite_in_progress"])
    store.end(signal.SIGKILL)
    starting = threading.Thread(target=store.start)
    starting.start()
    until(lambda: ask(app, "/healthz")[1].get("error") == "redis_loading")
    assert ask(app, f"{name}/push", "message=b")[1]["error"] in ("redis_loading", "outcome_unknown")
    until(lambda: is_healthy(app))
    starting.join()
    assert ask(app, f"{name}-499/push", "message=b")[1]["count"] == 2


def test_full_memory_causes_a_warning_while_messages_can_be_popped(
    own_store: Callable[..., Store], serve: Serve, name: str
) -> None:
    store = own_store("valkey")
    app = serve(REDIS_URL=store.url, WEB_CONCURRENCY="1")
    ask(app, f"{name}/push", "message=a")
    store.client().config_set("maxmemory", "1")
    assert ask(app, f"{name}/push", "message=b")[0] == 507
    status, answer = ask(app, "/healthz")
    assert status == 200 and "out of memory" in answer["warning"]
    assert ask(app, f"{name}/pop", "")[1]["message"] == "a"


@pytest.mark.parametrize("form", ["redis", "redis+cluster", "redis+sentinel"])
def test_a_redis_url_of_the_wrong_form_is_refused_in_one_line(
    cluster: Cluster, valkey: Store, folder: Path, form: str
) -> None:
    port = cluster.nodes[0].port if form == "redis" else valkey.port
    url = f"{form}://127.0.0.1:{port}" + ("/main" if form == "redis+sentinel" else "")
    line = failed_start(folder / "unused", REDIS_URL=url)
    assert line.startswith("Cannot start: REDIS_URL ")
    assert ("redis+cluster://" if form == "redis" else "redis://") in line


def test_a_node_of_a_cluster_that_starts_later_is_reported(own_store: Callable[..., Store], serve: Serve) -> None:
    store = own_store("valkey", "--cluster-enabled", "yes", "--cluster-port", str(free_port()))
    port = store.port
    store.end()
    app = serve(REDIS_URL=f"redis://127.0.0.1:{port}", WEB_CONCURRENCY="1")  # unavailable: the app starts
    assert ask(app, "/healthz")[1]["error"] == "redis_unavailable"
    store.start()
    until(lambda: ask(app, "/healthz")[1]["error"] == "redis_misconfigured")
    assert "redis+cluster://" in ask(app, "/healthz")[1]["message"]
